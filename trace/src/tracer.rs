//! The handle that stages report to.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use sluice_protocol::{ClientMsgId, ConnectionId, ConversationId, Seq, UserId};

use crate::{
    report::Report,
    stage::{PushStage, Stage},
    table::Table,
    watch::{Order, Watch, is_sampled},
};

/// See the crate. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub struct Tracer {
    shared: Arc<Shared>,
}

/// A message that is followed in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId(NonZeroU32);

/// A message that a stage has before it.
#[derive(Debug, Clone, Copy)]
pub struct Sighting<'a> {
    /// Who sends it.
    pub sender: &'a UserId,
    /// The sender's name for it.
    pub message: ClientMsgId,
    /// That it came by, if the stage knows.
    pub connection: Option<ConnectionId>,
    /// It has just come from its sender: here it is counted if there is no room for it.
    pub is_fresh: bool,
}

#[derive(Debug)]
struct Shared {
    is_armed: AtomicBool,
    /// Of a sample: most messages are turned away without the lock. 1: ask the table.
    one_in: AtomicU32,
    origin: Instant,
    table: Mutex<Table>,
}

// === impl Tracer ===

impl Default for Tracer {
    fn default() -> Self {
        Self::new()
    }
}

impl Tracer {
    /// One that is off.
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                is_armed: AtomicBool::new(false),
                one_in: AtomicU32::new(1),
                origin: Instant::now(),
                table: Mutex::new(Table::new()),
            }),
        }
    }

    /// Whether anything is asked for: a relaxed load. Nothing else is to be asked of a
    /// tracer where this is false.
    #[inline]
    pub fn is_armed(&self) -> bool {
        self.shared.is_armed.load(Ordering::Relaxed)
    }

    /// The tracer's clock, in microseconds.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.shared.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Follows what the order asks for, from now on; what was kept before is forgotten.
    pub fn arm(&self, order: Order) {
        let one_in = match order.watch {
            Watch::OneIn(one_in) => one_in,
            Watch::User(_) | Watch::Connection(_) => 1,
        };
        let mut table = self.shared.table.lock();
        table.begin(Some(order), self.now_us(), unix_us());
        self.shared.one_in.store(one_in, Ordering::Relaxed);
        self.shared.is_armed.store(true, Ordering::Relaxed);
    }

    /// Follows nothing any more, and forgets what it has.
    pub fn forget(&self) {
        let mut table = self.shared.table.lock();
        self.shared.is_armed.store(false, Ordering::Relaxed);
        table.begin(None, self.now_us(), unix_us());
    }

    /// The message, if it is followed; a wanted one is from now on. Switches the tracer
    /// off once its time is over.
    pub fn find(&self, sighting: &Sighting<'_>) -> Option<TraceId> {
        if !self.is_armed()
            || !is_sampled(sighting.message, self.shared.one_in.load(Ordering::Relaxed))
        {
            return None;
        }
        let now_us = self.now_us();
        let mut table = self.shared.table.lock();
        if table.is_over(now_us) {
            self.shared.is_armed.store(false, Ordering::Relaxed);
            return None;
        }
        let number = table.number(sighting, now_us)?;
        NonZeroU32::new(number).map(TraceId)
    }

    /// It has come to this stage, now.
    pub fn mark(&self, message: TraceId, stage: Stage) {
        self.mark_at(message, stage, self.now_us());
    }

    /// It came to this stage then, by [`Tracer::now_us`].
    pub fn mark_at(&self, message: TraceId, stage: Stage, at_us: u64) {
        if let Some(timeline) = self.shared.table.lock().timeline(message.0.get()) {
            timeline.mark(stage, at_us);
        }
    }

    /// It has been stored here.
    pub fn stored(&self, message: TraceId, conversation: &ConversationId, seq: Seq) {
        if let Some(timeline) = self.shared.table.lock().timeline(message.0.get()) {
            timeline.stored(conversation, seq);
        }
    }

    /// It has come so far on its way to this connection, now. Whether that one is among
    /// those that are followed.
    pub fn mark_push(&self, message: TraceId, connection: ConnectionId, stage: PushStage) -> bool {
        let at_us = self.now_us();
        let mut table = self.shared.table.lock();
        let timeline = table.timeline(message.0.get());
        timeline.is_some_and(|it| it.mark_push(connection, stage, at_us))
    }

    /// Switches it off if its time is over; to be called when it is, for those that see
    /// no message any more.
    pub fn expire(&self) {
        let table = self.shared.table.lock();
        if table.is_over(self.now_us()) {
            self.shared.is_armed.store(false, Ordering::Relaxed);
        }
    }

    /// What has been seen since the tracer was armed. It stays until the next order, or
    /// until it is [forgotten](Tracer::forget).
    pub fn report(&self) -> Report {
        let now_us = self.now_us();
        let table = self.shared.table.lock();
        if table.is_over(now_us) {
            self.shared.is_armed.store(false, Ordering::Relaxed);
        }
        table.report(now_us)
    }
}

