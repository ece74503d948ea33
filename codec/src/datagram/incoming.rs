//! Messages on their way in: put together from pieces, brought into order, each
//! reliable one once.
//!
//! A message that is whole and next in line is lent from its packet to the
//! caller without a copy. All that is kept here (pieces, messages ahead of their
//! turn, messages that the caller has no room for) is bounded by
//! [`Credit`](super::credit), by the message window and by
//! [`PARTIAL_MAX_BYTES`].

use std::collections::VecDeque;

use super::{
    Channel, Mode, Violation,
    config::{MESSAGE_OVERHEAD_BYTES, MESSAGE_WINDOW, PARTIAL_MAX_BYTES},
    credit::Credit,
    frame::{Data, Fragment},
    numbers::ChannelNumbers,
};

/// Takes a message. False: there is no room for it now. Of reliable channels the
/// session then keeps it, and all that come after it, until
/// [`Session::drain`](super::Session::drain); others are lost.
pub type Sink<'a> = dyn FnMut(Channel, &[u8]) -> bool + 'a;

/// Half of the numbers of 16 bits: below it a number is ahead, above it behind.
const AHEAD: u16 = 0x8000;
const WINDOW_WORDS: usize = MESSAGE_WINDOW as usize / 64;

/// A message of which some pieces are here.
#[derive(Debug)]
struct Partial {
    channel: Channel,
    id: u32,
    total_bytes: u32,
    count: u8,
    have: u64,
    /// The newest packet that brought a piece.
    newest_packet: u64,
    pieces: Vec<(u8, Box<[u8]>)>,
}

/// What came on a reliable channel before its turn.
#[derive(Debug)]
struct Ahead {
    channel: Channel,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    /// Messages by their number, in order.
    Ordered(VecDeque<(u32, Box<[u8]>)>),
    /// Messages that came, by their number modulo the window.
    Unordered(Box<[u64; WINDOW_WORDS]>),
}

/// What is kept of what came.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    partials: Vec<Partial>,
    ahead: Vec<Ahead>,
    /// Whole and in line, but the caller had no room.
    ready: VecDeque<(Channel, Box<[u8]>)>,
}

/// What a frame is put into.
pub(crate) struct Inlet<'a, 'b> {
    pub(crate) numbers: &'a mut ChannelNumbers,
    pub(crate) credit: &'a mut Credit,
    pub(crate) sink: &'a mut Sink<'b>,
}

// === impl Incoming ===

impl Incoming {
    /// Takes a frame of the packet `number`.
    pub(crate) fn receive(
        &mut self,
        number: u64,
        data: &Data<'_>,
        inlet: &mut Inlet<'_, '_>,
    ) -> Result<(), Violation> {
        match data.channel.mode() {
            Mode::ReliableOrdered | Mode::ReliableUnordered => self.receive_reliable(data, inlet),
            Mode::UnreliableLatest | Mode::Unreliable => {
                self.receive_unreliable(number, data, inlet);
                Ok(())
            }
        }
    }

    /// Hands on what the caller had no room for.
    pub(crate) fn drain(&mut self, credit: &mut Credit, sink: &mut Sink<'_>) {
        while let Some((channel, payload)) = self.ready.front() {
            if !sink(*channel, payload) {
                return;
            }
            credit.release(payload.len());
            self.ready.pop_front();
        }
    }

    /// Whether messages wait for the caller.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether nothing is kept whose loss would matter.
    pub(crate) fn is_empty(&self) -> bool {
        let is_reliable = |partial: &Partial| partial.channel.mode().is_reliable();
        self.ready.is_empty() && self.ahead.is_empty() && !self.partials.iter().any(is_reliable)
    }

