//! This gateway in the directory: its lease, and the routes of its channels.
//! Services bind at login; the gateway unbinds at the end, and says all binds
//! again in a slow sweep and whenever its lease had lapsed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sluice_bus::{Bind, BusError, Directory};
use sluice_protocol::{ConnectionId, DeviceId, Incarnation, UserId};
use tokio::{
    sync::{Notify, Semaphore, mpsc, oneshot},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::DirectoryConfig,
    mailbox::{Mail, Mailbox},
};

/// The loops' way to say that a connection is over. Never waits.
#[derive(Debug, Clone)]
pub(crate) struct Unbinder {
    queue: mpsc::Sender<Ended>,
}

/// A connection that is over.
#[derive(Debug)]
pub(crate) struct Ended {
    user: UserId,
    /// `None`: whichever has this connection.
    device: Option<DeviceId>,
    connection: ConnectionId,
}

/// Keeps lease and routes alive.
pub(crate) struct Registration {
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) incarnation: Incarnation,
    pub(crate) loops: Vec<Mailbox>,
    pub(crate) config: DirectoryConfig,
    pub(crate) shutdown: CancellationToken,
}

/// What the renewals tell the sweeps.
#[derive(Default)]
struct Due {
    sweep: Notify,
    /// Pushes may have missed this gateway.
    missed: AtomicBool,
}

const UNBINDS_AT_ONCE: usize = 32;
const UNBIND_TRIES: u32 = 5;
const UNBIND_RETRY_MS: u64 = 200;
const REASSERT_CHUNK: usize = 512;

// === impl Unbinder ===

impl Unbinder {
    pub(crate) fn new(queue_max: usize) -> (Self, mpsc::Receiver<Ended>) {
        let (queue, receiver) = mpsc::channel(queue_max.max(1));
        (Self { queue }, receiver)
    }

    /// False when too many wait already.
    pub(crate) fn unbind(&self, user: UserId, device: DeviceId, connection: ConnectionId) -> bool {
        let ended = Ended {
            user,
            device: Some(device),
            connection,
        };
        self.queue.try_send(ended).is_ok()
    }

    /// Of a connection that was over and is bound all the same. Left for another
    /// time while others wait: it costs a look-up, and may be on its way already.
    pub(crate) fn unbind_stale(&self, user: UserId, connection: ConnectionId) {
        if self.is_idle() {
            let ended = Ended {
                user,
                device: None,
                connection,
            };
            // Whoever reaches for it again says so again.
            let _ = self.queue.try_send(ended);
        }
    }

    /// True when nothing waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.capacity() == self.queue.max_capacity()
    }
}

/// Works off the queue of [`Unbinder`], a bounded number at once.
pub(crate) async fn unbind_all(
    directory: Arc<dyn Directory>,
    mut queue: mpsc::Receiver<Ended>,
    shutdown: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(UNBINDS_AT_ONCE));
    while let Some(Some(ended)) = shutdown.run_until_cancelled(queue.recv()).await {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let directory = Arc::clone(&directory);
        tokio::spawn(async move {
            unbind(directory.as_ref(), &ended).await;
            drop(permit);
        });
    }
    // Those under way are bounded in tries, so this ends.
    let _ = permits.acquire_many(UNBINDS_AT_ONCE as u32).await;
}

async fn unbind(directory: &dyn Directory, ended: &Ended) {
    for attempt in 1..=UNBIND_TRIES {
        match unbind_once(directory, ended).await {
            Ok(()) => return,
            Err(error) if attempt == UNBIND_TRIES => {
                tracing::warn!(connection = %ended.connection, %error, "unbind given up");
            }
            Err(_) => {
                let wait_ms = UNBIND_RETRY_MS << attempt;
                tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            }
        }
    }
}

async fn unbind_once(directory: &dyn Directory, ended: &Ended) -> Result<(), BusError> {
    let Ended {
        user,
        device,
        connection,
    } = ended;
    let device = match device {
        Some(device) => device.clone(),
        None => {
            let routes = directory.lookup(std::slice::from_ref(user)).await?;
            let mut routes = routes.into_iter().flatten();
            let Some(stale) = routes.find(|route| route.connection == *connection) else {
                return Ok(());
            };
            stale.device
        }
    };
    directory.unbind(user, &device, *connection).await?;
    Ok(())
}

