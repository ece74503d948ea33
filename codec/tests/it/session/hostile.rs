//! Peers that have the keys and break the rules: bounded memory, a named violation, no panic.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use sluice_codec::datagram::{Channel, Config, End, Session, Side, Source, Violation};

use super::pair::OVERHEAD;

/// Of all that a peer can make a session hold, in bytes: the 128 KiB of
/// reassembly, with what the records of small messages cost over their charge.
const HELD_MAX_BYTES: usize = 200 * 1024;

fn session(side: Side) -> Session {
    Session::new(side, Arc::new(Config::default()), 0, Some(80_000))
}

fn varint(value: u32) -> [u8; 4] {
    (value | 0x8000_0000).to_be_bytes()
}

fn receive(session: &mut Session, number: u64, payload: &[u8]) -> Result<(), Violation> {
    let bytes = payload.len() + OVERHEAD;
    session
        .receive(
            number,
            number,
            payload,
            bytes,
            Source::Current,
            &mut |_, _| true,
        )
        .map(|_| ())
}

/// Everything that is due; the number of packets.
fn drain(session: &mut Session, now_us: u64) -> usize {
    let mut out = Vec::new();
    let mut packets = 0;
    while session.transmit(now_us, OVERHEAD, &mut out).is_some() {
        out.clear();
        packets += 1;
        assert!(packets < 2000, "it never stops sending");
    }
    packets
}

/// A whole reliable message.
fn data(channel: Channel, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x48 | (channel.0 >> 6) << 4, channel.0 & 0x3f];
    frame.extend(id.to_be_bytes());
    frame.extend(payload);
    frame
}

fn fragment(channel: Channel, id: u16, index: u8, count: u8, total: u32, bytes: usize) -> Vec<u8> {
    let mut frame = vec![0x4c | (channel.0 >> 6) << 4, channel.0 & 0x3f];
    frame.extend(id.to_be_bytes());
    frame.extend([index, count]);
    frame.extend(varint(total));
    frame.resize(frame.len() + bytes, 7);
    frame
}

#[test]
fn lies_have_names() {
    let control = Channel::CONTROL;
    let ack_bomb = [&[3, 63, 0, 32, 0][..], &[0; 64]].concat();
    let cases: [(&[u8], Violation); 14] = [
        (&[], Violation::Empty),
        (&[0x3f], Violation::UnknownFrame),
        (&[0x41], Violation::UnknownFrame),
        (&[0xc0], Violation::UnknownFrame),
        (&[2, 0, 0], Violation::Truncated),
        (&[2, 0, 0, 0], Violation::AckOfUnsent),
        (&[2, 5, 0, 6], Violation::BadAck),
        (&[3, 5, 0, 1, 0, 9, 0], Violation::BadAck),
        (&ack_bomb, Violation::TooManyRanges),
        (&[7, 0, 0, 9, 1], Violation::Truncated),
        (&data(control, 1024, b"far"), Violation::OverWindow),
        (
            &fragment(control, 0, 2, 2, 1500, 750),
            Violation::BadFragment,
        ),
        (
            &fragment(control, 0, 0, 65, 60_000, 924),
            Violation::BadFragment,
        ),
        (
            &fragment(control, 0, 0, 2, u32::MAX >> 2, 1),
            Violation::MessageTooLarge,
        ),
    ];
    for (payload, violation) in cases {
        let mut session = session(Side::Server);
        assert_eq!(receive(&mut session, 0, payload), Err(violation));
        assert_eq!(session.end(), Some(End::Violated(violation)));
        assert_eq!(drain(&mut session, 1), 1, "a CLOSE");
        assert_eq!(session.timeout(), None);
    }
}

#[test]
fn fragments_that_contradict_each_other_end_the_session() {
    let mut session = session(Side::Server);
    let piece = |count, total: u32| {
        let bytes = total.div_ceil(u32::from(count)) as usize;
        fragment(Channel::PUSHES, 0, 0, count, total, bytes)
    };
    assert_eq!(receive(&mut session, 0, &piece(3, 3000)), Ok(()));
    assert_eq!(
        receive(&mut session, 1, &piece(4, 3000)),
        Ok(()),
        "cut anew"
    );
    assert_eq!(receive(&mut session, 2, &piece(3, 3000)), Ok(()), "late");
    assert_eq!(
        receive(&mut session, 3, &piece(3, 3001)),
        Err(Violation::BadFragment)
    );
}

#[test]
fn credit_bounds_what_is_held() {
    for (channel, bytes) in [(0, 5), (0, 1000), (0x40, 1000), (1, 100)] {
        let mut session = session(Side::Server);
        let mut refused = None;
        let mut most = 0;
        for at in 0..2000 {
            // The first message never comes, or is refused: all is kept.
            let channel = Channel(channel + (at % 8) as u8);
            let frame = data(channel, 1 + (at / 8) as u16, &vec![1; bytes]);
            let received =
                session.receive(at, at, &frame, 1200, Source::Current, &mut |_, _| false);
            most = most.max(session.heap_bytes());
            if let Err(violation) = received {
                refused = Some(violation);
                break;
            }
        }
        assert!(most < HELD_MAX_BYTES, "{most} bytes");
        assert_eq!(refused, Some(Violation::OverCredit), "{channel} {bytes}");
    }
}

