//! Another system that is measured as Sluice is: which there are, what an ack of theirs
//! means, and a private server of one.

use std::net::SocketAddr;

use serde::Serialize;
use sluice_engines::{Ejabberd, EngineError, Mosquitto, Nats, package_version};
use sluice_load::{Login, Protocol};

/// Which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// An MQTT broker, QoS 1.
    Mosquitto,
    /// nats-server, core.
    Nats,
    /// nats-server, with a stream.
    JetStream,
    /// An XMPP server, with stream management and an archive.
    Ejabberd,
}

/// What has happened to a message when its sender hears the ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// It is on the disk, synced: it survives the machine's losing its power.
    Synced,
    /// It is in a file's pages: it survives the server's being killed.
    Written,
    /// It is in the server's memory, also for who isn't there.
    Memory,
    /// It has been passed on to who is there.
    None,
}

/// A private server of one, which is killed when it is dropped.
pub(super) enum PeerServer {
    Mosquitto(Mosquitto),
    Nats(Nats),
    Ejabberd(Ejabberd),
}

// === impl Peer ===

impl Peer {
    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mosquitto => "mosquitto",
            Self::Nats => "nats",
            Self::JetStream => "jetstream",
            Self::Ejabberd => "ejabberd",
        }
    }

    /// The Debian packages that it is made of, its own first.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Mosquitto => &[Mosquitto::PACKAGE],
            Self::Nats | Self::JetStream => &[Nats::PACKAGE],
            Self::Ejabberd => &[Ejabberd::PACKAGE, Ejabberd::ARCHIVE_PACKAGE],
        }
    }

    /// The first of its packages that isn't installed.
    pub(super) fn missing_package(self) -> Option<&'static str> {
        let packages = self.packages().iter().copied();
        packages
            .into_iter()
            .find(|it| package_version(it).is_none())
    }

    /// Of its Debian package, less Debian's own part.
    pub(super) fn version(self) -> String {
        let version = self.packages().first().copied().and_then(package_version);
        let upstream = version.and_then(|it| it.split(['-', '+']).next().map(str::to_owned));
        upstream.unwrap_or_default()
    }

    /// What an ack promises.
    pub(super) fn durability(self) -> Durability {
        match self {
            Self::Mosquitto => Durability::Memory,
            Self::Nats => Durability::None,
            Self::JetStream => Durability::Written,
            Self::Ejabberd => Durability::Synced,
        }
    }

    /// The same for people, with what is used as an ack.
    pub(super) fn ack_means(self) -> &'static str {
        match self {
            Self::Mosquitto => {
                "PUBACK: in memory; all of it is saved every 30 min (the default) and at a stop"
            }
            Self::Nats => "PONG after a batch: handed on to who is connected; kept nowhere",
            Self::JetStream => {
                "PubAck: written to the stream's file, which is synced every 2 min (2.9 has no \
                 other way)"
            }
            Self::Ejabberd => {
                "<a/> of XEP-0198: the sender's copy is in the archive, an SQLite transaction of its \
                 own, synced; the receiver's follows. One connection and a rollback journal, as \
                 ejabberd has it; on MySQL or PostgreSQL it may be faster, which isn't measured"
            }
        }
    }

    pub(super) fn protocol(self) -> Protocol {
        match self {
            Self::Mosquitto => Protocol::Mqtt,
            Self::Nats => Protocol::Nats,
            Self::JetStream => Protocol::JetStream,
            Self::Ejabberd => Protocol::Xmpp,
        }
    }

    /// Its configuration beside the defaults.
    pub(super) fn settings(self) -> String {
        match self {
            Self::Mosquitto => Mosquitto::SETTINGS,
            Self::Nats => "",
            Self::JetStream => Nats::STREAM_CONFIG,
            Self::Ejabberd => Ejabberd::SETTINGS,
        }
        .to_owned()
    }
}

// === impl Durability ===

impl Durability {
    /// In a word or two.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Written => "written",
            Self::Memory => "memory",
            Self::None => "none",
        }
    }
}

// === impl PeerServer ===

impl PeerServer {
    /// Starts one that knows these users; where passwords are asked for, their tokens
    /// are these.
    pub(super) async fn start(peer: Peer, logins: &[Login]) -> Result<Self, EngineError> {
        Ok(match peer {
            Peer::Mosquitto => Self::Mosquitto(Mosquitto::start().await?),
            Peer::Nats => Self::Nats(Nats::start().await?),
            Peer::JetStream => Self::Nats(Nats::start_with_stream().await?),
            Peer::Ejabberd => {
                let users = logins.iter();
                let users = users.map(|login| (login.user.as_str(), login.token.as_str()));
                Self::Ejabberd(Ejabberd::start(&users.collect::<Vec<_>>()).await?)
            }
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Mosquitto(server) => server.address(),
            Self::Nats(server) => server.address(),
            Self::Ejabberd(server) => server.address(),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        match self {
            Self::Mosquitto(server) => server.pid(),
            Self::Nats(server) => server.pid(),
            Self::Ejabberd(server) => server.pid(),
        }
    }
}
