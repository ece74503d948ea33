//! NATS JetStream (docs.nats.io, "JetStream wire API"): a stream keeps all that is published
//! to users' subjects, and each user has a durable push consumer of its own there, which it
//! makes when it connects and which wants every message acked. A message is a PUB with a
//! reply subject, and what the stream answers there is the ack.

use super::{
    HEARTBEAT_INTERVAL_MS, PeerError, WINDOW,
    nats::{Op, SUBJECT, first_op, put_publish},
};
use crate::{
    LoadError, Login,
    body::{Body, stamp_of},
    driver::{Driver, Heard, Message},
};

/// See the module.
pub(crate) struct JetStream {
    logins: Vec<Login>,
    body: Body,
}

/// It has to be there; `sluice-engines` makes it.
const STREAM: &str = "SLUICE";
/// Messages that a consumer has pushed and that aren't acked yet; more wait in the stream.
const ACK_PENDING_MAX: u32 = 1_000;
/// What the consumer pushes comes here,
const DELIVER: &str = "deliver.";
/// and answers, by the number of the message that they are for.
const ANSWER: &str = "answer.";
const CONSUMER: &str = "consumer";

// === impl JetStream ===

impl JetStream {
    /// Clients that are these users.
    pub(crate) fn new(logins: Vec<Login>, body_bytes: usize) -> Self {
        Self {
            logins,
            body: Body::new(body_bytes),
        }
    }

    fn user(&self, client: usize) -> &str {
        self.logins[client].user.as_str()
    }
}

impl Driver for JetStream {
    fn open(&mut self, client: usize, out: &mut Vec<u8>) -> Result<(), LoadError> {
        let user = self.user(client);
        let words = format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false,\"tls_required\":false,\"protocol\":1,\
             \"lang\":\"rust\",\"version\":\"0\",\"name\":\"{user}\"}}\r\n\
             SUB {DELIVER}{user} 1\r\nSUB {ANSWER}{user}.* 2\r\n"
        );
        out.extend_from_slice(words.as_bytes());
        let consumer = format!(
            "{{\"stream_name\":\"{STREAM}\",\"config\":{{\"durable_name\":\"{user}\",\
             \"deliver_subject\":\"{DELIVER}{user}\",\"filter_subject\":\"{SUBJECT}{user}\",\
             \"deliver_policy\":\"all\",\"ack_policy\":\"explicit\",\
             \"max_ack_pending\":{ACK_PENDING_MAX},\"replay_policy\":\"instant\"}}}}"
        );
        put_publish(
            &["$JS.API.CONSUMER.DURABLE.CREATE.", STREAM, ".", user],
            &[ANSWER, user, ".", CONSUMER],
            consumer.as_bytes(),
            out,
        );
        Ok(())
    }

    fn send(&mut self, client: usize, message: Message, out: &mut Vec<u8>) {
        self.body.stamp(message);
        let (user, peer) = (self.user(client), self.user(client ^ 1));
        let mut digits = [0; 20];
        let number = digits_of(message.number, &mut digits);
        let reply = [ANSWER, user, ".", number];
        put_publish(&[SUBJECT, peer], &reply, self.body.bytes(), out);
    }

    fn take(
        &mut self,
        _client: usize,
        input: &[u8],
        out: &mut Vec<u8>,
        heard: &mut Vec<Heard>,
    ) -> Result<usize, LoadError> {
        let mut used = 0;
        while let Some((op, bytes)) = first_op(&input[used..])? {
            used += bytes;
            match op {
                Op::Message {
                    subject,
                    reply,
                    payload,
                } => match subject.strip_prefix(ANSWER) {
                    Some(to) => heard.push(answered(to, payload)?),
                    None => {
                        heard.push(received(payload)?);
                        // An ack (+ACK) may be empty.
                        let reply = reply.ok_or(PeerError::Malformed("a delivery"))?;
                        put_publish(&[reply], &[], b"", out);
                    }
                },
                Op::Ping => out.extend_from_slice(b"PONG\r\n"),
                Op::Ok | Op::Pong | Op::Info => {}
            }
        }
        Ok(used)
    }

    fn keep_alive(&mut self, _client: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(b"PING\r\n");
    }

    fn is_ordered(&self) -> bool {
        false
    }
}

fn received(payload: &[u8]) -> Result<Heard, PeerError> {
    let stamp = stamp_of(payload).ok_or(PeerError::Malformed("a message"))?;
    let (due_ns, number) = stamp;
    Ok(Heard::Received { number, due_ns })
}

