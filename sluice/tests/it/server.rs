//! A `sluice serve` on free ports with its data in a folder of the test's own.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde::Deserialize;
use sluice_client::Endpoint;

pub(crate) const SLUICE: &str = env!("CARGO_BIN_EXE_sluice");

/// Cheap password hashes: tests are not about them.
const CONFIG: &str = "[services]\nargon2_memory_kib = 64\nargon2_iterations = 1\n";
const MANY_LOGINS: &str = "logins_per_user_per_minute = 1000\n";

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) addresses: Addresses,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Addresses {
    pub(crate) http: String,
    pub(crate) admin: String,
    pub(crate) tcp: SocketAddr,
    pub(crate) ws: SocketAddr,
    pub(crate) udp: SocketAddr,
    pub(crate) pins: String,
}

impl Server {
    /// Starts on the data in `folder`, on free ports, or on those it had before.
    pub(crate) fn start(folder: &Path, again: Option<&Addresses>) -> Self {
        Self::start_with(folder, again, MANY_LOGINS)
    }

    /// With these keys of `[services]`, and tables behind them.
    pub(crate) fn start_with(folder: &Path, again: Option<&Addresses>, more: &str) -> Self {
        Self::start_by(Command::new(SLUICE), folder, again, more)
    }

    /// By a command that runs the program, perhaps under another.
    pub(crate) fn start_by(
        mut command: Command,
        folder: &Path,
        again: Option<&Addresses>,
        more: &str,
    ) -> Self {
        let config = folder.join("sluice.toml");
        std::fs::write(&config, [CONFIG, more].concat()).unwrap();
        let any = || "127.0.0.1:0".to_owned();
        let http = again.map_or_else(any, |a| a.http.clone());
        let tcp = again.map_or_else(any, |a| a.tcp.to_string());
        let ws = again.map_or_else(any, |a| a.ws.to_string());
        let udp = again.map_or_else(any, |a| a.udp.to_string());
        let mut child = command
            .args(["serve", "--http", &http, "--tcp", &tcp, "--ws", &ws])
            .args(["--udp", &udp])
            .args(["--admin", "127.0.0.1:0", "--config"])
            .arg(&config)
            .arg("--data-dir")
            .arg(folder.join("data"))
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut first)
            .unwrap();
        let addresses = serde_json::from_str(&first)
            .unwrap_or_else(|error| panic!("first line {first:?}: {error}"));
        Self { child, addresses }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        let ws = format!("ws://{}/", self.addresses.ws);
        Endpoint {
            tcp: Some(self.addresses.tcp),
            ws: Some(ws),
            udp: Some(self.addresses.udp),
            pins: Some(self.addresses.pins.parse().unwrap()),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// As power does when it goes: without a word.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; returns whether it exited with 0.
    pub(crate) fn terminate(mut self) -> bool {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        self.child.wait().unwrap().success()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail when the test has ended it already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
