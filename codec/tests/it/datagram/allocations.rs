//! What is allocated: nothing for a stranger, nothing for a packet.

use allocation_counter::measure;
use sluice_codec::datagram::{Arrival, TAG_BYTES};

use super::{
    pair::{NOW_US, UNIX_MS, acceptor, client_address, connector, handshake, knock_datagram, sent},
    sealing::header,
};

#[test]
fn nothing_is_allocated_for_a_stranger() {
    let acceptor = acceptor();
    let hello = sent(&mut connector(1), NOW_US);
    let mut other_version = hello.clone();
    other_version[1] = 9;
    // A Knock whose cookie does not hold here.
    let stale = knock_datagram(&acceptor, &mut connector(2));
    let elsewhere = "203.0.113.9:1".parse().unwrap();
    let counted = measure(|| {
        for datagram in [&hello, &other_version, &stale] {
            let arrival = acceptor.receive(datagram, elsewhere, UNIX_MS);
            assert!(matches!(arrival, Arrival::Answer(_)));
        }
        // Not even for one whose cookie holds, before it is accepted.
        let arrival = acceptor.receive(&stale, client_address(), UNIX_MS);
        assert!(matches!(arrival, Arrival::Knock(_)));
    });
    assert_eq!(counted.count_total, 0);
}

#[test]
fn nothing_is_allocated_for_a_packet() {
    let (mut client, mut server) = handshake();
    let mut buffer = [0; 1200];
    let counted = measure(|| {
        for number in 0..1000u64 {
            let acked = number.checked_sub(1);
            let header_bytes = client.keys.header_bytes(number, acked).unwrap();
            let datagram = &mut buffer[..header_bytes + 700 + TAG_BYTES];
            client.keys.seal(NOW_US, number, acked, datagram).unwrap();
            let header = header(datagram);
            let opened = server.keys.open(NOW_US, &header, acked, datagram);
            assert!(opened.is_ok_and(|(opened, _)| opened == number));
        }
    });
    assert_eq!(counted.count_total, 0);
}
