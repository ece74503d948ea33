//! One MariaDB server.

use std::{io, net::SocketAddr, path::Path, process::Stdio, time::Duration};

use tokio::process::Command;

use crate::{
    EngineError, GuardedFolder,
    server::{Recipe, Server, free_port},
};

/// A private mariadbd that syncs its log at every commit. The user `sluice`,
/// password `sluice`, may do everything over TCP.
#[derive(Debug)]
pub struct MariaDb(Server);

/// Makes the user and a first database whenever the server starts.
const INIT_SQL: &str = "\
CREATE USER IF NOT EXISTS 'sluice'@'%' IDENTIFIED BY 'sluice';\n\
GRANT ALL PRIVILEGES ON *.* TO 'sluice'@'%' WITH GRANT OPTION;\n\
CREATE DATABASE IF NOT EXISTS sluice CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;\n";

// === impl MariaDb ===

impl MariaDb {
    /// Lays out a data folder and starts a server on it; takes a few seconds.
    pub async fn start() -> Result<Self, EngineError> {
        let folder = GuardedFolder::new("sluice-mariadb-")?;
        let data = folder.path().join("data");
        install(&data).await?;
        let init = folder.path().join("init.sql");
        std::fs::write(&init, INIT_SQL)?;
        let port = free_port()?;
        let mut arguments = vec!["--no-defaults".to_owned()];
        if rustix::process::geteuid().is_root() {
            arguments.push("--user=root".into());
        }
        arguments.extend([
            format!("--datadir={}", data.display()),
            format!("--socket={}", folder.path().join("socket").display()),
            format!(
                "--pid-file={}",
                folder.path().join("mariadbd.pid").display()
            ),
            format!("--init-file={}", init.display()),
            format!("--tmpdir={}", folder.path().display()),
            format!("--port={port}"),
            "--bind-address=127.0.0.1".into(),
            "--skip-name-resolve".into(),
            "--skip-log-bin".into(),
            "--innodb-flush-log-at-trx-commit=1".into(),
            "--innodb-buffer-pool-size=128M".into(),
            "--innodb-log-file-size=64M".into(),
            "--max-connections=500".into(),
        ]);
        let recipe = Recipe {
            program: "mariadbd",
            package: "mariadb-server",
            arguments,
            hello: b"",
            // A greeting packet: number 0, protocol 10. An error packet has 255.
            answer: |answer| answer.get(3..5) == Some(&[0, 10]),
            ready_timeout: Duration::from_secs(60),
        };
        Ok(Self(Server::start(recipe, port, folder).await?))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// `mysql://sluice:sluice@127.0.0.1:port/{database}`; `sluice` is a database
    /// that is there.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://sluice:sluice@{}/{database}", self.0.address)
    }

    /// Makes an empty database. The name is taken as it is.
    pub async fn create_database(&self, name: &str) -> Result<(), EngineError> {
        let sql = format!("CREATE DATABASE `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin");
        let output = Command::new("mariadb")
            .args(["--no-defaults", "--user=sluice", "--password=sluice"])
            .args(["--host=127.0.0.1", "--protocol=tcp"])
            .arg(format!("--port={}", self.0.address.port()))
            .args(["--execute", &sql])
            .output()
            .await;
        finished("mariadb", "mariadb-client", output)
    }

    /// Its process id; another one after a restart.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Where its data is; gone with it.
    pub fn folder(&self) -> &Path {
        self.0.folder()
    }

    /// Kills it at once (SIGKILL).
    pub fn kill(&mut self) -> io::Result<()> {
        self.0.kill()
    }

    /// Asks it to end (SIGTERM) and waits.
    pub async fn stop(&mut self) -> Result<(), EngineError> {
        self.0.stop().await
    }

    /// Starts it again on the same port and data.
    pub async fn restart(&mut self) -> Result<(), EngineError> {
        self.0.restart().await
    }

    /// Stops it where it stands (SIGSTOP).
    pub fn pause(&self) -> io::Result<()> {
        self.0.pause()
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) -> io::Result<()> {
        self.0.resume()
    }
}

async fn install(data: &Path) -> Result<(), EngineError> {
    let mut install = Command::new("mariadb-install-db");
    install.args(["--no-defaults", "--auth-root-authentication-method=normal"]);
    install.args(["--skip-test-db", "--skip-name-resolve"]);
    if rustix::process::geteuid().is_root() {
        install.arg("--user=root");
    }
    install.arg(format!("--datadir={}", data.display()));
    // Servers that are laid out at once take each other's temporary tables in /tmp.
    if let Some(folder) = data.parent() {
        install.env("TMPDIR", folder);
    }
    let output = install.stdin(Stdio::null()).output().await;
    finished("mariadb-install-db", "mariadb-server", output)
}

fn finished(
    program: &'static str,
    package: &'static str,
    output: io::Result<std::process::Output>,
) -> Result<(), EngineError> {
    let output = output.map_err(|cause| EngineError::NotStarted {
        program,
        package,
        cause,
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(EngineError::NotReady {
        program,
        cause: output.status.to_string(),
        log: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
