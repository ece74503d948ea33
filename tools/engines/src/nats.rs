//! One nats-server, with or without JetStream.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::{
    EngineError, GuardedFolder,
    server::{Recipe, Server, free_port},
};

/// A private nats-server.
#[derive(Debug)]
pub struct Nats(Server);

/// An answer of JetStream's API is shorter.
const ANSWER_MAX_BYTES: u64 = 64 * 1024;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

// === impl Nats ===

impl Nats {
    /// The Debian package.
    pub const PACKAGE: &'static str = "nats-server";

    /// The stream that [`Nats::start_with_stream`] makes, which keeps what is published to
    /// `inbox.>` in files.
    pub const STREAM: &'static str = "SLUICE";

    /// What JetStream is asked for; `sync_interval` is the server's own: 2 minutes.
    pub const STREAM_CONFIG: &'static str = r#"{"name":"SLUICE","subjects":["inbox.>"],"retention":"limits","storage":"file","discard":"old","num_replicas":1,"max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"max_age":0}"#;

    /// Starts one that keeps nothing.
    ///
    /// # Errors
    /// It isn't installed, or doesn't get ready.
    pub async fn start() -> Result<Self, EngineError> {
        Self::start_with("").await
    }

    /// Starts one with JetStream and a stream.
    ///
    /// # Errors
    /// It isn't installed, doesn't get ready, or makes no stream.
    pub async fn start_with_stream() -> Result<Self, EngineError> {
        let nats = Self::start_with("jetstream { store_dir: \"js\" }\n").await?;
        let subject = format!("$JS.API.STREAM.CREATE.{}", Self::STREAM);
        let asked = nats.ask(&subject, Self::STREAM_CONFIG);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
        let answer = answer.map_err(|_| io::Error::other("JetStream doesn't answer"))??;
        if answer.contains("\"error\"") {
            return Err(io::Error::other(format!("JetStream makes no stream: {answer}")).into());
        }
        Ok(nats)
    }

    async fn start_with(more: &str) -> Result<Self, EngineError> {
        let folder = GuardedFolder::new("sluice-nats-")?;
        let port = free_port()?;
        let file = folder.path().join("nats.conf");
        std::fs::write(&file, format!("listen: \"127.0.0.1:{port}\"\n{more}"))?;
        let recipe = Recipe {
            program: "nats-server",
            package: Self::PACKAGE,
            arguments: vec!["-c".into(), file.display().to_string()],
            environment: Vec::new(),
            hello: b"",
            answer: |answer| answer.starts_with(b"INFO "),
            ready_timeout: Duration::from_secs(10),
        };
        Ok(Self(Server::start(recipe, port, folder).await?))
    }

    /// One request; the payload of its answer.
    async fn ask(&self, subject: &str, payload: &str) -> io::Result<String> {
        let mut socket = BufReader::new(TcpStream::connect(self.address()).await?);
        let said = format!(
            "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB {subject} answer {}\r\n{payload}\r\n",
            payload.len()
        );
        socket.write_all(said.as_bytes()).await?;
        let mut socket = socket.take(ANSWER_MAX_BYTES);
        let mut line = String::new();
        while socket.read_line(&mut line).await? > 0 {
            if line.starts_with("MSG ") {
                line.clear();
                socket.read_line(&mut line).await?;
                return Ok(line);
            }
            if line.starts_with("-ERR") {
                return Err(io::Error::other(line));
            }
            line.clear();
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }
}
