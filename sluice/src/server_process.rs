//! Servers under demonstration or measurement: processes of their own, so that
//! their memory is their own, started on free ports and ended with the run.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use crate::endpoints::Addresses;
use anyhow::{Context, anyhow, bail};
use sluice_engines::GuardedFolder;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// A process of the system that has said where it listens. Killed when it is
/// dropped, and when this process dies.
#[derive(Debug)]
pub struct Process {
    guarded: Guarded,
    /// Where it listens.
    pub addresses: Addresses,
}

/// A child that is noted in a folder.
#[derive(Debug)]
struct Guarded {
    child: Child,
    name: String,
    folder: Arc<GuardedFolder>,
}

/// A `sluice serve` that this process has started.
#[derive(Debug)]
pub struct ServerProcess {
    process: Process,
    /// Where it listens.
    pub addresses: Addresses,
    _data: Arc<GuardedFolder>,
}

const READY_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The demo's people have random passwords that nobody keeps, so hashing them
/// slowly would only measure the hash.
pub const CONFIG: &str = r#"
[services]
argon2_memory_kib = 64
argon2_iterations = 1
logins_per_user_per_minute = 1000
additions_per_user_per_hour = 1000000
"#;

// === impl ServerProcess ===

impl ServerProcess {
    /// A folder for a server's data, to be given to [`ServerProcess::start`].
    pub fn folder() -> anyhow::Result<GuardedFolder> {
        Ok(GuardedFolder::new("sluice-server-")?)
    }

    /// Where in such a folder the data is.
    pub fn data_dir(folder: &GuardedFolder) -> PathBuf {
        folder.path().join("data")
    }

    /// Starts `program serve` on free ports with its data in a folder that goes with it.
    pub async fn start(program: &Path, data: GuardedFolder) -> anyhow::Result<Self> {
        Self::start_with(program, data, CONFIG).await
    }

    /// The same with a configuration.
    pub async fn start_with(
        program: &Path,
        data: GuardedFolder,
        settings: &str,
    ) -> anyhow::Result<Self> {
        let data = Arc::new(data);
        let config = data.path().join("sluice.toml");
        std::fs::write(&config, settings)?;
        let mut command = Command::new(program);
        command
            .arg("serve")
            .args(["--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(["--tcp", "127.0.0.1:0", "--ws", "127.0.0.1:0"])
            .args(["--udp", "127.0.0.1:0"])
            .arg("--config")
            .arg(&config)
            .arg("--data-dir")
            .arg(Self::data_dir(&data));
        let process = Process::start(&mut command, "server", &data).await?;
        Ok(Self {
            addresses: process.addresses.clone(),
            process,
            _data: data,
        })
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Highest resident memory so far, in MB.
    pub fn rss_peak_mb(&self) -> f64 {
        self.process.rss_peak_mb()
    }

    /// Waits for its end, which nobody asked for.
    pub async fn ended(&mut self) -> anyhow::Error {
        match self.process.guarded.child.wait().await {
            Ok(status) => anyhow!("the server has ended by itself: {status}"),
            Err(error) => anyhow!(error).context("the server is lost"),
        }
    }

    /// Asks it to drain and waits for its end.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.process.stop().await
    }
}

// === impl Process ===

impl Process {
    /// Starts it, noted by this name in the folder, and waits for its first line.
    pub async fn start(
        command: &mut Command,
        name: &str,
        folder: &Arc<GuardedFolder>,
    ) -> anyhow::Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.as_std()))?;
        let mut guarded = Guarded {
            child,
            name: name.to_owned(),
            folder: Arc::clone(folder),
        };
        if let Some(pid) = guarded.child.id() {
            folder.note(name, pid)?;
        }
        let stdout = guarded
            .child
            .stdout
            .take()
            .context("the server's output is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let first = tokio::time::timeout(READY_TIMEOUT, lines.next_line())
            .await
            .context("the server was not ready in time")??;
        let Some(first) = first else {
            bail!(
                "the server ended before it was ready: {}",
                guarded.child.wait().await?
            )
        };
        let addresses = serde_json::from_str(&first)
            .with_context(|| format!("the server's first line is not what was agreed: {first}"))?;
        Ok(Self { guarded, addresses })
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.guarded.child.id()
    }

    /// Highest resident memory so far, in MB.
    pub fn rss_peak_mb(&self) -> f64 {
        self.guarded.child.id().map_or(0.0, rss_peak_mb)
    }

    /// Kills it at once (SIGKILL).
    pub async fn kill(&mut self) -> std::io::Result<()> {
        self.guarded.child.kill().await
    }

    /// Stops it where it stands (SIGSTOP).
    pub async fn pause(&self) -> anyhow::Result<()> {
        self.signal("-STOP").await
    }

    /// Lets it go on (SIGCONT).
    pub async fn resume(&self) -> anyhow::Result<()> {
        self.signal("-CONT").await
    }

    /// Asks it to drain and waits for its end.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.signal("-TERM").await?;
        let ended = tokio::time::timeout(STOP_TIMEOUT, self.guarded.child.wait()).await;
        let status = ended.context("the server did not stop in time")??;
        if !status.success() {
            bail!("the server ended with {status}");
        }
        Ok(())
    }

    async fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let Some(pid) = self.pid() else {
            bail!("the server has ended by itself")
        };
        let mut kill = Command::new("kill");
        let status = kill.args([signal, &pid.to_string()]).status().await?;
        anyhow::ensure!(status.success(), "the server takes no signal");
        Ok(())
    }
}

// === impl Guarded ===

impl Drop for Guarded {
    fn drop(&mut self) {
        // An error means that it has ended before.
        let _ = self.child.start_kill();
        self.folder.forget(&self.name);
    }
}

/// Highest resident memory of a process since its start, in MB; 0 when it is not
/// known.
pub fn rss_peak_mb(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}

/// The program that is running, to be started again as a server.
pub fn this_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find the path of this program")
}
