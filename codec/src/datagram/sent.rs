//! Packets that were sent and may still be acknowledged.
//!
//! One ring of records, one entry a packet number, and one ring of the frames
//! that these packets carried; both keep their room, so a session that goes on
//! sending allocates nothing. A packet that was given up as lost keeps its record for
//! a while: an ACK that comes late saves sending its frames again.

use std::collections::VecDeque;

/// Records kept at most; as many as the peer's replay window has.
const RECORDS_MAX: usize = 1024;

/// A frame whose loss matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SentFrame {
    /// A message, or piece `index` of `count`.
    Data {
        message: u32,
        index: u8,
        count: u8,
    },
    Credit,
    Token,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    InFlight,
    Lost,
    /// Acknowledged, or never to be.
    Done,
}

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It asks for an ACK.
    Eliciting,
    /// It asks for an ACK to learn whether the path carries its size; its loss
    /// says nothing of congestion.
    MtuProbe,
    /// ACKs and closes alone.
    Silent,
}

/// One packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet {
    pub(crate) sent_us: u64,
    /// One above the largest number in its ACK frame; 0 without one.
    pub(crate) told: u64,
    first_frame: u32,
    pub(crate) bytes: u16,
    frames: u8,
    pub(crate) kind: Kind,
    state: State,
}

/// The ring.
#[derive(Debug)]
pub(crate) struct Sent {
    base: u64,
    packets: VecDeque<Packet>,
    frames: VecDeque<SentFrame>,
    /// Number of the oldest frame of the ring, wrapping.
    frames_base: u32,
    /// Frames of the packet that is being built.
    building: u8,
    in_flight: u32,
}

// === impl Sent ===

impl Sent {
    /// Nothing sent; `next` will be the first number.
    pub(crate) fn new(next: u64) -> Self {
        Self {
            base: next,
            packets: VecDeque::new(),
            frames: VecDeque::new(),
            frames_base: 0,
            building: 0,
            in_flight: 0,
        }
    }

    /// Packets that an ACK is awaited for.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// When the oldest packet was sent that an ACK is awaited for.
    pub(crate) fn oldest_us(&self) -> Option<u64> {
        if self.in_flight == 0 {
            return None;
        }
        let mut packets = self.packets.iter();
        let oldest = packets.find(|packet| packet.state == State::InFlight);
        oldest.map(|packet| packet.sent_us)
    }

    /// The newest packet that was sent at `us` or before, in flight or not.
    pub(crate) fn newest_before(&self, us: u64) -> Option<u64> {
        let sent = self.packets.partition_point(|packet| packet.sent_us <= us);
        Some(self.base + (sent as u64).checked_sub(1)?)
    }

    /// Whether the next packet has a place.
    pub(crate) fn has_room(&self) -> bool {
        self.packets.len() < RECORDS_MAX - 8
    }

    /// Adds a frame to the packet that is being built.
    pub(crate) fn push_frame(&mut self, frame: SentFrame) {
        self.frames.push_back(frame);
        self.building = self.building.saturating_add(1);
    }

    /// Notes the packet `number`, with the frames pushed since the last one.
    pub(crate) fn push(&mut self, number: u64, sent_us: u64, bytes: u16, told: u64, kind: Kind) {
        let frames = std::mem::take(&mut self.building);
        if self.packets.is_empty() {
            self.base = number;
            if kind == Kind::Silent {
                self.base = number + 1;
                return;
            }
        }
        let before = self.frames.len() - usize::from(frames);
        self.packets.push_back(Packet {
            sent_us,
            told,
            first_frame: self.frames_base.wrapping_add(before as u32),
            bytes,
            frames,
            kind,
            state: match kind {
                Kind::Silent => State::Done,
                _ => State::InFlight,
            },
        });
        self.in_flight += u32::from(kind != Kind::Silent);
    }

    /// Numbers that have a record.
    pub(crate) fn numbers(&self) -> std::ops::Range<u64> {
        self.base..self.base + self.packets.len() as u64
    }

    /// Frame `index` of a packet.
    pub(crate) fn frame(&self, packet: &Packet, index: u8) -> Option<SentFrame> {
        if index >= packet.frames {
            return None;
        }
        let at = packet.first_frame.wrapping_sub(self.frames_base);
        self.frames.get(at as usize + usize::from(index)).copied()
    }

    /// The packet was acknowledged. Returns it if this is news, and whether it was
    /// given up before.
    pub(crate) fn acknowledge(&mut self, number: u64) -> Option<(Packet, bool)> {
        let packet = self.at(number)?;
        let was_lost = packet.state == State::Lost;
        let told = std::mem::take(&mut packet.told);
        if packet.state == State::Done && told == 0 {
            return None;
        }
        let was_in_flight = packet.state == State::InFlight;
        packet.state = State::Done;
        let packet = Packet { told, ..*packet };
        self.in_flight -= u32::from(was_in_flight);
        Some((packet, was_lost))
    }

    /// Gives a packet up if it is in flight.
    pub(crate) fn lose(&mut self, number: u64) -> Option<Packet> {
        let packet = self.at(number)?;
        if packet.state != State::InFlight {
            return None;
        }
        packet.state = State::Lost;
        let packet = *packet;
        self.in_flight -= 1;
        Some(packet)
    }

    /// When a packet was sent that has a record.
    pub(crate) fn sent_us(&self, number: u64) -> Option<u64> {
        let at = usize::try_from(number.checked_sub(self.base)?).ok()?;
        Some(self.packets.get(at)?.sent_us)
    }

    /// The record of a packet in flight.
    pub(crate) fn in_flight_at(&self, number: u64) -> Option<&Packet> {
        let at = usize::try_from(number.checked_sub(self.base)?).ok()?;
        let packet = self.packets.get(at)?;
        (packet.state == State::InFlight).then_some(packet)
    }

    /// Lets go of the oldest records that are done with, and of lost ones that
    /// were sent before `lost_before_us`.
    pub(crate) fn trim(&mut self, lost_before_us: u64) {
        while let Some(packet) = self.packets.front() {
            let is_over = match packet.state {
                State::InFlight => false,
                State::Lost => {
                    packet.sent_us < lost_before_us || self.packets.len() > RECORDS_MAX / 2
                }
                State::Done => true,
            };
            if !is_over {
                return;
            }
            let frames = usize::from(packet.frames);
            self.frames.drain(..frames.min(self.frames.len()));
            self.frames_base = self.frames_base.wrapping_add(frames as u32);
            self.packets.pop_front();
            self.base += 1;
        }
    }

    /// Heap held, in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.packets.capacity() * size_of::<Packet>()
            + self.frames.capacity() * size_of::<SentFrame>()
    }

    fn at(&mut self, number: u64) -> Option<&mut Packet> {
        let at = usize::try_from(number.checked_sub(self.base)?).ok()?;
        self.packets.get_mut(at)
    }
}
