//! [`FaultyBus`]: a bus that does to its users what a remote engine may do.
//!
//! It wraps any [`Bus`] and, by a seeded [`FaultPlan`], loses answers, lets
//! batches appear late, is unreachable for a while, drops `down` entries, takes
//! leases away and hands entries out again. Everything it does is allowed by the
//! contract of the port, so whoever works on the bus must work on this one. For
//! tests and drills; the same seed gives the same faults to the same sequence of
//! calls, but not to tasks that race.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    BATCH_MAX_BYTES, BATCH_MAX_ENTRIES, Bus, BusEntry, BusError, EntryId, Lag, NodeName, ReadBatch,
    Reader, Stream,
};

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// An append is done and answers [`BusError::Unknown`].
    UnknownApplied,
    /// An append isn't done and answers [`BusError::Unknown`].
    UnknownLost,
    /// An append answers [`BusError::Unknown`] and is done later, after up to
    /// eight other appends to the same stream.
    UnknownLate,
    /// An append to a `down` stream answers `Ok` and its entries are gone.
    DownLoss,
    /// Every call answers [`BusError::Unavailable`], for a number of calls.
    Unavailable,
    /// A read answers [`BusError::Unavailable`]; the next one begins again with
    /// what the reader hasn't acknowledged.
    ReadFailure,
    /// An ack isn't done and answers [`BusError::Unavailable`]; the reader
    /// begins again as after a failed read.
    AckLost,
    /// As [`Fault::AckLost`], but the ack is done.
    AckApplied,
    /// A read or an ack answers [`BusError::LeaseLost`]; the lease is free for
    /// others, and the reader answers nothing else any more.
    LeaseLost,
    /// A read answers an empty batch with `reset`.
    Reset,
}

/// How often each fault strikes, in a thousand calls that it could strike.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FaultPlan {
    /// Begins the sequence of random numbers.
    pub seed: u64,
    /// [`Fault::UnknownApplied`], of appends.
    pub unknown_applied_per_1000: u16,
    /// [`Fault::UnknownLost`], of appends.
    pub unknown_lost_per_1000: u16,
    /// [`Fault::UnknownLate`], of appends.
    pub unknown_late_per_1000: u16,
    /// [`Fault::DownLoss`], of appends to `down` streams.
    pub down_loss_per_1000: u16,
    /// [`Fault::Unavailable`], of all calls: how often a spell begins.
    pub unavailable_per_1000: u16,
    /// Calls that fail in one spell, at most.
    pub spell_max_calls: u16,
    /// [`Fault::ReadFailure`], of reads.
    pub read_failure_per_1000: u16,
    /// [`Fault::AckLost`], of acks.
    pub ack_lost_per_1000: u16,
    /// [`Fault::AckApplied`], of acks.
    pub ack_applied_per_1000: u16,
    /// [`Fault::LeaseLost`], of reads and acks.
    pub lease_lost_per_1000: u16,
    /// [`Fault::Reset`], of reads.
    pub reset_per_1000: u16,
}

/// A bus with faults. Bounded by the bus inside; it holds at most
/// [`LATE_MAX_BATCHES`] late batches and a reader's unacknowledged entries itself.
pub struct FaultyBus {
    inner: Arc<dyn Bus>,
    dice: Arc<Mutex<Dice>>,
}

/// Late batches that are held back at a time; past it none is made late.
pub const LATE_MAX_BATCHES: usize = 64;

const LATE_MAX_APPENDS: u64 = 8;

#[derive(Debug)]
struct Dice {
    plan: FaultPlan,
    random: u64,
    forced: Vec<Fault>,
    spell_left_calls: u64,
    struck: HashMap<Fault, u64>,
    late: Vec<LateBatch>,
}

#[derive(Debug)]
struct LateBatch {
    stream: Stream,
    entries: Vec<Bytes>,
    appends_left: u64,
}

struct FaultyReader {
    stream: Stream,
    inner: Option<Box<dyn Reader>>,
    dice: Arc<Mutex<Dice>>,
    unacked: VecDeque<BusEntry>,
    /// Ids to hand out again before anything new is read.
    again: VecDeque<EntryId>,
}

// === impl FaultPlan ===

impl FaultPlan {
    /// Every fault that loses nothing for good, often enough to meet each of
    /// them within a thousand calls. [`Fault::DownLoss`] and [`Fault::Reset`] are left out.
    pub fn rough(seed: u64) -> Self {
        Self {
            seed,
            unknown_applied_per_1000: 50,
            unknown_lost_per_1000: 50,
            unknown_late_per_1000: 50,
            unavailable_per_1000: 10,
            spell_max_calls: 5,
            read_failure_per_1000: 30,
            ack_lost_per_1000: 30,
            ack_applied_per_1000: 30,
            lease_lost_per_1000: 20,
            ..Self::default()
        }
    }

