//! Messages on their way out, until they are acknowledged.
//!
//! Reliable messages lie in one queue in the order of sending; a message's key
//! is its place in it, counted from the session's begin, so that an ACK finds it
//! without a search. Of a message's pieces two bitmaps tell which were
//! acknowledged and which must be sent (again). Unreliable messages leave as soon
//! as they are sent.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    Channel, Mode, SendError,
    config::{
        MESSAGE_MAX_BYTES, MESSAGE_OVERHEAD_BYTES, MESSAGE_WINDOW, SEND_MAX_BYTES,
        SEND_MAX_MESSAGES, UNRELIABLE_MAX_BYTES,
    },
    credit::Credit,
    message::{Message, Passing, all, data_len, piece, pieces},
    sent::SentFrame,
};

/// Echoes cost at most one in this many bytes,
const ECHO_SHARE: usize = 25;
/// of which so many can be saved up.
const ECHO_SAVED_BYTES: usize = 2048;
/// Larger messages are not echoed.
const ECHO_MAX_BYTES: usize = 256;
/// Unreliable messages that wait at most.
const UNRELIABLE_MAX_MESSAGES: usize = 64;

/// What [`Outgoing::put_next`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    Nothing,
    Tracked(SentFrame),
    Untracked,
}

/// The queues.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    messages: VecDeque<Message>,
    /// Key of the front of `messages`, wrapping.
    first_key: u32,
    /// How many of them were begun, from the front on.
    begun: usize,
    /// Keys of begun messages with pieces that are due, oldest first.
    due: VecDeque<u32>,
    /// Keys of small messages that were sent again.
    echoes: VecDeque<u32>,
    /// What may be spent on them.
    echo_bytes: usize,
    passing: VecDeque<Passing>,
    /// All payloads with their overhead.
    bytes: usize,
    stamp: u32,
}

// === impl Outgoing ===

