//! Who talks to which server: the flags that `chat`, `send` and `recv` share,
//! registration and login, and the client that comes of it.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, anyhow};
use sluice_client::{
    ApiError, Client, DeviceId, Endpoint, EventStream, HttpApi, LocalState, Platform, ServerPins,
    StartError, Transport, UserId,
};
use tokio_util::sync::CancellationToken;

use super::{password, state_dir, token_file::TokenFile, tokens::Tokens, trouble::reason};
use crate::{cli::Stopped, endpoints::Addresses};

/// Who talks to which server.
#[derive(Debug, clap::Args)]
pub struct AccountArgs {
    /// Address of the server's HTTP API
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    server: String,
    /// How to connect: auto, tcp, tcp+noise (encrypted), ws or udp
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = transport)]
    transport: Transport,
    /// The gateway's keys for udp and tcp+noise, as `sluice keygen` prints them; by
    /// GET /endpoints unless told. They prove nothing over tcp and ws; where they are
    /// told, auto goes by udp and tcp+noise (and wss) only
    #[arg(long, value_name = "PINS")]
    pins: Option<ServerPins>,
    /// Who you are
    #[arg(long, value_name = "NAME", value_parser = UserId::parse)]
    pub(crate) user: UserId,
    /// Register first if the name is still free
    #[arg(long)]
    register: bool,
    /// Name of this device; the newest login of a name ends the one before
    #[arg(long, value_name = "NAME", value_parser = DeviceId::parse)]
    device: Option<DeviceId>,
    /// Where to keep, for each server, user and device, what must survive a
    /// kill: unacked sends, and how far messages were taken
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// What becomes of the state when no folder is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateDefault {
    /// Kept in the user's own state folder, for a device that stays.
    Kept,
    /// Gone with the process, as is its device.
    Gone,
}

/// A user who is logged in.
pub(crate) struct Account {
    pub(crate) user: UserId,
    pub(crate) device: DeviceId,
    pub(crate) client: Client,
    pub(crate) events: EventStream,
    pub(crate) api: HttpApi,
    /// Whether unacked sends survive this process.
    pub(crate) is_kept: bool,
    tokens: Arc<Tokens>,
}

/// A transport's name on the command line.
pub(crate) fn transport(name: &str) -> Result<Transport, String> {
    match name {
        "auto" => Ok(Transport::Auto),
        "tcp" => Ok(Transport::Tcp),
        "tcp+noise" => Ok(Transport::SealedTcp),
        "ws" => Ok(Transport::WebSocket),
        "udp" => Ok(Transport::Udp),
        other => Err(format!(
            "there is no transport {other:?}; there are auto, tcp, tcp+noise, ws and udp"
        )),
    }
}

// === impl AccountArgs ===

