//! One connection to one server, made again when it breaks.
//!
//! redis-rs would repeat commands and reconnect by itself; here nothing is
//! repeated, since only the caller knows what a repeat does, and what failed
//! says whether the command can have reached the server.

use std::{sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value,
    aio::MultiplexedConnection, sentinel::SentinelClient,
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::config::RedisConfig;
use crate::BusError;

/// After a failed try to connect, further calls fail at once for so long.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Why a command has no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server was not reached; it knows nothing of the command.
    NotSent(String),
    /// The server may have done it, or may yet do it.
    Unknown(String),
    /// The server refused it.
    Refused(RedisError),
}

/// Finds the server to connect to.
pub(super) enum Source {
    Fixed(Client),
    Sentinel(Mutex<SentinelClient>),
}

/// A connection that many callers share, one command behind the other.
pub(crate) struct Node {
    source: Arc<Source>,
    connect_timeout: Duration,
    response_timeout: Duration,
    wire: Mutex<Wire>,
}

#[derive(Default)]
struct Wire {
    connection: Option<MultiplexedConnection>,
    /// Counts connections, so that only the one that failed is thrown away.
    number: u64,
    failed: Option<(Instant, String)>,
}

// === impl Failure ===

impl Failure {
    fn of(error: RedisError) -> Self {
        if error.is_connection_refusal() {
            return Self::NotSent(error.to_string());
        }
        match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension => Self::Refused(error),
            _ if error.code().is_some() => Self::Refused(error),
            _ => Self::Unknown(error.to_string()),
        }
    }

    /// Whether the server can't serve this any more (it became a replica, …).
    fn is_wrong_server(&self) -> bool {
        let Self::Refused(error) = self else {
            return false;
        };
        let kind = error.kind();
        let wrong = [ServerErrorKind::ReadOnly, ServerErrorKind::MasterDown];
        wrong.iter().any(|k| kind == ErrorKind::Server(*k))
    }

    pub(super) fn is(&self, kind: ServerErrorKind) -> bool {
        matches!(self, Self::Refused(error) if error.kind() == ErrorKind::Server(kind))
    }
}

impl From<Failure> for BusError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotSent(why) => BusError::Unavailable(why),
            Failure::Unknown(why) => BusError::Unknown(why),
            Failure::Refused(error) => BusError::Unavailable(error.to_string()),
        }
    }
}

// === impl Node ===

impl Node {
    pub(super) fn new(source: Arc<Source>, config: &RedisConfig) -> Self {
        Self {
            source,
            connect_timeout: config.connect_timeout(),
            response_timeout: config.response_timeout(),
            wire: Mutex::default(),
        }
    }

    /// The same server over a connection of its own, whose commands may block
    /// for `block_ms` longer.
    pub(super) fn apart(&self, block_ms: u64) -> Self {
        Self {
            source: Arc::clone(&self.source),
            connect_timeout: self.connect_timeout,
            response_timeout: self.response_timeout + Duration::from_millis(block_ms),
            wire: Mutex::default(),
        }
    }

    /// Runs one command.
    pub(crate) async fn run(&self, command: &Cmd) -> Result<Value, Failure> {
        let (mut connection, number) = self.connected().await?;
        let answer = command.query_async::<Value>(&mut connection);
        let failure = match timeout(self.response_timeout, answer).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => Failure::of(error),
            Err(_) => Failure::Unknown(format!("no answer in {:?}", self.response_timeout)),
        };
        self.note(&failure, number).await;
        Err(failure)
    }

    /// Runs several commands in a row, without atomicity; each has its answer.
    pub(crate) async fn run_all(
        &self,
        commands: &Pipeline,
    ) -> Result<Vec<Result<Value, RedisError>>, Failure> {
        let (mut connection, number) = self.connected().await?;
        let answers = commands.query_async::<Vec<Result<Value, RedisError>>>(&mut connection);
        let failure = match timeout(self.response_timeout, answers).await {
            Ok(Ok(values)) => return Ok(values),
            Ok(Err(error)) => Failure::of(error),
            Err(_) => Failure::Unknown(format!("no answer in {:?}", self.response_timeout)),
        };
        self.note(&failure, number).await;
        Err(failure)
    }

    /// The server as a client of its own, to subscribe with.
    pub(super) async fn client(&self) -> Result<Client, Failure> {
        match timeout(self.connect_timeout, Box::pin(self.source.find())).await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(error)) => Err(Failure::NotSent(error.to_string())),
            Err(_) => Err(Failure::NotSent("no Sentinel answers".into())),
        }
    }

    async fn connected(&self) -> Result<(MultiplexedConnection, u64), Failure> {
        let mut wire = self.wire.lock().await;
        if let Some(connection) = &wire.connection {
            return Ok((connection.clone(), wire.number));
        }
        if let Some((when, why)) = &wire.failed
            && when.elapsed() < RECONNECT_PAUSE
        {
            return Err(Failure::NotSent(why.clone()));
        }
        match self.connect().await {
            Ok(connection) => {
                wire.number += 1;
                wire.failed = None;
                wire.connection = Some(connection.clone());
                Ok((connection, wire.number))
            }
            Err(why) => {
                wire.failed = Some((Instant::now(), why.clone()));
                Err(Failure::NotSent(why))
            }
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, String> {
        // Our own deadline holds for each command; redis-rs' 500 ms would break blocking ones.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(None);
        // Boxed: these futures are large, and each call would carry them.
        let connect = Box::pin(async {
            let client = self.source.find().await?;
            client
                .get_multiplexed_async_connection_with_config(&config)
                .await
        });
        match timeout(self.connect_timeout, connect).await {
            Ok(connected) => connected.map_err(|error| self.source.named(error)),
            Err(_) => {
                let why = format!("no connection in {:?}", self.connect_timeout);
                Err(self.source.named(why))
            }
        }
    }

    /// Throws the connection away if it is no use any more.
    async fn note(&self, failure: &Failure, number: u64) {
        let broken = matches!(failure, Failure::Unknown(_) | Failure::NotSent(_));
        if !broken && !failure.is_wrong_server() {
            return;
        }
        let mut wire = self.wire.lock().await;
        if wire.number == number {
            wire.connection = None;
        }
    }
}

// === impl Source ===

impl Source {
    /// What is the matter, with whose address.
    fn named(&self, why: impl std::fmt::Display) -> String {
        match self {
            Self::Fixed(client) => format!("{}: {why}", client.get_connection_info().addr()),
            Self::Sentinel(_) => format!("the master that the Sentinels know: {why}"),
        }
    }

    async fn find(&self) -> Result<Client, RedisError> {
        match self {
            Self::Fixed(client) => Ok(client.clone()),
            Self::Sentinel(sentinel) => sentinel.lock().await.async_get_client().await,
        }
    }
}
