//! The connections of one loop: awake while something is under way, asleep in
//! between.
//!
//! Most sessions of a messenger say nothing most of the time. Such a one sleeps:
//! all that it is lies packed in the [`Dormitory`], in some hundred bytes (two hundred
//! with the keys of a session over UDP), and its slot says where; a stream's socket
//! lies in the slot. Whoever reaches for it (what its client sends, mail, its timer)
//! wakes it: [`Connections::get_mut`] unpacks it, and at the end of the turn
//! [`Connections::rest`] packs it again as soon as nothing is under way. Who stays
//! awake has something that will touch it again: a packet, an answer or its timer.
//!
//! Which state is packed, and when it may be, says each noun itself (`pack` in
//! `channel/packed.rs` and in the codec).
//!
//! Cost: waking and resting take half a microsecond and some five allocations. A
//! session in which messages pass stays awake (its state lingers for a second, see
//! [`Connection::lingers_until_ms`] for streams), and allocates nothing here. Keys are
//! overwritten where it lay.

use std::sync::Arc;

use mio::net::TcpStream;
use sluice_codec::datagram;
use zeroize::Zeroize;

use crate::{
    channel::Channel,
    connection::Connection,
    dormitory::{Bed, CELL_MAX_BYTES, Dormitory},
    ledger::{Costs, Ledger, SocketBuffers},
    mailbox::{PAGE_MAX, Page},
    slab::{ChannelKey, Slab},
    transport::TransportKind,
    workbench::Workbench,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Connections {
    slab: Slab<Seat>,
    dormitory: Dormitory,
    /// Who was reached for in this turn.
    touched: Vec<ChannelKey>,
    datagram_config: Arc<datagram::Config>,
    /// Where a connection is packed before it gets a bed of its size.
    packing: Vec<u8>,
}

/// What a slot holds.
#[derive(Debug)]
enum Seat {
    Awake(Box<Connection>),
    Asleep(Sleeper),
}

/// What is left of a connection that sleeps.
#[derive(Debug)]
struct Sleeper {
    bed: Bed,
    /// None over UDP.
    socket: Option<TcpStream>,
}

/// A connection that is only looked at.
#[derive(Debug)]
pub(crate) enum Sight<'a> {
    Awake(&'a Connection),
    Asleep(ChannelKey, &'a [u8], Option<&'a TcpStream>),
}

/// What [`Connections::packing`] holds without growing: keys in it are overwritten,
/// in a buffer that was left behind they would not be.
const PACKED_MAX_BYTES: usize = CELL_MAX_BYTES;

// === impl Connections ===

impl Connections {
    /// Memory of one slot.
    pub(crate) const SLOT_BYTES: usize = Slab::<Seat>::SLOT_BYTES;

    pub(crate) fn new(capacity: u32, datagram_config: Arc<datagram::Config>) -> Self {
        Self {
            slab: Slab::new(capacity),
            dormitory: Dormitory::new(),
            touched: Vec::new(),
            datagram_config,
            packing: Vec::with_capacity(PACKED_MAX_BYTES),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Heap that is mapped for sleepers, and in which nobody sleeps.
    #[cfg(test)]
    pub(crate) fn vacant_bytes(&self) -> usize {
        self.dormitory.vacant_bytes()
    }

    /// True when nobody more can be taken in.
    pub(crate) fn is_full(&self) -> bool {
        self.slab.is_full()
    }

    /// Takes in what `make` makes of its key; `None` when all slots are taken.
    pub(crate) fn insert_with(
        &mut self,
        make: impl FnOnce(ChannelKey) -> Connection,
    ) -> Option<ChannelKey> {
        let seat = |key| Seat::Awake(Box::new(make(key)));
        self.slab.insert_with(seat)
    }

    /// The connection, awake until the end of this turn at least.
    pub(crate) fn get_mut(&mut self, key: ChannelKey) -> Option<&mut Connection> {
        let seat = self.slab.get_mut(key)?;
        if let Seat::Asleep(sleeper) = seat {
            let woken = sleeper.wake(key, &mut self.dormitory, &self.datagram_config);
            *seat = Seat::Awake(Box::new(woken?));
        }
        let Seat::Awake(connection) = seat else {
            return None;
        };
        if !connection.is_touched {
            connection.is_touched = true;
            self.touched.push(key);
        }
        Some(connection)
    }

    pub(crate) fn remove(&mut self, key: ChannelKey) -> Option<Connection> {
        match self.slab.remove(key)? {
            Seat::Awake(connection) => Some(*connection),
            Seat::Asleep(mut sleeper) => {
                sleeper.wake(key, &mut self.dormitory, &self.datagram_config)
            }
        }
    }

    /// Some of them, from this slot on, and the slot behind them, if there are more.
    pub(crate) fn keys(&self, from_slot: u32, max: usize) -> (Vec<ChannelKey>, Option<u32>) {
        let mut keys = self.slab.iter_from(from_slot).map(|(key, _)| key);
        let some = keys.by_ref().take(max).collect();
        (some, keys.next().map(|key| key.slot))
    }

    /// Of whom the slot holds, if anybody.
    pub(crate) fn key_at(&self, slot: u32) -> Option<ChannelKey> {
        self.slab.key_at(slot)
    }

    /// All of them, to be looked at: nobody is woken by it.
    pub(crate) fn sights(&self) -> impl Iterator<Item = (ChannelKey, Sight<'_>)> {
        let seats = self.slab.iter();
        seats.map(|(key, seat)| (key, seat.sight(key, &self.dormitory)))
    }

    /// What `look` finds of some of them, from this slot on; nobody is woken by it.
    pub(crate) fn page<T>(&self, from_slot: u32, look: impl Fn(&Channel) -> Option<T>) -> Page<T> {
        let mut seats = self.slab.iter_from(from_slot).peekable();
        let some = seats.by_ref().take(PAGE_MAX);
        let items = some.filter_map(|(key, seat)| seat.sight(key, &self.dormitory).channel(&look));
        Page {
            items: items.collect(),
            next_slot: seats.peek().map(|(key, _)| key.slot),
        }
    }

    /// What some of them cost together, from this slot on, and the slot behind them.
    pub(crate) fn costs(&self, from_slot: u32) -> (Costs, Option<u32>) {
        let mut seats = self.slab.iter_from(from_slot).peekable();
        let mut costs = Costs::default();
        for (key, seat) in seats.by_ref().take(PAGE_MAX) {
            let sight = seat.sight(key, &self.dormitory);
            costs.ledger += sight.memory();
            costs.asleep += usize::from(sight.is_asleep());
        }
        (costs, seats.peek().map(|(key, _)| key.slot))
    }

    /// One of them, to be looked at.
    pub(crate) fn sight(&self, key: ChannelKey) -> Option<Sight<'_>> {
        let seat = self.slab.get(key)?;
        Some(seat.sight(key, &self.dormitory))
    }

    /// True if it sleeps.
    pub(crate) fn is_asleep(&self, key: ChannelKey) -> bool {
        matches!(self.slab.get(key), Some(Seat::Asleep(_)))
    }

    /// The turn is over: who was touched in it and has nothing under way sleeps.
    pub(crate) fn rest(&mut self, bench: &mut Workbench) {
        let now_ms = bench.now.mono_ms;
        for key in self.touched.drain(..) {
            let Some(seat) = self.slab.get_mut(key) else {
                continue;
            };
            let Seat::Awake(connection) = seat else {
                continue;
            };
            connection.is_touched = false;
            if let Some(until_ms) = connection.lingers_until_ms(now_ms) {
                connection.channel.arm(bench, until_ms);
            } else if connection.pack(now_ms, &mut self.packing) {
                // Who needs more room than there is stays awake.
                if let Some(bed) = self.dormitory.lay(&self.packing) {
                    seat.lay_down(bed);
                }
                self.packing.as_mut_slice().zeroize();
            }
            self.packing.clear();
        }
    }
}

// === impl Sleeper ===

impl Sleeper {
    /// The connection again; its bed is free. It has always been packed by
    /// [`Connections::rest`], so that none can be had only by a fault of ours.
    fn wake(
        &mut self,
        key: ChannelKey,
        dormitory: &mut Dormitory,
        config: &Arc<datagram::Config>,
    ) -> Option<Connection> {
        let packed = dormitory.look(self.bed);
        let woken = Connection::unpack(key, packed, &mut self.socket, config);
        if woken.is_none() {
            tracing::error!("a connection that slept can't be woken");
        } else {
            dormitory.clear(self.bed);
        }
        woken
    }
}

// === impl Seat ===

impl Seat {
    /// Leaves the socket of what was packed there.
    fn lay_down(&mut self, bed: Bed) {
        let sleeper = Sleeper { bed, socket: None };
        let awake = std::mem::replace(self, Self::Asleep(sleeper));
        if let (Self::Awake(connection), Self::Asleep(sleeper)) = (awake, self) {
            sleeper.socket = connection.into_socket();
        }
    }

    fn sight<'a>(&'a self, key: ChannelKey, dormitory: &'a Dormitory) -> Sight<'a> {
        match self {
            Self::Awake(connection) => Sight::Awake(connection),
            Self::Asleep(sleeper) => {
                Sight::Asleep(key, dormitory.look(sleeper.bed), sleeper.socket.as_ref())
            }
        }
    }
}

// === impl Sight ===

impl Sight<'_> {
    /// Lets `look` see the channel, with who it is.
    pub(crate) fn channel<T>(&self, look: impl FnOnce(&Channel) -> Option<T>) -> Option<T> {
        match self {
            Self::Awake(connection) => look(&connection.channel),
            Self::Asleep(key, packed, _) => look(&Connection::unpack_channel(*key, packed)?),
        }
    }

    /// The same without who it is: cheaper.
    pub(crate) fn numbers<T>(&self, look: impl FnOnce(&Channel) -> T) -> Option<T> {
        match self {
            Self::Awake(connection) => Some(look(&connection.channel)),
            Self::Asleep(key, packed, _) => Some(look(&Connection::unpack_unnamed(*key, packed)?)),
        }
    }

    /// What it goes by, for people.
    pub(crate) fn transport(&self) -> &'static str {
        let kind = match self {
            Self::Awake(connection) => Some(connection.transport.kind(connection.channel.framing)),
            Self::Asleep(_, packed, _) => Connection::unpack_kind(packed),
        };
        kind.map_or("", TransportKind::name)
    }

    pub(crate) fn is_asleep(&self) -> bool {
        matches!(self, Self::Asleep(..))
    }

    /// What it costs.
    pub(crate) fn memory(&self) -> Ledger {
        match self {
            Self::Awake(connection) => Ledger::of(connection),
            Self::Asleep(_, packed, _) => Ledger::asleep(Dormitory::cell_bytes(packed.len())),
        }
    }

    /// What a stream has in the kernel.
    pub(crate) fn socket(&self) -> Option<SocketBuffers> {
        let socket = match self {
            Self::Awake(connection) => connection.transport.socket(),
            Self::Asleep(_, _, socket) => *socket,
        };
        SocketBuffers::of(socket?)
    }
}

#[cfg(test)]
mod tests;
