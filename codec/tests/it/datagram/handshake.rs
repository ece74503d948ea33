//! The way to a session.

use sluice_codec::datagram::{
    Acceptor, AddressTicket, CONNECT_TIMEOUT_US, COOKIE_EPOCH_MS, ConnectError, Connector,
    HELLO_BYTES, Header, RESEND_FIRST_US, ServerKey, ServerKeys, ServerPins, TICKET_LIFETIME_MS,
};

use super::pair::{
    LOOP, NOW_US, UNIX_MS, acceptor, answered, client_address, connector, handshake,
    knock_datagram, knocked, pins, sent, server_keys,
};
use super::sealing::{open, seal};

#[test]
fn a_session_begins_with_three_packets_and_a_login() {
    let (mut client, mut server) = handshake();
    let id = server.keys.connection_id();
    assert_eq!(client.keys.connection_id(), id);
    assert_eq!(id.event_loop(), LOOP);
    let mut login = seal(&mut client.keys, 0, None, b"login");
    assert_eq!(
        open(&mut server.keys, None, &mut login),
        Ok((0, b"login".to_vec()))
    );
    let mut welcome = seal(&mut server.keys, 0, None, b"hello");
    assert_eq!(
        open(&mut client.keys, None, &mut welcome),
        Ok((0, b"hello".to_vec()))
    );
}

#[test]
fn every_answer_is_shorter_than_what_it_answers() {
    let (acceptor, mut connector) = (acceptor(), connector(1));
    let hello = sent(&mut connector, NOW_US);
    assert_eq!(hello.len(), HELLO_BYTES);
    let cookie = answered(acceptor.receive(&hello, client_address(), UNIX_MS));
    assert!(cookie.len() < 50, "{}", cookie.len());
    connector.receive(NOW_US, &cookie).unwrap();
    let datagram = sent(&mut connector, NOW_US);
    let knock = knocked(acceptor.receive(&datagram, client_address(), UNIX_MS));
    let welcome = acceptor.accept(&knock, NOW_US, [9; 32]).unwrap().answer;
    assert!(welcome.len() < 120, "{}", welcome.len());
}

#[test]
fn a_ticket_saves_the_cookie() {
    let (established, _) = handshake();
    let ticket = Some(established.ticket);
    let mut connector = Connector::new(NOW_US, pins(), ticket, [2; 8], [2; 32]);
    let datagram = sent(&mut connector, NOW_US);
    // The port is another one than the session had that gave the ticket.
    let mut from = client_address();
    from.set_port(999);
    let knock = knocked(acceptor().receive(&datagram, from, UNIX_MS + TICKET_LIFETIME_MS - 1));
    assert!(knock.has_ticket());
    let accepted = acceptor().accept(&knock, NOW_US, [9; 32]).unwrap();
    let established = connector
        .receive(NOW_US + 40_000, &accepted.answer)
        .unwrap()
        .unwrap();
    assert_eq!(established.rtt_us, Some(40_000));
}

#[test]
fn a_ticket_that_does_not_hold_costs_a_round_trip_and_no_more() {
    let (pin, other) = (
        server_keys().pins().next().unwrap(),
        "192.0.2.8".parse().unwrap(),
    );
    let seal = |ip| AddressTicket::seal(&server_keys(), ip, UNIX_MS, [5; 12]);
    let mut changed = *seal(client_address().ip()).as_bytes();
    changed[12] ^= 1;
    let cases = [
        (seal(other), UNIX_MS),
        (seal(client_address().ip()), UNIX_MS + TICKET_LIFETIME_MS),
        (
            seal(client_address().ip()),
            UNIX_MS + 3 * TICKET_LIFETIME_MS,
        ),
        (AddressTicket::from_bytes(changed), UNIX_MS),
    ];
    for (ticket, unix_ms) in cases {
        let mut connector = Connector::new(NOW_US, pins(), Some((pin, ticket)), [2; 8], [2; 32]);
        let datagram = sent(&mut connector, NOW_US);
        let cookie = answered(acceptor().receive(&datagram, client_address(), unix_ms));
        assert!(connector.receive(NOW_US, &cookie).unwrap().is_none());
        let datagram = sent(&mut connector, NOW_US);
        let knock = knocked(acceptor().receive(&datagram, client_address(), unix_ms));
        assert!(!knock.has_ticket());
        let accepted = acceptor().accept(&knock, NOW_US, [9; 32]).unwrap();
        assert!(
            connector
                .receive(NOW_US, &accepted.answer)
                .unwrap()
                .is_some()
        );
    }
}

