//! What a session costs while nothing is under way.

use sluice_codec::datagram::{Channel, Session};

use super::{network::Faults, pair::Pair};

#[test]
fn an_idle_session_is_small_and_has_no_heap() {
    assert!(size_of::<Session>() <= 208, "{}", size_of::<Session>());
    let mut pair = Pair::new(Faults::lossy(0.1), 1);
    for channel in [
        Channel::CONTROL,
        Channel::PUSHES,
        Channel::LATEST,
        Channel::EPHEMERAL,
    ] {
        for side in [0, 1] {
            pair.send(side, channel, 3000);
            pair.send(side, channel, 100);
        }
    }
    assert!(pair.run_until_delivered(10_000_000));
    pair.run_until(15_000_000);
    for peer in &pair.peers {
        assert!(peer.most_heap_bytes > 0);
        assert_eq!(peer.session.heap_bytes(), 0);
    }
}

#[test]
fn an_idle_session_lives_on() {
    let mut pair = Pair::new(Faults::lossy(0.1), 1);
    pair.send(0, Channel::CONTROL, 100);
    pair.run_until(3_600_000_000);
    assert!(pair.peers.iter().all(|peer| peer.session.end().is_none()));
    let packets = pair.network.wire[0].packets + pair.network.wire[1].packets;
    assert!(packets < 2 * 3600 / 30 * 2, "{packets}");
    pair.send(1, Channel::PUSHES, 100);
    let until_us = pair.now_us + 5_000_000;
    assert!(pair.run_until_delivered(until_us));
    pair.check();
}
