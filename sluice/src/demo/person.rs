//! One person of the replay: a first device that chats, is cut off and comes
//! back, and the devices that only look.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use sluice_client::{
    Client, ContentType, DeviceId, Endpoint, Event, EventStream, LocalState, SendError, Target,
    Transport, UserId,
};
use tokio::{sync::Mutex, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    board::Board,
    oracle::{DeviceIndex, DeviceKind},
    plan::{MessageIndex, UserIndex},
};

/// What a device needs to connect.
#[derive(Debug, Clone)]
pub struct Account {
    /// Whose.
    pub user: UserId,
    /// For login.
    pub token: String,
    /// Where to: the gateways in this one's order.
    pub endpoints: Vec<Endpoint>,
}

/// One person's first device.
pub struct Person {
    board: Arc<Board>,
    user: UserIndex,
    account: Account,
    transport: Transport,
    device: DeviceIndex,
    state: StatePlace,
    /// Held across a send, so that a restart doesn't fall into it.
    live: Mutex<Option<Live>>,
}

/// Where positions are saved.
#[derive(Debug, Clone)]
pub enum StatePlace {
    /// Lost with the process.
    Memory,
    /// In this file.
    File(PathBuf),
}

/// A device that is running.
struct Live {
    client: Client,
    stop: CancellationToken,
    listener: JoinHandle<()>,
}

/// A device that only looks gives up when it has been told nothing for this long.
const CATCH_UP_SILENCE: Duration = Duration::from_secs(30);

// === impl Person ===

impl Person {
    /// Starts the first device of a user.
    pub fn start(
        board: Arc<Board>,
        user: UserIndex,
        account: Account,
        transport: Transport,
        state: StatePlace,
    ) -> anyhow::Result<Self> {
        let device = board.add_device(user, DeviceKind::First);
        let person = Self {
            board,
            user,
            account,
            transport,
            device,
            state,
            live: Mutex::new(None),
        };
        let live = person.connect(false)?;
        *person
            .live
            .try_lock()
            .context("nobody else knows this person yet")? = Some(live);
        Ok(person)
    }

    /// Sends a planned message, and is cut off behind it where the plan says so.
    pub async fn send(
        self: &Arc<Self>,
        message: MessageIndex,
        target: Target,
    ) -> anyhow::Result<()> {
        let planned = &self.board.plan.messages[message];
        let mut live = self.live.lock().await;
        let Some(running) = live.as_ref() else {
            bail!("the run is over")
        };
        self.board.sending(message);
        let pending = running
            .client
            .send(target, ContentType::Text, planned.body.clone())
            .await
            .with_context(|| format!("message {message} was not taken"))?;
        self.board.sent(message, pending.client_msg_id());
        let person = Arc::clone(self);
        tokio::spawn(async move {
            match pending.acked().await {
                Ok(receipt) => person
                    .board
                    .acked(message, receipt.conversation, receipt.seq),
                // The restarted client sends it again; its own entry is the ack.
                Err(SendError::Ended(_)) => {}
                Err(error) => {
                    tracing::warn!(message, %error, "a send was refused");
                    person.board.refused(message);
                }
            }
        });
        let plan = &self.board.plan.users[self.user];
        if plan.cut_after == Some(message) {
            if !self.board.is_acked(message) {
                self.board.count_cut();
            }
            match plan.goes_on_by {
                Some(transport) => running.client.go_by(transport).await?,
                None => running.client.cut().await?,
            }
            if plan.restarts
                && let Some(running) = live.take()
            {
                running.stop().await;
                *live = Some(self.connect(true)?);
            }
        }
        Ok(())
    }

    /// Logs the first device off.
    pub async fn stop(&self) {
        if let Some(live) = self.live.lock().await.take() {
            live.stop().await;
        }
    }

    fn connect(&self, again: bool) -> anyhow::Result<Live> {
        let state = match &self.state {
            StatePlace::Memory => LocalState::memory(),
            StatePlace::File(path) => {
                LocalState::open(path).with_context(|| format!("local state {}", path.display()))?
            }
        };
        let goes_on_by = self.board.plan.users[self.user].goes_on_by;
        let transport = goes_on_by.filter(|_| again).unwrap_or(self.transport);
        let (client, events) = start_client(&self.account, "first", transport, state)?;
        let stop = CancellationToken::new();
        let listening = listen(
            Arc::clone(&self.board),
            self.user,
            self.device,
            events,
            stop.clone(),
            again,
        );
        Ok(Live {
            client,
            stop,
            listener: tokio::spawn(listening),
        })
    }
}

// === impl Live ===

impl Live {
    /// Ends the device as a process would that saves its positions.
    async fn stop(self) {
        self.stop.cancel();
        // The listener owns the events; it commits the last one it took.
        let _ = self.listener.await;
        self.client.disconnect(false).await;
    }
}

/// Feeds the board with what a first device's application is handed.
async fn listen(
    board: Arc<Board>,
    user: UserIndex,
    device: DeviceIndex,
    mut events: EventStream,
    stop: CancellationToken,
    mut connected_before: bool,
) {
    let mut online_since = None;
    loop {
        let event = tokio::select! {
            biased;
            () = stop.cancelled() => {
                // What was taken must not be told again to the next life; an
                // error means that the client has ended, and kept what it could.
                let _ = events.commit().await;
                return;
            }
            event = events.next() => event,
        };
        match event {
            Some(Event::Entry { entry, own }) => {
                board.entry(device, DeviceKind::First, user, &entry, own, online_since);
            }
            Some(Event::Connected { .. }) => {
                online_since = Some(Instant::now());
                if std::mem::replace(&mut connected_before, true) {
                    board.count_reconnect();
                }
            }
            Some(Event::Disconnected { .. }) => online_since = None,
            Some(Event::Kicked { reason }) => {
                tracing::warn!(user = %board.plan.users[user].name, ?reason, "kicked");
            }
            Some(Event::LoginRefused { refusal }) => {
                tracing::warn!(user = %board.plan.users[user].name, %refusal, "login refused");
            }
            Some(_) => {}
            None => return,
        }
    }
}

/// Logs a device in that has nothing, pulls all there is and logs off.
pub async fn pull_everything(
    board: Arc<Board>,
    user: UserIndex,
    account: Account,
    transport: Transport,
    kind: DeviceKind,
) -> anyhow::Result<()> {
    let device = board.add_device(user, kind);
    let name = if kind == DeviceKind::Fresh {
        "fresh"
    } else {
        "second"
    };
    let (client, mut events) = start_client(&account, name, transport, LocalState::memory())?;
    let pull = async {
        loop {
            let event = tokio::time::timeout(CATCH_UP_SILENCE, events.next()).await;
            let event = event.context("not caught up, and told nothing more in 30 s")?;
            match event.context("the client ended")? {
                Event::Entry { entry, own } => board.entry(device, kind, user, &entry, own, None),
                Event::CaughtUp => return Ok(()),
                Event::Kicked { reason } => bail!("kicked: {reason:?}"),
                Event::LoginRefused { refusal } => bail!("login refused: {refusal}"),
                _ => {}
            }
        }
    };
    let caught_up = pull.await;
    client.disconnect(true).await;
    caught_up
}

fn start_client(
    account: &Account,
    device: &str,
    transport: Transport,
    state: LocalState,
) -> anyhow::Result<(Client, EventStream)> {
    Ok(
        Client::builder(account.user.clone(), DeviceId::parse(device)?)
            .servers(account.endpoints.clone())
            .transport(transport)
            .token(account.token.as_str())
            .state(state)
            .start()?,
    )
}
