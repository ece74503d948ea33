//! Where the numbers of each channel stand: all that a session between two
//! messages remembers of its channels.

use super::Channel;

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
}
