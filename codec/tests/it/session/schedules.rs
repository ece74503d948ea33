//! Thousands of seeded schedules: whatever the network does, everything reliable
//! comes, once, in order where promised, in bounded time and memory.

use sluice_codec::datagram::Channel;

use super::{
    network::{Draw, Faults},
    pair::Pair,
};

const CHANNELS: [Channel; 8] = [
    Channel::CONTROL,
    Channel::CONTROL,
    Channel(3),
    Channel::PUSHES,
    Channel(0x45),
    Channel::LATEST,
    Channel(0x81),
    Channel::EPHEMERAL,
];

fn message_bytes(draw: &mut Draw) -> usize {
    match draw.below(20) {
        0 => 5 + draw.below(60_000) as usize,
        1..4 => 5 + draw.below(4_000) as usize,
        _ => 5 + draw.below(200) as usize,
    }
}

/// Runs one schedule, with pauses that are this many times as long.
fn run(seed: u64, sleeps: bool, slower: u64) -> Pair {
    let mut draw = Draw(seed);
    let faults = Faults::drawn(&mut draw);
    let mut pair = Pair::new(faults.clone(), seed);
    pair.sleeps = sleeps;
    let messages = 5 + draw.below(60);
    let span_us = 1 + draw.below(300_000) * slower;
    let moves = draw.below(3) * draw.below(2);
    for _ in 0..messages {
        let at_us = pair.now_us + draw.below(span_us);
        pair.run_until(at_us);
        if draw.below(messages) < moves {
            pair.client_address += if draw.chance(0.5) { 1 } else { 100 };
            if draw.chance(0.5) {
                let now_us = pair.now_us;
                pair.peers[0].session.rebind(now_us);
                pair.pump(0);
            }
        }
        let side = draw.below(2) as usize;
        let channel = CHANNELS[draw.below(8) as usize];
        let mut bytes = message_bytes(&mut draw);
        if !channel.mode().is_reliable() {
            bytes = bytes.min(16 * 1024);
        }
        pair.send(side, channel, bytes);
        if draw.chance(0.05) {
            pair.peers[1 - side].inbox.is_full ^= true;
        }
        for side in [0, 1] {
            if !pair.peers[side].inbox.is_full {
                let (now_us, peer) = (pair.now_us, &mut pair.peers[side]);
                let inbox = &mut peer.inbox;
                peer.session
                    .drain(&mut |channel, payload| inbox.take(now_us, channel, payload));
                pair.pump(side);
            }
        }
    }
    for side in [0, 1] {
        let (now_us, peer) = (pair.now_us, &mut pair.peers[side]);
        let inbox = &mut peer.inbox;
        inbox.is_full = false;
        peer.session
            .drain(&mut |channel, payload| inbox.take(now_us, channel, payload));
        pair.pump(side);
    }
    let until_us = pair.now_us + 300_000_000;
    let is_delivered = pair.run_until_delivered(until_us);
    let ends = [0, 1].map(|side| pair.peers[side].session.end());
    assert!(
        is_delivered,
        "seed {seed} stands still: {ends:?} {faults:?} {:#?}",
        pair.peers.each_ref().map(|peer| &peer.session)
    );
    pair.check();
    for peer in &pair.peers {
        // 256 KiB are what it may have to send; that is not counted as its own.
        assert!(
            peer.most_heap_bytes < 400_000,
            "seed {seed}: {}",
            peer.most_heap_bytes
        );
    }
    let until_us = pair.now_us + 5_000_000;
    pair.run_until(until_us);
    pair.check();
    pair
}

fn run_all(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        run(seed, false, 1);
    }
}

#[test]
fn who_sleeps_whenever_all_is_quiet_does_what_the_others_do() {
    let mut slept = 0;
    for seed in 5_000..5_400 {
        // Pauses of some seconds on the average, so that there is time to sleep.
        let (awake, sleeper) = (run(seed, false, 30), run(seed, true, 30));
        slept += sleeper.slept;
        assert_eq!(awake.now_us, sleeper.now_us, "seed {seed}");
        assert_eq!(awake.network.wire, sleeper.network.wire, "seed {seed}");
        for (awake, sleeper) in awake.peers.iter().zip(&sleeper.peers) {
            assert_eq!(awake.inbox.got, sleeper.inbox.got, "seed {seed}");
            let told = [awake, sleeper].map(|peer| format!("{:?}", peer.session));
            assert_eq!(told[0], told[1], "seed {seed}");
        }
    }
    assert!(slept > 5_000, "{slept}");
}

#[test]
fn schedules_1() {
    run_all(0..1000);
}

#[test]
fn schedules_2() {
    run_all(1000..2000);
}
