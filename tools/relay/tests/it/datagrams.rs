//! Datagrams through a relay, on tokio's paused clock.

use crate::harness::{ANY_PORT, DatagramBench, noise, read_to_any_end, receive, until};
use sluice_relay::{FaultPlan, Relays};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::{Instant, sleep, sleep_until};

const MS: Duration = Duration::from_millis(1);
/// No datagram is ever this late.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends a number every tick of 10 ms; returns which arrived, in which order, and how late each.
async fn ticks(
    from: &UdpSocket,
    to: &UdpSocket,
    address: Option<SocketAddr>,
    ticks: u32,
) -> Vec<(u32, Duration)> {
    let start = Instant::now();
    let due = |tick: u32| start + MS * 10 * tick;
    let sender = async {
        for tick in 0..ticks {
            sleep_until(due(tick)).await;
            match address {
                Some(address) => from.send_to(&tick.to_be_bytes(), address).await.unwrap(),
                None => from.send(&tick.to_be_bytes()).await.unwrap(),
            };
        }
    };
    let receiver = async {
        let mut arrived = Vec::new();
        while let Some((datagram, _)) = receive(to, PATIENCE).await {
            let tick = u32::from_be_bytes(datagram.try_into().unwrap());
            arrived.push((tick, Instant::now() - due(tick)));
        }
        arrived
    };
    tokio::join!(sender, receiver).1
}

fn numbers(arrived: &[(u32, Duration)]) -> Vec<u32> {
    arrived.iter().map(|(tick, _)| *tick).collect()
}

#[tokio::test]
async fn datagrams_of_all_sizes_pass_both_ways_and_each_client_has_its_own_address() {
    let bench = DatagramBench::new("").await;
    let clients = [bench.client().await, bench.client().await];
    let mut seen = BTreeSet::new();
    for (number, client) in clients.iter().enumerate() {
        for bytes in [0, 1, 1200, 1472, 60_000] {
            let sent = noise(number as u64, bytes);
            client.send(&sent).await.unwrap();
            let (got, from) = receive(&bench.upstream, PATIENCE).await.unwrap();
            assert!(got == sent);
            seen.insert(from);
            bench.upstream.send_to(&sent, from).await.unwrap();
            assert!(receive(client, PATIENCE).await.unwrap().0 == sent);
        }
    }
    assert_eq!(seen.len(), 2);
    let expected: Vec<_> = clients.iter().map(|c| c.local_addr().unwrap()).collect();
    assert_eq!(bench.relay.clients(), expected);
    let stats = bench.relay.shutdown().await;
    assert_eq!((stats.flows, stats.up, stats.down), (2, 10, 10));
    assert_eq!((stats.bytes_up, stats.held_bytes), (2 * 62_673, 0));
}

