//! What the actors of a run share: the oracle, how far each strand has come,
//! and how long things took.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use sluice_client::{Content, Entry};
use sluice_protocol::{ClientMsgId, ConversationId, Seq};
use tokio::sync::watch;

use super::{
    oracle::{DeviceIndex, DeviceKind, Oracle, Seen, SeenMessage, Verdict},
    plan::{MessageIndex, Plan, UserIndex},
};

/// Longest span that a histogram holds, in microseconds.
const LONGEST_US: u64 = 600_000_000;

/// Shared by all actors of a run.
pub struct Board {
    /// What is to be done.
    pub plan: Arc<Plan>,
    started: Instant,
    book: Mutex<Book>,
    messages: Vec<Progress>,
    strands: Vec<Strand>,
    totals: Totals,
}

/// Under one lock, since each sighting touches most of it.
struct Book {
    oracle: Oracle,
    /// Seen before their sender had noted the id.
    early: HashMap<ClientMsgId, Vec<Arrival>>,
    latency_us: Histogram<u64>,
    ack_us: Histogram<u64>,
}

#[derive(Default)]
struct Progress {
    /// Microseconds from the start of the run to the call of send.
    sent_us: AtomicU64,
    acked: AtomicBool,
}

struct Strand {
    /// Rises with each ack and each arrival in the strand.
    changed: watch::Sender<u64>,
    /// Sent but not acked.
    unacked: AtomicUsize,
    /// A send was refused: what follows can't be replayed.
    broken: AtomicBool,
    /// Per user of the strand: messages up to here have arrived.
    arrived: Mutex<HashMap<UserIndex, MessageIndex>>,
}

/// Counts for the progress display.
#[derive(Default)]
struct Totals {
    acked: AtomicU64,
    arrived: AtomicU64,
    reconnects: AtomicU64,
    cuts: AtomicU64,
}

#[derive(Clone, Copy)]
struct Arrival {
    user: UserIndex,
    at: Instant,
    /// Since when the device has been connected without a break.
    online_since: Option<Instant>,
}

/// How far the run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Sends acked.
    pub acked: u64,
    /// (message, user) pairs at first devices.
    pub arrived: u64,
    /// Connections made after a device's first.
    pub reconnects: u64,
    /// Users cut off with a send under way.
    pub cuts: u64,
}

/// How long things took, in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latencies {
    /// Send call to application of an online receiver.
    pub p50_ms: f64,
    /// Likewise.
    pub p99_ms: f64,
    /// Likewise.
    pub p999_ms: f64,
    /// Likewise.
    pub max_ms: f64,
    /// Send call to ack.
    pub ack_p50_ms: f64,
    /// Likewise.
    pub ack_p99_ms: f64,
}

// === impl Board ===

impl Board {
    /// A board for a plan; the clock starts now.
    pub fn new(plan: Arc<Plan>) -> anyhow::Result<Self> {
        let strand = |_: &_| Strand {
            changed: watch::Sender::new(0),
            unacked: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
            arrived: Mutex::new(HashMap::new()),
        };
        Ok(Self {
            started: Instant::now(),
            book: Mutex::new(Book {
                oracle: Oracle::new(Arc::clone(&plan)),
                early: HashMap::new(),
                latency_us: Histogram::new_with_max(LONGEST_US, 3)?,
                ack_us: Histogram::new_with_max(LONGEST_US, 3)?,
            }),
            messages: plan.messages.iter().map(|_| Progress::default()).collect(),
            strands: plan.strands.iter().map(strand).collect(),
            totals: Totals::default(),
            plan,
        })
    }

    /// A device takes part.
    pub fn add_device(&self, user: UserIndex, kind: DeviceKind) -> DeviceIndex {
        self.book.lock().oracle.add_device(user, kind)
    }

    /// The send of a message is about to be called.
    pub fn sending(&self, message: MessageIndex) {
        let since = self.started.elapsed().as_micros() as u64;
        self.messages[message]
            .sent_us
            .store(since, Ordering::Relaxed);
        self.strand_of(message)
            .unacked
            .fetch_add(1, Ordering::Relaxed);
    }

    /// The client has taken it under this id.
    pub fn sent(&self, message: MessageIndex, id: ClientMsgId) {
        let mut book = self.book.lock();
        book.oracle.sent(message, id);
        for arrival in book.early.remove(&id).unwrap_or_default() {
            self.arrived(&mut book, message, arrival);
        }
    }

    /// The send was refused for good.
    pub fn refused(&self, message: MessageIndex) {
        let strand = self.strand_of(message);
        strand.broken.store(true, Ordering::Relaxed);
        strand.changed.send_modify(|count| *count += 1);
    }

    /// The send's ack has come (or the own entry, which says the same).
    pub fn acked(&self, message: MessageIndex, conversation: ConversationId, seq: Seq) {
        if self.messages[message].acked.swap(true, Ordering::Relaxed) {
            return;
        }
        let took = self.since_sent(message, Instant::now());
        {
            let mut book = self.book.lock();
            book.oracle.acked(message, conversation, seq);
            book.ack_us.saturating_record(took.as_micros() as u64);
        }
        self.totals.acked.fetch_add(1, Ordering::Relaxed);
        let strand = self.strand_of(message);
        strand.unacked.fetch_sub(1, Ordering::Relaxed);
        strand.changed.send_modify(|count| *count += 1);
    }

