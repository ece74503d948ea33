//! The opening handshake (RFC 6455, section 4.2): one HTTP request, one answer.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha1::{Digest as _, Sha1};
use sluice_protocol::WEBSOCKET_SUBPROTOCOL;

use super::HANDSHAKE_MAX_BYTES;
use crate::{FrameError, Input, partial::Partial};

/// Header lines of a handshake at most.
const HEADERS_MAX: usize = 64;

/// The paths that lead to the gateway.
const PATHS: [&str; 2] = ["/", "/ws"];

/// From RFC 6455, section 1.3.
const KEY_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A handshake that has not all arrived.
#[derive(Debug, Default)]
pub(crate) struct Handshake {
    request: Partial,
}

/// Why a handshake was refused. Each says what would cure it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The first byte can't begin a request.
    #[error("these are not the bytes of an HTTP request; a WebSocket begins with one")]
    NotHttp,
    /// Over [`HANDSHAKE_MAX_BYTES`] or 64 lines.
    #[error("the request's header is over {HANDSHAKE_MAX_BYTES} bytes or {HEADERS_MAX} lines")]
    HeaderTooLarge,
    /// Not HTTP/1.1.
    #[error("the request is malformed; an HTTP/1.1 request is needed")]
    Malformed,
    /// Not GET.
    #[error("a WebSocket begins with a GET request")]
    Method,
    /// Not `/` or `/ws`.
    #[error("there is nothing at this path; the WebSocket is at / and /ws")]
    Path,
    /// A plain request.
    #[error("this port speaks WebSocket only; send Connection: Upgrade and Upgrade: websocket")]
    NotUpgrade,
    /// `Sec-WebSocket-Version` missing or not 13.
    #[error("only Sec-WebSocket-Version: 13 is spoken")]
    Version,
    /// `Sec-WebSocket-Key` missing, twice there, or not 16 bytes in base64.
    #[error("Sec-WebSocket-Key must be there once and hold 16 bytes in base64")]
    Key,
    /// `Host` missing.
    #[error("the Host header is missing")]
    Host,
    /// The subprotocol isn't offered.
    #[error("offer the subprotocol: Sec-WebSocket-Protocol: {WEBSOCKET_SUBPROTOCOL}")]
    Subprotocol,
}

/// A complete HTTP response with a line of plain text, after which the
/// connection is closed.
fn response(status: &str, headers: &str, text: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{text}\n",
        text.len() + 1,
    )
    .into_bytes()
}

/// For whoever speaks plain HTTP where it isn't spoken.
pub(crate) fn bad_request(text: &str) -> Vec<u8> {
    response("400 Bad Request", "", text)
}

/// The end of the header block, the empty line included.
fn block_end(bytes: &[u8]) -> Option<usize> {
    const END: &[u8] = b"\r\n\r\n";
    let at = bytes.windows(END.len()).position(|window| window == END)?;
    Some(at + END.len())
}

/// Values of a header, whatever the case of its name.
fn values<'h>(
    headers: &'h [httparse::Header<'h>],
    name: &'h str,
) -> impl Iterator<Item = &'h [u8]> {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .map(|header| header.value.trim_ascii())
}

/// True when the comma-separated values of a header hold a token that passes.
fn any_token(headers: &[httparse::Header<'_>], name: &str, test: impl Fn(&[u8]) -> bool) -> bool {
    values(headers, name)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|token| test(token.trim_ascii()))
}

/// The one value of a header.
fn only<'h>(headers: &'h [httparse::Header<'h>], name: &'h str) -> Option<&'h [u8]> {
    let mut values = values(headers, name);
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// Proves to the client that the server has understood (RFC 6455, section 4.2.2).
fn accept_key(key: &[u8]) -> String {
    let mut hasher = Sha1::new();
    hasher.update(key);
    hasher.update(KEY_GUID);
    STANDARD.encode(hasher.finalize())
}

