//! Who watches whose coming and going: one task with one subscribed connection.
//!
//! Each change of a user's routes is published with the gateways that are left
//! ([`routes`](super::routes)); the task keeps those of the users watched and
//! judges by the leases whether one of them lives. So a user goes offline by an
//! unbind as by the death of a gateway, which shows in the leases, looked at
//! each second. What was published while the connection was broken is lost:
//! then the watchers are told that they missed something, and of what is
//! different from before.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{Stream, StreamExt};
use parking_lot::Mutex;
use redis::{Msg, aio::PubSubSink};
use sluice_protocol::{Incarnation, UserId};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, timeout},
};

use super::{leases::Leases, link::RedisLink, record::decode_gateways, routes::Routes};
use crate::{BusError, PresenceChange, PresenceWatch};

/// The way to the task, which starts with the first watch and ends with this.
pub(super) struct Presence {
    commands: Mutex<Option<mpsc::Sender<Watch>>>,
    link: Arc<RedisLink>,
    routes: Arc<Routes>,
    leases: Arc<Leases>,
}

/// One call of `Directory::watch` on its way to the task.
struct Watch {
    users: Vec<UserId>,
    watcher: Watcher,
    done: oneshot::Sender<Result<(), BusError>>,
}

/// The sending end of one watch.
#[derive(Clone)]
struct Watcher {
    changes: mpsc::Sender<PresenceChange>,
    overflowed: Arc<AtomicBool>,
}

/// The task.
struct Watching {
    link: Arc<RedisLink>,
    routes: Arc<Routes>,
    leases: Arc<Leases>,
    users: HashMap<UserId, Watched>,
}

/// A user that somebody watches.
#[derive(Default)]
struct Watched {
    gateways: Vec<Incarnation>,
    online: bool,
    watchers: Vec<Watcher>,
}

/// Why the task stopped using a connection.
enum End {
    Broken(BusError),
    /// The directory is gone.
    Closed,
}

const WATCH_QUEUE_MAX_CHANGES: usize = 1024;
const WATCHES_QUEUE_MAX: usize = 64;
/// Each is a subscription at the server.
const WATCHED_MAX_USERS: usize = 100_000;
const SUBSCRIBE_CHUNK: usize = 256;
const WATCH_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_secs(1);
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);
/// Ended watches are swept out at each so many looks.
const SWEEP_LOOKS: u32 = 16;

// === impl Presence ===

impl Presence {
    pub(super) fn new(link: Arc<RedisLink>, routes: Arc<Routes>, leases: Arc<Leases>) -> Self {
        Self {
            commands: Mutex::default(),
            link,
            routes,
            leases,
        }
    }

    pub(super) async fn watch(&self, users: &[UserId]) -> Result<PresenceWatch, BusError> {
        let (sender, changes) = mpsc::channel(WATCH_QUEUE_MAX_CHANGES);
        let overflowed = Arc::new(AtomicBool::new(false));
        let (done, answer) = oneshot::channel();
        let watch = Watch {
            users: users.to_vec(),
            watcher: Watcher {
                changes: sender,
                overflowed: Arc::clone(&overflowed),
            },
            done,
        };
        let commands = self.commands();
        let watching = async {
            commands.send(watch).await.map_err(|_| ended())?;
            answer.await.map_err(|_| ended())?
        };
        match timeout(WATCH_TIMEOUT, watching).await {
            Ok(watching) => watching?,
            Err(_) => return Err(BusError::Unavailable("no subscription in time".into())),
        }
        Ok(PresenceWatch {
            changes,
            overflowed,
        })
    }

    fn commands(&self) -> mpsc::Sender<Watch> {
        let mut commands = self.commands.lock();
        if let Some(commands) = commands.as_ref().filter(|sender| !sender.is_closed()) {
            return commands.clone();
        }
        let (sender, receiver) = mpsc::channel(WATCHES_QUEUE_MAX);
        let watching = Watching {
            link: Arc::clone(&self.link),
            routes: Arc::clone(&self.routes),
            leases: Arc::clone(&self.leases),
            users: HashMap::new(),
        };
        tokio::spawn(watching.run(receiver));
        *commands = Some(sender.clone());
        sender
    }
}

fn ended() -> BusError {
    BusError::Unavailable("the watching task has ended".into())
}

// === impl Watching ===

impl Watching {
    async fn run(mut self, mut commands: mpsc::Receiver<Watch>) {
        loop {
            match self.use_connection(&mut commands).await {
                End::Closed => return,
                End::Broken(error) => tracing::warn!(%error, "presence is not heard for a while"),
            }
            tokio::time::sleep(RECONNECT_PAUSE).await;
            if commands.is_closed() {
                return;
            }
        }
    }

    /// Hears, looks and takes new watches until the connection breaks.
    async fn use_connection(&mut self, commands: &mut mpsc::Receiver<Watch>) -> End {
        let (mut sink, messages) = match self.link.pubsub().await {
            Ok(pubsub) => pubsub.split(),
            Err(error) => return End::Broken(error),
        };
        if let Err(error) = self.resume(&mut sink).await {
            return End::Broken(error);
        }
        let mut messages = pin!(messages);
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked = 0u32;
        loop {
            let done = tokio::select! {
                message = next(&mut messages) => match message {
                    Some(message) => self.hear(&message).await,
                    None => Err(BusError::Unavailable("the connection was lost".into())),
                },
                watch = commands.recv() => match watch {
                    Some(watch) => self.take(watch, &mut sink).await,
                    None => return End::Closed,
                },
                _ = looks.tick() => {
                    looked = looked.wrapping_add(1);
                    let swept = match looked.is_multiple_of(SWEEP_LOOKS) {
                        true => self.sweep(&mut sink).await,
                        false => Ok(()),
                    };
                    self.look().await;
                    swept.and(answered(sink.ping::<redis::Value>()).await.map(drop))
                }
            };
            if let Err(error) = done {
                return End::Broken(error);
            }
        }
    }