    /// A device's application was handed an entry.
    pub fn entry(
        &self,
        device: DeviceIndex,
        kind: DeviceKind,
        user: UserIndex,
        entry: &Entry,
        own: bool,
        online_since: Option<Instant>,
    ) {
        let at = Instant::now();
        let message = match (&entry.content, entry.client_msg_id) {
            (Content::Message { body, .. }, Some(id)) => Some(SeenMessage {
                id,
                sender: entry.sender.clone(),
                body: body.clone(),
            }),
            _ => None,
        };
        let id = message.as_ref().map(|message| message.id);
        let mut book = self.book.lock();
        let seen = Seen {
            conversation: entry.conversation.clone(),
            seq: entry.seq,
            message,
        };
        book.oracle.seen(device, seen);
        let Some(id) = id.filter(|_| kind == DeviceKind::First) else {
            return;
        };
        match (book.oracle.message_of(&id), own) {
            (Some(message), true) => {
                drop(book);
                self.acked(message, entry.conversation.clone(), entry.seq);
            }
            (Some(message), false) => {
                self.arrived(
                    &mut book,
                    message,
                    Arrival {
                        user,
                        at,
                        online_since,
                    },
                );
            }
            // The own entry follows the ack, and the ack follows the note of the id.
            (None, true) => {}
            (None, false) => {
                book.early.entry(id).or_default().push(Arrival {
                    user,
                    at,
                    online_since,
                });
            }
        }
    }

    /// Waits until `user` has received `message`, or the strand is broken.
    pub async fn wait_arrived(&self, user: UserIndex, message: MessageIndex) -> bool {
        let strand = self.strand_of(message);
        let there = || {
            strand
                .arrived
                .lock()
                .get(&user)
                .is_some_and(|up_to| *up_to >= message)
        };
        let mut changes = strand.changed.subscribe();
        let broken = || strand.broken.load(Ordering::Relaxed);
        // The sender of the value lives as long as the board.
        let _ = changes.wait_for(|_| there() || broken()).await;
        !broken()
    }

    /// Waits until fewer than `window` sends of a strand are unacked.
    pub async fn wait_window(&self, message: MessageIndex, window: usize) -> bool {
        let strand = self.strand_of(message);
        let mut changes = strand.changed.subscribe();
        let broken = || strand.broken.load(Ordering::Relaxed);
        let room = || strand.unacked.load(Ordering::Relaxed) < window;
        let _ = changes.wait_for(|_| room() || broken()).await;
        !broken()
    }

    /// Whether a message's ack has come.
    pub fn is_acked(&self, message: MessageIndex) -> bool {
        self.messages[message].acked.load(Ordering::Relaxed)
    }

    /// A device has connected again.
    pub fn count_reconnect(&self) {
        self.totals.reconnects.fetch_add(1, Ordering::Relaxed);
    }

    /// A user was cut off.
    pub fn count_cut(&self) {
        self.totals.cuts.fetch_add(1, Ordering::Relaxed);
    }

    /// How far the run has come.
    pub fn counts(&self) -> Counts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            acked: load(&self.totals.acked),
            arrived: load(&self.totals.arrived),
            reconnects: load(&self.totals.reconnects),
            cuts: load(&self.totals.cuts),
        }
    }

    /// Pairs (message, user) that must arrive.
    pub fn expected(&self) -> u64 {
        self.plan
            .messages
            .iter()
            .map(|message| message.recipients.len() as u64)
            .sum()
    }

    /// How long things took so far.
    pub fn latencies(&self) -> Latencies {
        let book = self.book.lock();
        let ms = |histogram: &Histogram<u64>, quantile: f64| {
            histogram.value_at_quantile(quantile) as f64 / 1000.0
        };
        Latencies {
            p50_ms: ms(&book.latency_us, 0.5),
            p99_ms: ms(&book.latency_us, 0.99),
            p999_ms: ms(&book.latency_us, 0.999),
            max_ms: book.latency_us.max() as f64 / 1000.0,
            ack_p50_ms: ms(&book.ack_us, 0.5),
            ack_p99_ms: ms(&book.ack_us, 0.99),
        }
    }

    /// The oracle's word.
    pub fn verdict(&self) -> Verdict {
        self.book.lock().oracle.verdict()
    }

    fn arrived(&self, book: &mut Book, message: MessageIndex, arrival: Arrival) {
        self.totals.arrived.fetch_add(1, Ordering::Relaxed);
        let took = self.since_sent(message, arrival.at);
        // Who was away when it was sent would measure the absence.
        let was_online = arrival
            .online_since
            .is_some_and(|since| arrival.at - since >= took);
        if was_online {
            book.latency_us.saturating_record(took.as_micros() as u64);
        }
        let strand = self.strand_of(message);
        {
            let mut arrived = strand.arrived.lock();
            let up_to = arrived.entry(arrival.user).or_insert(message);
            *up_to = message.max(*up_to);
        }
        strand.changed.send_modify(|count| *count += 1);
    }

    fn since_sent(&self, message: MessageIndex, at: Instant) -> Duration {
        let sent = self.messages[message].sent_us.load(Ordering::Relaxed);
        (at - self.started).saturating_sub(Duration::from_micros(sent))
    }

    fn strand_of(&self, message: MessageIndex) -> &Strand {
        &self.strands[self.plan.messages[message].strand]
    }
}