impl Outgoing {
    /// Takes a message, whose number on its channel is `id`.
    pub(crate) fn push(
        &mut self,
        channel: Channel,
        id: u32,
        payload: Bytes,
    ) -> Result<(), SendError> {
        let mode = channel.mode();
        self.check(mode, &payload)?;
        if mode == Mode::UnreliableLatest {
            self.drop_passing(|passing| passing.channel == channel);
        }
        let bytes = payload.len() + MESSAGE_OVERHEAD_BYTES as usize;
        while self.bytes + bytes > SEND_MAX_BYTES || !self.has_place(mode) {
            // What would be lost anyway goes first.
            let Some(dropped) = self.passing.pop_front() else {
                return Err(SendError::Full);
            };
            self.bytes -= dropped.payload.len() + MESSAGE_OVERHEAD_BYTES as usize;
        }
        self.stamp = self.stamp.wrapping_add(1);
        if mode.is_reliable() {
            if self.messages.len() >= SEND_MAX_MESSAGES {
                return Err(SendError::Full);
            }
            self.messages.push_back(Message {
                payload,
                acked: 0,
                due: 0,
                newest_packet: 0,
                id,
                stamp: self.stamp,
                channel,
                count: 0,
                is_queued: false,
                was_sent: false,
            });
        } else {
            self.passing.push_back(Passing {
                payload,
                stamp: self.stamp,
                id: id as u16,
                channel,
                count: 0,
                next: 0,
            });
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Whether nothing waits for anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.passing.is_empty()
    }

    /// Changes with each message that is begun, and not with what is sent again.
    pub(crate) fn begun(&self) -> u32 {
        self.first_key.wrapping_add(self.begun as u32)
    }

    /// Payloads with their overhead, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether something could be sent now.
    pub(crate) fn has_sendable(&self, credit: &Credit) -> bool {
        !self.due.is_empty() || !self.passing.is_empty() || self.may_begin(credit)
    }

    /// Appends the next message or piece to the packet `number`, if it fits into
    /// `room` bytes. `full` is the room of an empty packet.
    pub(crate) fn put_next(
        &mut self,
        out: &mut Vec<u8>,
        room: usize,
        full: usize,
        number: u64,
        credit: &mut Credit,
    ) -> Put {
        while let Some(key) = self.due.front().copied() {
            match self.put_due(out, room, full, number, key) {
                Some(put) => return put,
                None => self.due.pop_front(),
            };
        }
        let fresh = self.messages.get(self.begun).map(|it| it.stamp);
        let passing = self.passing.front().map(|it| it.stamp);
        let may_begin = self.may_begin(credit);
        match (fresh, passing) {
            (Some(fresh), passing)
                if may_begin && passing.is_none_or(|it| (it.wrapping_sub(fresh) as i32) > 0) =>
            {
                self.begin(out, room, full, number, credit)
            }
            (_, Some(_)) => self.put_passing(out, room, full),
            _ => Put::Nothing,
        }
    }

    /// A frame was acknowledged.
    pub(crate) fn on_acked(&mut self, key: u32, index: u8, count: u8) {
        let Some(message) = self.at(key) else { return };
        if message.count != count {
            return; // it was cut anew since
        }
        message.acked |= 1 << index;
        message.due &= !(1 << index);
        if message.acked != all(count) || message.payload.is_empty() {
            return;
        }
        let payload = std::mem::take(&mut message.payload);
        self.bytes -= payload.len() + MESSAGE_OVERHEAD_BYTES as usize;
        while self
            .messages
            .front()
            .is_some_and(|it| it.count > 0 && it.payload.is_empty())
        {
            self.messages.pop_front();
            self.first_key = self.first_key.wrapping_add(1);
            self.begun -= 1;
        }
    }

    /// A frame in the packet `number` was lost.
    pub(crate) fn on_lost(&mut self, key: u32, index: u8, count: u8, number: u64) {
        let Some(message) = self.at(key) else { return };
        let is_newer_under_way = message.count == 1 && message.newest_packet > number;
        if message.count != count || message.acked & (1 << index) != 0 || is_newer_under_way {
            return;
        }
        message.due |= 1 << index;
        let was_queued = std::mem::replace(&mut message.is_queued, true);
        if !was_queued {
            // Before the pieces of a long message that have not been sent yet.
            self.due.push_front(key);
        }
    }

    /// Makes what was sent last in the packet `newest` or before due again, about
    /// `bytes` of it, the oldest first.
    pub(crate) fn make_due(&mut self, mut bytes: usize, newest: u64) {
        let mut first = Vec::new();
        for (at, message) in self.messages.iter_mut().take(self.begun).enumerate() {
            if message.payload.is_empty() || message.newest_packet > newest {
                continue;
            }
            let piece = message
                .payload
                .len()
                .div_ceil(usize::from(message.count.max(1)));
            for index in 0..message.count {
                let bit = 1 << index;
                if message.acked & bit != 0 {
                    continue;
                }
                if bytes < piece {
                    bytes = 0;
                    break;
                }
                bytes -= piece;
                message.due |= bit;
            }
            if message.due != 0 && !message.is_queued {
                message.is_queued = true;
                first.push(self.first_key.wrapping_add(at as u32));
            }
            if bytes == 0 {
                break;
            }
        }
        for key in first.into_iter().rev() {
            self.due.push_front(key);
        }
    }

    /// Heap held besides the payloads, in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.messages.capacity() * size_of::<Message>()
            + self.passing.capacity() * size_of::<Passing>()
            + (self.due.capacity() + self.echoes.capacity()) * size_of::<u32>()
    }

    fn check(&self, mode: Mode, payload: &Bytes) -> Result<(), SendError> {
        let max_bytes = match mode.is_reliable() {
            true => MESSAGE_MAX_BYTES,
            false => UNRELIABLE_MAX_BYTES,
        };
        match payload.len() {
            0 => Err(SendError::Empty),
            bytes if bytes > max_bytes => Err(SendError::TooLarge { bytes, max_bytes }),
            _ => Ok(()),
        }
    }

    /// Unreliable messages have places of their own.
    fn has_place(&self, mode: Mode) -> bool {
        mode.is_reliable() || self.passing.len() < UNRELIABLE_MAX_MESSAGES
    }

    fn may_begin(&self, credit: &Credit) -> bool {
        // The window counts the messages of all channels: never wider than that
        // of any one of them.
        self.begun < MESSAGE_WINDOW as usize
            && self
                .messages
                .get(self.begun)
                .is_some_and(|message| credit.allows(message.payload.len()))
    }

    fn drop_passing(&mut self, is_dropped: impl Fn(&Passing) -> bool) {
        let bytes = &mut self.bytes;
        self.passing.retain(|passing| {
            let is_dropped = is_dropped(passing);
            if is_dropped {
                *bytes -= passing.payload.len() + MESSAGE_OVERHEAD_BYTES as usize;
            }
            !is_dropped
        });
    }