    /// Heap held, in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        let partials = self.partials.iter().map(Partial::heap_bytes);
        let ahead = self.ahead.iter().map(Ahead::heap_bytes);
        let ready = self.ready.iter().map(|(_, payload)| payload.len());
        partials.sum::<usize>()
            + ahead.sum::<usize>()
            + ready.sum::<usize>()
            + self.partials.capacity() * size_of::<Partial>()
            + self.ahead.capacity() * size_of::<Ahead>()
            + self.ready.capacity() * size_of::<(Channel, Box<[u8]>)>()
    }

    fn receive_reliable(
        &mut self,
        data: &Data<'_>,
        inlet: &mut Inlet<'_, '_>,
    ) -> Result<(), Violation> {
        let next = inlet.numbers.of(data.channel).receive;
        let ahead = data.id.wrapping_sub(next as u16);
        if ahead >= AHEAD {
            return Ok(()); // it was here long ago
        }
        if u32::from(ahead) >= MESSAGE_WINDOW {
            return Err(Violation::OverWindow);
        }
        let id = next.wrapping_add(u32::from(ahead));
        if self.is_kept(data.channel, id, next) {
            return Ok(());
        }
        let at = self.partial(data.channel, id);
        let whole;
        let payload = match (data.fragment, at) {
            (None, None) => {
                self.see(data.payload.len(), inlet)?;
                data.payload
            }
            (None, Some(_)) => return Err(Violation::BadFragment),
            (Some(fragment), at) => {
                let at = match at {
                    Some(at) => at,
                    None => {
                        self.see(fragment.total_bytes as usize, inlet)?;
                        self.push_partial(data.channel, id, fragment)
                    }
                };
                if !self.partials[at].add(fragment, data.payload)? {
                    return Ok(());
                }
                whole = self.partials.swap_remove(at).assemble();
                whole.as_slice()
            }
        };
        match data.channel.mode() {
            Mode::ReliableOrdered => self.take_ordered(data.channel, ahead, payload, inlet),
            _ => self.take_unordered(data.channel, id, ahead, payload, inlet),
        }
        Ok(())
    }

    fn see(&self, bytes: usize, inlet: &mut Inlet<'_, '_>) -> Result<(), Violation> {
        match inlet.credit.see(bytes) {
            true => Ok(()),
            false => Err(Violation::OverCredit),
        }
    }

    fn take_ordered(
        &mut self,
        channel: Channel,
        ahead: u16,
        payload: &[u8],
        inlet: &mut Inlet<'_, '_>,
    ) {
        if ahead > 0 {
            self.keep_ordered(channel, ahead, payload, inlet);
            return;
        }
        self.hand_on(channel, payload, inlet);
        let next = inlet.numbers.of(channel).receive.wrapping_add(1);
        inlet.numbers.of(channel).receive = next;
        while let Some(payload) = self.pop_ordered(channel, inlet.numbers.of(channel).receive) {
            let next = &mut inlet.numbers.of(channel).receive;
            *next = next.wrapping_add(1);
            self.hand_on(channel, &payload, inlet);
        }
    }

    fn keep_ordered(
        &mut self,
        channel: Channel,
        ahead: u16,
        payload: &[u8],
        inlet: &mut Inlet<'_, '_>,
    ) {
        let next = inlet.numbers.of(channel).receive;
        if let Kept::Ordered(kept) = self.ahead_of(channel) {
            let ahead = u32::from(ahead);
            let at = kept.partition_point(|(id, _)| id.wrapping_sub(next) < ahead);
            kept.insert(at, (next.wrapping_add(ahead), payload.into()));
        }
    }

    /// The message `id`, if it is the first that is kept.
    fn pop_ordered(&mut self, channel: Channel, id: u32) -> Option<Box<[u8]>> {
        let at = self.ahead.iter().position(|it| it.channel == channel)?;
        let Kept::Ordered(kept) = &mut self.ahead[at].kept else {
            return None;
        };
        if kept.front()?.0 != id {
            return None;
        }
        let (_, payload) = kept.pop_front()?;
        if kept.is_empty() {
            self.ahead.swap_remove(at);
        }
        Some(payload)
    }

    fn take_unordered(
        &mut self,
        channel: Channel,
        id: u32,
        ahead: u16,
        payload: &[u8],
        inlet: &mut Inlet<'_, '_>,
    ) {
        self.hand_on(channel, payload, inlet);
        if ahead > 0 {
            if let Kept::Unordered(seen) = self.ahead_of(channel) {
                seen[word(id)] |= bit(id);
            }
            return;
        }
        let next = &mut inlet.numbers.of(channel).receive;
        *next = next.wrapping_add(1);
        let Some(at) = self.ahead.iter().position(|it| it.channel == channel) else {
            return;
        };
        let Kept::Unordered(seen) = &mut self.ahead[at].kept else {
            return;
        };
        while seen[word(*next)] & bit(*next) != 0 {
            seen[word(*next)] &= !bit(*next);
            *next = next.wrapping_add(1);
        }
        if seen.iter().all(|word| *word == 0) {
            self.ahead.swap_remove(at);
        }
    }

    fn receive_unreliable(&mut self, number: u64, data: &Data<'_>, inlet: &mut Inlet<'_, '_>) {
        let Some(fragment) = data.fragment else {
            self.pass(number, data.channel, data.payload, inlet);
            return;
        };
        let id = u32::from(data.id);
        let at = match self.partial(data.channel, id) {
            Some(at) if self.partials[at].total_bytes == fragment.total_bytes => at,
            other => {
                // Another message of this number: the old one won't be whole any more.
                other.map(|at| self.partials.swap_remove(at));
                self.make_room(fragment.total_bytes as usize);
                self.push_partial(data.channel, id, fragment)
            }
        };
        let partial = &mut self.partials[at];
        partial.newest_packet = partial.newest_packet.max(number);
        if let Ok(true) = partial.add(fragment, data.payload) {
            let partial = self.partials.swap_remove(at);
            let newest = partial.newest_packet;
            self.pass(newest, data.channel, &partial.assemble(), inlet);
        }
    }

    /// Hands an unreliable message on, or forgets it.
    fn pass(&mut self, number: u64, channel: Channel, payload: &[u8], inlet: &mut Inlet<'_, '_>) {
        if channel.mode() == Mode::UnreliableLatest {
            let above = &mut inlet.numbers.of(channel).receive;
            let number = number as u32;
            if (number.wrapping_sub(*above) as i32) < 0 {
                return;
            }
            *above = number.wrapping_add(1);
        }
        (inlet.sink)(channel, payload);
    }

    fn hand_on(&mut self, channel: Channel, payload: &[u8], inlet: &mut Inlet<'_, '_>) {
        if self.ready.is_empty() && (inlet.sink)(channel, payload) {
            inlet.credit.release(payload.len());
        } else {
            self.ready.push_back((channel, payload.into()));
        }
    }

    fn is_kept(&self, channel: Channel, id: u32, next: u32) -> bool {
        let ahead = self.ahead.iter().find(|it| it.channel == channel);
        match ahead.map(|it| &it.kept) {
            Some(Kept::Ordered(kept)) => kept
                .binary_search_by_key(&id.wrapping_sub(next), |(id, _)| id.wrapping_sub(next))
                .is_ok(),
            Some(Kept::Unordered(seen)) => seen[word(id)] & bit(id) != 0,
            None => false,
        }
    }

    fn ahead_of(&mut self, channel: Channel) -> &mut Kept {
        let at = match self.ahead.iter().position(|it| it.channel == channel) {
            Some(at) => at,
            None => {
                let kept = match channel.mode() {
                    Mode::ReliableOrdered => Kept::Ordered(VecDeque::new()),
                    _ => Kept::Unordered(Box::new([0; WINDOW_WORDS])),
                };
                self.ahead.push(Ahead { channel, kept });
                self.ahead.len() - 1
            }
        };
        &mut self.ahead[at].kept
    }

    fn partial(&self, channel: Channel, id: u32) -> Option<usize> {
        self.partials
            .iter()
            .position(|it| it.channel == channel && it.id == id)
    }

    fn push_partial(&mut self, channel: Channel, id: u32, fragment: Fragment) -> usize {
        self.partials.push(Partial {
            channel,
            id,
            total_bytes: fragment.total_bytes,
            count: fragment.count,
            have: 0,
            newest_packet: 0,
            pieces: Vec::new(),
        });
        self.partials.len() - 1
    }

    /// Forgets the oldest unreliable messages until one of `bytes` has room.
    fn make_room(&mut self, bytes: usize) {
        let mut held = bytes;
        for at in (0..self.partials.len()).rev() {
            let partial = &self.partials[at];
            if partial.channel.mode().is_reliable() {
                continue;
            }
            held += partial.total_bytes as usize + MESSAGE_OVERHEAD_BYTES as usize;
            if held > PARTIAL_MAX_BYTES {
                self.partials.remove(at);
            }
        }
    }
}

