//! One message on its way out, and how it is cut to pieces.

use bytes::Bytes;

use super::{
    Channel,
    frame::{DATA_HEAD_MAX_BYTES, Data, Fragment},
};

/// Room left in a packet with a piece, for the ACK that may ride along.
const ACK_ROOM_BYTES: usize = 44;

/// A reliable message.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) payload: Bytes,
    /// Pieces acknowledged, by bit.
    pub(crate) acked: u64,
    /// Pieces to be sent, by bit.
    pub(crate) due: u64,
    /// The newest packet with a piece of it.
    pub(crate) newest_packet: u64,
    pub(crate) id: u32,
    /// Orders it among all messages.
    pub(crate) stamp: u32,
    pub(crate) channel: Channel,
    /// Pieces; 0 while it was not begun.
    pub(crate) count: u8,
    pub(crate) is_queued: bool,
    pub(crate) was_sent: bool,
}

/// An unreliable message.
#[derive(Debug)]
pub(crate) struct Passing {
    pub(crate) payload: Bytes,
    pub(crate) stamp: u32,
    pub(crate) id: u16,
    pub(crate) channel: Channel,
    pub(crate) count: u8,
    pub(crate) next: u8,
}

// === impl Message ===

impl Message {
    /// Cuts the message to pieces that fit, if it was not, or if the path
    /// carries less than it did then. More pieces than before tell the receiver
    /// to begin anew; ACKs of pieces of another cut say nothing.
    pub(crate) fn cut(&mut self, full: usize) {
        let fits = self.count > 0 && data_len(&self.piece(0)) <= full;
        if !fits {
            self.count = pieces(self.channel, &self.payload, full).max(self.count);
            self.acked = 0;
            self.due = all(self.count);
        }
    }

    pub(crate) fn piece(&self, index: u8) -> Data<'_> {
        piece(
            self.channel,
            self.id as u16,
            &self.payload,
            index,
            self.count,
        )
    }

    pub(crate) fn whole(&self) -> Data<'_> {
        piece(self.channel, self.id as u16, &self.payload, 0, 1)
    }
}

/// Pieces that a message needs.
pub(crate) fn pieces(channel: Channel, payload: &Bytes, full: usize) -> u8 {
    if Data::head_len(channel, None, payload.len()) + payload.len() <= full {
        return 1;
    }
    let most = full
        .saturating_sub(DATA_HEAD_MAX_BYTES + ACK_ROOM_BYTES)
        .max(1);
    payload.len().div_ceil(most).clamp(2, 64) as u8
}

/// Piece `index` of `count`; the whole where there is one.
pub(crate) fn piece(channel: Channel, id: u16, payload: &Bytes, index: u8, count: u8) -> Data<'_> {
    if count == 1 {
        return Data {
            channel,
            id,
            fragment: None,
            payload,
        };
    }
    let fragment = Fragment {
        index,
        count,
        total_bytes: payload.len() as u32,
    };
    let from = fragment.offset().min(payload.len());
    let to = (from + fragment.bytes().unwrap_or(0)).min(payload.len());
    Data {
        channel,
        id,
        fragment: Some(fragment),
        payload: &payload[from..to],
    }
}

/// Bytes of the frame.
pub(crate) fn data_len(data: &Data<'_>) -> usize {
    Data::head_len(data.channel, data.fragment, data.payload.len()) + data.payload.len()
}

/// The bits of so many pieces.
pub(crate) fn all(count: u8) -> u64 {
    match count {
        0 => 0,
        count => u64::MAX >> (64 - count.min(64)),
    }
}
