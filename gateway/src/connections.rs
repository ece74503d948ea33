//! The connections of one loop: awake while something is under way, asleep in
//! between.
//!
//! Most sessions of a messenger say nothing most of the time. Such a one sleeps:
//! all that it is lies packed in some two hundred bytes of the [`Dormitory`], and its
//! slot says where. Whoever reaches for it (a datagram, mail, its timer) wakes
//! it: [`Connections::get_mut`] unpacks it, and at the end of the turn
//! [`Connections::rest`] packs it again as soon as nothing is under way. Who stays
//! awake has something that will touch it again: a packet, an answer or its timer.
//!
//! Which state is packed, and when it may be, says each noun itself (`pack` in
//! `channel/packed.rs` and in the codec). Sessions over UDP sleep; a stream has a
//! socket of its own beside it, and stays awake.
//!
//! Cost: waking and resting take half a microsecond and some five allocations. A
//! session in which messages pass stays awake (its state lingers for a second), and
//! allocates nothing here. Keys are overwritten where it lay.

use std::sync::Arc;

use sluice_codec::datagram;
use zeroize::Zeroize;

use crate::{
    channel::Channel,
    connection::Connection,
    dormitory::{Bed, CELL_MAX_BYTES, Dormitory},
    ledger::Ledger,
    mailbox::{PAGE_MAX, Page},
    slab::{ChannelKey, Slab},
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
    Asleep(Bed),
}

/// A connection that is only looked at.
#[derive(Debug)]
pub(crate) enum Sight<'a> {
    Awake(&'a Connection),
    Asleep(ChannelKey, &'a [u8]),
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
        if let Seat::Asleep(bed) = *seat {
            let packed = self.dormitory.look(bed);
            let Some(connection) = Connection::unpack(key, packed, &self.datagram_config) else {
                tracing::error!("a connection that slept can't be woken");
                return None;
            };
            self.dormitory.clear(bed);
            *seat = Seat::Awake(Box::new(connection));
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
            Seat::Asleep(bed) => {
                let packed = self.dormitory.look(bed);
                let connection = Connection::unpack(key, packed, &self.datagram_config);
                self.dormitory.clear(bed);
                connection
            }
        }
    }

    /// All of them.
    pub(crate) fn keys(&self) -> Vec<ChannelKey> {
        self.slab.keys()
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

    /// One of them, to be looked at.
    pub(crate) fn sight(&self, key: ChannelKey) -> Option<Sight<'_>> {
        let seat = self.slab.get(key)?;
        Some(seat.sight(key, &self.dormitory))
    }

    /// The turn is over: who was touched in it and has nothing under way sleeps.
    pub(crate) fn rest(&mut self, now_ms: u64) {
        for key in self.touched.drain(..) {
            let Some(seat) = self.slab.get_mut(key) else {
                continue;
            };
            let Seat::Awake(connection) = seat else {
                continue;
            };
            connection.is_touched = false;
            if connection.pack(now_ms, &mut self.packing) {
                // Who needs more room than there is stays awake.
                if let Some(bed) = self.dormitory.lay(&self.packing) {
                    *seat = Seat::Asleep(bed);
                }
                self.packing.as_mut_slice().zeroize();
            }
            self.packing.clear();
        }
    }
}

// === impl Seat ===

impl Seat {
    fn sight<'a>(&'a self, key: ChannelKey, dormitory: &'a Dormitory) -> Sight<'a> {
        match self {
            Self::Awake(connection) => Sight::Awake(connection),
            Self::Asleep(bed) => Sight::Asleep(key, dormitory.look(*bed)),
        }
    }
}

// === impl Sight ===

impl Sight<'_> {
    /// Lets `look` see the channel, with who it is.
    pub(crate) fn channel<T>(&self, look: impl FnOnce(&Channel) -> Option<T>) -> Option<T> {
        match self {
            Self::Awake(connection) => look(&connection.channel),
            Self::Asleep(key, packed) => look(&Connection::unpack_channel(*key, packed)?),
        }
    }

    /// The same without who it is: cheaper.
    pub(crate) fn numbers<T>(&self, look: impl FnOnce(&Channel) -> T) -> Option<T> {
        match self {
            Self::Awake(connection) => Some(look(&connection.channel)),
            Self::Asleep(key, packed) => Some(look(&Connection::unpack_unnamed(*key, packed)?)),
        }
    }

    /// What it goes by, for people.
    pub(crate) fn transport(&self) -> &'static str {
        match self {
            Self::Awake(connection) => connection.transport.name(connection.channel.framing),
            Self::Asleep(..) => "udp",
        }
    }

    pub(crate) fn is_asleep(&self) -> bool {
        matches!(self, Self::Asleep(..))
    }

    /// What it costs.
    pub(crate) fn memory(&self) -> Ledger {
        match self {
            Self::Awake(connection) => Ledger::of(connection),
            Self::Asleep(_, packed) => Ledger::asleep(Dormitory::cell_bytes(packed.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_small() {
        let slot = Connections::SLOT_BYTES;
        assert!(slot <= 24, "{slot}");
    }
}
