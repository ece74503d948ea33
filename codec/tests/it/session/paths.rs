//! Addresses that change: proof, amplification, the way back, and what a client
//! learns of its NAT.

use std::sync::Arc;

use bytes::Bytes;
use sluice_codec::datagram::{Channel, Config, Session, Side, Source};

use super::{
    network::Faults,
    pair::{CLIENT_SIDE, OVERHEAD, Pair, SERVER_SIDE},
};

const PAYLOAD: Bytes = Bytes::from_static(&[7; 1000]);

#[test]
fn an_unproven_address_gets_three_times_what_came_from_it() {
    let config = Arc::new(Config::default());
    let mut server = Session::new(Side::Server, config, 0, Some(80_000));
    let elsewhere = Source::Elsewhere {
        token: 99,
        is_same_host: false,
    };
    let (mut came, mut sent, mut now_us) = (0, 0, 0);
    for number in 0..20 {
        now_us += 50_000;
        for _ in 0..10 {
            let _ = server.send(now_us, Channel::PUSHES, PAYLOAD);
        }
        // Whoever it is never answers the challenge.
        let bytes = 100 + 13 * number as usize;
        let source = if number == 0 {
            elsewhere
        } else {
            Source::Current
        };
        came += bytes;
        let received = server.receive(now_us, number, &[1], bytes, source, &mut |_, _| true);
        assert_eq!(received.map(|it| it.has_moved), Ok(number == 0));
        let mut out = Vec::new();
        while server.transmit(now_us, OVERHEAD, &mut out).is_some() {
            sent += out.len() + OVERHEAD;
            out.clear();
        }
        assert!(sent <= 3 * came, "{sent} of {came}");
    }
    assert!(sent > 0);
    while !server.take_path_failure() {
        now_us = server.timeout().unwrap();
        server.on_timeout(now_us);
        let mut out = Vec::new();
        while server.transmit(now_us, OVERHEAD, &mut out).is_some() {
            sent += out.len() + OVERHEAD;
            out.clear();
        }
        assert!(sent <= 3 * came, "{sent} of {came}");
    }
    assert!(now_us < 30_000_000);
}

#[test]
fn who_sends_a_copy_from_elsewhere_gains_nothing() {
    let mut pair = Pair::new(Faults::none(), 5);
    pair.send(CLIENT_SIDE, Channel::CONTROL, 100);
    pair.run_until(1_000_000);
    // The client's next packet seems to come from elsewhere; it goes on where it was.
    pair.client_address = 200;
    pair.send(CLIENT_SIDE, Channel::CONTROL, 100);
    pair.client_address = 100;
    pair.run_until(1_050_000);
    assert_eq!((pair.moves, pair.seen_address), (1, 200));
    for at in 0..50 {
        pair.send(SERVER_SIDE, Channel::PUSHES, 100);
        pair.run_until(1_050_000 + at * 100_000);
    }
    let until_us = pair.now_us + 20_000_000;
    assert!(pair.run_until_delivered(until_us));
    assert_eq!(pair.seen_address, 100);
    pair.check();
}

#[test]
fn a_client_learns_how_long_its_nat_remembers() {
    let mut pair = Pair::new(Faults::none(), 5);
    pair.send(CLIENT_SIDE, Channel::CONTROL, 100);
    let mut last_packets = 0;
    let mut quiet_since_us = 0;
    let mut moves = Vec::new();
    for second in 1..3600u64 {
        pair.run_until(second * 1_000_000);
        let packets = pair
            .network
            .wire
            .iter()
            .map(|wire| wire.packets)
            .sum::<u64>();
        if packets > last_packets {
            last_packets = packets;
            quiet_since_us = pair.now_us;
        } else if pair.now_us - quiet_since_us > 30_000_000 {
            // Forgotten after 30 s: the next packet comes from another port.
            pair.client_address += 1;
            quiet_since_us = pair.now_us;
        }
        if pair.moves as usize > moves.len() {
            moves.push(second);
        }
    }
    // It tried longer silences, and stopped where the NAT did.
    assert!((1..4).contains(&moves.len()), "{moves:?}");
    assert!(moves.iter().all(|second| *second < 300), "{moves:?}");
    assert!(
        pair.network.wire[0].packets < 3600 / 15,
        "{:?}",
        pair.network.wire
    );
}
