//! A network namespace that lives as long as its keeper, a process that waits for its standard
//! input to end. So it is gone with this process however that ends; nothing has a name that could
//! be left over. A namespace of processes comes with it, in which the keeper is the first: with the
//! keeper, the kernel ends all that was started there.

use crate::LabError;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

/// A network namespace of its own.
#[derive(Debug)]
pub(crate) struct Namespace {
    /// `unshare`, which has the namespaces of its child, and kills that when it dies.
    keeper: Child,
    keeper_pid: u32,
}

// === impl Namespace ===

impl Namespace {
    /// Makes a namespace with nothing in it but a loopback interface.
    pub(crate) async fn new() -> Result<Self, LabError> {
        let mut unshare = Command::new("unshare");
        unshare
            .args(["--net", "--pid", "--fork", "--kill-child", "--"])
            .args(["sh", "-c", "echo ready; exec cat >/dev/null"]);
        unshare
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let missing = |error| LabError::unavailable("unshare", &error);
        let mut keeper = unshare.spawn().map_err(missing)?;
        let (mut line, mut complaint) = (String::new(), String::new());
        if let Some(stdout) = &mut keeper.stdout {
            BufReader::new(stdout)
                .read_line(&mut line)
                .await
                .map_err(missing)?;
        }
        let ready = (line == "ready\n").then(|| keeper.id()).flatten();
        let Some(keeper_pid) = ready else {
            if let Some(stderr) = &mut keeper.stderr {
                let _ = stderr.take(500).read_to_string(&mut complaint).await;
            }
            return Err(LabError::unavailable(
                "unshare --net --pid",
                &complaint.trim(),
            ));
        };
        let namespace = Namespace { keeper, keeper_pid };
        namespace.ip("link set dev lo up").await?;
        Ok(namespace)
    }

    /// A program to be run in the namespace.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut nsenter = Command::new("nsenter");
        nsenter
            .arg(format!("--net=/proc/{}/ns/net", self.keeper_pid))
            .arg(format!(
                "--pid=/proc/{}/ns/pid_for_children",
                self.keeper_pid
            ))
            .args(["--", program])
            .kill_on_drop(true);
        nsenter
    }

    /// What `ip link set netns` wants to hear.
    pub(crate) fn pid(&self) -> u32 {
        self.keeper_pid
    }

    /// Runs `ip` with these arguments in the namespace.
    pub(crate) async fn ip(&self, arguments: &str) -> Result<(), LabError> {
        run_ip(self.command("ip"), arguments).await
    }

    /// Ends all that runs in the namespace, and waits until the keeper is gone.
    pub(crate) async fn close(mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait().await;
    }
}

/// Runs `ip` with these arguments, here or where `command` says.
pub(crate) async fn run_ip(mut command: Command, arguments: &str) -> Result<(), LabError> {
    command.args(arguments.split(' ')).stdin(Stdio::null());
    let output = command.output().await;
    let output = output.map_err(|error| LabError::unavailable("ip", &error))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let what = format!("ip {arguments}");
    Err(LabError::unavailable(&what, &complaint.trim()))
}