    fn per_1000(&self, fault: Fault) -> u16 {
        match fault {
            Fault::UnknownApplied => self.unknown_applied_per_1000,
            Fault::UnknownLost => self.unknown_lost_per_1000,
            Fault::UnknownLate => self.unknown_late_per_1000,
            Fault::DownLoss => self.down_loss_per_1000,
            Fault::Unavailable => self.unavailable_per_1000,
            Fault::ReadFailure => self.read_failure_per_1000,
            Fault::AckLost => self.ack_lost_per_1000,
            Fault::AckApplied => self.ack_applied_per_1000,
            Fault::LeaseLost => self.lease_lost_per_1000,
            Fault::Reset => self.reset_per_1000,
        }
    }
}

// === impl FaultyBus ===

impl FaultyBus {
    /// Wraps a bus.
    pub fn new(inner: Arc<dyn Bus>, plan: FaultPlan) -> Arc<Self> {
        let dice = Dice {
            random: plan.seed,
            plan,
            forced: Vec::new(),
            spell_left_calls: 0,
            struck: HashMap::new(),
            late: Vec::new(),
        };
        Arc::new(Self {
            inner,
            dice: Arc::new(Mutex::new(dice)),
        })
    }

    /// No more faults, except those that [`FaultyBus::inject`] asks for; a
    /// spell ends. Late batches still appear.
    pub fn calm(&self) {
        let mut dice = self.dice.lock();
        dice.plan = FaultPlan::default();
        dice.spell_left_calls = 0;
    }

    /// Lets this fault strike once, at the next call that it can strike.
    pub fn inject(&self, fault: Fault) {
        self.dice.lock().forced.push(fault);
    }

    /// How often this fault has struck.
    pub fn struck(&self, fault: Fault) -> u64 {
        self.dice.lock().struck.get(&fault).copied().unwrap_or(0)
    }

    async fn append_late(&self, stream: &Stream) {
        let due = self.dice.lock().late_due(stream);
        for entries in due {
            // Whether it still finds its stream is its own affair.
            let _ = self.inner.append(stream, entries).await;
        }
    }
}

#[async_trait]
impl Bus for FaultyBus {
    async fn append(&self, stream: &Stream, entries: Vec<Bytes>) -> Result<(), BusError> {
        check_size(&entries)?;
        self.dice.lock().reach()?;
        self.append_late(stream).await;
        let fault = self.dice.lock().append_fault(stream, &entries);
        match fault {
            None => self.inner.append(stream, entries).await,
            Some(Fault::DownLoss) => Ok(()),
            Some(Fault::UnknownApplied) => {
                self.inner.append(stream, entries).await?;
                Err(unknown())
            }
            Some(_) => Err(unknown()),
        }
    }

    async fn own(&self, stream: &Stream, owner: &NodeName) -> Result<Box<dyn Reader>, BusError> {
        self.dice.lock().reach()?;
        let inner = self.inner.own(stream, owner).await?;
        Ok(Box::new(FaultyReader::new(stream, inner, &self.dice)))
    }

    async fn join(
        &self,
        stream: &Stream,
        consumer: &NodeName,
    ) -> Result<Box<dyn Reader>, BusError> {
        self.dice.lock().reach()?;
        let inner = self.inner.join(stream, consumer).await?;
        Ok(Box::new(FaultyReader::new(stream, inner, &self.dice)))
    }

    async fn lag(&self, stream: &Stream) -> Result<Lag, BusError> {
        self.dice.lock().reach()?;
        self.inner.lag(stream).await
    }

    async fn delete(&self, stream: &Stream) -> Result<(), BusError> {
        self.dice.lock().reach()?;
        self.inner.delete(stream).await
    }
}

// === impl Dice ===

impl Dice {
    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn roll(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn strikes(&mut self, fault: Fault) -> bool {
        let forced = self.forced.iter().position(|next| *next == fault);
        if let Some(at) = forced {
            self.forced.remove(at);
        } else if self.roll() % 1000 >= u64::from(self.plan.per_1000(fault)) {
            return false;
        }
        *self.struck.entry(fault).or_default() += 1;
        true
    }

    /// Whether the engine can be reached at all.
    fn reach(&mut self) -> Result<(), BusError> {
        if self.spell_left_calls > 0 {
            self.spell_left_calls -= 1;
            return Err(unavailable());
        }
        if self.strikes(Fault::Unavailable) {
            let span = u64::from(self.plan.spell_max_calls).max(1);
            self.spell_left_calls = self.roll() % span;
            return Err(unavailable());
        }
        Ok(())
    }

    fn append_fault(&mut self, stream: &Stream, entries: &[Bytes]) -> Option<Fault> {
        if !stream.blocks_producer() && self.strikes(Fault::DownLoss) {
            return Some(Fault::DownLoss);
        }
        if self.late.len() < LATE_MAX_BATCHES && self.strikes(Fault::UnknownLate) {
            let appends_left = 1 + self.roll() % LATE_MAX_APPENDS;
            self.late.push(LateBatch {
                stream: stream.clone(),
                entries: entries.to_vec(),
                appends_left,
            });
            return Some(Fault::UnknownLate);
        }
        [Fault::UnknownApplied, Fault::UnknownLost]
            .into_iter()
            .find(|fault| self.strikes(*fault))
    }

    /// Late batches whose time has come, now that there is another append.
    fn late_due(&mut self, stream: &Stream) -> Vec<Vec<Bytes>> {
        let mut due = Vec::new();
        self.late.retain_mut(|late| {
            if late.stream != *stream {
                return true;
            }
            late.appends_left = late.appends_left.saturating_sub(1);
            if late.appends_left > 0 {
                return true;
            }
            due.push(std::mem::take(&mut late.entries));
            false
        });
        due
    }
}

// === impl FaultyReader ===

impl FaultyReader {
    fn new(stream: &Stream, inner: Box<dyn Reader>, dice: &Arc<Mutex<Dice>>) -> Self {
        Self {
            stream: stream.clone(),
            inner: Some(inner),
            dice: Arc::clone(dice),
            unacked: VecDeque::new(),
            again: VecDeque::new(),
        }
    }

