//! One Redis server.

use std::{io, net::SocketAddr, time::Duration};

use tokio::process::Command;

use crate::{
    EngineError, GuardedFolder,
    server::{Recipe, Server, free_port},
};

/// A private redis-server.
#[derive(Debug)]
pub struct Redis(Server);

/// What differs from one private redis-server to another.
#[derive(Debug, Clone, Default)]
pub struct RedisSettings {
    /// Keep an append-only file, so that a restart finds the data; synced once
    /// a second.
    pub aof: bool,
    /// Run as a node of a cluster.
    pub cluster: bool,
    /// More arguments, such as `["--maxmemory", "64mb"]`.
    pub arguments: Vec<String>,
}

// === impl Redis ===

impl Redis {
    /// A server without persistence: what is killed forgets.
    pub async fn start() -> Result<Self, EngineError> {
        Self::with(RedisSettings::default()).await
    }

    /// A server that finds its data again after a kill.
    pub async fn durable() -> Result<Self, EngineError> {
        Self::with(RedisSettings {
            aof: true,
            ..RedisSettings::default()
        })
        .await
    }

    /// A server with these settings.
    pub async fn with(settings: RedisSettings) -> Result<Self, EngineError> {
        let folder = GuardedFolder::new("sluice-redis-")?;
        let port = free_port()?;
        let mut arguments: Vec<String> = [
            ("--port", port.to_string()),
            ("--bind", "127.0.0.1".into()),
            ("--dir", folder.path().display().to_string()),
            ("--save", String::new()),
            ("--appendonly", yes_or_no(settings.aof)),
            ("--appendfsync", "everysec".into()),
            ("--cluster-enabled", yes_or_no(settings.cluster)),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect();
        arguments.extend(settings.arguments);
        let recipe = Recipe {
            program: "redis-server",
            package: "redis-server",
            arguments,
            environment: Vec::new(),
            hello: b"PING\r\n",
            answer: |answer| answer.starts_with(b"+PONG"),
            ready_timeout: Duration::from_secs(30),
        };
        Ok(Self(Server::start(recipe, port, folder).await?))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// `redis://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.0.address)
    }

    /// Runs a command, and gives what it answers as `redis-cli` shows it to programs.
    pub async fn command(&self, words: &[&str]) -> Result<String, EngineError> {
        let port = self.address().port().to_string();
        run(Command::new("redis-cli").args(["-p", &port]).args(words)).await
    }

    /// Its process id; another one after a restart.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Kills it at once (SIGKILL).
    pub fn kill(&mut self) -> io::Result<()> {
        self.0.kill()
    }

    /// Asks it to end (SIGTERM) and waits.
    pub async fn stop(&mut self) -> Result<(), EngineError> {
        self.0.stop().await
    }

    /// Starts it again on the same port and folder.
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

fn yes_or_no(on: bool) -> String {
    if on { "yes" } else { "no" }.to_owned()
}

pub(crate) async fn run(command: &mut Command) -> Result<String, EngineError> {
    let output = command
        .output()
        .await
        .map_err(|cause| EngineError::NotStarted {
            program: "redis-cli",
            package: "redis-tools",
            cause,
        })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(failed(text))
    }
}

pub(crate) fn failed(cause: String) -> EngineError {
    EngineError::NotReady {
        program: "redis-cli",
        cause,
        log: String::new(),
    }
}
