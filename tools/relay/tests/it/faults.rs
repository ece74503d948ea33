//! What a relay does at will: resets, cuts, pauses, and refusing what it can't do.

use crate::harness::{ANY_PORT, Bench, noise, read_to_any_end, until};
use sluice_relay::{FaultPlan, Relay};
use std::io::ErrorKind;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

#[tokio::test]
async fn a_datagram_fault_is_refused_by_name() {
    for (faults, key) in [
        ("delay_ms=40,loss=0.2", "loss"),
        ("dup=0.05", "dup"),
        ("reorder=0.1", "reorder"),
        ("corrupt=0.01", "corrupt"),
        ("reset_s=10,rebind_s=5", "rebind_s"),
    ] {
        let plan: FaultPlan = faults.parse().unwrap();
        let error = Relay::start(ANY_PORT, ANY_PORT, plan, 1)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(&format!("`{key}`")), "{error}");
    }
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let bench = Bench::new("").await;
    let address = bench.relay.local_addr();
    let error = Relay::start(address, address, FaultPlan::default(), 1)
        .await
        .unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn a_cut_resets_both_sides_of_that_connection_only() {
    let bench = Bench::new("").await;
    let (mut client, mut server) = bench.connect().await;
    let (mut other_client, mut other_server) = bench.connect().await;
    let peer = client.local_addr().unwrap();
    assert_eq!(
        bench.relay.peers(),
        [peer, other_client.local_addr().unwrap()]
    );

    assert!(bench.relay.cut(peer));
    assert!(!bench.relay.cut(peer), "it is cut already");
    let reset = (Vec::new(), Some(ErrorKind::ConnectionReset));
    assert_eq!(read_to_any_end(&mut client).await, reset);
    assert_eq!(read_to_any_end(&mut server).await, reset);

    other_client.write_all(b"hello").await.unwrap();
    let mut word = [0; 5];
    other_server.read_exact(&mut word).await.unwrap();
    assert_eq!(bench.relay.peers().len(), 1);
    assert_eq!(bench.relay.stats().cuts, 1);
}

#[tokio::test]
async fn cut_all_resets_everybody_in_the_middle_of_their_bytes_and_new_ones_come_in() {
    let bench = Bench::new("delay_ms=1000").await;
    let mut pairs = Vec::new();
    for _ in 0..20 {
        let (mut client, server) = bench.connect().await;
        client.write_all(&noise(5, 5000)).await.unwrap();
        pairs.push((client, server));
    }
    until("all is under way", || {
        bench.relay.stats().held_bytes == 100_000
    })
    .await;
    assert_eq!(bench.relay.cut_all(), 20);
    assert_eq!(bench.relay.cut_all(), 0);
    for (mut client, mut server) in pairs {
        let reset = (Vec::new(), Some(ErrorKind::ConnectionReset));
        assert_eq!(read_to_any_end(&mut client).await, reset);
        assert_eq!(read_to_any_end(&mut server).await, reset);
    }
    bench.connect().await;
    let stats = bench.relay.stats();
    assert_eq!((stats.cuts, stats.held_bytes, stats.open), (20, 0, 1));
}

#[tokio::test]
async fn cut_after_bytes_lets_exactly_so_many_through() {
    let bench = Bench::new("cut_after_bytes=1000").await;
    for total in [1001, 5000, 100_000] {
        let (mut client, mut server) = bench.connect().await;
        server.write_all(&noise(6, 3000)).await.unwrap();
        let mut word = vec![0; 3000];
        client.read_exact(&mut word).await.unwrap();

        let bytes = noise(7, total);
        client.write_all(&bytes).await.unwrap();
        let (got, error) = read_to_any_end(&mut server).await;
        assert!(got == bytes[..1000], "{} bytes came", got.len());
        assert_eq!(error, Some(ErrorKind::ConnectionReset));
        assert_eq!(
            read_to_any_end(&mut client).await.1,
            Some(ErrorKind::ConnectionReset)
        );
    }
    assert_eq!(bench.relay.stats().resets, 3);

    let (mut client, mut server) = bench.connect().await;
    client.write_all(&noise(8, 999)).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_any_end(&mut server).await, (noise(8, 999), None));
}

#[tokio::test]
async fn a_pause_holds_bytes_and_ends_until_it_is_over_and_loses_none() {
    let bench = Bench::new("").await;
    let (mut client, mut server) = bench.connect().await;
    bench.relay.pause();
    client.write_all(b"held").await.unwrap();
    client.shutdown().await.unwrap();
    server.write_all(b"too").await.unwrap();
    // One that comes during the pause is let in, and held as well.
    let (mut late_client, mut late_server) = bench.connect().await;
    late_client.write_all(b"late").await.unwrap();

    let mut byte = [0; 1];
    let short = Duration::from_millis(200);
    assert!(timeout(short, server.read(&mut byte)).await.is_err());
    assert!(timeout(short, late_server.read(&mut byte)).await.is_err());
    assert!(
        client
            .try_read(&mut byte)
            .is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    );
    until("all is in the relay", || {
        bench.relay.stats().held_bytes == 11
    })
    .await;

    bench.relay.resume();
    assert_eq!(read_to_any_end(&mut server).await, (b"held".to_vec(), None));
    drop(server);
    assert_eq!(read_to_any_end(&mut client).await, (b"too".to_vec(), None));
    drop(late_client);
    assert_eq!(
        read_to_any_end(&mut late_server).await,
        (b"late".to_vec(), None)
    );
}