// === impl Partial ===

impl Partial {
    /// Adds a piece; true if the message is whole.
    fn add(&mut self, fragment: Fragment, payload: &[u8]) -> Result<bool, Violation> {
        if fragment.total_bytes != self.total_bytes {
            return Err(Violation::BadFragment);
        }
        if fragment.count < self.count {
            return Ok(false); // of an older cut
        }
        if fragment.count > self.count {
            self.count = fragment.count;
            self.have = 0;
            self.pieces.clear();
        }
        let bit = 1 << fragment.index;
        if self.have & bit == 0 {
            self.have |= bit;
            self.pieces.push((fragment.index, payload.into()));
        }
        Ok(self.have.count_ones() == u32::from(self.count))
    }

    fn assemble(mut self) -> Vec<u8> {
        self.pieces.sort_unstable_by_key(|(index, _)| *index);
        let mut whole = Vec::with_capacity(self.total_bytes as usize);
        for (_, piece) in &self.pieces {
            whole.extend_from_slice(piece);
        }
        whole
    }

    fn heap_bytes(&self) -> usize {
        let pieces = self.pieces.iter().map(|(_, piece)| piece.len());
        pieces.sum::<usize>() + self.pieces.capacity() * size_of::<(u8, Box<[u8]>)>()
    }
}

// === impl Ahead ===

impl Ahead {
    fn heap_bytes(&self) -> usize {
        match &self.kept {
            Kept::Ordered(kept) => {
                let payloads = kept.iter().map(|(_, payload)| payload.len());
                payloads.sum::<usize>() + kept.capacity() * size_of::<(u32, Box<[u8]>)>()
            }
            Kept::Unordered(seen) => size_of_val(&**seen),
        }
    }
}

fn word(id: u32) -> usize {
    (id % MESSAGE_WINDOW) as usize / 64
}

fn bit(id: u32) -> u64 {
    1 << (id % 64)
}
