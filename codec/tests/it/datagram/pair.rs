//! A server's keys and a client's attempt, with randomness that is none.

use std::net::SocketAddr;

use sluice_codec::datagram::{
    Accepted, Acceptor, Answer, Arrival, Connector, Established, HELLO_BYTES, Knock, ServerKey,
    ServerKeys, ServerPins,
};

pub(crate) const NOW_US: u64 = 5_000_000;
pub(crate) const UNIX_MS: u64 = 1_790_000_000_000;
pub(crate) const LOOP: u8 = 3;

pub(crate) fn client_address() -> SocketAddr {
    "192.0.2.7:4021".parse().unwrap()
}

pub(crate) fn server_keys() -> ServerKeys {
    ServerKeys::new(vec![ServerKey::from_secret([7; 32])], "a").unwrap()
}

pub(crate) fn acceptor() -> Acceptor {
    Acceptor::new(server_keys(), LOOP)
}

pub(crate) fn pins() -> ServerPins {
    server_keys().pins().next().unwrap().into()
}

pub(crate) fn connector(seed: u8) -> Connector {
    Connector::new(NOW_US, pins(), None, [seed; 8], [seed; 32])
}

pub(crate) fn sent(connector: &mut Connector, now_us: u64) -> Vec<u8> {
    let mut out = [0xee; HELLO_BYTES];
    let bytes = connector.transmit(now_us, &mut out).unwrap().unwrap();
    out[..bytes].to_vec()
}

pub(crate) fn answered(arrival: Arrival) -> Answer {
    match arrival {
        Arrival::Answer(answer) => answer,
        other => unreachable!("{other:?}"),
    }
}

pub(crate) fn knocked(arrival: Arrival) -> Knock {
    match arrival {
        Arrival::Knock(knock) => knock,
        other => unreachable!("{other:?}"),
    }
}

/// The Knock of a connector that has a cookie.
pub(crate) fn knock_datagram(acceptor: &Acceptor, connector: &mut Connector) -> Vec<u8> {
    let hello = sent(connector, NOW_US);
    let cookie = answered(acceptor.receive(&hello, client_address(), UNIX_MS));
    assert!(connector.receive(NOW_US, &cookie).unwrap().is_none());
    sent(connector, NOW_US)
}

/// The whole way.
pub(crate) fn handshake() -> (Established, Accepted) {
    let (acceptor, mut connector) = (acceptor(), connector(1));
    let datagram = knock_datagram(&acceptor, &mut connector);
    let knock = knocked(acceptor.receive(&datagram, client_address(), UNIX_MS));
    let accepted = acceptor.accept(&knock, NOW_US, [9; 32]).unwrap();
    let established = connector
        .receive(NOW_US, &accepted.answer)
        .unwrap()
        .unwrap();
    (established, accepted)
}
