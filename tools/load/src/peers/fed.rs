//! For tests: what a driver makes of a server's bytes, however they are cut.

use crate::{
    LoadError, Login,
    driver::{Driver, Heard, Message},
};

/// What a client heard, and said.
pub(super) type Came = (Vec<Heard>, Vec<u8>);

/// Two clients that chat with each other.
pub(super) fn logins() -> Vec<Login> {
    let login = |name: &str| {
        let words = (name.to_owned(), "bench".to_owned(), "secret".to_owned());
        Login::try_from(words).unwrap()
    };
    vec![login("alice"), login("bob")]
}

/// A message to be sent.
pub(super) fn message(number: u64) -> Message {
    Message {
        number,
        attempt: 0,
        due_ns: 1_000_000_007 + number,
        follows_due_ns: None,
    }
}

/// Feeds a client as sockets do: what isn't used comes again, with more behind it.
pub(super) fn feed(
    driver: &mut dyn Driver,
    client: usize,
    parts: &[&[u8]],
) -> Result<Came, LoadError> {
    let (mut partial, mut heard, mut out) = (Vec::new(), Vec::new(), Vec::new());
    for part in parts {
        partial.extend_from_slice(part);
        let used = driver.take(client, &partial, &mut out, &mut heard)?;
        partial.drain(..used);
    }
    assert!(partial.is_empty(), "left: {partial:?}");
    Ok((heard, out))
}

/// Feeds fresh drivers the same bytes whole, cut in two at every place, and one by
/// one; all must hear and say the same, which is returned.
pub(super) fn feed_every_way<D: Driver>(
    driver: impl Fn() -> D,
    client: usize,
    bytes: &[u8],
) -> Came {
    let whole = feed(&mut driver(), client, &[bytes]).unwrap();
    for at in 0..=bytes.len() {
        let (head, tail) = bytes.split_at(at);
        let came = feed(&mut driver(), client, &[head, tail]).unwrap();
        assert_eq!(came, whole, "cut at {at}");
    }
    let singly: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(feed(&mut driver(), client, &singly).unwrap(), whole);
    whole
}