    fn at(&mut self, key: u32) -> Option<&mut Message> {
        let at = key.wrapping_sub(self.first_key) as usize;
        self.messages.get_mut(at).filter(|_| at < self.begun)
    }

    /// None: nothing of this message is due.
    fn put_due(
        &mut self,
        out: &mut Vec<u8>,
        room: usize,
        full: usize,
        number: u64,
        key: u32,
    ) -> Option<Put> {
        let message = self.at(key)?;
        if message.due == 0 || message.payload.is_empty() {
            message.is_queued = false;
            return None;
        }
        message.cut(full);
        let index = message.due.trailing_zeros() as u8;
        let data = message.piece(index);
        if data_len(&data) > room {
            return Some(Put::Nothing);
        }
        data.put(out);
        message.due &= !(1 << index);
        message.newest_packet = number;
        let count = message.count;
        let is_small = count == 1 && message.payload.len() <= ECHO_MAX_BYTES;
        if is_small && std::mem::replace(&mut message.was_sent, true) {
            self.echoes.push_back(key);
        }
        Some(Put::Tracked(SentFrame::Data {
            message: key,
            index,
            count,
        }))
    }

    /// A packet has left: a part of its bytes may be spent on echoes.
    pub(crate) fn earn_echo(&mut self, bytes: usize) {
        self.echo_bytes = (self.echo_bytes + bytes / ECHO_SHARE).min(ECHO_SAVED_BYTES);
    }

    /// Whether something waits for [`Outgoing::put_echo`], if it isn't acknowledged.
    pub(crate) fn has_echo(&self) -> bool {
        !self.echoes.is_empty()
    }

    /// Appends once more, to the packet `number` that goes out anyway, what was
    /// sent again lately: to lose it twice costs the most, to carry it a second time
    /// costs no packet.
    pub(crate) fn put_echo(
        &mut self,
        out: &mut Vec<u8>,
        room: usize,
        number: u64,
    ) -> Option<SentFrame> {
        let room = room.min(self.echo_bytes);
        while let Some(key) = self.echoes.front().copied() {
            let message = self.at(key).filter(|it| it.due == 0 && it.acked == 0);
            if let Some(message) = message {
                let data = message.whole();
                if message.newest_packet == number || data_len(&data) > room {
                    return None;
                }
                let before = out.len();
                data.put(out);
                message.newest_packet = number;
                self.echo_bytes -= out.len() - before;
            }
            let is_put = self.at(key).is_some_and(|it| it.newest_packet == number);
            self.echoes.pop_front();
            if is_put {
                return Some(SentFrame::Data {
                    message: key,
                    index: 0,
                    count: 1,
                });
            }
        }
        None
    }

    /// Begins the next message.
    fn begin(
        &mut self,
        out: &mut Vec<u8>,
        room: usize,
        full: usize,
        number: u64,
        credit: &mut Credit,
    ) -> Put {
        let key = self.first_key.wrapping_add(self.begun as u32);
        let Some(message) = self.messages.get_mut(self.begun) else {
            return Put::Nothing;
        };
        let is_cut = pieces(message.channel, &message.payload, full) > 1;
        if !is_cut && data_len(&message.whole()) > room {
            return Put::Nothing;
        }
        credit.spend(message.payload.len());
        message.cut(full);
        message.is_queued = true;
        self.begun += 1;
        self.due.push_back(key);
        self.put_due(out, room, full, number, key)
            .unwrap_or(Put::Nothing)
    }

    fn put_passing(&mut self, out: &mut Vec<u8>, room: usize, full: usize) -> Put {
        let Some(passing) = self.passing.front_mut() else {
            return Put::Nothing;
        };
        let count = pieces(passing.channel, &passing.payload, full);
        if passing.count < count {
            // Not begun, or the path carries less now: from the start.
            passing.count = count;
            passing.next = 0;
        }
        let data = piece(
            passing.channel,
            passing.id,
            &passing.payload,
            passing.next,
            passing.count,
        );
        if data_len(&data) > room {
            return Put::Nothing;
        }
        data.put(out);
        passing.next += 1;
        if passing.next == passing.count {
            self.bytes -= passing.payload.len() + MESSAGE_OVERHEAD_BYTES as usize;
            self.passing.pop_front();
        }
        Put::Untracked
    }
}
