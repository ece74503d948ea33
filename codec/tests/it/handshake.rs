//! The opening handshake, good and bad.

use sluice_codec::{
    Decoder, FrameError,
    websocket::{HANDSHAKE_MAX_BYTES, HandshakeError},
};

use crate::events::{Event, events, masked};

/// The example of RFC 6455, section 1.2, with our subprotocol.
pub(crate) const REQUEST: &str = "GET /ws HTTP/1.1\r\n\
    Host: server.example.com\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Origin: http://example.com\r\n\
    Sec-WebSocket-Protocol: chat, sluice.v1\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
    Sec-WebSocket-Protocol: sluice.v1\r\n\r\n";

fn outcome(request: &[u8]) -> Vec<Event> {
    events(&mut Decoder::websocket(4096), [request])
}

/// The error of a request and the first line of the answer.
fn refused(request: &str) -> (HandshakeError, String) {
    match outcome(request.as_bytes()).as_slice() {
        [Event::Error(error @ FrameError::Handshake(reason))] => {
            assert!(error.is_foreign());
            let answer = error.http_answer().unwrap_or_default();
            let answer = String::from_utf8(answer).unwrap();
            let status = answer.lines().next().unwrap_or_default();
            (*reason, status.to_owned())
        }
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn the_rfc_example_is_answered_to_the_letter() {
    assert_eq!(
        outcome(REQUEST.as_bytes()),
        [Event::Handshake(ANSWER.into())]
    );
}

#[test]
fn variants_that_the_rfc_allows_are_taken() {
    let several = REQUEST
        .replace(
            "Protocol: chat, sluice.v1",
            "Protocol: chat\r\nSec-WebSocket-Protocol:sluice.v1 ",
        )
        .replace("Connection: Upgrade", "connection: keep-alive, UPGRADE")
        .replace("Upgrade: websocket", "UPGRADE: WebSocket")
        .replace("/ws ", "/?token=none ");
    assert_eq!(
        outcome(several.as_bytes()),
        [Event::Handshake(ANSWER.into())]
    );
}

#[test]
fn each_wrong_handshake_gets_its_status_and_its_cure() {
    use HandshakeError as E;
    let cases = [
        ("GET /ws", "POST /ws", E::Method, "405 Method Not Allowed"),
        ("GET /ws", "GET /chat", E::Path, "404 Not Found"),
        ("HTTP/1.1", "HTTP/1.0", E::Malformed, "400 Bad Request"),
        (
            "Upgrade: websocket",
            "X: y",
            E::NotUpgrade,
            "426 Upgrade Required",
        ),
        (
            "Upgrade: websocket",
            "Upgrade: h2c",
            E::NotUpgrade,
            "426 Upgrade Required",
        ),
        (
            "Connection: Upgrade",
            "Connection: close",
            E::NotUpgrade,
            "426 Upgrade Required",
        ),
        (
            "Version: 13",
            "Version: 8",
            E::Version,
            "426 Upgrade Required",
        ),
        ("Host:", "X-Host:", E::Host, "400 Bad Request"),
        ("bXBsZSBub25jZQ==", "", E::Key, "400 Bad Request"),
        ("Origin:", "Sec-WebSocket-Key:", E::Key, "400 Bad Request"),
        (
            "chat, sluice.v1",
            "chat, sluice.v2",
            E::Subprotocol,
            "400 Bad Request",
        ),
        (
            "Sec-WebSocket-Protocol",
            "X-Protocol",
            E::Subprotocol,
            "400 Bad Request",
        ),
        ("Host: ", "Ho st: ", E::Malformed, "400 Bad Request"),
        (
            "server.example.com\r\n",
            "server\n\n",
            E::Malformed,
            "400 Bad Request",
        ),
    ];
    for (right, wrong, reason, status) in cases {
        let request = REQUEST.replacen(right, wrong, 1);
        assert_ne!(request, REQUEST, "{right}");
        assert_eq!(
            refused(&request),
            (reason, format!("HTTP/1.1 {status}")),
            "{wrong}"
        );
    }
}

#[test]
fn a_refusal_is_a_complete_response() {
    let error = FrameError::from(HandshakeError::Version);
    let answer = String::from_utf8(error.http_answer().unwrap()).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\nSec-WebSocket-Version: 13\r\n"));
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
    assert_eq!(body, "only Sec-WebSocket-Version: 13 is spoken\n");
}

#[test]
fn the_header_block_is_bounded() {
    let fits = REQUEST.replace(
        "http://",
        &"a".repeat(HANDSHAKE_MAX_BYTES - REQUEST.len() + 7),
    );
    assert_eq!(fits.len(), HANDSHAKE_MAX_BYTES);
    assert_eq!(outcome(fits.as_bytes()), [Event::Handshake(ANSWER.into())]);

    let over = fits.replace("Origin", "Origins");
    let (reason, status) = refused(&over);
    assert_eq!(reason, HandshakeError::HeaderTooLarge);
    assert_eq!(status, "HTTP/1.1 431 Request Header Fields Too Large");

    let many = REQUEST.replace("\r\n\r\n", &("\r\nA: b".repeat(64) + "\r\n\r\n"));
    assert_eq!(refused(&many).0, HandshakeError::HeaderTooLarge);
}

#[test]
fn bytes_that_begin_no_request_are_refused_at_the_first() {
    assert_eq!(outcome(b"\x16"), [Event::Error(FrameError::LooksLikeTls)]);
    let error = FrameError::Handshake(HandshakeError::NotHttp);
    assert_eq!(outcome(b"\0\0\0\x02hi"), [Event::Error(error.clone())]);
    assert_eq!(error.http_answer(), None);
}

#[test]
fn frames_may_follow_the_request_at_once() {
    let mut bytes = REQUEST.as_bytes().to_vec();
    bytes.extend(masked(0x82, [1, 2, 3, 4], b"packet"));
    let expected = [
        Event::Handshake(ANSWER.into()),
        Event::Packet(b"packet".to_vec()),
    ];
    assert_eq!(outcome(&bytes), expected);
    for cut in 0..bytes.len() {
        let (first, second) = bytes.split_at(cut);
        let found = events(&mut Decoder::websocket(4096), [first, second]);
        assert_eq!(found, expected, "cut at {cut}");
    }
}
