//! One mosquitto, an MQTT broker.

use std::{net::SocketAddr, time::Duration};

use crate::{
    EngineError, GuardedFolder,
    server::{Recipe, Server, free_port},
};

/// A private mosquitto that keeps sessions and what is under way in memory and saves
/// them into a file as often as it does by default. Nobody's queue has a bound that a
/// load could meet, and nobody needs a password.
#[derive(Debug)]
pub struct Mosquitto(Server);

/// CONNECT of MQTT 3.1.1, and nothing in it but that a name is to be given.
const HELLO: &[u8] = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00";
const CONNECTED: &[u8] = &[0x20, 2, 0, 0];

// === impl Mosquitto ===

impl Mosquitto {
    /// The Debian package.
    pub const PACKAGE: &'static str = "mosquitto";

    /// The file `mosquitto.conf`, less what differs from run to run.
    pub const SETTINGS: &'static str = "\
allow_anonymous true
persistence true
autosave_interval 1800
max_connections -1
max_inflight_messages 0
max_queued_messages 0
set_tcp_nodelay true
log_type error
log_type warning
";

    /// Starts one.
    ///
    /// # Errors
    /// It isn't installed, or doesn't get ready.
    pub async fn start() -> Result<Self, EngineError> {
        let folder = GuardedFolder::new("sluice-mosquitto-")?;
        let port = free_port()?;
        let path = folder.path().display();
        let mut config = format!(
            "listener {port} 127.0.0.1\npersistence_location {path}/\n{}",
            Self::SETTINGS
        );
        if rustix::process::geteuid().is_root() {
            // Else it becomes a user who may not write there.
            config.push_str("user root\n");
        }
        let file = folder.path().join("mosquitto.conf");
        std::fs::write(&file, config)?;
        let recipe = Recipe {
            program: "mosquitto",
            package: Self::PACKAGE,
            arguments: vec!["-c".into(), file.display().to_string()],
            environment: Vec::new(),
            hello: HELLO,
            answer: |answer| answer == CONNECTED,
            ready_timeout: Duration::from_secs(10),
        };
        Ok(Self(Server::start(recipe, port, folder).await?))
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