/// What JetStream says to a request: of the consumer, or of the message with a number.
fn answered(to: &str, payload: &[u8]) -> Result<Heard, PeerError> {
    let what = to.rsplit('.').next().unwrap_or_default();
    let answer = str::from_utf8(payload).map_err(|_| PeerError::Malformed("an answer"))?;
    let error = error_code(answer);
    if what == CONSUMER {
        return match error {
            None => Ok(Heard::Ready {
                window: WINDOW,
                heartbeat_interval_ms: HEARTBEAT_INTERVAL_MS,
            }),
            Some(_) => Err(PeerError::Refused {
                what: "a consumer",
                reason: answer.to_owned(),
            }),
        };
    }
    let number = what.parse();
    let number = number.map_err(|_| PeerError::Malformed("an answer's subject"))?;
    Ok(match error {
        None => Heard::Acked { number },
        Some(code) => Heard::Failed { number, code },
    })
}

/// The code of `{"error":{"code":503,…},…}`; 0 where it has none.
fn error_code(answer: &str) -> Option<u32> {
    let (_, error) = answer.split_once("\"error\":")?;
    let code = error.split_once("\"code\":").map(|(_, code)| code.trim());
    let digits = code.and_then(|code| code.split(|it: char| !it.is_ascii_digit()).next());
    Some(digits.and_then(|it| it.parse().ok()).unwrap_or(0))
}

fn digits_of(mut number: u64, digits: &mut [u8; 20]) -> &str {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    str::from_utf8(&digits[at..]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::fed::{feed, feed_every_way, logins, message};

    fn driver() -> JetStream {
        JetStream::new(logins(), 64)
    }

    fn said(subject: &str, reply: &str, payload: &str) -> Vec<u8> {
        let bytes = payload.len();
        format!("MSG {subject} 2 {reply}{bytes}\r\n{payload}\r\n").into_bytes()
    }

    #[test]
    fn a_client_is_ready_once_it_has_a_consumer() {
        let mut out = Vec::new();
        driver().open(1, &mut out).unwrap();
        let words = String::from_utf8(out).unwrap();
        assert!(words.contains("SUB deliver.bob 1\r\nSUB answer.bob.* 2\r\nPUB $JS.API."));
        let made = "{\"type\":\"io.nats.jetstream.api.v1.consumer_create_response\",\
            \"stream_name\":\"SLUICE\",\"name\":\"bob\"}";
        let hello = [
            b"INFO {\"jetstream\":true} \r\n".as_slice(),
            &said("answer.bob.consumer", "", made),
        ];
        let (heard, _) = feed_every_way(driver, 1, &hello.concat());
        assert!(matches!(heard[..], [Heard::Ready { window: 128, .. }]));
        let refused = "{\"error\":{\"code\":404,\"description\":\"stream not found\"}}";
        let refused = said("answer.bob.consumer", "", refused);
        let told = feed(&mut driver(), 1, &[&refused]).unwrap_err().to_string();
        assert!(told.contains("a consumer is refused: {"), "{told}");
    }

    #[test]
    fn what_one_sends_is_acked_by_number_and_received_by_the_other() {
        let mut sent = Vec::new();
        driver().send(0, message(1_203), &mut sent);
        let head = b"PUB inbox.bob answer.alice.1203 64\r\n";
        assert_eq!(&sent[..head.len()], head);
        let reply = "$JS.ACK.SLUICE.bob.1.7.7.1700000000.0";
        let pushed = format!("MSG inbox.bob 1 {reply} 64\r\n");
        let pushed = [pushed.as_bytes(), &sent[head.len()..]].concat();
        let (heard, out) = feed_every_way(driver, 1, &pushed);
        let (number, due_ns) = (1_203, message(1_203).due_ns);
        assert_eq!(heard, [Heard::Received { number, due_ns }]);
        assert_eq!(out, format!("PUB {reply} 0\r\n\r\n").as_bytes());
        let stored = said("answer.alice.1203", "", "{\"stream\":\"SLUICE\",\"seq\":7}");
        let full = "{\"error\":{\"code\":503,\"err_code\":10077},\"stream\":\"SLUICE\",\"seq\":0}";
        let full = said("answer.alice.0", "", full);
        let (heard, _) = feed_every_way(driver, 0, &[stored, full].concat());
        let failed = Heard::Failed {
            number: 0,
            code: 503,
        };
        assert_eq!(heard, [Heard::Acked { number }, failed]);
    }

    #[test]
    fn what_a_server_may_not_say_has_a_name() {
        for (bytes, name) in [
            (said("answer.bob.x", "", "{}"), "an answer's subject"),
            (said("inbox.bob", "r ", "short"), "a message is malformed"),
            (
                said("inbox.bob", "", "long enough it is"),
                "a delivery is malformed",
            ),
        ] {
            let told = feed(&mut driver(), 1, &[&bytes]).unwrap_err().to_string();
            assert!(told.contains(name), "{told}");
        }
    }
}
