//! What the datagram session does for latency and bytes over a simulated network, beside KCP:
//! `cargo bench -p sluice-codec --bench session`.

#![allow(clippy::print_stdout, reason = "it prints figures")]
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    reason = "the tests' pair and network, of which this uses a part"
)]

mod kcp_pair;
#[path = "../tests/it/session/network.rs"]
mod network;
#[path = "../tests/it/session/pair.rs"]
mod pair;

use sluice_codec::datagram::Channel;

use network::Faults;
use pair::{CLIENT_SIDE, Pair, SERVER_SIDE};

fn main() {
    figures_of_a_chat();
    figures_of_a_chat_over_a_path_that_jitters();
    figures_of_a_bulk();
    figures_beside_kcp();
    figures_of_sizes();
}

/// One way: a message of 100 bytes every `every_us`.
fn figures(faults: Faults, every_us: u64, channel: Channel, is_both: bool) -> String {
    let messages = 5000;
    let mut pair = Pair::new(faults, 7);
    for at in 0..messages {
        pair.run_until(at * every_us);
        assert!(pair.send(CLIENT_SIDE, channel, 100));
        if is_both {
            pair.run_until(at * every_us + every_us / 2);
            assert!(pair.send(SERVER_SIDE, channel, 100));
        }
    }
    let until_us = pair.now_us + 60_000_000;
    assert!(pair.run_until_delivered(until_us));
    pair.check();
    let spans = pair.latencies(CLIENT_SIDE, channel);
    let ms = |part: f64| spans[(spans.len() as f64 * part) as usize] as f64 / 1000.0;
    let bytes = pair.network.wire.iter().map(|wire| wire.bytes).sum::<u64>();
    let packets = pair.network.wire.map(|wire| wire.packets);
    let sent = if is_both { 2 * messages } else { messages };
    format!(
        "p50 {:.0} p90 {:.0} p99 {:.0} p99.9 {:.0} ms, {:.0} B a message, {packets:?} packets",
        ms(0.5),
        ms(0.9),
        ms(0.99),
        ms(0.999),
        bytes as f64 / sent as f64
    )
}

fn figures_of_a_chat_over_a_path_that_jitters() {
    for every_us in [5_000, 33_000, 500_000] {
        for loss in [0.0, 0.05, 0.2] {
            let faults = Faults {
                jitter_us: 20_000,
                duplicate: 0.05,
                reorder: 0.1,
                ..Faults::lossy(loss)
            };
            let line = figures(faults, every_us, Channel::CONTROL, true);
            println!("{:3} ms loss {loss:.2} {line}", every_us / 1000);
        }
    }
}

/// A bulk over a bottleneck of a megabyte a second.
fn figures_of_a_bulk() {
    for (loss, rate, queue_bytes) in [
        (0.0, 1_000_000, 64 * 1024),
        (0.01, 1_000_000, 64 * 1024),
        (0.05, 1_000_000, 64 * 1024),
        (0.1, 1_000_000, 64 * 1024),
        (0.2, 1_000_000, 64 * 1024),
        (0.0, 100_000, 64 * 1024),
        (0.0, 100_000, 8 * 1024),
        (0.05, 100_000, 16 * 1024),
        (0.2, 100_000, 16 * 1024),
        (0.0, 100_000, 2_500),
        (0.0, 300_000, 4_000),
        (0.2, 0, 0),
    ] {
        let faults = Faults {
            rate,
            queue_bytes,
            ..Faults::lossy(loss)
        };
        let mut pair = Pair::new(faults, 3);
        let total = 2_000_000_u32;
        let mut sent = 0;
        while sent < total {
            while sent < total && pair.send(CLIENT_SIDE, Channel::CONTROL, 20_000) {
                sent += 20_000;
            }
            let until_us = pair.now_us + 5_000;
            pair.run_until(until_us);
        }
        let until_us = pair.now_us + 600_000_000;
        assert!(pair.run_until_delivered(until_us));
        let goodput = f64::from(total) * 1e6 / pair.now_us as f64;
        let rtt_us = pair.peers[CLIENT_SIDE].session.round_trip_us();
        let wire = pair.network.wire[0];
        println!(
            "loss {loss} rate {rate} queue {queue_bytes}: {goodput:.0} B/s, {wire:?}, round trip {rtt_us:?} us"
        );
    }
}

fn figures_of_a_chat() {
    for is_both in [false, true] {
        for every_us in [5_000, 10_000, 33_000, 100_000, 500_000] {
            for loss in [0.0, 0.01, 0.05, 0.1, 0.2] {
                let line = figures(Faults::lossy(loss), every_us, Channel::CONTROL, is_both);
                let way = if is_both { "both" } else { "one " };
                println!("{way} {:3} ms loss {loss:.2} {line}", every_us / 1000);
            }
        }
    }
}

/// Beside KCP: 200 bytes each way.
fn figures_beside_kcp() {
    let messages = 3000;
    for every_us in [5_000, 20_000, 100_000, 500_000] {
        for loss in [0.0, 0.01, 0.05, 0.1, 0.2] {
            let faults = Faults::lossy(loss);
            let (spans, bytes) = kcp_pair::figures(faults.clone(), every_us, 200, messages, true);
            let mut pair = Pair::new(faults, 7);
            for at in 0..messages {
                pair.run_until(at * every_us);
                assert!(pair.send(CLIENT_SIDE, Channel::CONTROL, 200));
                pair.run_until(at * every_us + every_us / 2);
                assert!(pair.send(SERVER_SIDE, Channel::CONTROL, 200));
            }
            let until_us = pair.now_us + 60_000_000;
            assert!(pair.run_until_delivered(until_us));
            let ours = pair.latencies(CLIENT_SIDE, Channel::CONTROL);
            let our_bytes = pair.network.wire.iter().map(|wire| wire.bytes).sum::<u64>();
            let ms = |spans: &[u64], part: f64| spans[(spans.len() as f64 * part) as usize] / 1000;
            println!(
                "{:3} ms loss {loss:.2}: p50 {} (KCP {}), p99 {} ({}) ms, {} ({}) B a message",
                every_us / 1000,
                ms(&ours, 0.5),
                ms(&spans, 0.5),
                ms(&ours, 0.99),
                ms(&spans, 0.99),
                our_bytes / (2 * messages),
                bytes / (2 * messages)
            );
        }
    }
}

fn figures_of_sizes() {
    let mut pair = Pair::new(Faults::none(), 1);
    let session = size_of_val(&pair.peers[0].session);
    pair.send(CLIENT_SIDE, Channel::CONTROL, 100);
    let sending = pair.peers[0].session.heap_bytes();
    pair.run_until(41_000);
    let receiving = pair.peers[1].session.heap_bytes();
    println!("session {session} bytes, heap {sending} while sending, {receiving} while receiving");
}
