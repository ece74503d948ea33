//! Packets of a session.

use proptest::prelude::*;
use sluice_codec::datagram::{
    Header, KEY_MAX_AGE_US, KEY_MAX_PACKETS, KEY_OVERLAP_US, OpenError, PACKET_NUMBER_MAX,
    SealError, SessionHeader, SessionKeys, TAG_BYTES, TruncatedNumber,
};

use super::pair::{NOW_US, handshake};

pub(crate) fn seal(
    keys: &mut SessionKeys,
    number: u64,
    largest_acked: Option<u64>,
    payload: &[u8],
) -> Vec<u8> {
    seal_at(keys, NOW_US, number, largest_acked, payload)
}

pub(crate) fn seal_at(
    keys: &mut SessionKeys,
    now_us: u64,
    number: u64,
    largest_acked: Option<u64>,
    payload: &[u8],
) -> Vec<u8> {
    let header_bytes = keys.header_bytes(number, largest_acked).unwrap();
    let mut datagram = vec![0; header_bytes];
    datagram.extend(payload);
    datagram.extend([0; TAG_BYTES]);
    keys.seal(now_us, number, largest_acked, &mut datagram)
        .unwrap();
    datagram
}

pub(crate) fn header(datagram: &[u8]) -> SessionHeader {
    match Header::parse(datagram) {
        Ok(Header::Session(header)) => header,
        other => unreachable!("{other:?}"),
    }
}

pub(crate) fn open(
    keys: &mut SessionKeys,
    largest_received: Option<u64>,
    datagram: &mut [u8],
) -> Result<(u64, Vec<u8>), OpenError> {
    open_at(keys, NOW_US, largest_received, datagram)
}

pub(crate) fn open_at(
    keys: &mut SessionKeys,
    now_us: u64,
    largest_received: Option<u64>,
    datagram: &mut [u8],
) -> Result<(u64, Vec<u8>), OpenError> {
    let header = header(datagram);
    let (number, payload) = keys.open(now_us, &header, largest_received, datagram)?;
    Ok((number, payload.to_vec()))
}

#[test]
fn a_session_keeps_little() {
    assert_eq!(size_of::<SessionKeys>(), 136);
    let (client, _) = handshake();
    assert_eq!(client.keys.held_bytes(), 0);
}

#[test]
fn few_bytes_are_added() {
    let (mut client, mut server) = handshake();
    assert_eq!(
        seal(&mut client.keys, 0, None, b"payload").len(),
        7 + 1 + 8 + 1 + 16
    );
    assert_eq!(
        seal(&mut server.keys, 0, None, b"payload").len(),
        7 + 1 + 1 + 16
    );
    assert_eq!(
        seal(&mut server.keys, 1000, Some(900), b"payload").len(),
        7 + 1 + 2 + 16
    );
}

#[test]
fn every_changed_byte_is_seen() {
    let (mut client, mut server) = handshake();
    let datagram = seal(&mut client.keys, 0, None, b"payload");
    for at in 0..datagram.len() {
        for bit in 0..8 {
            let mut changed = datagram.clone();
            changed[at] ^= 1 << bit;
            let Ok(Header::Session(header)) = Header::parse(&changed) else {
                continue;
            };
            let before = changed.clone();
            // The id is covered as well: it finds the session, and is sealed with it.
            assert_eq!(
                server.keys.open(NOW_US, &header, None, &mut changed),
                Err(OpenError::Forged),
                "{at}.{bit}"
            );
            assert_eq!(before, changed);
        }
        let mut cut = datagram[..at].to_vec();
        if let Ok(Header::Session(header)) = Header::parse(&cut) {
            assert!(server.keys.open(NOW_US, &header, None, &mut cut).is_err());
        }
    }
    assert!(open(&mut server.keys, None, &mut datagram.clone()).is_ok());
}

#[test]
fn a_packet_does_not_open_in_the_other_direction() {
    let (mut client, mut server) = handshake();
    let mut datagram = seal(&mut client.keys, 0, None, b"payload");
    assert_eq!(
        open(&mut client.keys, None, &mut datagram),
        Err(OpenError::Forged)
    );
    assert!(open(&mut server.keys, None, &mut datagram).is_ok());
}

#[test]
fn no_number_is_sealed_twice() {
    let (mut client, _) = handshake();
    seal(&mut client.keys, 4, None, b"");
    let mut datagram = [0; 64];
    let error = client.keys.seal(NOW_US, 4, None, &mut datagram);
    assert_eq!(error, Err(SealError::NumberPassed { number: 4, next: 5 }));
    let error = client
        .keys
        .seal(NOW_US, PACKET_NUMBER_MAX + 1, None, &mut datagram);
    assert_eq!(error, Err(SealError::NumberTooLarge));
    let error = client.keys.seal(NOW_US, 5, None, &mut datagram[..25]);
    assert_eq!(error, Err(SealError::Short));
    assert_eq!(datagram, [0; 64]);
}

