//! Connects a session to its socket, its local state and the application.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::{
    Ended, Endpoint, Event, LocalState, TokenSource, Transport, client::Shared, command::Command,
    session::Session,
};

/// What a driver is made of.
pub(crate) struct Parts {
    pub(crate) session: Session,
    pub(crate) state: LocalState,
    pub(crate) endpoint: Endpoint,
    pub(crate) transport: Transport,
    pub(crate) token: TokenSource,
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) events: mpsc::Sender<(u64, Event)>,
    pub(crate) persisted: watch::Sender<u64>,
}

/// The task of one client.
pub(crate) struct Driver {
    parts: Parts,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        Self { parts }
    }

    pub(crate) async fn run(self) {
        let _ = self.parts.shared.ended.set(Ended::Disconnected);
    }
}