#[test]
fn fragment_bombs_are_bounded() {
    for channel in 0..=255 {
        let channel = Channel(channel);
        let is_reliable = channel.mode().is_reliable();
        let (count, total) = if is_reliable {
            (64, 65_536)
        } else {
            (16, 16_384)
        };
        let mut session = session(Side::Server);
        for at in 0..1000 {
            // A piece each of as many messages as there can be.
            let frame = fragment(channel, at as u16, 0, count, total, 1024);
            let received = receive(&mut session, at, &frame);
            assert!(
                session.heap_bytes() < HELD_MAX_BYTES,
                "{}",
                session.heap_bytes()
            );
            if received.is_err() {
                assert_eq!(received, Err(Violation::OverCredit));
                assert!(is_reliable && at == 1);
                break;
            }
        }
    }
}

#[test]
fn an_ack_of_everything_is_cheap_and_one_of_the_future_ends_the_session() {
    let mut session = session(Side::Server);
    for _ in 0..100 {
        let payload = Bytes::from_static(&[1; 1000]);
        session.send(0, Channel::PUSHES, payload).unwrap();
    }
    assert!(drain(&mut session, 0) >= 8);
    let next = session.next_packet() as u8;
    assert_eq!(
        receive(&mut session, 0, &[2, next - 1, 0, next - 1]),
        Ok(())
    );
    drain(&mut session, 1);
    let next = session.next_packet() as u8;
    assert_eq!(
        receive(&mut session, 1, &[2, next, 0, 0]),
        Err(Violation::AckOfUnsent)
    );
}

#[test]
fn a_peer_that_takes_nothing_fills_the_send_buffer_and_no_more() {
    let mut session = session(Side::Server);
    let payload = Bytes::from(vec![1; 1000]);
    let mut taken = 0;
    while session.send(0, Channel::PUSHES, payload.clone()).is_ok() {
        taken += 1;
        session
            .send(0, Channel::EPHEMERAL, payload.clone())
            .unwrap_or_default();
    }
    assert_eq!(taken, 256 * 1024 / 1064);
    assert!(session.send_bytes() <= 256 * 1024);
    assert!(
        session.heap_bytes() < 200 * 1024,
        "{}",
        session.heap_bytes()
    );
}

fn frames() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        Just(vec![0]),
        Just(vec![1]),
        (0u8..40, any::<u8>(), 0u8..40)
            .prop_map(|(largest, delay, first)| vec![2, largest, delay, first]),
        bytes().prop_map(|tail| [&[3][..], &tail].concat()),
        any::<u32>().prop_map(|limit| [&[4][..], &limit.to_be_bytes()].concat()),
        (5u8..7, any::<u64>())
            .prop_map(|(kind, token)| [&[kind][..], &token.to_be_bytes()].concat()),
        bytes().prop_map(|token| [&[8, token.len() as u8][..], &token].concat()),
        (any::<u8>(), 0u16..1200, 1usize..1000).prop_map(|(channel, id, bytes)| data(
            Channel(channel & 0xc3),
            id,
            &vec![1; bytes]
        )),
        (any::<u8>(), 0u16..4, 0u8..5, 2u8..5, 1000u32..5000).prop_map(
            |(channel, id, index, count, total)| {
                let size = total.div_ceil(u32::from(count));
                let last = total.saturating_sub(size * (u32::from(count) - 1));
                let bytes = if index + 1 == count { last } else { size };
                fragment(
                    Channel(channel & 0xc1),
                    id,
                    index,
                    count,
                    total,
                    bytes as usize,
                )
            }
        ),
        bytes(),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Receive {
        skip: u64,
        payload: Vec<u8>,
        is_elsewhere: bool,
    },
    Send {
        channel: u8,
        bytes: usize,
    },
    Wait {
        us: u64,
    },
    Move,
    Drain,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u64..3, prop::collection::vec(frames(), 1..3), any::<u8>()).prop_map(
            |(skip, frames, seed)| Step::Receive {
                skip,
                payload: frames.concat(),
                is_elsewhere: seed < 20,
            }
        ),
        3 => (any::<u8>(), 1usize..5000).prop_map(|(channel, bytes)| Step::Send { channel, bytes }),
        3 => (0u64..400_000).prop_map(|us| Step::Wait { us }),
        1 => Just(Step::Move),
        1 => Just(Step::Drain),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn no_frames_bring_the_session_down(is_client: bool, steps in prop::collection::vec(steps(), 1..60)) {
        let mut session = session(if is_client { Side::Client } else { Side::Server });
        let (mut now_us, mut number, mut takes) = (0, 0, true);
        for step in steps {
            match step {
                Step::Receive { skip, payload, is_elsewhere } => {
                    number += skip;
                    let source = match is_elsewhere {
                        true => Source::Elsewhere { token: now_us, is_same_host: now_us % 2 == 0 },
                        false => Source::Current,
                    };
                    let bytes = payload.len() + OVERHEAD;
                    let sink = &mut |_, _: &[u8]| takes;
                    let received = session.receive(now_us, number, &payload, bytes, source, sink);
                    prop_assert!(received.is_ok() || session.end().is_some());
                }
                Step::Send { channel, bytes } => {
                    let payload = Bytes::from(vec![0; bytes]);
                    let _ = session.send(now_us, Channel(channel & 0xc3), payload);
                }
                Step::Wait { us } => {
                    let until_us = now_us + us;
                    while let Some(at_us) = session.timeout().filter(|at_us| *at_us <= until_us) {
                        now_us = now_us.max(at_us);
                        session.on_timeout(now_us);
                        drain(&mut session, now_us);
                        session.take_path_failure();
                        prop_assert!(session.timeout().is_none_or(|next| next > now_us));
                    }
                    now_us = until_us;
                }
                Step::Move => session.rebind(now_us),
                Step::Drain => {
                    takes = !takes;
                    session.drain(&mut |_, _| true);
                    session.take_token();
                }
            }
            drain(&mut session, now_us);
            prop_assert!(session.heap_bytes() < 400_000);
        }
    }
}