// === impl Registration ===

impl Registration {
    /// Takes the lease. To be done before anybody may log in.
    pub(crate) async fn register(&self) -> Result<(), BusError> {
        match self.directory.lease(self.incarnation, self.ttl()).await {
            Err(BusError::LeaseLost(_)) => self.directory.lease(self.incarnation, self.ttl()).await,
            other => other,
        }
    }

    /// Renews the lease and says the binds again, until shutdown. Side by side:
    /// with a slow directory a sweep may take longer than the lease lasts.
    pub(crate) async fn run(self) {
        let due = Due::default();
        tokio::join!(self.renew(&due), self.sweep(&due));
    }

    async fn renew(&self, due: &Due) {
        let mut renew = tokio::time::interval(self.ttl() / 3);
        renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut was_away = false;
        while self.next(renew.tick()).await.is_some() {
            let renewed = self.directory.lease(self.incarnation, self.ttl());
            match self.next(renewed).await {
                None => return,
                Some(Ok(())) if was_away => {
                    // It may have come back without the last binds.
                    was_away = false;
                    due.sweep.notify_one();
                }
                Some(Ok(())) => {}
                Some(Err(BusError::LeaseLost(_))) => {
                    tracing::warn!("the gateway's lease had lapsed; its binds are said again");
                    was_away = false;
                    due.missed.store(true, Ordering::Release);
                    due.sweep.notify_one();
                }
                Some(Err(error @ BusError::Taken(_))) => {
                    tracing::error!(%error, "this gateway ends: another has its id");
                    self.shutdown.cancel();
                }
                Some(Err(error)) => {
                    was_away = true;
                    tracing::warn!(%error, "the gateway's lease was not renewed");
                }
            }
        }
    }

    /// Says the binds again each while, and when it is due; soon again if that failed.
    async fn sweep(&self, due: &Due) {
        let interval = Duration::from_millis(self.config.reassert_interval_ms.max(1));
        let mut pause = interval;
        loop {
            let wait = tokio::time::timeout(pause, due.sweep.notified());
            if self.next(wait).await.is_none() {
                return;
            }
            let Some(swept) = self.next(self.reassert()).await else {
                return;
            };
            if let Err(error) = swept {
                tracing::warn!(%error, "binds could not be said again");
                pause = interval.min(self.ttl() / 3);
                continue;
            }
            pause = interval;
            // While the lease had lapsed nobody found the channels.
            if due.missed.swap(false, Ordering::AcqRel) {
                self.resync().await;
            }
        }
    }

    /// What the future says, unless the gateway ends before.
    async fn next<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.shutdown.run_until_cancelled(future).await
    }

    async fn reassert(&self) -> Result<(), BusError> {
        let mut failed = None;
        for mailbox in &self.loops {
            if let Err(error) = self.reassert_loop(mailbox).await {
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn reassert_loop(&self, mailbox: &Mailbox) -> Result<(), BusError> {
        let mut from_slot = Some(0);
        while let Some(slot) = from_slot {
            let (answer, page) = oneshot::channel();
            mailbox.send(Mail::Binds(slot, answer)).await;
            // A loop that has ended has no channels.
            let Ok(page) = page.await else { break };
            from_slot = page.next_slot;
            for chunk in page.items.chunks(REASSERT_CHUNK) {
                self.reassert_chunk(mailbox, chunk.to_vec()).await?;
            }
        }
        Ok(())
    }

    async fn resync(&self) {
        for mailbox in &self.loops {
            mailbox.send(Mail::Resync).await;
        }
    }

    async fn reassert_chunk(&self, mailbox: &Mailbox, binds: Vec<Bind>) -> Result<(), BusError> {
        let displaced = self.directory.reassert(binds.clone()).await?;
        mailbox.send(Mail::Reasserted(binds)).await;
        if !displaced.is_empty() {
            mailbox.send(Mail::Displaced(displaced)).await;
        }
        Ok(())
    }

    fn ttl(&self) -> Duration {
        Duration::from_millis(self.config.lease_ttl_ms.max(3))
    }
}
