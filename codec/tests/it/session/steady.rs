//! What a session that goes on sending allocates: nothing.

use std::sync::Arc;

use allocation_counter::measure;
use bytes::Bytes;
use sluice_codec::datagram::{Channel, Config, Session, Side, Source};

use super::pair::OVERHEAD;

/// A message each way, and all that follows at once.
fn exchange(peers: &mut [Session; 2], now_us: u64, payload: &Bytes, out: &mut Vec<u8>) -> usize {
    let mut got = 0;
    for (side, channel) in [(0, Channel::CONTROL), (1, Channel::PUSHES)] {
        let sent = peers[side].send(now_us, channel, payload.clone());
        assert!(sent.is_ok());
    }
    for at_us in [now_us, now_us + 30_000] {
        peers.iter_mut().for_each(|it| it.on_timeout(at_us));
        for _ in 0..4 {
            for side in [0, 1] {
                out.clear();
                let Some(transmit) = peers[side].transmit(at_us, OVERHEAD, out) else {
                    continue;
                };
                let received = peers[1 - side].receive(
                    at_us,
                    transmit.number,
                    out,
                    out.len() + OVERHEAD,
                    Source::Current,
                    &mut |_, payload| {
                        got += payload.len();
                        true
                    },
                );
                assert!(received.is_ok());
            }
        }
    }
    got
}

#[test]
fn messages_that_follow_each_other_allocate_nothing() {
    let config = Arc::new(Config::default());
    let session = |side| Session::new(side, Arc::clone(&config), 0, Some(40_000));
    let mut peers = [session(Side::Client), session(Side::Server)];
    let payload = Bytes::from_static(&[7; 200]);
    let mut out = Vec::with_capacity(2048);
    let mut now_us = 0;
    let mut run = |rounds: u64| {
        for _ in 0..rounds {
            now_us += 100_000;
            assert_eq!(exchange(&mut peers, now_us, &payload, &mut out), 400);
        }
    };
    run(50);
    let allocations = measure(|| run(1000)).count_total;
    assert_eq!(allocations, 0);
}
