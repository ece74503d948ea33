//! A shell for `chat`, `send` and `recv`, and a chat at the ends of two pipes.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    time::{Duration, Instant},
};

use crate::server::{SLUICE, Server};

/// On a busy machine; nothing here takes a second on an idle one.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server, and a shell to run commands against it.
pub(crate) struct Shell {
    pub(crate) server: Server,
    pub(crate) folder: tempfile::TempDir,
}

/// A chat that is talked to through pipes; killed when dropped.
pub(crate) struct Chat {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Shell {
    pub(crate) fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(folder.path(), None);
        Self { server, folder }
    }

    /// With these keys of `[services]`.
    pub(crate) fn open_with(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start_with(folder.path(), None, settings);
        Self { server, folder }
    }

    pub(crate) fn command(&self, command: &str, user: &str) -> Command {
        let mut sluice = Command::new(SLUICE);
        sluice
            .args([command, "--server", &self.server.addresses.http])
            .args(["--user", user])
            .env("SLUICE_PASSWORD", format!("the password of {user}"))
            .env("XDG_STATE_HOME", self.folder.path())
            .stdin(Stdio::null());
        sluice
    }

    pub(crate) fn run(&self, command: &str, user: &str, args: &[&str]) -> Output {
        self.command(command, user).args(args).output().unwrap()
    }

    /// Registers users by logging them in once.
    pub(crate) fn register(&self, users: &[&str]) {
        for user in users {
            let output = self.run("recv", user, &["--register", "--for", "0.2"]);
            assert!(output.status.success(), "{output:?}");
        }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(crate) fn chat(&self, user: &str) -> Chat {
        let mut child = self
            .command("chat", user)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = sync_channel(1000);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let stdin = child.stdin.take();
        Chat {
            child,
            stdin,
            lines,
            seen: Vec::new(),
        }
    }
}

impl Chat {
    pub(crate) fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").unwrap();
        stdin.flush().unwrap();
    }

    /// Reads on until a line holds `text`.
    pub(crate) fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(text) => {
                    self.seen.push(line.clone());
                    return line;
                }
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout) => panic!("no {text:?} in {:#?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("ended before {text:?}: {:#?}", self.seen)
                }
            }
        }
    }

    /// Ends the input; returns whether it succeeded, and all it has said.
    pub(crate) fn end(mut self) -> (bool, Vec<String>) {
        drop(self.stdin.take());
        let ended = self.child.wait().unwrap().success();
        let mut seen = std::mem::take(&mut self.seen);
        seen.extend(self.lines.iter());
        (ended, seen)
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
