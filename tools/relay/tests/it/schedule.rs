//! What a relay does by the clock of its plan, on tokio's paused clock.

use crate::harness::{Bench, read_to_any_end};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until};

const TICK: Duration = Duration::from_millis(10);

/// Sends a number every tick and returns how long after its sending each arrived, in order.
async fn lateness_of_ticks(mut from: TcpStream, mut to: TcpStream, ticks: u32) -> Vec<Duration> {
    let start = Instant::now();
    let sender = async {
        for tick in 0..ticks {
            sleep_until(start + TICK * tick).await;
            from.write_all(&tick.to_be_bytes()).await.unwrap();
        }
    };
    let receiver = async {
        let mut lateness = Vec::new();
        for tick in 0..ticks {
            assert_eq!(to.read_u32().await.unwrap(), tick);
            lateness.push(Instant::now() - (start + TICK * tick));
        }
        lateness
    };
    tokio::join!(sender, receiver).1
}

#[tokio::test(start_paused = true)]
async fn delay_and_jitter_are_applied_each_way() {
    let bench = Bench::new("delay_ms=40,jitter_ms=20").await;
    for up in [true, false] {
        let (client, server) = bench.connect().await;
        let (from, to) = if up {
            (client, server)
        } else {
            (server, client)
        };
        let late = lateness_of_ticks(from, to, 500).await;
        // A millisecond for each timer on the way.
        let range = Duration::from_millis(40)..=Duration::from_millis(63);
        assert!(late.iter().all(|late| range.contains(late)), "{late:?}");
        let (least, most) = (late.iter().min().unwrap(), late.iter().max().unwrap());
        assert!(*most - *least > TICK, "no jitter: {least:?} to {most:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn bandwidth_spreads_what_was_written_at_once() {
    // 80 kbit/s: ten bytes a millisecond.
    let bench = Bench::new("bandwidth_kbps=80").await;
    let (mut client, mut server) = bench.connect().await;
    let start = Instant::now();
    client.write_all(&[7; 50_000]).await.unwrap();
    let mut bytes = vec![0; 50_000];
    server.read_exact(&mut bytes).await.unwrap();
    let range = Duration::from_millis(4990)..=Duration::from_millis(5010);
    assert!(range.contains(&start.elapsed()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn resets_reach_both_sides_at_the_time_that_seed_and_number_say() {
    let mut lives = Vec::new();
    for seed in [42, 42, 43] {
        let bench = Bench::with_seed("reset_s=10", seed).await;
        for _ in 0..5 {
            let (mut client, mut server) = bench.connect().await;
            let start = Instant::now();
            let reset = (Vec::new(), Some(ErrorKind::ConnectionReset));
            assert_eq!(read_to_any_end(&mut client).await, reset);
            lives.push((Instant::now() - start).as_millis().next_multiple_of(10));
            assert_eq!(read_to_any_end(&mut server).await, reset);
        }
        assert_eq!(bench.relay.shutdown().await.resets, 5);
    }
    for number in 0..5 {
        assert!(lives[number].abs_diff(lives[number + 5]) <= 10, "{lives:?}");
        assert!(lives[number].abs_diff(lives[number + 10]) > 10, "{lives:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stall_stops_both_directions_then_goes_on_without_loss() {
    let bench = Bench::new("stall_s=10").await;
    let (client, server) = bench.connect().await;
    let (quiet_client, quiet_server) = bench.connect().await;
    let ((up, down), other) = tokio::join!(both_ways(client, server, 6000), async {
        lateness_of_ticks(quiet_client, quiet_server, 6000).await
    });
    for late in [&up, &down] {
        let longest = late.iter().max().unwrap();
        let range = Duration::from_millis(490)..=Duration::from_millis(3010);
        assert!(range.contains(longest), "{longest:?}");
    }
    // Both directions are late at the same ticks, the other connection is at others.
    assert_eq!(stalled_ticks(&up), stalled_ticks(&down));
    assert_ne!(stalled_ticks(&up), stalled_ticks(&other));
    assert!(bench.relay.stats().stalls >= 4);
}

/// The ticks that were among the first of a stall: late by a quarter of a second and more.
fn stalled_ticks(lateness: &[Duration]) -> Vec<usize> {
    let late = |tick: &usize| lateness[*tick] > Duration::from_millis(250);
    // Tenths, so that a tick at the very edge of a stall makes no difference.
    let mut ticks: Vec<_> = (0..lateness.len())
        .filter(late)
        .map(|tick| tick / 100)
        .collect();
    ticks.dedup();
    ticks
}

async fn both_ways(
    client: TcpStream,
    server: TcpStream,
    ticks: u32,
) -> (Vec<Duration>, Vec<Duration>) {
    let (client, server) = (client.into_std().unwrap(), server.into_std().unwrap());
    let twin =
        |stream: &std::net::TcpStream| TcpStream::from_std(stream.try_clone().unwrap()).unwrap();
    tokio::join!(
        lateness_of_ticks(twin(&client), twin(&server), ticks),
        lateness_of_ticks(twin(&server), twin(&client), ticks),
    )
}

#[tokio::test(start_paused = true)]
async fn a_blackout_holds_everybody_and_refuses_newcomers_then_ends() {
    let bench = Bench::new("blackout_s=5").await;
    let (client, server) = bench.connect().await;
    let (other_client, other_server) = bench.connect().await;
    let watch = async {
        while bench.relay.stats().blackouts == 0 {
            sleep(TICK).await;
        }
        let mut newcomer = TcpStream::connect(bench.relay.local_addr()).await.unwrap();
        let end = read_to_any_end(&mut newcomer).await;
        assert_eq!(end, (Vec::new(), Some(ErrorKind::ConnectionReset)));
        // Whoever tries again gets in once it is over.
        let start = Instant::now();
        while tokio::select! {
            _ = bench.upstream.accept() => false,
            () = refusal(bench.relay.local_addr()) => true,
        } {
            assert!(
                start.elapsed() < Duration::from_millis(3100),
                "nobody gets in again"
            );
            sleep(TICK * 10).await;
        }
    };
    let (late, other, ()) = tokio::join!(
        lateness_of_ticks(client, server, 3000),
        lateness_of_ticks(other_server, other_client, 3000),
        watch,
    );
    for late in [&late, &other] {
        let longest = late.iter().max().unwrap();
        let range = Duration::from_millis(990)..=Duration::from_millis(3010);
        assert!(range.contains(longest), "{longest:?}");
    }
    assert_eq!(stalled_ticks(&late), stalled_ticks(&other));
    assert!(bench.relay.shutdown().await.refused >= 1);
}

/// Connects and waits until that is reset.
async fn refusal(relay: SocketAddr) {
    let mut newcomer = TcpStream::connect(relay).await.unwrap();
    read_to_any_end(&mut newcomer).await;
}