#[test]
fn a_cookie_holds_for_its_address_and_two_epochs() {
    let (acceptor, mut connector) = (acceptor(), connector(1));
    let epoch = UNIX_MS - UNIX_MS % COOKIE_EPOCH_MS;
    let hello = sent(&mut connector, NOW_US);
    let cookie = answered(acceptor.receive(&hello, client_address(), epoch));
    connector.receive(NOW_US, &cookie).unwrap();
    let knock = sent(&mut connector, NOW_US);
    let at = |from, unix_ms| acceptor.receive(&knock, from, unix_ms);
    knocked(at(client_address(), epoch + 2 * COOKIE_EPOCH_MS - 1));
    answered(at(client_address(), epoch + 2 * COOKIE_EPOCH_MS));
    answered(at("192.0.2.7:4022".parse().unwrap(), epoch));
    answered(at("192.0.2.8:4021".parse().unwrap(), epoch));
    // The same address, as a socket of both families shows it.
    knocked(at("[::ffff:192.0.2.7]:4021".parse().unwrap(), epoch));
}

#[test]
fn a_stale_cookie_is_replaced_on_the_way() {
    let (acceptor, mut connector) = (acceptor(), connector(1));
    let knock = knock_datagram(&acceptor, &mut connector);
    let late = UNIX_MS + 2 * COOKIE_EPOCH_MS;
    let cookie = answered(acceptor.receive(&knock, client_address(), late));
    assert!(connector.receive(NOW_US, &cookie).unwrap().is_none());
    let second = sent(&mut connector, NOW_US);
    let knock = knocked(acceptor.receive(&second, client_address(), late));
    let accepted = acceptor.accept(&knock, NOW_US, [9; 32]).unwrap();
    assert!(
        connector
            .receive(NOW_US, &accepted.answer)
            .unwrap()
            .is_some()
    );
}

#[test]
fn a_repeated_knock_names_the_same_session() {
    let (acceptor, mut connector) = (acceptor(), connector(1));
    let datagram = knock_datagram(&acceptor, &mut connector);
    let receive = || knocked(acceptor.receive(&datagram, client_address(), UNIX_MS));
    assert_eq!(receive().connection_id(), receive().connection_id());
    let another = knock_datagram(&acceptor, &mut super::pair::connector(2));
    let another = knocked(acceptor.receive(&another, client_address(), UNIX_MS));
    assert_ne!(receive().connection_id(), another.connection_id());
}

#[test]
fn a_knock_replayed_after_its_session_makes_other_keys() {
    let (acceptor, mut connector) = (acceptor(), connector(1));
    let datagram = knock_datagram(&acceptor, &mut connector);
    let knock = knocked(acceptor.receive(&datagram, client_address(), UNIX_MS));
    let first = acceptor.accept(&knock, NOW_US, [9; 32]).unwrap();
    let mut client = connector.receive(NOW_US, &first.answer).unwrap().unwrap();
    let mut login = seal(&mut client.keys, 0, None, b"login");
    let mut second = acceptor.accept(&knock, NOW_US, [10; 32]).unwrap();
    assert!(open(&mut second.keys, None, &mut login).is_err());
}

#[test]
fn packets_are_resent_with_growing_pauses_until_the_client_gives_up() {
    let mut connector = connector(1);
    let mut now_us = NOW_US;
    let mut sends = 0;
    let error = loop {
        let mut out = [0; HELLO_BYTES];
        match connector.transmit(now_us, &mut out) {
            Ok(Some(_)) => sends += 1,
            Ok(None) => now_us = connector.timeout_us(),
            Err(error) => break error,
        }
    };
    assert_eq!(error, ConnectError::TimedOut);
    assert_eq!(now_us, NOW_US + CONNECT_TIMEOUT_US);
    assert_eq!(sends, 7);
}

#[test]
fn a_lost_welcome_is_asked_for_again() {
    let (acceptor, mut connector) = (acceptor(), connector(1));
    let first = knock_datagram(&acceptor, &mut connector);
    let again = sent(&mut connector, NOW_US + RESEND_FIRST_US);
    assert_eq!(first, again);
    let knock = knocked(acceptor.receive(&again, client_address(), UNIX_MS));
    let accepted = acceptor.accept(&knock, NOW_US, [9; 32]).unwrap();
    let established = connector
        .receive(NOW_US + 400_000, &accepted.answer)
        .unwrap()
        .unwrap();
    // Not measured on the packet that was sent twice, but on the one before.
    assert_eq!(established.rtt_us, Some(0));
}