/// The machine's clock, 0 before 1970.
fn unix_us() -> u64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH);
    unix.map_or(0, |span| u64::try_from(span.as_micros()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_protocol::Incarnation;

    fn message(number: u8) -> ClientMsgId {
        ClientMsgId::new(1_790_000_000_000, [number; 10])
    }

    fn connection(slot: u32) -> ConnectionId {
        ConnectionId {
            incarnation: Incarnation(7),
            event_loop: 0,
            slot,
            generation: 0,
        }
    }

    fn find(tracer: &Tracer, sender: &str, number: u8, slot: u32) -> Option<TraceId> {
        tracer.find(&Sighting {
            sender: &UserId::parse(sender).unwrap(),
            message: message(number),
            connection: Some(connection(slot)),
            is_fresh: true,
        })
    }

    fn order(watch: Watch, messages_max: usize) -> Order {
        Order {
            watch,
            for_s: 10,
            messages_max,
        }
    }

    #[test]
    fn what_is_off_keeps_nothing() {
        let tracer = Tracer::new();
        assert!(!tracer.is_armed());
        assert_eq!(find(&tracer, "alice", 1, 1), None);
        tracer.arm(order(Watch::OneIn(1), 10));
        let id = find(&tracer, "alice", 1, 1).unwrap();
        tracer.forget();
        assert!(!tracer.is_armed());
        tracer.mark(id, Stage::Read);
        assert_eq!(find(&tracer, "alice", 1, 1), None);
        let report = tracer.report();
        assert!(!report.armed && report.order.is_none() && report.messages.is_empty());
    }

    #[test]
    fn the_wanted_are_followed_up_to_the_bound() {
        let tracer = Tracer::new();
        tracer.arm(order(Watch::User(UserId::parse("alice").unwrap()), 2));
        assert_eq!(find(&tracer, "bob", 1, 1), None);
        let first = find(&tracer, "alice", 1, 1).unwrap();
        let second = find(&tracer, "alice", 2, 1).unwrap();
        assert_ne!(first, second);
        assert_eq!(find(&tracer, "alice", 1, 9), Some(first));
        assert_eq!(find(&tracer, "alice", 3, 1), None);
        assert_eq!(tracer.report().messages_over, 1);

        // Numbers of a former order name nothing.
        tracer.arm(order(Watch::Connection(connection(5)), 2));
        tracer.mark(first, Stage::Read);
        assert_eq!(find(&tracer, "alice", 4, 1), None);
        let third = find(&tracer, "bob", 4, 5).unwrap();
        assert!(third != first && third != second);
        assert_eq!(tracer.report().messages.len(), 1);
    }

    #[test]
    fn a_report_tells_stages_from_the_first_and_the_first_time_only() {
        let tracer = Tracer::new();
        tracer.arm(order(Watch::OneIn(1), 2));
        let id = find(&tracer, "alice", 1, 1).unwrap();
        tracer.mark_at(id, Stage::Read, 0);
        tracer.mark_at(id, Stage::Commit, 2_500);
        tracer.mark_at(id, Stage::Commit, 9_000);
        tracer.stored(id, &ConversationId::parse("g:5").unwrap(), Seq(3));
        for slot in 0..20 {
            tracer.mark_push(id, connection(slot), PushStage::Push);
            tracer.mark_push(id, connection(slot), PushStage::Ack);
        }
        let told = serde_json::to_value(tracer.report()).unwrap();
        let row = &told["messages"][0];
        assert_eq!(
            row["stages"],
            serde_json::json!({"read": 0, "commit": 2_500})
        );
        assert_eq!(
            (&row["conversation"], &row["seq"]),
            (&"g:5".into(), &3.into())
        );
        assert_eq!(row["pushes"].as_array().unwrap().len(), 8);
        assert_eq!(row["pushes_over"], 12);
        assert!(row["pushes"][0]["push_ack"].is_u64(), "{row}");
    }
}