#[tokio::test(start_paused = true)]
async fn delay_and_jitter_are_applied_each_way_and_keep_the_order() {
    let bench = DatagramBench::new("delay_ms=40,jitter_ms=20").await;
    let client = bench.client().await;
    let up = ticks(&client, &bench.upstream, None, 300).await;
    client.send(b"where am I").await.unwrap();
    let (_, behind) = receive(&bench.upstream, PATIENCE).await.unwrap();
    let down = ticks(&bench.upstream, &client, Some(behind), 300).await;
    for arrived in [up, down] {
        assert_eq!(numbers(&arrived), (0..300).collect::<Vec<_>>());
        // A millisecond for each timer on the way.
        let range = MS * 40..=MS * 63;
        assert!(arrived.iter().all(|(_, late)| range.contains(late)));
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_datagrams_are_lost_doubled_and_overtaken_under_the_same_seed() {
    let mut runs = Vec::new();
    for seed in [1, 1, 2] {
        let bench = DatagramBench::with_seed("loss=0.2,dup=0.1,reorder=0.1", seed).await;
        let client = bench.client().await;
        let arrived = numbers(&ticks(&client, &bench.upstream, None, 1000).await);
        let once: BTreeSet<_> = arrived.iter().copied().collect();
        let stats = bench.relay.stats();
        assert_eq!(once.len() as u64, 1000 - stats.lost);
        assert_eq!(arrived.len(), once.len() + stats.doubled as usize);
        assert!((150..250).contains(&stats.lost), "{stats}");
        assert!((50..130).contains(&stats.doubled), "{stats}");
        assert!((50..130).contains(&stats.reordered), "{stats}");
        assert!(!arrived.is_sorted());
        let mut sorted = arrived;
        sorted.sort_unstable();
        runs.push(sorted);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test(start_paused = true)]
async fn a_corrupted_datagram_arrives_with_one_bit_flipped_and_a_large_one_never() {
    let bench = DatagramBench::new("corrupt=1,mtu_bytes=1400").await;
    let client = bench.client().await;
    for bytes in [1, 20, 1400, 1401] {
        let sent = noise(9, bytes);
        client.send(&sent).await.unwrap();
        let got = receive(&bench.upstream, PATIENCE).await;
        let flipped = got.map(|(got, _)| {
            let pairs = got.iter().zip(&sent);
            pairs.map(|(a, b)| (a ^ b).count_ones()).sum::<u32>()
        });
        assert_eq!(flipped, (bytes <= 1400).then_some(1));
    }
    let stats = bench.relay.stats();
    assert_eq!((stats.corrupted, stats.too_large), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn after_a_rebind_the_old_address_is_dead_and_the_new_one_answers() {
    let bench = DatagramBench::new("").await;
    let client = bench.client().await;
    let mut seen = Vec::new();
    for round in 0..3 {
        client.send(b"here").await.unwrap();
        let (_, from) = receive(&bench.upstream, PATIENCE).await.unwrap();
        assert!(!seen.contains(&from));
        for old in &seen {
            bench.upstream.send_to(b"too late", old).await.unwrap();
        }
        bench.upstream.send_to(b"hello", from).await.unwrap();
        assert_eq!(receive(&client, PATIENCE).await.unwrap().0, b"hello");
        assert_eq!(receive(&client, PATIENCE).await, None);
        seen.push(from);
        if round == 0 {
            assert!(bench.relay.rebind(client.local_addr().unwrap()));
            assert!(!bench.relay.rebind(bench.relay.local_addr()));
        } else {
            assert_eq!(bench.relay.rebind_all(), 1);
        }
        until("the client is rebound", || {
            bench.relay.stats().rebinds == round + 1
        })
        .await;
    }
    // First another address, then only another port.
    assert_eq!(seen[0].ip(), Ipv4Addr::LOCALHOST);
    assert_ne!(seen[1].ip(), seen[0].ip());
    assert_eq!(seen[2].ip(), seen[1].ip());
}

#[tokio::test(start_paused = true)]
async fn rebinds_come_at_the_times_that_seed_and_number_say() {
    let mut runs = Vec::new();
    for seed in [1, 1, 2] {
        let bench = DatagramBench::with_seed("rebind_s=5", seed).await;
        let client = bench.client().await;
        let mut changed = Vec::new();
        let mut last = None;
        for tick in 0..1000 {
            client.send(b"tick").await.unwrap();
            let (_, from) = receive(&bench.upstream, PATIENCE).await.unwrap();
            if last.replace(from) != Some(from) {
                changed.push(tick);
            }
            sleep(MS * 100).await;
        }
        assert!((10..35).contains(&changed.len()), "{changed:?}");
        runs.push(changed);
    }
    let near = |(a, b): (&i32, &i32)| a.abs_diff(*b) <= 5;
    assert!(runs[0].iter().zip(&runs[1]).all(near), "{runs:?}");
    assert!(!runs[0].iter().zip(&runs[2]).all(near), "{runs:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stall_holds_datagrams_and_a_blackout_loses_them() {
    let bench = DatagramBench::new("stall_s=10").await;
    let client = bench.client().await;
    let arrived = ticks(&client, &bench.upstream, None, 6000).await;
    assert_eq!(numbers(&arrived), (0..6000).collect::<Vec<_>>());
    let longest = arrived.iter().map(|(_, late)| *late).max().unwrap();
    assert!((MS * 490..=MS * 3010).contains(&longest), "{longest:?}");
    assert!(bench.relay.stats().stalls >= 3);

    let bench = DatagramBench::new("blackout_s=10").await;
    let (client, other) = (bench.client().await, bench.client().await);
    // Its flow is there from the start.
    other.send(&[]).await.unwrap();
    receive(&bench.upstream, PATIENCE).await.unwrap();
    let arrived = numbers(&ticks(&client, &bench.upstream, None, 6000).await);
    let stats = bench.relay.stats();
    assert!(stats.blackouts >= 3, "{stats}");
    assert_eq!(arrived.len() as u64, 6000 - stats.blacked_out);
    let gaps: Vec<_> = arrived.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let dark = gaps.iter().filter(|gap| **gap > 1).collect::<Vec<_>>();
    assert!(dark.iter().all(|gap| (95..=305).contains(*gap)), "{dark:?}");
}

#[tokio::test(start_paused = true)]
async fn blocked_means_that_nothing_passes_until_unblocked() {
    let bench = DatagramBench::new("").await;
    let client = bench.client().await;
    bench.relay.block();
    client.send(b"into the void").await.unwrap();
    assert_eq!(receive(&bench.upstream, PATIENCE).await, None);
    bench.relay.unblock();
    client.send(b"out of it").await.unwrap();
    let (got, _) = receive(&bench.upstream, PATIENCE).await.unwrap();
    assert_eq!(got, b"out of it");
    assert_eq!(bench.relay.stats().blacked_out, 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_flow_is_forgotten_and_its_client_comes_back_from_another_port() {
    let bench = DatagramBench::new("nat_idle_s=30").await;
    let client = bench.client().await;
    let mut seen = BTreeSet::new();
    for gap_s in [29, 29, 31, 1] {
        client.send(b"here").await.unwrap();
        seen.insert(receive(&bench.upstream, PATIENCE).await.unwrap().1);
        sleep(Duration::from_secs(gap_s)).await;
    }
    assert_eq!(seen.len(), 2);
    let stats = bench.relay.stats();
    assert_eq!((stats.flows, stats.open), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_is_bounded_and_the_rest_is_dropped_and_counted() {
    let bench = DatagramBench::new("delay_ms=4000").await;
    let client = bench.client().await;
    for _ in 0..400 {
        client.send(&[7; 1000]).await.unwrap();
        sleep(MS).await;
    }
    let stats = bench.relay.stats();
    assert_eq!(stats.held_bytes, 262_000);
    assert_eq!(stats.overflowed, 400 - 262);
    let mut arrived = 0;
    while receive(&bench.upstream, PATIENCE).await.is_some() {
        arrived += 1;
    }
    assert_eq!(arrived, 262);
    assert_eq!(bench.relay.stats().held_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn bandwidth_spreads_a_burst() {
    // 80 kbit/s: a datagram of 1,000 bytes takes 100 ms.
    let bench = DatagramBench::new("bandwidth_kbps=80").await;
    let client = bench.client().await;
    let start = Instant::now();
    for _ in 0..20 {
        client.send(&[7; 1000]).await.unwrap();
    }
    for number in 1..=20 {
        receive(&bench.upstream, PATIENCE).await.unwrap();
        let late = start.elapsed();
        let due = MS * 100 * number;
        assert!((due..=due + MS * 5).contains(&late), "{number}: {late:?}");
    }
}

#[tokio::test]
async fn shutdown_and_drop_both_free_the_port() {
    for by_drop in [false, true] {
        let bench = DatagramBench::new("").await;
        let address = bench.relay.local_addr();
        let client = bench.client().await;
        client.send(b"through").await.unwrap();
        receive(&bench.upstream, PATIENCE).await.unwrap();
        if by_drop {
            drop(bench.relay);
            let end = Instant::now() + PATIENCE;
            while UdpSocket::bind(address).await.is_err() {
                assert!(Instant::now() < end, "the port is never free");
                sleep(MS).await;
            }
        } else {
            assert_eq!(bench.relay.shutdown().await.open, 0);
            UdpSocket::bind(address).await.unwrap();
        }
    }
}

#[tokio::test]
async fn one_plan_serves_relays_of_both_kinds() {
    let (streams, datagrams) = (
        TcpListener::bind(ANY_PORT).await.unwrap(),
        UdpSocket::bind(ANY_PORT).await.unwrap(),
    );
    let plan: FaultPlan = "loss=1,reset_s=0.01,dup=1".parse().unwrap();
    let mut relays = Relays::new(plan, 1);
    let before = relays.before_streams(streams.local_addr().unwrap()).await;
    let mut client = TcpStream::connect(before.unwrap()).await.unwrap();
    let (_, end) = read_to_any_end(&mut client).await;
    assert_eq!(end, Some(ErrorKind::ConnectionReset));

    let before = relays.before_datagrams(datagrams.local_addr().unwrap());
    let client = UdpSocket::bind(ANY_PORT).await.unwrap();
    let before = before.await.unwrap();
    client.send_to(b"lost", before).await.unwrap();
    let lost = || relays.datagrams()[0].stats().lost == 1;
    until("the datagram is lost", lost).await;
    assert_eq!(relays.streams()[0].stats().resets, 1);
    relays.shutdown().await;
}