/// Answers a whole header block.
fn answer(block: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(block) {
        Ok(httparse::Status::Complete(bytes)) if bytes == block.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(HandshakeError::HeaderTooLarge),
        _ => return Err(HandshakeError::Malformed),
    }
    if request.method != Some("GET") {
        return Err(HandshakeError::Method);
    }
    if request.version != Some(1) {
        return Err(HandshakeError::Malformed);
    }
    let target = request.path.unwrap_or_default();
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    if !PATHS.contains(&path) {
        return Err(HandshakeError::Path);
    }
    let key = checked_key(request.headers)?;
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {WEBSOCKET_SUBPROTOCOL}\r\n\r\n",
        accept_key(key),
    )
    .into_bytes())
}

/// Checks the header lines and returns the client's key.
fn checked_key<'h>(headers: &'h [httparse::Header<'h>]) -> Result<&'h [u8], HandshakeError> {
    let is = |expected: &'static str| {
        move |token: &[u8]| token.eq_ignore_ascii_case(expected.as_bytes())
    };
    if !any_token(headers, "upgrade", is("websocket"))
        || !any_token(headers, "connection", is("upgrade"))
    {
        return Err(HandshakeError::NotUpgrade);
    }
    if only(headers, "host").is_none() {
        return Err(HandshakeError::Host);
    }
    if only(headers, "sec-websocket-version") != Some(b"13") {
        return Err(HandshakeError::Version);
    }
    let key = only(headers, "sec-websocket-key").ok_or(HandshakeError::Key)?;
    if !STANDARD.decode(key).is_ok_and(|key| key.len() == 16) {
        return Err(HandshakeError::Key);
    }
    // Subprotocol names are compared exactly (RFC 6455, section 4.1).
    if !any_token(headers, "sec-websocket-protocol", |token| {
        token == WEBSOCKET_SUBPROTOCOL.as_bytes()
    }) {
        return Err(HandshakeError::Subprotocol);
    }
    Ok(key)
}

// === impl Handshake ===

impl Handshake {
    /// The answer, once the request has all arrived.
    pub(crate) fn advance(&mut self, input: &mut Input<'_>) -> Result<Option<Vec<u8>>, FrameError> {
        let first = self.request.as_slice().first().or(input.rest().first());
        match first {
            None => return Ok(None),
            // A TLS record of type handshake.
            Some(0x16) => return Err(FrameError::LooksLikeTls),
            Some(byte) if !byte.is_ascii_uppercase() => return Err(HandshakeError::NotHttp.into()),
            Some(_) => {}
        }
        if self.request.is_empty()
            && let Some(end) = block_end(head(input.rest()))
        {
            return Ok(Some(answer(input.take(end))?));
        }
        self.keep(input)
    }

    /// The request comes in pieces.
    fn keep(&mut self, input: &mut Input<'_>) -> Result<Option<Vec<u8>>, FrameError> {
        let searched = self.request.len().saturating_sub(3);
        let room = HANDSHAKE_MAX_BYTES - self.request.len().min(HANDSHAKE_MAX_BYTES);
        self.request.append(input.take(room), HANDSHAKE_MAX_BYTES);
        let request = self.request.as_slice();
        if let Some(end) = block_end(&request[searched..]) {
            let end = searched + end;
            // What follows the request are frames already.
            input.give_back(request.len() - end);
            return Ok(Some(answer(&request[..end])?));
        }
        if request.len() >= HANDSHAKE_MAX_BYTES {
            return Err(HandshakeError::HeaderTooLarge.into());
        }
        Ok(None)
    }

    pub(crate) fn is_mid_frame(&self) -> bool {
        !self.request.is_empty()
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.request.capacity()
    }
}

/// As much as a request may have.
fn head(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(HANDSHAKE_MAX_BYTES)]
}

// === impl HandshakeError ===

impl HandshakeError {
    /// What is written before the connection is closed; none to a peer that
    /// doesn't speak HTTP.
    pub(crate) fn http_answer(self) -> Option<Vec<u8>> {
        let (status, headers) = match self {
            Self::NotHttp => return None,
            Self::HeaderTooLarge => ("431 Request Header Fields Too Large", ""),
            Self::Malformed | Self::Key | Self::Host | Self::Subprotocol => ("400 Bad Request", ""),
            Self::Method => ("405 Method Not Allowed", "Allow: GET\r\n"),
            Self::Path => ("404 Not Found", ""),
            Self::NotUpgrade | Self::Version => (
                "426 Upgrade Required",
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            ),
        };
        Some(response(status, headers, &self.to_string()))
    }
}
