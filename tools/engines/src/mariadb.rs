//! One MariaDB server.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

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
        Self::start_with(&["--skip-log-bin"]).await
    }

    /// Starts one that replicas can follow.
    pub async fn start_primary() -> Result<Self, EngineError> {
        Self::start_with(&["--log-bin=binlog", "--server-id=1"]).await
    }

    /// Starts a replica of another, which must have been started as a primary. It
    /// follows by GTIDs, from the beginning.
    pub async fn start_replica_of(primary: &Self) -> Result<Self, EngineError> {
        let replica = Self::start_with(&["--skip-log-bin", "--server-id=2"]).await?;
        let port = primary.0.address.port();
        let follow = format!(
            "CHANGE MASTER TO master_host = '127.0.0.1', master_port = {port},
               master_user = 'sluice', master_password = 'sluice',
               master_connect_retry = 1, master_use_gtid = slave_pos;
             START SLAVE"
        );
        replica.execute(&follow).await?;
        Ok(replica)
    }

    /// Starts one with further options, such as `--log-bin`.
    pub async fn start_with(options: &[&str]) -> Result<Self, EngineError> {
        Self::launch(options, None).await
    }

    async fn launch(options: &[&str], disk: Option<&str>) -> Result<Self, EngineError> {
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
            "--innodb-flush-log-at-trx-commit=1".into(),
            "--innodb-buffer-pool-size=128M".into(),
            "--innodb-log-file-size=64M".into(),
            "--max-connections=500".into(),
        ]);
        arguments.extend(options.iter().map(ToString::to_string));
        let mut program = "mariadbd";
        if let Some(size) = disk {
            // The process stays the same through all of this.
            let script = r#"cp -a "$1" "$1.laid-out" && mount -t tmpfs -o "$2" tmpfs "$1" &&
                cp -a "$1.laid-out/." "$1/" && shift 2 && exec mariadbd "$@""#;
            let before = ["--mount", "sh", "-c", script, "sh"].map(str::to_owned);
            let place = [data.display().to_string(), size.to_owned()];
            arguments.splice(0..0, before.into_iter().chain(place));
            program = "unshare";
        }
        let recipe = Recipe {
            program,
            package: "mariadb-server",
            arguments,
            environment: Vec::new(),
            hello: b"",
            // A greeting packet: number 0, protocol 10. An error packet has 255.
            answer: |answer| answer.get(3..5) == Some(&[0, 10]),
            ready_timeout: Duration::from_secs(60),
        };
        Ok(Self(Server::start(recipe, port, folder).await?))
    }

    /// Starts one whose data is on a disk of so many MiB, in memory. Needs root (a
    /// mount namespace of its own, which goes with it); such a server doesn't
    /// survive a restart. A new one takes about 50 MiB.
    pub async fn start_on_small_disk(size_mib: u32) -> Result<Self, EngineError> {
        let size = format!("size={size_mib}m");
        Self::launch(
            &["--skip-log-bin", "--innodb-log-file-size=4M"],
            Some(&size),
        )
        .await
    }

    /// The folder of the small disk, as seen from here.
    pub fn small_disk(&self) -> PathBuf {
        let folder = self.0.folder().join("data");
        let root = PathBuf::from(format!("/proc/{}/root", self.0.pid()));
        root.join(folder.strip_prefix("/").unwrap_or(&folder))
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
        self.execute(&sql).await.map(drop)
    }

    /// Whether each commit waits for the disk, as it does from the start.
    pub async fn sync_commits(&self, on: bool) -> Result<(), EngineError> {
        let sql = format!(
            "SET GLOBAL innodb_flush_log_at_trx_commit = {}",
            u8::from(on)
        );
        self.execute(&sql).await.map(drop)
    }

    /// Runs statements as the user `sluice`, and gives what they answer: a row a
    /// line, its columns parted by tabs.
    pub async fn execute(&self, sql: &str) -> Result<String, EngineError> {
        let output = Command::new("mariadb")
            .args(["--no-defaults", "--user=sluice", "--password=sluice"])
            .args(["--host=127.0.0.1", "--protocol=tcp"])
            .arg(format!("--port={}", self.0.address.port()))
            .args(["--skip-column-names", "--batch", "--execute", sql])
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
    finished("mariadb-install-db", "mariadb-server", output).map(drop)
}

fn finished(
    program: &'static str,
    package: &'static str,
    output: io::Result<std::process::Output>,
) -> Result<String, EngineError> {
    let output = output.map_err(|cause| EngineError::NotStarted {
        program,
        package,
        cause,
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(EngineError::NotReady {
        program,
        cause: output.status.to_string(),
        log: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
