//! What the datagram session does for latency and bytes over a simulated network, beside KCP:
//! `cargo bench -p sluice-codec --bench session`, one part of it by its name: `-- kcp`.

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
use pair::{CLIENT_SIDE, OVERHEAD, Pair, SERVER_SIDE};

/// All figures, or those of one name: `-- kcp`.
fn main() {
    let name = std::env::args().skip(1).find(|it| !it.starts_with('-'));
    let all: [(&str, fn()); 6] = [
        ("chat", figures_of_a_chat),
        ("jitter", figures_of_a_chat_over_a_path_that_jitters),
        ("bulk", figures_of_a_bulk),
        ("kcp", figures_beside_kcp),
        ("repeats", figures_of_spurious_repeats),
        ("sizes", figures_of_sizes),
    ];
    for (_, print) in all
        .iter()
        .filter(|it| name.as_deref().is_none_or(|name| name == it.0))
    {
        print();
    }
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
        let goodput = pair.deliver_bulk(2_000_000);
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

/// Bytes that header and seal really have each way, over those of the pair's.
const HEADER_BYTES: [u64; 2] = [11 + 16 - OVERHEAD as u64, 3 + 16 - OVERHEAD as u64];

/// Messages of one size each way, for ten seconds, again and again in a new session.
#[derive(Clone, Copy)]
struct Talk {
    rate: u64,
    bytes: usize,
}

/// What the talks came to: latencies one way, sorted, and what went over the wire.
#[derive(Default)]
struct Outcome {
    spans: Vec<u64>,
    wire_bytes: u64,
    /// Packets with messages.
    packets: u64,
}

impl Talk {
    fn every_us(self) -> u64 {
        1_000_000 / self.rate
    }

    /// In one session.
    fn messages(self) -> u64 {
        10 * self.rate
    }

    fn seeds(self) -> std::ops::Range<u64> {
        1..1 + 4000 / self.messages()
    }

    fn over_sluice(self, faults: &Faults, channel: Channel) -> Outcome {
        let mut outcome = Outcome::default();
        for seed in self.seeds() {
            let mut pair = Pair::new(faults.clone(), seed);
            for at in 0..self.messages() {
                pair.run_until(at * self.every_us());
                assert!(pair.send(CLIENT_SIDE, channel, self.bytes));
                pair.run_until(at * self.every_us() + self.every_us() / 3);
                assert!(pair.send(SERVER_SIDE, channel, self.bytes));
            }
            let until_us = pair.now_us + 60_000_000;
            assert!(pair.run_until_delivered(until_us));
            pair.check();
            outcome.spans.extend(pair.latencies(CLIENT_SIDE, channel));
            outcome.spans.extend(pair.latencies(SERVER_SIDE, channel));
            for (wire, head) in pair.network.wire.iter().zip(HEADER_BYTES) {
                outcome.wire_bytes += wire.bytes + wire.packets * head;
                outcome.packets += wire.large;
            }
        }
        outcome.spans.sort_unstable();
        outcome
    }

    fn over_kcp(self, faults: &Faults) -> Outcome {
        let mut outcome = Outcome::default();
        for seed in self.seeds() {
            let talk = (self.every_us(), self.bytes, self.messages());
            let (spans, wire_bytes) = kcp_pair::figures(faults.clone(), seed, talk);
            outcome.spans.extend(spans);
            outcome.wire_bytes += wire_bytes;
        }
        outcome.spans.sort_unstable();
        outcome
    }
}

impl Outcome {
    /// The latency that so many of a thousand messages kept.
    fn ms(&self, of_thousand: usize) -> u64 {
        self.spans[self.spans.len() * of_thousand / 1000] / 1000
    }

    fn bytes_a_message(&self) -> u64 {
        self.wire_bytes / self.spans.len() as u64
    }
}

/// Beside KCP: sizes, rates and losses of chats and games.
fn figures_beside_kcp() {
    println!(
        "bytes  a second  loss  | p50 p99 p99.9 ms, bytes a message: ordered | unordered | KCP"
    );
    for bytes in [32, 64, 100, 200] {
        for rate in [5, 20, 50, 200] {
            for loss in [0.0, 0.01, 0.05, 0.1, 0.2] {
                let (talk, faults) = (Talk { rate, bytes }, Faults::lossy(loss));
                let outcomes = [
                    talk.over_sluice(&faults, Channel::CONTROL),
                    talk.over_sluice(&faults, Channel::PUSHES),
                    talk.over_kcp(&faults),
                ];
                let cells = outcomes.map(|it| {
                    let ms = [500, 990, 999].map(|part| it.ms(part));
                    format!(
                        "{:3} {:3} {:4} {:4} B",
                        ms[0],
                        ms[1],
                        ms[2],
                        it.bytes_a_message()
                    )
                });
                println!("{bytes:3} B {rate:3}/s {loss:.2} | {}", cells.join(" | "));
            }
        }
    }
}

/// On a path that only jitters everything that is sent again is in vain.
fn figures_of_spurious_repeats() {
    for jitter_us in [0, 5_000, 20_000] {
        for rate in [2, 5, 20, 50] {
            let talk = Talk { rate, bytes: 64 };
            let faults = Faults {
                jitter_us,
                ..Faults::none()
            };
            let outcome = talk.over_sluice(&faults, Channel::PUSHES);
            println!(
                "jitter of {} ms, {rate}/s: {} packets for {} messages, {} B a message, p99 {} ms",
                jitter_us / 1000,
                outcome.packets,
                outcome.spans.len(),
                outcome.bytes_a_message(),
                outcome.ms(990)
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
