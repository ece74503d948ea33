//! Single faults, and how soon they are overcome.

use sluice_codec::datagram::{Channel, End};

use super::{
    network::Faults,
    pair::{CLIENT_SIDE, Pair, SERVER_SIDE},
};

/// A message of 100 bytes each way every `every_us`: p50, p99 (ms), bytes on the
/// wire a message.
fn chat(faults: Faults, every_us: u64, messages: u64) -> (f64, f64, f64) {
    let mut pair = Pair::new(faults, 7);
    for at in 0..messages {
        pair.run_until(at * every_us);
        assert!(pair.send(CLIENT_SIDE, Channel::CONTROL, 100));
        pair.run_until(at * every_us + every_us / 2);
        assert!(pair.send(SERVER_SIDE, Channel::PUSHES, 100));
    }
    let until_us = pair.now_us + 60_000_000;
    assert!(pair.run_until_delivered(until_us));
    pair.check();
    let spans = pair.latencies(CLIENT_SIDE, Channel::CONTROL);
    let ms = |part: f64| spans[(spans.len() as f64 * part) as usize] as f64 / 1000.0;
    let bytes = pair.network.wire.iter().map(|wire| wire.bytes).sum::<u64>();
    (ms(0.5), ms(0.99), bytes as f64 / (2 * messages) as f64)
}

#[test]
fn losses_are_overcome_soon() {
    for (every_us, loss, p99_ms) in [
        (10_000, 0.0, 41.0),
        (100_000, 0.0, 41.0),
        (10_000, 0.05, 160.0),
        (100_000, 0.05, 160.0),
        (200_000, 0.0, 41.0),
        (200_000, 0.05, 150.0),
        (10_000, 0.2, 400.0),
        (100_000, 0.2, 400.0),
    ] {
        let (p50, p99, bytes) = chat(Faults::lossy(loss), every_us, 2000);
        println!("every {every_us} us, loss {loss}: p50 {p50} ms, p99 {p99} ms, {bytes:.0} B");
        assert!(p99 <= p99_ms);
    }
}

/// What only jitters is not taken for lost, although sparse messages are sent again soon.
#[test]
fn jitter_alone_has_hardly_anything_sent_again() {
    for every_us in [20_000, 50_000, 200_000, 500_000] {
        let faults = Faults {
            jitter_us: 20_000,
            ..Faults::none()
        };
        let mut pair = Pair::new(faults, 7);
        for at in 0..2000 {
            pair.run_until(at * every_us);
            assert!(pair.send(CLIENT_SIDE, Channel::PUSHES, 100));
            pair.run_until(at * every_us + every_us / 3);
            assert!(pair.send(SERVER_SIDE, Channel::PUSHES, 100));
        }
        let until_us = pair.now_us + 1_000_000;
        pair.run_until(until_us);
        pair.check();
        let large = pair.network.wire.iter().map(|wire| wire.large);
        let repeats = large.sum::<u64>() - 4000;
        println!("every {every_us} us: {repeats} repeats");
        assert!(repeats <= 20);
    }
}

#[test]
fn a_bulk_fills_the_path_but_not_its_queue() {
    for (loss, rate, least) in [
        (0.0, 1_000_000, 0.6),
        (0.05, 1_000_000, 0.35),
        (0.2, 1_000_000, 0.1),
    ] {
        let faults = Faults {
            rate,
            ..Faults::lossy(loss)
        };
        let mut pair = Pair::new(faults, 3);
        let goodput = pair.deliver_bulk(1_500_000);
        let wire = pair.network.wire[0];
        println!("loss {loss}: {goodput:.0} B/s of {rate}, {wire:?}");
        assert!(goodput > least * rate as f64);
    }
}

#[test]
fn a_moved_client_goes_on() {
    let mut pair = Pair::new(Faults::none(), 5);
    for at in 0..100 {
        pair.run_until(at * 100_000);
        if at == 50 {
            pair.client_address += 1;
        }
        pair.send(CLIENT_SIDE, Channel::CONTROL, 100);
        pair.send(SERVER_SIDE, Channel::PUSHES, 100);
    }
    let until_us = pair.now_us + 2_000_000;
    assert!(pair.run_until_delivered(until_us));
    pair.check();
    assert_eq!((pair.moves, pair.seen_address), (1, pair.client_address));
    let spans = pair.latencies(SERVER_SIDE, Channel::PUSHES);
    assert!(*spans.last().unwrap() < 600_000, "{:?}", spans.last());
}

#[test]
fn silence_ends_a_session() {
    let mut pair = Pair::new(Faults::none(), 5);
    pair.send(SERVER_SIDE, Channel::CONTROL, 100);
    pair.run_until(1_000_000);
    pair.network.faults.blackout_us = 0..u64::MAX;
    pair.send(SERVER_SIDE, Channel::CONTROL, 100);
    pair.run_until(40_000_000);
    assert_eq!(pair.peers[SERVER_SIDE].session.end(), Some(End::Silent));
    pair.run_until(200_000_000);
    assert_eq!(pair.peers[CLIENT_SIDE].session.end(), Some(End::Silent));
    assert!(pair.peers.iter().all(|peer| peer.session.heap_bytes() == 0));
}

#[test]
fn a_close_brings_what_waits_and_ends_both() {
    let mut pair = Pair::new(Faults::none(), 5);
    pair.send(SERVER_SIDE, Channel::CONTROL, 100);
    let now_us = pair.now_us;
    pair.peers[SERVER_SIDE]
        .session
        .close(now_us, 32, "going away");
    pair.pump(SERVER_SIDE);
    pair.run_until(1_000_000);
    assert_eq!(
        pair.peers[CLIENT_SIDE].session.end(),
        Some(End::ClosedByPeer(32))
    );
    assert!(pair.is_delivered());
}
