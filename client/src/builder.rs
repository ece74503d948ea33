//! Sets up a client.

use std::{
    sync::{Arc, OnceLock, atomic::AtomicU64},
    time::Duration,
};

use sluice_protocol::{DeviceId, UserId, packet::Platform};
use tokio::sync::{Notify, mpsc, watch};

use crate::{
    Client, Endpoint, EventStream, LocalState, SessionConfig, StartError, TokenSource, Transport,
    choice::Choice, client::Shared, driver::Driver, session::Session,
};

/// Commands that wait for the driver; one more waits at the caller.
const COMMANDS_MAX: usize = 32;
/// Events that wait for the application; more wait in the session.
const EVENTS_MAX: usize = 32;

/// Sets up a client: at least a server and a token are needed.
#[derive(Debug, Clone)]
pub struct Builder {
    user: UserId,
    device: DeviceId,
    endpoints: Vec<Endpoint>,
    transport: Transport,
    token: Option<TokenSource>,
    state: LocalState,
    config: SessionConfig,
}

// === impl Builder ===

impl Builder {
    pub(crate) fn new(user: UserId, device: DeviceId) -> Self {
        Self {
            user,
            device,
            endpoints: Vec::new(),
            transport: Transport::default(),
            token: None,
            state: LocalState::memory(),
            config: SessionConfig::default(),
        }
    }

    /// Where the server is.
    pub fn server(self, endpoint: Endpoint) -> Self {
        self.servers(vec![endpoint])
    }

    /// Where the gateways of a cluster are, when there is no balancer before
    /// them. The client goes to the first, and to the next one in turn whenever
    /// a connection fails or ends. So that not all go to one, give each client
    /// an order of its own.
    pub fn servers(mut self, endpoints: Vec<Endpoint>) -> Self {
        self.endpoints = endpoints;
        self
    }

    /// By which transport; [`Transport::Auto`] unless told.
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// A token, or where to get one.
    pub fn token(mut self, token: impl Into<TokenSource>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Where positions and unacked sends are kept; in memory unless told.
    pub fn state(mut self, state: LocalState) -> Self {
        self.state = state;
        self
    }

    /// Spans and bounds of the session.
    pub fn config(mut self, config: SessionConfig) -> Self {
        self.config = config;
        self
    }

    /// What kind of device this is.
    pub fn platform(mut self, platform: Platform) -> Self {
        self.config.platform = platform;
        self
    }

    /// Starts the client: it connects by itself, now and whenever it has to.
    /// Must be called within a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(self) -> Result<(Client, EventStream), StartError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        let mut endpoints = self.endpoints;
        endpoints.retain(|endpoint| endpoint.route(self.transport).is_some());
        if endpoints.is_empty() {
            return Err(StartError::NoAddress);
        }
        let token = self.token.ok_or(StartError::NoToken)?;
        let saved = self.state.load(&self.user, &self.device)?;
        let shared = Arc::new(Shared {
            user: self.user.clone(),
            device: self.device.clone(),
            ended: OnceLock::new(),
            committed: AtomicU64::new(0),
            wake: Notify::new(),
        });
        let (commands, command_queue) = mpsc::channel(COMMANDS_MAX);
        let (event_queue, events) = mpsc::channel(EVENTS_MAX);
        let (persisted, persisted_number) = watch::channel(0);
        let ticket = saved.ticket;
        let choice = Choice::new(self.transport, self.config.udp_retry_ms, rand::random());
        let connect_timeout = Duration::from_millis(self.config.connect_timeout_ms);
        let session = Session::new(
            self.config,
            self.user,
            self.device,
            saved,
            token.is_renewable(),
            rand::random(),
        );
        let driver = Driver::new(crate::driver::Parts {
            session,
            state: self.state,
            endpoints,
            choice,
            ticket,
            token,
            connect_timeout,
            shared: shared.clone(),
            commands: command_queue,
            events: event_queue,
            persisted,
        });
        runtime.spawn(driver.run());
        Ok((
            Client::new(commands, shared.clone()),
            EventStream::new(events, persisted_number, shared),
        ))
    }
}