    fn lease_lost(&mut self) -> BusError {
        self.inner = None;
        BusError::LeaseLost(self.stream.to_string())
    }

    fn interrupted(&mut self) -> BusError {
        self.begin_again();
        unavailable()
    }

    fn handed_out_again(&mut self, max_entries: usize) -> Vec<BusEntry> {
        let mut entries = Vec::new();
        while entries.len() < max_entries.max(1)
            && let Some(id) = self.again.pop_front()
        {
            if let Some(entry) = self.unacked.iter_mut().find(|entry| entry.id == id) {
                entry.deliveries = entry.deliveries.saturating_add(1);
                entries.push(entry.clone());
            }
        }
        entries
    }

    /// What goes wrong with this read, if anything.
    fn read_fault(&self) -> Option<Fault> {
        let mut dice = self.dice.lock();
        if dice.reach().is_err() {
            return Some(Fault::ReadFailure);
        }
        [Fault::LeaseLost, Fault::ReadFailure, Fault::Reset]
            .into_iter()
            .find(|fault| dice.strikes(*fault))
    }

    fn ack_fault(&self) -> Option<Fault> {
        let mut dice = self.dice.lock();
        if dice.reach().is_err() {
            return Some(Fault::AckLost);
        }
        [Fault::LeaseLost, Fault::AckLost, Fault::AckApplied]
            .into_iter()
            .find(|fault| dice.strikes(*fault))
    }

    async fn ack_inside(&mut self, ids: &[EntryId]) -> Result<(), BusError> {
        let Some(inner) = &mut self.inner else {
            return Err(self.lease_lost());
        };
        inner.ack(ids).await?;
        let done: HashSet<_> = ids.iter().collect();
        self.unacked.retain(|entry| !done.contains(&entry.id));
        Ok(())
    }
}

#[async_trait]
impl Reader for FaultyReader {
    async fn read(&mut self, max_entries: usize) -> Result<ReadBatch, BusError> {
        if self.inner.is_none() {
            return Err(self.lease_lost());
        }
        match self.read_fault() {
            Some(Fault::LeaseLost) => return Err(self.lease_lost()),
            Some(Fault::Reset) => {
                return Ok(ReadBatch {
                    reset: true,
                    ..ReadBatch::default()
                });
            }
            Some(_) => return Err(self.interrupted()),
            None => {}
        }
        let entries = self.handed_out_again(max_entries);
        if !entries.is_empty() {
            return Ok(ReadBatch {
                entries,
                ..ReadBatch::default()
            });
        }
        let Some(inner) = &mut self.inner else {
            return Err(self.lease_lost());
        };
        let batch = inner.read(max_entries).await?;
        self.unacked.extend(batch.entries.iter().cloned());
        Ok(batch)
    }

    async fn ack(&mut self, ids: &[EntryId]) -> Result<(), BusError> {
        if self.inner.is_none() {
            return Err(self.lease_lost());
        }
        match self.ack_fault() {
            Some(Fault::LeaseLost) => Err(self.lease_lost()),
            Some(Fault::AckApplied) => {
                self.ack_inside(ids).await?;
                Err(self.interrupted())
            }
            Some(_) => Err(self.interrupted()),
            None => self.ack_inside(ids).await,
        }
    }

    fn begin_again(&mut self) {
        self.again = self.unacked.iter().map(|entry| entry.id).collect();
    }
}

/// Refused before any fault: otherwise a late batch could be over the bound.
fn check_size(entries: &[Bytes]) -> Result<(), BusError> {
    let bytes = entries.iter().map(Bytes::len).sum();
    if entries.len() > BATCH_MAX_ENTRIES || bytes > BATCH_MAX_BYTES {
        let entries = entries.len();
        return Err(BusError::TooLarge { entries, bytes });
    }
    Ok(())
}

fn unavailable() -> BusError {
    BusError::Unavailable("injected".into())
}

fn unknown() -> BusError {
    BusError::Unknown("injected".into())
}