#[test]
fn the_key_that_both_know_is_used_while_keys_change() {
    let keys = |secrets: &[u8]| {
        let keys = secrets
            .iter()
            .map(|secret| ServerKey::from_secret([*secret; 32]));
        ServerKeys::new(keys.collect(), "").unwrap()
    };
    let pins = |secrets: &[u8]| ServerPins::new(keys(secrets).pins().collect()).unwrap();
    for (server, client, used) in [
        (vec![8, 7], vec![7], 7),
        (vec![8, 7], vec![7, 8], 8),
        (vec![8], vec![7, 8], 8),
    ] {
        let acceptor = Acceptor::new(keys(&server), LOOP);
        let mut connector = Connector::new(NOW_US, pins(&client), None, [1; 8], [1; 32]);
        let datagram = knock_datagram(&acceptor, &mut connector);
        let knock = knocked(acceptor.receive(&datagram, client_address(), UNIX_MS));
        let accepted = acceptor.accept(&knock, NOW_US, [9; 32]).unwrap();
        let established = connector
            .receive(NOW_US, &accepted.answer)
            .unwrap()
            .unwrap();
        assert_eq!(
            established.ticket.0,
            ServerKey::from_secret([used; 32]).pin()
        );
    }
}

#[test]
fn a_server_without_a_pinned_key_is_refused() {
    let other = ServerKeys::new(vec![ServerKey::from_secret([8; 32])], "").unwrap();
    let other = Acceptor::new(other, LOOP);
    let mut connector = connector(1);
    let hello = sent(&mut connector, NOW_US);
    let cookie = answered(other.receive(&hello, client_address(), UNIX_MS));
    assert_eq!(
        connector.receive(NOW_US, &cookie).unwrap_err(),
        ConnectError::NotPinned
    );
}

#[test]
fn a_busy_server_says_when_to_come_again() {
    let (acceptor, mut connector) = (acceptor(), connector(1));
    let datagram = knock_datagram(&acceptor, &mut connector);
    let knock = knocked(acceptor.receive(&datagram, client_address(), UNIX_MS));
    let busy = acceptor.busy(&knock, 1500);
    assert_eq!(
        connector.receive(NOW_US, &busy).unwrap_err(),
        ConnectError::Busy {
            retry_after_ms: 1500
        }
    );
}

#[test]
fn a_server_that_forgot_a_session_can_say_so_and_no_other_can() {
    let (client, server) = handshake();
    let id = server.keys.connection_id();
    // Another process with the same key and the same name.
    let reset = acceptor().reset(id, 27).unwrap();
    assert_eq!(Header::parse(&reset), Ok(Header::Reset(client.reset_token)));
    let other = ServerKeys::new(vec![ServerKey::from_secret([7; 32])], "b").unwrap();
    let reset = Acceptor::new(other, LOOP).reset(id, 27).unwrap();
    assert_ne!(Header::parse(&reset), Ok(Header::Reset(client.reset_token)));
    // Not by a loop that can't know, and not with more bytes than came.
    assert_eq!(Acceptor::new(server_keys(), LOOP + 1).reset(id, 27), None);
    assert_eq!(acceptor().reset(id, 17), None);
}

#[test]
fn keys_and_pins_are_text() {
    let key = ServerKey::from_secret([7; 32]);
    let again = ServerKey::from_secret_text(&format!(" {}\n", key.secret_text())).unwrap();
    assert_eq!(again.pin(), key.pin());
    assert_eq!(key.pin().to_string().parse(), Ok(key.pin()));
    assert_eq!(
        format!("{}, {}", key.pin(), key.pin())
            .parse::<ServerPins>()
            .unwrap()
            .to_string(),
        format!("{},{}", key.pin(), key.pin())
    );
    assert!(!format!("{key:?}").contains(&key.secret_text()));
    for text in ["", "AAAA", "no key at all", &"A".repeat(44)] {
        assert!(ServerKey::from_secret_text(text).is_err(), "{text}");
        assert!(text.parse::<ServerPins>().is_err(), "{text}");
    }
    assert!(ServerKeys::new(vec![], "").is_err());
    assert!(ServerKeys::new(vec![key; 2], "").is_err());
}
