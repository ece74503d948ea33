//! The frames of the datagram session: what SPEC.md shows is what a session
//! writes, and what one takes.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use sluice_codec::datagram::{Channel, Config, End, Session, Side, Source};

use crate::{blocks, spec};

const OVERHEAD: usize = 27;

fn session(side: Side) -> Session {
    Session::new(side, Arc::new(Config::default()), 0, Some(80_000))
}

fn send(session: &mut Session, channel: Channel, text: &str) {
    let payload = Bytes::copy_from_slice(text.as_bytes());
    session.send(0, channel, payload).expect("room");
}

fn transmit(session: &mut Session, now_us: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    let sent = session.transmit(now_us, OVERHEAD, &mut payload);
    sent.expect("a packet is due");
    payload
}

/// Everything in it, in order.
fn receive(session: &mut Session, number: u64, payload: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut got = Vec::new();
    let received = session.receive(
        0,
        number,
        payload,
        payload.len() + OVERHEAD,
        Source::Current,
        &mut |channel, payload| {
            got.push((channel.0, payload.to_vec()));
            true
        },
    );
    received.expect("an example");
    got
}

/// The examples by name.
fn examples() -> BTreeMap<String, Vec<u8>> {
    let blocks = blocks(&spec(), "hex");
    let named = blocks.iter().filter_map(|block| {
        let name = block.keys.get("frames")?;
        Some((name.clone(), block.bytes()))
    });
    named.collect()
}

#[test]
fn messages_are_framed_as_the_spec_shows() {
    let examples = examples();
    let (mut client, mut server) = (session(Side::Client), session(Side::Server));
    send(&mut client, Channel::CONTROL, "hello");
    assert_eq!(transmit(&mut client, 0), examples["ordered"]);
    let got = receive(&mut server, 0, &examples["ordered"]);
    assert_eq!(got, [(0, b"hello".to_vec())]);

    send(&mut client, Channel(69), "first");
    send(&mut client, Channel(69), "second");
    let early = transmit(&mut client, 0);
    send(&mut client, Channel(69), "one");
    send(&mut client, Channel::CONTROL, "two");
    assert_eq!(transmit(&mut client, 0), examples["two"]);
    let got = receive(&mut server, 2, &examples["two"]);
    assert_eq!(got, [(69, b"one".to_vec()), (0, b"two".to_vec())]);
    assert_eq!(receive(&mut server, 1, &early).len(), 2);

    for (channel, name, number) in [(192, "unreliable", 3), (129, "latest", 4)] {
        send(&mut client, Channel(channel), "hi");
        assert_eq!(transmit(&mut client, 0), examples[name]);
        let got = receive(&mut server, number, &examples[name]);
        assert_eq!(got, [(channel, b"hi".to_vec())]);
    }
}

#[test]
fn pieces_are_framed_as_the_spec_shows() {
    let head = &examples()["fragment"];
    let mut server = session(Side::Server);
    let message = "x".repeat(2400);
    send(&mut server, Channel::PUSHES, &message);
    transmit(&mut server, 0);
    let payload = transmit(&mut server, 0);
    assert_eq!(
        payload.strip_prefix(head.as_slice()),
        Some(&[b'x'; 800][..])
    );
    let mut client = session(Side::Client);
    for index in [2, 1, 0] {
        let mut piece = head.clone();
        piece[3] = index;
        piece.extend([b'x'; 800]);
        let got = receive(&mut client, u64::from(index), &piece);
        assert_eq!(got.len(), usize::from(index == 0));
    }
}

#[test]
fn acks_are_framed_as_the_spec_shows() {
    let examples = examples();
    let mut server = session(Side::Server);
    receive(&mut server, 0, &examples["ordered"]);
    assert_eq!(server.timeout(), Some(25_000));
    assert_eq!(transmit(&mut server, 25_000), examples["ack"]);
    let mut server = session(Side::Server);
    for number in [0, 1, 3] {
        receive(&mut server, number, &[1]);
    }
    assert_eq!(transmit(&mut server, 0), examples["ranges"]);

    let mut client = session(Side::Client);
    for _ in 0..4 {
        send(&mut client, Channel::CONTROL, "text");
        transmit(&mut client, 0);
    }
    receive(&mut client, 0, &examples["ranges"]);
    assert_eq!((client.acked_next(), client.send_bytes()), (4, 68));
    receive(&mut client, 1, &[2, 2, 0, 0]);
    assert_eq!(client.send_bytes(), 0);
}

#[test]
fn the_other_frames_are_those_of_the_spec() {
    let examples = examples();
    let mut server = session(Side::Server);
    // 111,000 less the first limit was handed on.
    for (number, bytes) in [(0, 6_000), (1, 6_568)].into_iter().chain([(2, 0)]) {
        let mut payload = vec![0x40, 0, number as u8];
        payload.resize(payload.len() + bytes, 1);
        if bytes > 0 {
            receive(&mut server, number, &payload);
        }
    }
    let payload = transmit(&mut server, 0);
    assert!(payload.ends_with(&examples["credit"]), "{payload:02x?}");

    let token = 0x0123_4567_89ab_cdef;
    let mut server = session(Side::Server);
    let received = server.receive(
        0,
        0,
        &[1],
        1200,
        Source::Elsewhere {
            token,
            is_same_host: false,
        },
        &mut |_, _| true,
    );
    assert!(received.is_ok_and(|received| received.has_moved));
    let challenge = transmit(&mut server, 25_000);
    assert!(
        challenge.ends_with(&examples["challenge"]),
        "{challenge:02x?}"
    );
    let mut client = session(Side::Client);
    receive(&mut client, 0, &examples["challenge"]);
    let response = transmit(&mut client, 0);
    assert!(response.ends_with(&examples["response"]), "{response:02x?}");
    let received = server.receive(
        0,
        1,
        &examples["response"],
        1200,
        Source::Current,
        &mut |_, _| true,
    );
    assert!(received.is_ok_and(|received| received.is_path_proven));

    server.send_token(0, b"token");
    let payload = transmit(&mut server, 0);
    assert!(payload.ends_with(&examples["token"]), "{payload:02x?}");
    receive(&mut client, 1, &examples["token"]);
    assert_eq!(client.take_token().as_deref(), Some(&b"token"[..]));

    server.close(0, 32, "going away");
    let payload = transmit(&mut server, 0);
    assert!(payload.ends_with(&examples["close"]), "{payload:02x?}");
    receive(&mut client, 2, &examples["close"]);
    assert_eq!(client.end(), Some(End::ClosedByPeer(32)));
}
