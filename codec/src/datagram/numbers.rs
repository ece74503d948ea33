//! Where the numbers of each channel stand: all that a session between two
//! messages remembers of its channels.

use super::Channel;
use crate::packed::{put_number, take_byte, take_narrow, take_number};

/// Numbers of one channel, wrapping.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// Of the next message that is sent.
    pub(crate) send: u32,
    /// Of the lowest message that has not come; of unreliable-latest channels
    /// one above the packet number of what was delivered last.
    pub(crate) receive: u32,
}

/// Numbers of all channels. The first channel of each mode lies inline; each
/// other one that is used costs 12 bytes of heap for the life of the session.
#[derive(Debug, Default)]
pub(crate) struct ChannelNumbers {
    first: [Numbers; 4],
    // Boxed, since a Vec's 24 bytes would be paid by all sessions.
    #[expect(clippy::box_collection, reason = "8 bytes inline instead of 24")]
    others: Option<Box<Vec<(Channel, Numbers)>>>,
}

// === impl ChannelNumbers ===

impl ChannelNumbers {
    /// Those of `channel`.
    pub(crate) fn of(&mut self, channel: Channel) -> &mut Numbers {
        if channel.number() == 0 {
            return &mut self.first[usize::from(channel.0 >> 6)];
        }
        let others = self.others.get_or_insert_default();
        let at = match others.binary_search_by_key(&channel, |(channel, _)| *channel) {
            Ok(at) => at,
            Err(at) => {
                others.reserve_exact(1);
                others.insert(at, (channel, Numbers::default()));
                at
            }
        };
        &mut others[at].1
    }

    /// Heap held, in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.others.as_ref().map_or(0, |others| {
            size_of_val(&**others) + others.capacity() * size_of::<(Channel, Numbers)>()
        })
    }

    pub(super) fn pack(&self, out: &mut Vec<u8>) {
        self.first.iter().for_each(|numbers| numbers.pack(out));
        let others = self.others.iter().flat_map(|others| others.iter());
        put_number(out, others.clone().count() as u64);
        for (channel, numbers) in others {
            out.push(channel.0);
            numbers.pack(out);
        }
    }

    pub(super) fn unpack(input: &mut &[u8]) -> Option<Self> {
        let mut this = Self::default();
        for numbers in &mut this.first {
            *numbers = Numbers::unpack(input)?;
        }
        for _ in 0..take_number(input)? {
            let channel = Channel(take_byte(input)?);
            *this.of(channel) = Numbers::unpack(input)?;
        }
        Some(this)
    }
}

// === impl Numbers ===

impl Numbers {
    fn pack(self, out: &mut Vec<u8>) {
        put_number(out, self.send.into());
        put_number(out, self.receive.into());
    }

    fn unpack(input: &mut &[u8]) -> Option<Self> {
        Some(Self {
            send: take_narrow(input)?,
            receive: take_narrow(input)?,
        })
    }
}
