//! What ejabberd 23.01 says, word for word, and what a client makes of it.

use super::*;
use crate::peers::fed::{feed, feed_every_way, logins, message};

const FEATURES: &str = "<?xml version='1.0'?><stream:stream id='7595415954216872591' \
    version='1.0' xml:lang='en' xmlns:stream='http://etherx.jabber.org/streams' \
    from='localhost' xmlns='jabber:client'><stream:features><mechanisms \
    xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism>\
    <mechanism>X-OAUTH2</mechanism></mechanisms></stream:features>";
const SUCCESS: &str = "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>";
const BOUND: &str = "<?xml version='1.0'?><stream:stream id='1167175816772619308' version='1.0' \
    xml:lang='en' xmlns:stream='http://etherx.jabber.org/streams' from='localhost' \
    xmlns='jabber:client'><stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>\
    <session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>\
    <sm xmlns='urn:xmpp:sm:2'/><sm xmlns='urn:xmpp:sm:3'/></stream:features><iq type='result' \
    id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>alice@localhost/bench</jid>\
    </bind></iq><enabled xmlns='urn:xmpp:sm:3'/>";
const HERE: &str = "<a h='1' xmlns='urn:xmpp:sm:3'/><presence xml:lang='en' \
    to='alice@localhost/bench' from='alice@localhost/bench'/><r xmlns='urn:xmpp:sm:3'/>";

fn driver() -> Xmpp {
    Xmpp::new(logins(), 30)
}

fn arrived() -> Xmpp {
    let mut driver = driver();
    let hello = [FEATURES, SUCCESS, BOUND, HERE].concat();
    let (heard, _) = feed(&mut driver, 0, &[hello.as_bytes()]).unwrap();
    assert!(matches!(heard[..], [Heard::Ready { window: 128, .. }]));
    driver
}

#[test]
fn a_client_arrives_however_the_answers_are_cut() {
    let hello = [FEATURES, SUCCESS, BOUND, HERE].concat();
    let (heard, out) = feed_every_way(driver, 0, hello.as_bytes());
    assert!(matches!(heard[..], [Heard::Ready { window: 128, .. }]));
    let said = String::from_utf8(out).unwrap();
    let auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>\
        AGFsaWNlAHNlY3JldA==</auth>";
    assert!(said.starts_with(auth), "{said}");
    assert!(
        said.ends_with("<presence/><r xmlns='urn:xmpp:sm:3'/><a xmlns='urn:xmpp:sm:3' h='1'/>")
    );
}

#[test]
fn a_batch_is_asked_for_once_and_acked_by_its_count() {
    let mut driver = arrived();
    let mut out = Vec::new();
    driver.gathered(0, &mut out);
    assert!(out.is_empty());
    for number in 0..3 {
        driver.send(0, message(number), &mut out);
    }
    driver.gathered(0, &mut out);
    let said = String::from_utf8(out).unwrap();
    let first = "<message to='bob@localhost' type='chat' id='0'>\
        <body>000000003b9aca0700000000yzabcd</body></message>";
    assert!(said.starts_with(first), "{said}");
    assert_eq!(said.matches(ASK).count(), 1);
    assert!(said.ends_with(ASK));
    let answers = "<a h='3' xmlns='urn:xmpp:sm:3'/><a h='4' xmlns='urn:xmpp:sm:3'/>";
    let (heard, _) = feed(&mut driver, 0, &[answers.as_bytes()]).unwrap();
    let acked = |number| Heard::Acked { number };
    assert_eq!(heard, [acked(0), acked(1), acked(2)]);
    let told = feed(&mut driver, 0, &[b"<a h='5'/>"]).unwrap_err();
    assert!(told.to_string().contains("an ack of 5 stanzas after 4"));
}

#[test]
fn messages_are_received_and_counted() {
    let pushed = "<message xml:lang='en' to='alice@localhost' from='bob@localhost/bench' \
        type='chat' id='1'><archived by='alice@localhost' id='1795326031109639' \
        xmlns='urn:xmpp:mam:tmp'/><stanza-id by='alice@localhost' id='1795326031109639' \
        xmlns='urn:xmpp:sid:0'/><body>00000000000000ff00000001yzabcd</body></message>\
        <r xmlns='urn:xmpp:sm:3'/>";
    let (heard, out) = feed_every_way(arrived, 0, pushed.as_bytes());
    let (number, due_ns) = (1, 255);
    assert_eq!(heard, [Heard::Received { number, due_ns }]);
    assert_eq!(out, b"<a xmlns='urn:xmpp:sm:3' h='2'/>");
}

#[test]
fn a_message_that_comes_back_has_failed() {
    let bounce = "<message xml:lang='en' to='alice@localhost/bench' from='nobody@localhost' \
        type='error' id='7'><error type='cancel'><service-unavailable \
        xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error><body>x</body></message>";
    let (heard, _) = feed_every_way(arrived, 0, bounce.as_bytes());
    assert_eq!(heard, [Heard::Failed { number: 7, code: 0 }]);
}

#[test]
fn what_a_server_may_not_say_has_a_name() {
    let failure = "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>";
    for (bytes, name) in [
        (failure, "<not-authorized/>"),
        ("<a/>", "<a/> is malformed"),
        ("<enabled/>", "<enabled> when Ready"),
        (
            "<message><body>00000000000000fg</body></message>",
            "a message is malformed",
        ),
        ("<message type='error'/>", "a bounce is malformed"),
        ("</stream:stream>", "the stream's end"),
    ] {
        let told = feed(&mut arrived(), 0, &[bytes.as_bytes()]).unwrap_err();
        assert!(told.to_string().contains(name), "{told}");
    }
}
