//! Bytes that no honest peer sends.

use proptest::prelude::*;
use sluice_codec::datagram::{
    ANSWER_MAX_BYTES, Acceptor, Arrival, ConnectError, DropReason, HELLO_BYTES, Header, ServerKey,
    ServerKeys, VERSION,
};

use super::pair::{
    LOOP, NOW_US, UNIX_MS, acceptor, answered, client_address, connector, handshake,
    knock_datagram, knocked, sent,
};

/// A server's answer to a client that offers another version.
fn versions(offered: u8) -> Vec<u8> {
    let mut hello = sent(&mut connector(1), NOW_US);
    hello[1] = offered;
    answered(acceptor().receive(&hello, client_address(), UNIX_MS)).to_vec()
}

fn dropped(arrival: Arrival) -> DropReason {
    match arrival {
        Arrival::Drop(reason) => reason,
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn a_short_hello_gets_no_answer() {
    let (acceptor, mut connector) = (acceptor(), connector(1));
    let hello = sent(&mut connector, NOW_US);
    for bytes in 0..HELLO_BYTES {
        let arrival = acceptor.receive(&hello[..bytes], client_address(), UNIX_MS);
        let expected = if bytes < 10 {
            DropReason::Unexpected
        } else {
            DropReason::Short
        };
        assert_eq!(dropped(arrival), expected);
    }
    let knock = knock_datagram(&acceptor, &mut super::pair::connector(2));
    let arrival = acceptor.receive(&knock[..HELLO_BYTES - 1], client_address(), UNIX_MS);
    assert_eq!(dropped(arrival), DropReason::Short);
}

#[test]
fn answers_get_no_answers() {
    let (acceptor, mut connector) = (acceptor(), connector(1));
    let hello = sent(&mut connector, NOW_US);
    let mut answers = vec![
        answered(acceptor.receive(&hello, client_address(), UNIX_MS)).to_vec(),
        versions(9),
    ];
    let knock = knock_datagram(&acceptor, &mut super::pair::connector(2));
    let knock = knocked(acceptor.receive(&knock, client_address(), UNIX_MS));
    answers.push(acceptor.busy(&knock, 1).to_vec());
    let accepted = acceptor.accept(&knock, NOW_US, [9; 32]).unwrap();
    answers.push(accepted.answer.to_vec());
    answers.push(acceptor.reset(knock.connection_id(), 100).unwrap().to_vec());
    for mut answer in answers {
        answer.resize(HELLO_BYTES, 0);
        let arrival = acceptor.receive(&answer, client_address(), UNIX_MS);
        assert_eq!(dropped(arrival), DropReason::Unexpected);
    }
}

#[test]
fn other_versions_are_told_what_there_is() {
    for offered in [0, 2, 255] {
        let answer = versions(offered);
        assert_eq!(answer[answer.len() - 2..], [1, VERSION]);
    }
    // Who offered this version is not talked out of it.
    let mut connector = connector(1);
    assert!(connector.receive(NOW_US, &versions(9)).unwrap().is_none());
    let mut others = versions(9);
    *others.last_mut().unwrap() = 2;
    assert_eq!(
        connector.receive(NOW_US, &others).unwrap_err(),
        ConnectError::Version
    );
}

#[test]
fn no_byte_of_a_knock_can_be_changed() {
    let (acceptor, mut connector) = (acceptor(), connector(1));
    let knock = knock_datagram(&acceptor, &mut connector);
    let said = 10 + 4 + 1 + 16 + 48;
    assert!(knock[said..].iter().all(|byte| *byte == 0));
    for at in 0..said {
        for bit in [0x01, 0x80] {
            let mut changed = knock.clone();
            changed[at] ^= bit;
            if let Arrival::Knock(knock) = acceptor.receive(&changed, client_address(), UNIX_MS) {
                let accepted = acceptor.accept(&knock, NOW_US, [9; 32]);
                assert_eq!(
                    accepted.map(|_| ()).unwrap_err(),
                    DropReason::Forged,
                    "{at}"
                );
            }
        }
    }
}

#[test]
fn no_byte_of_a_welcome_can_be_changed() {
    let (acceptor, mut connector) = (acceptor(), connector(1));
    let knock = knock_datagram(&acceptor, &mut connector);
    let knock = knocked(acceptor.receive(&knock, client_address(), UNIX_MS));
    let accepted = acceptor.accept(&knock, NOW_US, [9; 32]).unwrap();
    for at in 0..accepted.answer.len() {
        let mut changed = accepted.answer.to_vec();
        changed[at] ^= 0x40;
        assert!(
            connector.receive(NOW_US, &changed).unwrap().is_none(),
            "{at}"
        );
        let cut = &accepted.answer[..at];
        assert!(connector.receive(NOW_US, cut).unwrap().is_none(), "{at}");
    }
    // None of that has harmed the attempt.
    assert!(
        connector
            .receive(NOW_US, &accepted.answer)
            .unwrap()
            .is_some()
    );
}

#[test]
fn answers_to_others_are_passed_over() {
    let mut connector = connector(1);
    sent(&mut connector, NOW_US);
    let acceptor = acceptor();
    let hello = sent(&mut super::pair::connector(2), NOW_US);
    let cookie = answered(acceptor.receive(&hello, client_address(), UNIX_MS));
    assert!(connector.receive(NOW_US, &cookie).unwrap().is_none());
    // The first packet is still the Hello.
    let again = sent(&mut connector, NOW_US + 1_000_000);
    assert_eq!(again[0], 0x80);
}

#[test]
fn a_flood_of_cookies_moves_a_client_a_few_times() {
    let (acceptor, mut connector) = (acceptor(), connector(1));
    let hello = sent(&mut connector, NOW_US);
    let mut knocks = 0;
    for byte in 0..100 {
        let mut cookie = answered(acceptor.receive(&hello, client_address(), UNIX_MS)).to_vec();
        cookie[10] = byte;
        connector.receive(NOW_US, &cookie).unwrap();
        let mut out = [0; HELLO_BYTES];
        knocks += usize::from(connector.transmit(NOW_US, &mut out).unwrap().is_some());
    }
    assert_eq!(knocks, 4);
}

#[test]
fn a_server_with_the_same_hint_and_another_key_can_not_answer() {
    // It has the pin, which is public, and not the secret: it can bake cookies for
    // the hint, and make no Welcome.
    let (acceptor, mut connector) = (acceptor(), connector(1));
    let knock = knock_datagram(&acceptor, &mut connector);
    let knock = knocked(acceptor.receive(&knock, client_address(), UNIX_MS));
    let mut welcome = acceptor
        .accept(&knock, NOW_US, [9; 32])
        .unwrap()
        .answer
        .to_vec();
    welcome[10..].fill(0x11);
    assert!(connector.receive(NOW_US, &welcome).unwrap().is_none());
    let other = ServerKeys::new(vec![ServerKey::from_secret([8; 32])], "").unwrap();
    let accepted = Acceptor::new(other, LOOP).accept(&knock, NOW_US, [9; 32]);
    assert_eq!(accepted.map(|_| ()).unwrap_err(), DropReason::Malformed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_get_a_short_answer_or_none(
        first in prop_oneof![0x80u8..=0x87, any::<u8>()],
        version in prop_oneof![Just(VERSION), any::<u8>()],
        rest in prop::collection::vec(any::<u8>(), 0..64),
        padded in any::<bool>(),
        kind in 0u8..3,
    ) {
        let mut datagram = vec![first, version];
        datagram.extend(rest);
        if padded {
            datagram.resize(HELLO_BYTES, 0);
            datagram[14] = kind;
        }
        let acceptor = acceptor();
        match acceptor.receive(&datagram, client_address(), UNIX_MS) {
            Arrival::Answer(answer) => {
                prop_assert!(answer.len() <= datagram.len().min(ANSWER_MAX_BYTES));
            }
            Arrival::Knock(knock) => prop_assert!(false, "{:?} out of nothing", knock),
            Arrival::Drop(_) => {}
        }
        if let Ok(Header::Session(header)) = Header::parse(&datagram) {
            let (mut client, mut server) = handshake();
            let mut bytes = datagram.clone();
            prop_assert!(server.keys.open(NOW_US, &header, None, &mut bytes).is_err());
            prop_assert!(client.keys.open(NOW_US, &header, None, &mut bytes).is_err());
        }
    }

    #[test]
    fn any_bytes_leave_a_client_where_it_is(
        kind in 0x80u8..=0x87,
        version in 0u8..3,
        rest in prop::collection::vec(any::<u8>(), 0..128),
        knocking in any::<bool>(),
    ) {
        let mut connector = connector(1);
        if knocking {
            knock_datagram(&acceptor(), &mut connector);
        }
        let mut datagram = vec![kind, version];
        datagram.extend([1; 8]);
        datagram.extend(rest);
        if let Ok(established) = connector.receive(NOW_US, &datagram) {
            prop_assert!(established.is_none());
        }
        prop_assert!(connector.timeout_us() <= NOW_US + 10_000_000);
    }
}