impl AccountArgs {
    /// Finds the server, registers if told so, logs in and starts the client,
    /// which then connects by itself.
    pub(crate) async fn open(
        self,
        command: &str,
        state: StateDefault,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Account> {
        let opened = self.open_uninterrupted(command, state, shutdown.clone());
        tokio::select! {
            opened = opened => opened,
            () = shutdown.cancelled() => Err(Stopped("the login").into()),
        }
    }

    async fn open_uninterrupted(
        self,
        command: &str,
        state: StateDefault,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Account> {
        let mut endpoints = self.find_server().await?;
        if let Some(pins) = &self.pins {
            for endpoint in &mut endpoints {
                endpoint.pins = Some(pins.clone());
                if self.transport == Transport::Auto {
                    // Whoever tells pins doesn't want to end in the clear.
                    endpoint.ws = endpoint.ws.take().filter(|url| url.starts_with("wss:"));
                }
            }
        }
        let api = HttpApi::new(&self.server).map_err(|error| anyhow!("--server: {error}"))?;
        let password = password::read(&self.user, self.register, shutdown).await?;
        if self.register {
            self.register(&api, &password).await?;
        }
        let named = self.state_dir.clone();
        // Without a folder for it the token goes with the process.
        let token_file = named.clone().or_else(|| state_dir::default().ok());
        let token_file = token_file
            .and_then(|folder| state_dir::of_user(&folder, &self.server, &self.user).ok())
            .map(|folder| TokenFile::open(&folder, &password));
        let tokens = Tokens::log_in(api.clone(), self.user.clone(), password, token_file).await;
        let tokens = Arc::new(tokens.map_err(|error| self.explain_login(error))?);

        let folder = match (&named, state) {
            (Some(folder), _) => Some(folder.clone()),
            (None, StateDefault::Kept) => Some(state_dir::default()?),
            (None, StateDefault::Gone) => None,
        };
        let device = match self.device {
            Some(device) => device,
            None if folder.is_some() => DeviceId::parse(&format!("{command}@{}", host_name()))?,
            None => DeviceId::parse(&format!("{command}-{:08x}", rand::random::<u32>()))?,
        };
        let is_kept = folder.is_some();
        let state = match folder {
            Some(folder) => state_dir::open(&folder, &self.server, &self.user, &device)?,
            None => LocalState::memory(),
        };
        let (client, events) = Client::builder(self.user.clone(), device.clone())
            .servers(endpoints)
            .transport(self.transport)
            .token(tokens.source())
            .state(state)
            .platform(Platform::Desktop)
            .start()
            .map_err(|error| match error {
                StartError::NoAddress => anyhow!(
                    "GET {}/endpoints tells no address for this transport: in a cluster the \
                     services tell clients what [endpoints] in their configuration says",
                    self.server
                ),
                error => anyhow!(error).context("cannot start the client"),
            })?;
        Ok(Account {
            user: self.user,
            device,
            client,
            events,
            api,
            is_kept,
            tokens,
        })
    }

    async fn find_server(&self) -> anyhow::Result<Vec<Endpoint>> {
        let addresses = Addresses::of(&self.server).await.with_context(|| {
            format!(
                "cannot find the server at {}; is it running? `sluice serve` starts one here, \
                 --server names another",
                self.server
            )
        })?;
        addresses
            .endpoints()
            .with_context(|| format!("what {} says of itself", self.server))
    }

    async fn register(&self, api: &HttpApi, password: &str) -> anyhow::Result<()> {
        match api.register(&self.user, password, None).await {
            Ok(()) => {
                eprintln!("registered {:?}", self.user);
                Ok(())
            }
            Err(ApiError::Refused { code, .. }) if code == "user_exists" => {
                eprintln!("{:?} is registered already; logging in", self.user);
                Ok(())
            }
            Err(error) => Err(anyhow!(
                "cannot register {:?}: {}",
                self.user,
                reason(&error)
            )),
        }
    }

    fn explain_login(&self, error: ApiError) -> anyhow::Error {
        match &error {
            ApiError::Refused { code, .. } if code == "bad_credentials" && self.register => {
                anyhow!(
                    "wrong password: {:?} was registered before, with another one",
                    self.user
                )
            }
            ApiError::Refused { code, .. } if code == "bad_credentials" => anyhow!(
                "wrong password, or there is no user {:?}; a new name is registered by --register",
                self.user
            ),
            error => anyhow!("cannot log in as {:?}: {}", self.user, reason(error)),
        }
    }
}

// === impl Account ===

impl Account {
    /// A token for a call of the HTTP API.
    pub(crate) async fn token(&self) -> Result<String, ApiError> {
        self.tokens.valid().await
    }
}

/// Of this machine, so that a user's machines are different devices.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name
        .trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(32)
        .collect();
    if name.is_empty() || name.len() > 40 {
        "terminal".to_owned()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_have_names() {
        assert_eq!(transport("ws"), Ok(Transport::WebSocket));
        assert_eq!(transport("tcp+noise"), Ok(Transport::SealedTcp));
        assert!(
            transport("pigeon")
                .unwrap_err()
                .contains("auto, tcp, tcp+noise, ws and udp")
        );
    }
}
