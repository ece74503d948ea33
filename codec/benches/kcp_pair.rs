//! KCP in its fast mode over the same simulated network, for comparison.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io::{self, Write},
    rc::Rc,
};

use kcp::Kcp;

use super::network::{Faults, Hop, Network};

#[derive(Clone, Default)]
struct Outbox(Rc<RefCell<VecDeque<Vec<u8>>>>);

impl Write for Outbox {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().push_back(datagram.to_vec());
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A message of so many bytes each way every so often (microseconds), so many times: latencies,
/// and the bytes on the wire.
pub(super) fn figures(
    faults: Faults,
    seed: u64,
    (every_us, bytes, messages): (u64, usize, u64),
) -> (Vec<u64>, u64) {
    let mut network = Network::new(faults, seed);
    let outboxes = [Outbox::default(), Outbox::default()];
    let mut peers = [0, 1].map(|side| {
        let mut kcp = Kcp::new(7, outboxes[side].clone());
        kcp.set_nodelay(true, 10, 2, true);
        kcp.set_wndsize(256, 256);
        kcp.update(0).unwrap();
        kcp
    });
    let mut spans = Vec::new();
    let mut got = [0, 0];
    let want = [messages; 2];
    let mut sent = [0, 0];
    let mut now_us = 0;
    while got[1] < want[0] || got[0] < want[1] {
        now_us += 1000;
        for side in [0, 1] {
            let kcp = &mut peers[side];
            kcp.update((now_us / 1000) as u32).unwrap();
            let due_us = sent[side] * every_us + side as u64 * every_us / 3;
            if sent[side] < want[side] && now_us >= due_us {
                let mut message = vec![1; bytes];
                message[..8].copy_from_slice(&now_us.to_be_bytes());
                kcp.send(&message).unwrap();
                kcp.flush().unwrap();
                sent[side] += 1;
            }
        }
        while let Some((hop, packet)) = network.take(now_us) {
            let side = hop.to as usize;
            let _ = peers[side].input(&packet);
            let mut buffer = [0; 2048];
            while peers[side].recv(&mut buffer).is_ok() {
                got[side] += 1;
                spans.push(now_us - u64::from_be_bytes(*buffer.first_chunk().unwrap()));
            }
        }
        for side in [0, 1] {
            while let Some(datagram) = outboxes[side].0.borrow_mut().pop_front() {
                let hop = Hop {
                    from: side as u32,
                    to: 1 - side as u32,
                };
                network.send(now_us, side, hop, &datagram);
            }
        }
    }
    (spans, network.wire.iter().map(|wire| wire.bytes).sum())
}
