//! A session whose peer has the keys and says anything at all.

use std::sync::Arc;

use bytes::Bytes;
use sluice_codec::datagram::{Channel, Config, End, Session, Side, Source};

use crate::script::Script;

const OVERHEAD: usize = 29;
/// Reassembly, records and unsent control frames; what is sent is shared.
const HELD_MAX_BYTES: usize = 400_000;
const OPERATIONS_MAX: usize = 400;
/// More due packets at one time than windows and probes allow.
const PACKETS_MAX: usize = 2_000;

/// Payloads of packets that opened, sends, waits and moves, by the script.
pub(crate) fn session(input: &[u8]) {
    let mut script = Script::new(input);
    let side = match input.len() % 4 {
        0 => Side::Client,
        _ => Side::Server,
    };
    let mut session = Session::new(side, Arc::new(Config::default()), 0, Some(40_000));
    let (mut now_us, mut number, mut takes) = (0, 0, true);
    for _ in 0..OPERATIONS_MAX {
        if script.is_empty() {
            break;
        }
        match script.byte() % 8 {
            0 | 6 | 7 => {
                let skip = script.byte();
                number += u64::from(skip % 4) * u64::from(skip >> 2).max(1);
                let count = script.byte();
                let payload = script.bytes(count.into());
                let from = match skip >> 6 {
                    3 => Source::Elsewhere {
                        token: now_us,
                        is_same_host: skip & 1 == 0,
                    },
                    _ => Source::Current,
                };
                let bytes = payload.len() + OVERHEAD;
                let sink = &mut |_, _: &[u8]| takes;
                let came = session.receive(now_us, number, payload, bytes, from, sink);
                assert!(came.is_ok() || session.end().is_some());
            }
            1 => {
                let channel = Channel(script.byte() & 0xc3);
                let payload = vec![7; usize::from(script.byte()) * 16];
                // Full is an answer.
                let _ = session.send(now_us, channel, payload.into());
            }
            2 => {
                let until_us = now_us + u64::from(script.short()) * 100;
                wait(&mut session, &mut now_us, until_us);
            }
            3 => {
                session.rebind(now_us);
                session.take_path_failure();
            }
            4 => {
                takes = !takes;
                session.drain(&mut |_, _| true);
                session.take_token();
            }
            _ => {
                session.send_token(now_us, script.bytes(36));
                session.ping(now_us);
                if script.byte() == 0xff {
                    session.close(now_us, 1, "enough");
                }
            }
        }
        transmit(&mut session, now_us);
        assert!(
            session.heap_bytes() < HELD_MAX_BYTES,
            "{}",
            session.heap_bytes()
        );
        assert!(session.send_bytes() <= 256 * 1024);
    }
    // Whatever it was, it ends by silence at the latest.
    let until_us = now_us + 400_000_000;
    wait(&mut session, &mut now_us, until_us);
    assert!(side == Side::Client || session.end().is_some());
    if let Some(End::Violated(violation)) = session.end() {
        let _ = violation.label();
    }
    assert!(
        session
            .send(now_us, Channel::CONTROL, Bytes::new())
            .is_err()
            || session.end().is_none()
    );
}

fn wait(session: &mut Session, now_us: &mut u64, until_us: u64) {
    while let Some(at_us) = session.timeout().filter(|at_us| *at_us <= until_us) {
        *now_us = at_us.max(*now_us);
        session.on_timeout(*now_us);
        transmit(session, *now_us);
        session.take_path_failure();
        assert!(
            session.timeout().is_none_or(|next_us| next_us > *now_us),
            "a timer stands still"
        );
    }
    *now_us = until_us;
}

fn transmit(session: &mut Session, now_us: u64) {
    let mut out = Vec::new();
    for _ in 0..PACKETS_MAX {
        out.clear();
        if session.transmit(now_us, OVERHEAD, &mut out).is_none() {
            return;
        }
        assert!(
            !out.is_empty() && out.len() + OVERHEAD <= 1452,
            "{} bytes",
            out.len()
        );
    }
    panic!("it never stops sending");
}
