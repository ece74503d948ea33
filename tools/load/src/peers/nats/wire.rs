//! What stands on the wire between a NATS client and its server: lines, and payloads of a
//! length that a line has told.

use crate::peers::{MESSAGE_MAX_BYTES, PeerError};

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Op<'a> {
    /// About itself.
    Info,
    /// To what was said to it.
    Ok,
    Ping,
    Pong,
    /// Of a subscription.
    Message {
        subject: &'a str,
        /// Where an answer goes.
        reply: Option<&'a str>,
        payload: &'a [u8],
    },
}

/// INFO is the longest.
const LINE_MAX_BYTES: usize = 16 * 1024;
const LINE_END: &[u8] = b"\r\n";

/// What input begins with, once it is there as a whole, and how many bytes that has.
///
/// # Errors
/// The server says `-ERR`, or what no server says.
pub(crate) fn first_op(input: &[u8]) -> Result<Option<(Op<'_>, usize)>, PeerError> {
    let end = input
        .iter()
        .take(LINE_MAX_BYTES)
        .position(|it| *it == b'\n');
    let Some(end) = end else {
        return match input.len() {
            0..LINE_MAX_BYTES => Ok(None),
            _ => Err(PeerError::TooLong {
                what: "a line",
                max_bytes: LINE_MAX_BYTES,
            }),
        };
    };
    let line = input[..end].strip_suffix(b"\r");
    let line = line.and_then(|line| str::from_utf8(line).ok());
    let line = line.ok_or(PeerError::Malformed("a line"))?;
    let bytes = end + 1;
    let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let op = match word {
        "MSG" => return message(rest, &input[bytes..], bytes),
        "+OK" => Op::Ok,
        "PING" => Op::Ping,
        "PONG" => Op::Pong,
        "INFO" => Op::Info,
        "-ERR" => {
            return Err(PeerError::Refused {
                what: "something",
                reason: rest.to_owned(),
            });
        }
        other => return Err(PeerError::Unexpected(format!("{other:?}"))),
    };
    Ok(Some((op, bytes)))
}

/// `MSG <subject> <sid> [reply-to] <#bytes>` and, behind the line, the payload.
fn message<'a>(
    words: &'a str,
    behind: &'a [u8],
    line_bytes: usize,
) -> Result<Option<(Op<'a>, usize)>, PeerError> {
    const MALFORMED: PeerError = PeerError::Malformed("MSG");
    let mut words = words.split_ascii_whitespace();
    let mut word = || words.next();
    let (subject, _sid) = word().zip(word()).ok_or(MALFORMED)?;
    let (third, fourth) = (word().ok_or(MALFORMED)?, word());
    let (reply, length) = match fourth {
        Some(length) => (Some(third), length),
        None => (None, third),
    };
    let length: usize = length.parse().map_err(|_| MALFORMED)?;
    if length > MESSAGE_MAX_BYTES {
        return Err(PeerError::TooLong {
            what: "a message",
            max_bytes: MESSAGE_MAX_BYTES,
        });
    }
    let Some(whole) = behind.get(..length + LINE_END.len()) else {
        return Ok(None);
    };
    let payload = whole.strip_suffix(LINE_END).ok_or(MALFORMED)?;
    let op = Op::Message {
        subject,
        reply,
        payload,
    };
    Ok(Some((op, line_bytes + whole.len())))
}

/// Appends a PUB; subject and reply subject, of which there may be none, are in parts.
pub(crate) fn put_publish(subject: &[&str], reply: &[&str], payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"PUB ");
    let parts = |parts: &[&str], out: &mut Vec<u8>| {
        parts
            .iter()
            .for_each(|it| out.extend_from_slice(it.as_bytes()));
        if !parts.is_empty() {
            out.push(b' ');
        }
    };
    parts(subject, out);
    parts(reply, out);
    put_number(payload.len() as u64, out);
    out.extend_from_slice(LINE_END);
    out.extend_from_slice(payload);
    out.extend_from_slice(LINE_END);
}

fn put_number(number: u64, out: &mut Vec<u8>) {
    // Into a vector nothing fails.
    let _ = std::io::Write::write_fmt(out, format_args!("{number}"));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_server_may_not_say_has_a_name() {
        for (bytes, name) in [
            (
                &b"-ERR 'Unknown Protocol Operation'\r\n"[..],
                "refused: 'Unknown",
            ),
            (b"HMSG a 1 2 3\r\n", "\"HMSG\""),
            (b"MSG a 1\r\n", "MSG is malformed"),
            (b"MSG a 1 x\r\n", "MSG is malformed"),
            (b"MSG a 1 -1\r\n", "MSG is malformed"),
            (b"MSG a 1 2\r\nabcd", "MSG is malformed"),
            (b"MSG a 1 99999999999\r\n", "more than 131072 bytes"),
            (b"\xff\xfe\r\n", "a line is malformed"),
            (b"PING\n", "a line is malformed"),
            (&[b'x'; 16 * 1024], "a line of more than"),
        ] {
            let told = first_op(bytes).unwrap_err().to_string();
            assert!(told.contains(name), "{told}");
        }
    }

    #[test]
    fn a_message_has_a_reply_subject_or_none() {
        let op = first_op(b"MSG a.b 7 r.1 3\r\nabc\r\nPING\r\n").unwrap();
        let message = Op::Message {
            subject: "a.b",
            reply: Some("r.1"),
            payload: b"abc",
        };
        assert_eq!(op, Some((message, 22)));
        let (mut out, op) = (Vec::new(), b"PUB a.b r.1 3\r\nabc\r\n");
        put_publish(&["a.", "b"], &["r.1"], b"abc", &mut out);
        assert_eq!(out, op);
    }

    proptest! {
        #[test]
        fn no_bytes_do_any_harm(bytes in "(MSG|PING|[+]OK| |[0-9]|\r\n|.){0,40}") {
            if let Ok(Some((_, used))) = first_op(bytes.as_bytes()) {
                prop_assert!(used <= bytes.len());
            }
        }
    }
}