#[test]
fn keys_change_by_count_and_age_once_they_were_seen() {
    for (now_us, number) in [(NOW_US, KEY_MAX_PACKETS + 1), (NOW_US + KEY_MAX_AGE_US, 1)] {
        let (mut client, mut server) = handshake();
        let mut first = seal(&mut client.keys, 0, None, b"a");
        assert!(!header(&first).key_phase);
        // Nothing was acknowledged.
        let kept = seal_at(&mut client.keys, now_us, number, None, b"b");
        assert!(!header(&kept).key_phase);
        let mut changed = seal_at(&mut client.keys, now_us, number + 1, Some(number), b"c");
        assert!(header(&changed).key_phase);
        assert_eq!(
            open(&mut server.keys, Some(number), &mut changed),
            Ok((number + 1, b"c".to_vec()))
        );
        assert!(server.keys.held_bytes() > 0);
        // Late, under the key before.
        assert_eq!(
            open(&mut server.keys, None, &mut first),
            Ok((0, b"a".to_vec()))
        );
        // The other direction has not changed.
        let mut answer = seal_at(&mut server.keys, NOW_US, 0, None, b"d");
        assert!(!header(&answer).key_phase);
        assert!(open(&mut client.keys, None, &mut answer).is_ok());
    }
}

#[test]
fn the_last_key_goes_after_the_overlap() {
    let (mut client, mut server) = handshake();
    let mut late = seal(&mut client.keys, 0, None, b"a");
    client.keys.rotate();
    let mut changed = seal(&mut client.keys, 1, Some(0), b"b");
    assert!(open(&mut server.keys, None, &mut changed).is_ok());
    let later = NOW_US + KEY_OVERLAP_US;
    assert_eq!(
        open_at(&mut server.keys, later, Some(1), &mut late),
        Err(OpenError::KeyGone)
    );
    assert_eq!(server.keys.held_bytes(), 0);
}

#[test]
fn many_changes_in_both_directions_keep_the_two_sides_together() {
    let (mut client, mut server) = handshake();
    for number in 0..200 {
        let acked = (number > 0).then(|| number - 1);
        if number % 3 == 0 {
            client.keys.rotate();
        }
        if number % 5 == 0 {
            server.keys.rotate();
        }
        let exchange = |from: &mut SessionKeys, to: &mut SessionKeys| {
            let mut datagram = seal(from, number, acked, &number.to_be_bytes());
            let opened = open(to, acked, &mut datagram);
            assert_eq!(opened, Ok((number, number.to_be_bytes().to_vec())));
        };
        exchange(&mut client.keys, &mut server.keys);
        exchange(&mut server.keys, &mut client.keys);
    }
}

#[test]
fn a_forged_phase_changes_nothing() {
    let (mut client, mut server) = handshake();
    let mut forged = seal(&mut client.keys, 0, None, b"a");
    forged[0] ^= 0x10;
    assert_eq!(
        open(&mut server.keys, None, &mut forged),
        Err(OpenError::Forged)
    );
    let mut datagram = seal(&mut client.keys, 1, None, b"b");
    assert!(open(&mut server.keys, None, &mut datagram).is_ok());
}

proptest! {
    #[test]
    fn numbers_come_back_whole(
        acked in prop::option::of(0..PACKET_NUMBER_MAX - (1 << 30)),
        unacked in 1u64..1 << 29,
        early in 0u64..1 << 29,
    ) {
        let number = acked.map_or(unacked - 1, |acked| acked + unacked);
        let truncated = TruncatedNumber::new(number, acked);
        prop_assume!(unacked < 1 << 29);
        let truncated = truncated.unwrap();
        // What the peer has received lies between what it has acknowledged and three
        // times as many past it.
        let from = acked.map_or(0, |acked| acked + 1);
        let received = from + early % (3 * unacked + 1);
        prop_assert_eq!(truncated.expand(received.checked_sub(1)), number);
    }

    #[test]
    fn any_header_comes_back(
        id in prop::option::of(any::<[u8; 8]>()),
        number in 0u64..1 << 28,
        payload in prop::collection::vec(any::<u8>(), 0..1300),
    ) {
        let (mut client, mut server) = handshake();
        let (from, to) = match id {
            Some(_) => (&mut client.keys, &mut server.keys),
            None => (&mut server.keys, &mut client.keys),
        };
        let mut datagram = seal(from, number, None, &payload);
        let parsed = header(&datagram);
        prop_assert_eq!(parsed.connection_id, id.map(|_| from.connection_id()));
        prop_assert_eq!(parsed.len() + payload.len() + TAG_BYTES, datagram.len());
        prop_assert_eq!(open(to, None, &mut datagram), Ok((number, payload)));
    }
}
