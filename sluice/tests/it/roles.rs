//! A cluster of the test's own: private Redis and MariaDB, and the roles as the
//! processes that an operator would start.

use std::{path::Path, process::Command, sync::Arc};

use sluice::{
    endpoints::Addresses,
    server_process::{CONFIG, Process},
};
use sluice_client::{Endpoint, HttpApi};
use sluice_engines::{GuardedFolder, MariaDb, Redis};

use crate::server::SLUICE;

/// The engines and what all roles share. Everything is gone when it is dropped.
pub(crate) struct Roles {
    pub(crate) redis: Redis,
    pub(crate) mariadb: MariaDb,
    folder: Arc<GuardedFolder>,
}

impl Roles {
    /// Starts the engines, and makes the token key as `sluice keys` does: the
    /// services have it, the gateways only its public half.
    pub(crate) async fn start() -> Self {
        let folder = Arc::new(GuardedFolder::new("sluice-roles-").unwrap());
        let roles = Self {
            redis: Redis::durable().await.unwrap(),
            mariadb: MariaDb::start().await.unwrap(),
            folder,
        };
        let services = roles.folder.path().join("services");
        let keys = Command::new(SLUICE)
            .args(["keys", "--data-dir"])
            .arg(&services)
            .output()
            .unwrap();
        assert!(keys.status.success(), "{keys:?}");
        let public_key = String::from_utf8(keys.stdout).unwrap();
        let engines = format!(
            "[bus.redis]\nurls = [{:?}]\n\
             [store.mysql]\nservers = [{{ url = {:?}, shards = \"0-63\" }}]\n",
            roles.redis.url(),
            roles.mariadb.url("sluice"),
        );
        let write = |name: &str, head: String| {
            let text = format!("{head}\n{CONFIG}\n{engines}");
            std::fs::write(roles.folder.path().join(name), text).unwrap();
        };
        let gateways = roles.folder.path().join("gateways");
        write("service.toml", format!("data_dir = {services:?}"));
        write(
            "gateway.toml",
            format!("data_dir = {gateways:?}\n[tokens]\npublic_keys = [{public_key:?}]"),
        );
        roles
    }

    /// `sluice service` on free ports; `only` these services, or all.
    pub(crate) async fn service(&self, only: &str) -> Process {
        let mut command = tokio::process::Command::new(SLUICE);
        command.args(["service", "--http", "127.0.0.1:0"]);
        if !only.is_empty() {
            command.args(["--only", only]);
        }
        self.role(command, "service.toml", &[]).await
    }

    /// With all services, and these variables in its environment.
    pub(crate) async fn service_with(&self, variables: &[(&str, &str)]) -> Process {
        let mut command = tokio::process::Command::new(SLUICE);
        command.args(["service", "--http", "127.0.0.1:0"]);
        self.role(command, "service.toml", variables).await
    }

    /// `sluice gateway` on free ports.
    pub(crate) async fn gateway(&self) -> Process {
        self.gateway_with(&[]).await
    }

    /// The same, with these variables in its environment.
    pub(crate) async fn gateway_with(&self, variables: &[(&str, &str)]) -> Process {
        let mut command = tokio::process::Command::new(SLUICE);
        command.args([
            "gateway",
            "--tcp",
            "127.0.0.1:0",
            "--ws",
            "127.0.0.1:0",
            "--udp",
            "127.0.0.1:0",
        ]);
        self.role(command, "gateway.toml", variables).await
    }

    async fn role(
        &self,
        mut command: tokio::process::Command,
        config: &str,
        variables: &[(&str, &str)],
    ) -> Process {
        command
            .args(["--admin", "127.0.0.1:0", "--config"])
            .arg(self.path().join(config))
            .env("RUST_LOG", "error")
            .envs(variables.iter().copied());
        let name = format!("role-{:08x}", rand::random::<u32>());
        let started = Process::start(&mut command, &name, &self.folder).await;
        started.unwrap()
    }

    /// What a role says that doesn't start with these variables.
    pub(crate) fn refused(&self, role: &str, variables: &[(&str, &str)]) -> String {
        let listen: &[&str] = match role {
            "gateway" => &[
                "--tcp",
                "127.0.0.1:0",
                "--ws",
                "127.0.0.1:0",
                "--udp",
                "127.0.0.1:0",
            ],
            _ => &["--http", "127.0.0.1:0"],
        };
        let started = Command::new(SLUICE)
            .args([role, "--admin", "127.0.0.1:0"])
            .args(listen)
            .arg("--config")
            .arg(self.path().join(format!("{role}.toml")))
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        assert!(!started.status.success(), "{started:?}");
        String::from_utf8_lossy(&started.stderr).into_owned()
    }

    /// Transactions that have been open for a second.
    pub(crate) fn stalled_transactions(&self) -> u32 {
        let port = format!("--port={}", self.mariadb.address().port());
        let sql = "SELECT COUNT(*) FROM information_schema.innodb_trx \
            WHERE trx_started < NOW() - INTERVAL 1 SECOND";
        let asked = Command::new("mariadb")
            .args(["--no-defaults", "--user=sluice", "--password=sluice"])
            .args(["--host=127.0.0.1", "--protocol=tcp", &port])
            .args(["--batch", "--skip-column-names", "--execute", sql])
            .output()
            .unwrap();
        let count = String::from_utf8(asked.stdout).unwrap();
        count.trim().parse().unwrap()
    }

    /// Makes Redis forget everything, at once.
    pub(crate) fn flush_redis(&self) {
        let port = self.redis.address().port().to_string();
        let flushed = Command::new("redis-cli")
            .args(["-p", &port, "FLUSHALL"])
            .output()
            .unwrap();
        assert!(flushed.status.success(), "{flushed:?}");
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

pub(crate) fn http(process: &Process) -> HttpApi {
    HttpApi::new(&process.addresses.http).unwrap()
}

pub(crate) fn endpoint(process: &Process) -> Endpoint {
    Addresses::endpoint(&process.addresses).unwrap()
}
