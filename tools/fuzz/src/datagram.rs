//! Datagrams before there is a session: heads, and both ends of the handshake.

use std::{net::SocketAddr, sync::LazyLock};

use sluice_codec::datagram::{
    Acceptor, Arrival, ConnectError, Connector, Established, HELLO_BYTES, Header, ServerKey,
    ServerKeys, ServerPins, SessionHeader,
};

use crate::script::Script;

pub(crate) const NOW_US: u64 = 5_000_000;
pub(crate) const UNIX_MS: u64 = 1_790_000_000_000;

/// Valid datagrams of one client, to be damaged.
struct Valid {
    hello: Vec<u8>,
    cookie: Vec<u8>,
    knock: Vec<u8>,
    with_ticket: Vec<u8>,
    welcome: Vec<u8>,
}

static VALID: LazyLock<Valid> = LazyLock::new(Valid::make);

/// Any bytes as the head of a datagram.
pub(crate) fn header(input: &[u8]) {
    match Header::parse(input) {
        Ok(Header::Session(header)) => {
            assert!(header.len() <= input.len() && header.len() <= SessionHeader::MAX_BYTES);
        }
        Ok(Header::Handshake(_) | Header::Reset(_)) | Err(_) => {}
    }
    stranger(&acceptor_with_key(), input, client_address(), UNIX_MS);
}

/// A damaged packet of a client that knocks.
pub(crate) fn acceptor(input: &[u8]) {
    let mut script = Script::new(input);
    let mut datagram = match script.byte() % 4 {
        0 => VALID.hello.clone(),
        1 => VALID.knock.clone(),
        2 => VALID.with_ticket.clone(),
        _ => script.bytes(200).to_vec(),
    };
    script.damage(&mut datagram);
    let peer = match script.byte() % 4 {
        0 => SocketAddr::from(([203, 0, 113, 9], 1)),
        _ => client_address(),
    };
    let later_ms = u64::from(script.short()) * u64::from(script.byte());
    stranger(&acceptor_with_key(), &datagram, peer, UNIX_MS + later_ms);
}

/// What a server does for one it doesn't know is never more than was asked.
fn stranger(acceptor: &Acceptor, datagram: &[u8], peer: SocketAddr, unix_ms: u64) {
    match acceptor.receive(datagram, peer, unix_ms) {
        Arrival::Answer(answer) => assert!(answer.len() <= datagram.len()),
        Arrival::Knock(knock) => {
            assert!(acceptor.busy(&knock, 7).len() <= datagram.len());
            if let Ok(accepted) = acceptor.accept(&knock, NOW_US, [9; 32]) {
                assert!(accepted.answer.len() <= datagram.len());
            }
        }
        Arrival::Drop(_) => {}
    }
    if let Ok(Header::Session(header)) = Header::parse(datagram)
        && let Some(id) = header.connection_id
        && let Some(reset) = acceptor.reset(id, datagram.len())
    {
        assert!(reset.len() < datagram.len());
    }
}

/// A client and what comes to it, damaged, late and twice.
pub(crate) fn connector(input: &[u8]) {
    let mut script = Script::new(input);
    let (mut connector, mut now_us) = (new_connector(1), NOW_US);
    while !script.is_empty() {
        match script.byte() % 6 {
            0 => {
                if sent(&mut connector, now_us).is_err() {
                    return;
                }
            }
            1 => {
                now_us += u64::from(script.short()) * 100;
                let _ = connector.timeout_us();
            }
            kind => {
                let mut datagram = match kind {
                    2 => VALID.cookie.clone(),
                    3 => VALID.welcome.clone(),
                    4 => VALID.hello.clone(),
                    _ => script.bytes(60).to_vec(),
                };
                let whole = datagram.clone();
                script.damage(&mut datagram);
                match connector.receive(now_us, &datagram) {
                    // Nothing but the server's own Welcome makes a session.
                    Ok(Some(_)) => {
                        assert_eq!((kind, datagram), (3, whole));
                        return;
                    }
                    Ok(None) => {}
                    Err(_) => return,
                }
            }
        }
    }
}

pub(crate) fn client_address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], 4021))
}

fn keys() -> ServerKeys {
    let key = ServerKey::from_secret(std::array::from_fn(|at| at as u8));
    ServerKeys::new(vec![key], "fuzz").expect("one key")
}

pub(crate) fn acceptor_with_key() -> Acceptor {
    Acceptor::new(keys(), 0)
}

pub(crate) fn pins() -> ServerPins {
    keys().pins().next().expect("one pin").into()
}

fn new_connector(seed: u8) -> Connector {
    Connector::new(NOW_US, pins(), None, [seed; 8], [seed; 32])
}

fn sent(connector: &mut Connector, now_us: u64) -> Result<Vec<u8>, ConnectError> {
    let mut out = [0; HELLO_BYTES];
    let bytes = connector.transmit(now_us, &mut out)?.unwrap_or(0);
    assert!(bytes == 0 || bytes == HELLO_BYTES);
    Ok(out[..bytes].to_vec())
}

// === impl Valid ===

impl Valid {
    fn make() -> Self {
        let (acceptor, mut connector) = (acceptor_with_key(), new_connector(1));
        let hello = sent(&mut connector, NOW_US).expect("a Hello");
        let cookie = match acceptor.receive(&hello, client_address(), UNIX_MS) {
            Arrival::Answer(answer) => answer.to_vec(),
            other => panic!("no cookie but {other:?}"),
        };
        assert!(
            connector
                .receive(NOW_US, &cookie)
                .is_ok_and(|it| it.is_none())
        );
        let knock = sent(&mut connector, NOW_US).expect("a Knock");
        let welcome = match acceptor.receive(&knock, client_address(), UNIX_MS) {
            Arrival::Knock(knock) => acceptor.accept(&knock, NOW_US, [9; 32]),
            other => panic!("no knock but {other:?}"),
        };
        let welcome = welcome.expect("a session").answer.to_vec();
        let established = connector.receive(NOW_US, &welcome).expect("a session");
        let Established { ticket, .. } = established.expect("a session");
        let mut returning = Connector::new(NOW_US, pins(), Some(ticket), [2; 8], [2; 32]);
        let with_ticket = sent(&mut returning, NOW_US).expect("a Knock");
        Self {
            hello,
            cookie,
            knock,
            with_ticket,
            welcome,
        }
    }
}
