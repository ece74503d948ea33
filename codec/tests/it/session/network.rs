//! A network under a fake clock: what it does to packets is drawn from a seed.

use std::{cmp::Reverse, collections::BinaryHeap};

/// Draws (SplitMix64): the same seed, the same run.
pub(super) struct Draw(pub(super) u64);

impl Draw {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(super) fn chance(&mut self, of_one: f64) -> bool {
        (self.next() >> 11) as f64 / ((1u64 << 53) as f64) < of_one
    }
}

/// What goes wrong.
#[derive(Debug, Clone)]
pub(super) struct Faults {
    pub(super) delay_us: u64,
    pub(super) jitter_us: u64,
    pub(super) loss: f64,
    pub(super) duplicate: f64,
    /// Chance of a packet that is held back by up to two delays.
    pub(super) reorder: f64,
    pub(super) corrupt: f64,
    /// Bytes a second each way; 0: no bound.
    pub(super) rate: u64,
    /// Of the queue before the bottleneck.
    pub(super) queue_bytes: u64,
    pub(super) datagram_max_bytes: usize,
    /// Nothing passes within.
    pub(super) blackout_us: std::ops::Range<u64>,
}

impl Faults {
    pub(super) fn none() -> Self {
        Self {
            delay_us: 40_000,
            jitter_us: 0,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            corrupt: 0.0,
            rate: 0,
            queue_bytes: 64 * 1024,
            datagram_max_bytes: 1500 - 28,
            blackout_us: 0..0,
        }
    }

    pub(super) fn lossy(loss: f64) -> Self {
        Self {
            loss,
            ..Self::none()
        }
    }

    /// Anything, by the seed.
    pub(super) fn drawn(draw: &mut Draw) -> Self {
        let mut some = |of_one: f64, most: f64| match draw.chance(of_one) {
            true => most * draw.below(1000) as f64 / 1000.0,
            false => 0.0,
        };
        let (loss, duplicate) = (some(0.8, 0.3), some(0.5, 0.2));
        let (reorder, corrupt) = (some(0.5, 0.3), some(0.3, 0.05));
        let from = draw.below(2_000_000);
        let blackout_us = match draw.chance(0.2) {
            true => from..from + draw.below(8_000_000),
            false => 0..0,
        };
        Self {
            delay_us: 500 + draw.below(150_000),
            jitter_us: draw.below(60_000) * draw.below(2),
            loss,
            duplicate,
            reorder,
            corrupt,
            rate: match draw.chance(0.3) {
                true => 20_000 + draw.below(500_000),
                false => 0,
            },
            queue_bytes: 8_000 + draw.below(100_000),
            datagram_max_bytes: 1200 + draw.below(300) as usize,
            blackout_us,
        }
    }
}

/// To where a packet is under way, and from which address it seems to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) from: u32,
    pub(super) to: u32,
}

/// Packets and bytes (with IP and UDP headers) that were put on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wire {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) dropped: u64,
    /// Packets of 64 bytes and more: not those of ACKs alone.
    pub(super) large: u64,
}

type Flight = Reverse<(u64, u64, usize)>;

/// All packets under way.
pub(super) struct Network {
    pub(super) faults: Faults,
    pub(super) wire: [Wire; 2],
    draw: Draw,
    flights: BinaryHeap<Flight>,
    packets: Vec<(Hop, Vec<u8>)>,
    spare: Vec<usize>,
    order: u64,
    free_at_us: [u64; 2],
}

impl Network {
    pub(super) fn new(faults: Faults, seed: u64) -> Self {
        Self {
            faults,
            wire: [Wire::default(); 2],
            draw: Draw(seed),
            flights: BinaryHeap::new(),
            packets: Vec::new(),
            spare: Vec::new(),
            order: 0,
            free_at_us: [0; 2],
        }
    }

    /// Puts a packet on the wire. `way`: 0 up, 1 down.
    pub(super) fn send(&mut self, now_us: u64, way: usize, hop: Hop, packet: &[u8]) {
        let bytes = packet.len() as u64 + 28;
        self.wire[way].packets += 1;
        self.wire[way].bytes += bytes;
        self.wire[way].large += u64::from(packet.len() >= 64);
        let faults = self.faults.clone();
        let is_lost = self.draw.chance(faults.loss)
            || packet.len() > faults.datagram_max_bytes
            || faults.blackout_us.contains(&now_us);
        let mut leaves_us = now_us;
        if faults.rate > 0 {
            let begins_us = self.free_at_us[way].max(now_us);
            if (begins_us - now_us) * faults.rate / 1_000_000 > faults.queue_bytes {
                self.wire[way].dropped += 1;
                return;
            }
            leaves_us = begins_us + bytes * 1_000_000 / faults.rate;
            self.free_at_us[way] = leaves_us;
        }
        if is_lost {
            self.wire[way].dropped += 1;
            return;
        }
        let mut packet = packet.to_vec();
        if self.draw.chance(faults.corrupt) {
            let at = self.draw.below(packet.len() as u64) as usize;
            packet[at] ^= 1 << self.draw.below(8);
        }
        let copies = 1 + usize::from(self.draw.chance(faults.duplicate));
        for _ in 0..copies {
            let mut at_us = leaves_us + faults.delay_us + self.draw.below(faults.jitter_us + 1);
            if self.draw.chance(faults.reorder) {
                at_us += self.draw.below(2 * faults.delay_us + 1);
            }
            self.fly(at_us, hop, packet.clone());
        }
    }

    pub(super) fn next_us(&self) -> Option<u64> {
        self.flights.peek().map(|Reverse((at_us, ..))| *at_us)
    }

    pub(super) fn take(&mut self, now_us: u64) -> Option<(Hop, Vec<u8>)> {
        if self.next_us()? > now_us {
            return None;
        }
        let Reverse((_, _, at)) = self.flights.pop()?;
        self.spare.push(at);
        let (hop, packet) = &mut self.packets[at];
        Some((*hop, std::mem::take(packet)))
    }

    fn fly(&mut self, at_us: u64, hop: Hop, packet: Vec<u8>) {
        let at = match self.spare.pop() {
            Some(at) => {
                self.packets[at] = (hop, packet);
                at
            }
            None => {
                self.packets.push((hop, packet));
                self.packets.len() - 1
            }
        };
        self.order += 1;
        self.flights.push(Reverse((at_us, self.order, at)));
    }
}