    /// Subscribes again to all that is watched. What happened in between may
    /// have been missed.
    async fn resume(&mut self, sink: &mut PubSubSink) -> Result<(), BusError> {
        let users: Vec<_> = self.users.keys().cloned().collect();
        self.subscribe(&users, sink).await?;
        for watched in self.users.values() {
            for watcher in &watched.watchers {
                watcher.overflowed.store(true, Ordering::Release);
            }
        }
        self.learn(&users).await
    }

    async fn take(&mut self, watch: Watch, sink: &mut PubSubSink) -> Result<(), BusError> {
        let new = watch.users.iter();
        let new = new.filter(|user| !self.users.contains_key(*user)).cloned();
        let new: Vec<_> = new.collect();
        if self.users.len() + new.len() > WATCHED_MAX_USERS {
            let why = format!("more than {WATCHED_MAX_USERS} users watched");
            // Whoever asked may have gone, here and below.
            let _ = watch.done.send(Err(BusError::Unavailable(why)));
            return Ok(());
        }
        for user in &watch.users {
            let watched = self.users.entry(user.clone()).or_default();
            watched.watchers.push(watch.watcher.clone());
        }
        let heard = match self.subscribe(&new, sink).await {
            Ok(()) => self.learn(&new).await,
            Err(error) => Err(error),
        };
        let _ = watch.done.send(heard.clone());
        heard
    }

    async fn subscribe(&self, users: &[UserId], sink: &mut PubSubSink) -> Result<(), BusError> {
        for users in users.chunks(SUBSCRIBE_CHUNK) {
            let channels = users.iter().map(|user| self.routes.channel(user));
            let channels: Vec<_> = channels.collect();
            answered(sink.subscribe(channels)).await?;
        }
        Ok(())
    }

    /// Looks the users up. Whose watchers knew another state are told.
    async fn learn(&mut self, users: &[UserId]) -> Result<(), BusError> {
        for users in users.chunks(SUBSCRIBE_CHUNK) {
            let found = self.routes.of(users).await?;
            for (user, routes) in users.iter().zip(found) {
                let gateways = routes.iter().map(|route| route.connection.incarnation);
                self.set(user, gateways.collect()).await?;
            }
        }
        Ok(())
    }

    async fn hear(&mut self, message: &Msg) -> Result<(), BusError> {
        match self.routes.user_of(message.get_channel_name()) {
            Some(user) => {
                let gateways = decode_gateways(message.get_payload_bytes());
                self.set(&user, gateways).await
            }
            None => Ok(()),
        }
    }

    /// These are the gateways of the user's routes now.
    async fn set(&mut self, user: &UserId, gateways: Vec<Incarnation>) -> Result<(), BusError> {
        let Some(watched) = self.users.get_mut(user) else {
            return Ok(());
        };
        let lives = self.leases.judge(gateways.iter().copied()).await?;
        let now = Instant::now();
        let online = gateways.iter().any(|g| lives.is_alive(*g, now));
        watched.gateways = gateways;
        watched.turn(user, online);
        Ok(())
    }

    /// Looks whether gateways have died or come back.
    async fn look(&mut self) {
        // If Redis doesn't answer, nobody is known to have died.
        if let Ok(lives) = self.leases.refresh(Instant::now(), LOOK / 2).await {
            let now = Instant::now();
            for (user, watched) in &mut self.users {
                let mut gateways = watched.gateways.iter();
                let online = gateways.any(|gateway| lives.is_alive(*gateway, now));
                watched.turn(user, online);
            }
        }
    }

    async fn sweep(&mut self, sink: &mut PubSubSink) -> Result<(), BusError> {
        let mut gone = Vec::new();
        self.users.retain(|user, watched| {
            watched.watchers.retain(|w| !w.changes.is_closed());
            if watched.watchers.is_empty() {
                gone.push(self.routes.channel(user));
            }
            !watched.watchers.is_empty()
        });
        for channels in gone.chunks(SUBSCRIBE_CHUNK) {
            answered(sink.unsubscribe(channels.to_vec())).await?;
        }
        Ok(())
    }
}

// === impl Watched ===

impl Watched {
    /// Tells the watchers if this is another state. Who has no room learns that
    /// it missed something.
    fn turn(&mut self, user: &UserId, online: bool) {
        if self.online == online {
            return;
        }
        self.online = online;
        for watcher in &self.watchers {
            let user = user.clone();
            let sent = watcher.changes.try_send(PresenceChange { user, online });
            if matches!(sent, Err(mpsc::error::TrySendError::Full(_))) {
                watcher.overflowed.store(true, Ordering::Release);
            }
        }
    }
}

async fn next(messages: &mut (impl Stream<Item = Msg> + Unpin)) -> Option<Msg> {
    messages.next().await
}

/// The answer to something sent over the subscribed connection, in time.
async fn answered<T>(
    answer: impl Future<Output = Result<T, redis::RedisError>>,
) -> Result<T, BusError> {
    match timeout(ANSWER_TIMEOUT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(BusError::Unavailable(error.to_string())),
        Err(_) => Err(BusError::Unavailable("no answer in time".into())),
    }
}
