//! What a relay must not change: the bytes, both ends of a stream, and who waits for whom.

use crate::harness::{ANY_PORT, Bench, hash, noise, read_to_any_end, until, write_unevenly};
use sluice_relay::{FaultPlan, Relay};
use std::io::ErrorKind;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

async fn exchange(mut client: TcpStream, mut server: TcpStream, up: Vec<u8>, down: Vec<u8>) {
    let (mut client_read, mut client_write) = client.split();
    let (mut server_read, mut server_write) = server.split();
    let (mut got_up, mut got_down) = (Vec::new(), Vec::new());
    tokio::join!(
        async {
            write_unevenly(&mut client_write, &up).await;
            client_write.shutdown().await.unwrap();
        },
        async {
            write_unevenly(&mut server_write, &down).await;
            server_write.shutdown().await.unwrap();
        },
        async { server_read.read_to_end(&mut got_up).await.unwrap() },
        async { client_read.read_to_end(&mut got_down).await.unwrap() },
    );
    assert_eq!(hash(&got_up), hash(&up));
    assert_eq!(hash(&got_down), hash(&down));
}

#[tokio::test]
async fn without_faults_megabytes_pass_unchanged_both_ways_at_once() {
    const UP: usize = 6_000_001;
    const DOWN: usize = 3_000_017;
    let bench = Bench::new("").await;
    let (client, server) = bench.connect().await;
    exchange(client, server, noise(1, UP), noise(2, DOWN)).await;
    until("the connection is over", || bench.relay.stats().open == 0).await;
    let stats = bench.relay.shutdown().await;
    assert_eq!((stats.bytes_up, stats.bytes_down), (UP as u64, DOWN as u64));
    assert_eq!(
        (stats.connections, stats.held_bytes, stats.resets),
        (1, 0, 0)
    );
}

#[tokio::test]
async fn many_connections_with_delay_and_jitter_keep_their_bytes_apart_and_in_order() {
    let bench = Bench::new("delay_ms=5,jitter_ms=10").await;
    let mut exchanges = tokio::task::JoinSet::new();
    for number in 0..30 {
        let (client, server) = bench.connect().await;
        exchanges.spawn(exchange(
            client,
            server,
            noise(number, 200_000),
            noise(!number, 99_999),
        ));
    }
    while let Some(done) = exchanges.join_next().await {
        done.unwrap();
    }
    assert_eq!(bench.relay.stats().connections, 30);
}

#[tokio::test]
async fn a_half_close_is_passed_on_and_the_answer_still_comes() {
    let bench = Bench::new("delay_ms=10").await;
    let (mut client, mut server) = bench.connect().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(
        read_to_any_end(&mut server).await,
        (b"question".to_vec(), None)
    );
    server.write_all(b"answer").await.unwrap();
    drop(server);
    assert_eq!(
        read_to_any_end(&mut client).await,
        (b"answer".to_vec(), None)
    );
}

#[tokio::test]
async fn a_reset_by_one_side_reaches_the_other_after_what_was_sent_before() {
    let bench = Bench::new("delay_ms=30").await;
    for _ in 0..2 {
        let (mut client, mut server) = bench.connect().await;
        client.write_all(b"last words").await.unwrap();
        // An RST overtakes what the relay has not read yet, as on any network; let it read.
        until("the relay has read", || {
            bench.relay.stats().held_bytes == 10
        })
        .await;
        client.set_zero_linger().unwrap();
        drop(client);
        let end = read_to_any_end(&mut server).await;
        assert_eq!(
            end,
            (b"last words".to_vec(), Some(ErrorKind::ConnectionReset))
        );
    }

    let (mut client, server) = bench.connect().await;
    server.set_zero_linger().unwrap();
    drop(server);
    let end = read_to_any_end(&mut client).await;
    assert_eq!(end, (Vec::new(), Some(ErrorKind::ConnectionReset)));
}

#[tokio::test]
async fn writing_to_a_side_that_closed_ends_in_a_reset_not_in_silence() {
    let bench = Bench::new("").await;
    let (client, mut server) = bench.connect().await;
    drop(client);
    let refused = async {
        while server.write_all(&[1; 1000]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(5), refused)
        .await
        .expect("the server was told");
    until("the connection is over", || bench.relay.stats().open == 0).await;
}

#[tokio::test]
async fn a_peer_that_does_not_read_stops_the_sender_within_bounded_memory() {
    let bench = Bench::new("").await;
    let (mut client, mut server) = bench.connect().await;
    let piece = noise(3, 64 * 1024);
    let mut sent = Vec::new();
    // Until a write makes no progress for half a second: every buffer on the way is full.
    while let Ok(written) = timeout(Duration::from_millis(500), client.write(&piece)).await {
        sent.extend_from_slice(&piece[..written.unwrap()]);
        assert!(sent.len() < 64 << 20, "nobody stopped the sender");
    }
    let held_bytes = bench.relay.stats().held_bytes;
    assert!(
        (1..=(256 + 16) * 1024).contains(&held_bytes),
        "{held_bytes} bytes held"
    );

    // The other direction is not harmed, and once somebody reads, all of it arrives.
    server.write_all(b"still here").await.unwrap();
    let mut word = [0; 10];
    client.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"still here");
    client.shutdown().await.unwrap();
    let (got, error) = read_to_any_end(&mut server).await;
    assert_eq!((got.len(), error), (sent.len(), None));
    assert_eq!(hash(&got), hash(&sent));
    assert_eq!(bench.relay.stats().held_bytes, 0);
}

#[tokio::test]
async fn without_an_upstream_the_client_is_reset() {
    let vacant = TcpListener::bind(ANY_PORT).await.unwrap();
    let upstream = vacant.local_addr().unwrap();
    drop(vacant);
    let relay = Relay::start(ANY_PORT, upstream, FaultPlan::default(), 1)
        .await
        .unwrap();
    let mut client = TcpStream::connect(relay.local_addr()).await.unwrap();
    let end = read_to_any_end(&mut client).await;
    assert_eq!(end, (Vec::new(), Some(ErrorKind::ConnectionReset)));
    assert_eq!(relay.shutdown().await.upstream_failures, 1);
}

#[tokio::test]
async fn shutdown_and_drop_both_free_the_port_and_the_connections() {
    for by_drop in [false, true] {
        let bench = Bench::new("").await;
        let address = bench.relay.local_addr();
        let (mut client, mut server) = bench.connect().await;
        if by_drop {
            drop(bench.relay);
        } else {
            assert_eq!(bench.relay.shutdown().await.open, 0);
        }
        assert_eq!(read_to_any_end(&mut client).await.0, b"");
        assert_eq!(read_to_any_end(&mut server).await.0, b"");
        assert!(TcpStream::connect(address).await.is_err());
    }
}
