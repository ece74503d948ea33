//! Sessions against a model of the server, on a fake clock and a bad network.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use sluice_protocol::packet::{self, Packet};

use super::*;
use crate::{Content, DisconnectReason, Entry, driver::position};
use model::{Conn, ModelServer};

#[path = "../../tests/model/mod.rs"]
#[allow(unreachable_pub)]
mod model;

const DAY_MS: u64 = 24 * 3600 * 1000;

/// How bad the network and the server are, in parts of a thousand a packet or step.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    push_lost: u32,
    push_doubled: u32,
    push_late: u32,
    answer_lost: u32,
    answer_late: u32,
    busy: u32,
    cut: u32,
    restart: u32,
    upset: u32,
    slow_application: u32,
}

/// One device and its application.
struct Device {
    user: &'static str,
    name: &'static str,
    session: Session,
    saved: Saved,
    conn: Option<Conn>,
    /// What the application has taken.
    entries: Vec<Entry>,
    events: Vec<Event>,
    /// How often each send was reported as stored.
    acked: HashMap<ClientMsgId, u32>,
    refused: Vec<ClientMsgId>,
    answers: Vec<Result<Body, CallError>>,
    lives: u8,
}

/// Everything, with a fake clock.
struct World {
    now_ms: u64,
    rng: SmallRng,
    server: ModelServer,
    devices: Vec<Device>,
    /// On the way to the server, by arrival; ordered within a connection.
    up: BTreeMap<(u64, u64), (Conn, Packet)>,
    down: BTreeMap<(u64, u64), (Conn, Packet)>,
    /// When the last packet that keeps its order arrives, by connection.
    arrival: HashMap<(Conn, bool), u64>,
    packets: u64,
    next_conn: Conn,
    faults: Faults,
    config: SessionConfig,
}

impl World {
    fn new(users: &[(&'static str, &'static str)], config: SessionConfig, seed: u64) -> Self {
        let server = ModelServer::new();
        let mut world = Self {
            now_ms: server.now_ms,
            rng: SmallRng::seed_from_u64(seed),
            server,
            devices: Vec::new(),
            up: BTreeMap::new(),
            down: BTreeMap::new(),
            arrival: HashMap::new(),
            packets: 0,
            next_conn: 0,
            faults: Faults::default(),
            config,
        };
        for (user, name) in users {
            let session = world.session(user, name, Saved::default());
            world.devices.push(Device {
                user,
                name,
                session,
                saved: Saved::default(),
                conn: None,
                entries: Vec::new(),
                events: Vec::new(),
                acked: HashMap::new(),
                refused: Vec::new(),
                answers: Vec::new(),
                lives: 1,
            });
        }
        world
    }

    fn session(&mut self, user: &str, name: &str, saved: Saved) -> Session {
        let user = UserId::parse(user).unwrap();
        let device = DeviceId::parse(name).unwrap();
        let seed = self.rng.random();
        Session::new(self.config.clone(), user, device, saved, false, seed)
    }

    fn strikes(&mut self, per_mille: u32) -> bool {
        self.rng.random_range(0..1000) < per_mille
    }

    fn send(&mut self, device: usize, conversation: &ConversationId, body: String) -> ClientMsgId {
        let now_ms = self.now_ms;
        let session = &mut self.devices[device].session;
        let kind = packet::ContentType::Text;
        let sent = session.send(now_ms, conversation.clone(), kind, body.into());
        self.turn(device);
        sent.unwrap()
    }

    /// What a driver does in one turn.
    fn turn(&mut self, at: usize) {
        let now_ms = self.now_ms;
        let device = &mut self.devices[at];
        if device
            .session
            .next_timeout_ms()
            .is_some_and(|at| at <= now_ms)
        {
            device.session.handle_timeout(now_ms);
        }
        let mut close = false;
        while let Some(output) = device.session.poll_output() {
            match output {
                Output::Save(change) => device.saved.apply(change),
                Output::Sent(id, Ok(_)) => *device.acked.entry(id).or_default() += 1,
                Output::Sent(id, Err(_)) => device.refused.push(id),
                Output::Answered(_, answer) => device.answers.push(answer),
                Output::Close => close = true,
                Output::RefreshToken => device.session.refresh(device.user.to_owned()),
            }
        }
        if close && let Some(conn) = device.conn.take() {
            self.server.close(conn);
        }
        self.take_events(at);
        let device = &mut self.devices[at];
        if device.session.connect_due(now_ms) {
            let token = device.session.connecting().then(|| device.user.to_owned());
            self.next_conn += 1;
            device.conn = Some(self.next_conn);
            device.session.handle_connected(now_ms, token);
        }
        if let Some(conn) = device.conn {
            while let Some(packet) = self.devices[at].session.poll_transmit(now_ms) {
                self.fly(conn, packet, true);
            }
        }
        self.take_events(at);
    }

    fn take_events(&mut self, at: usize) {
        let mut room = usize::MAX;
        if self.strikes(self.faults.slow_application) {
            room = self.rng.random_range(0..3);
        }
        let device = &mut self.devices[at];
        while room > 0
            && let Some(event) = device.session.poll_event(self.now_ms)
        {
            room -= 1;
            // The application keeps the entry and the position in one step.
            if let Some(change) = position(&event) {
                device.saved.apply(change);
            }
            match event {
                Event::Entry { entry, own } => {
                    assert_eq!(own, entry.sender.as_str() == device.user);
                    device.entries.push(entry);
                }
                event => device.events.push(event),
            }
        }
    }

    /// A packet leaves, through the faults.
    fn fly(&mut self, conn: Conn, packet: Packet, is_up: bool) {
        let faults = self.faults;
        let body = packet.body.as_ref().unwrap();
        let is_push = matches!(body, Body::Push(_) | Body::GroupNotice(_));
        let is_answer = matches!(
            body,
            Body::SendAck(_)
                | Body::Error(_)
                | Body::InboxPage(_)
                | Body::HeadsPage(_)
                | Body::ConversationPage(_)
        );
        if let Body::Send(send) = body
            && self.strikes(faults.busy)
        {
            let busy = packet::Busy {
                retry_after_ms: self.rng.random_range(1..200),
                client_msg_id: send.client_msg_id.clone(),
            };
            let answer = Packet {
                id: packet.id,
                body: Some(Body::Busy(busy)),
            };
            return self.arrive(conn, answer, false, true);
        }
        if (is_push && self.strikes(faults.push_lost))
            || (is_answer && self.strikes(faults.answer_lost))
        {
            return;
        }
        if is_push && self.strikes(faults.push_doubled) {
            self.arrive(conn, packet.clone(), is_up, false);
        }
        let is_late = (is_push && self.strikes(faults.push_late))
            || (is_answer && self.strikes(faults.answer_late));
        self.arrive(conn, packet, is_up, !is_late);
    }

    fn arrive(&mut self, conn: Conn, packet: Packet, is_up: bool, in_order: bool) {
        let mut at = self.now_ms + self.rng.random_range(1..40);
        if in_order {
            let last = self.arrival.entry((conn, is_up)).or_default();
            at = at.max(*last);
            *last = at;
        } else {
            at += self.rng.random_range(0..600);
        }
        self.packets += 1;
        let flying = if is_up { &mut self.up } else { &mut self.down };
        flying.insert((at, self.packets), (conn, packet));
    }

    fn collect_down(&mut self) {
        while let Some((conn, packet)) = self.server.out.pop_front() {
            self.fly(conn, packet, false);
        }
    }

    /// The socket dies; what is on the way dies with it.
    fn cut(&mut self, at: usize) {
        let now_ms = self.now_ms;
        let device = &mut self.devices[at];
        if let Some(conn) = device.conn.take() {
            self.server.close(conn);
            self.up.retain(|_, (it, _)| *it != conn);
            self.down.retain(|_, (it, _)| *it != conn);
            let device = &mut self.devices[at];
            device
                .session
                .handle_disconnected(now_ms, DisconnectReason::Cut);
            self.turn(at);
        }
    }

    /// The process dies, and starts again from what was saved.
    fn restart(&mut self, at: usize) {
        if let Some(conn) = self.devices[at].conn.take() {
            self.server.close(conn);
            self.down.retain(|_, (it, _)| *it != conn);
        }
        let device = &self.devices[at];
        let (user, name, saved) = (device.user, device.name, device.saved.clone());
        let session = self.session(user, name, saved);
        let device = &mut self.devices[at];
        device.session = session;
        device.lives += 1;
        device.acked.clear();
        self.turn(at);
    }

    /// The server says something unsettling.
    fn upset(&mut self, at: usize) {
        let Some(conn) = self.devices[at].conn else {
            return;
        };
        let body = match self.rng.random_range(0..3) {
            0 => Body::Overflow(packet::Overflow::default()),
            1 => Body::Resync(packet::Resync { delay_max_ms: 500 }),
            _ => Body::GoAway(packet::GoAway {
                reason: packet::CloseReason::GoingAway.into(),
                reconnect_delay_min_ms: 10,
                reconnect_delay_max_ms: 300,
            }),
        };
        self.server.push_to(conn, body);
    }

    /// To the next thing that happens, at most until then.
    fn step(&mut self, until_ms: u64) {
        let timeouts = self.devices.iter();
        let next = timeouts
            .filter_map(|it| it.session.next_timeout_ms())
            .chain(self.up.keys().next().map(|key| key.0))
            .chain(self.down.keys().next().map(|key| key.0))
            .min()
            .unwrap_or(until_ms);
        self.now_ms = next.clamp(self.now_ms, until_ms);
        self.server.now_ms = self.now_ms;
        while let Some(first) = self.up.first_entry()
            && first.key().0 <= self.now_ms
        {
            let (conn, packet) = first.remove();
            self.server.handle(conn, packet);
            self.collect_down();
        }
        self.collect_down();
        while let Some(first) = self.down.first_entry()
            && first.key().0 <= self.now_ms
        {
            let (conn, packet) = first.remove();
            let device = self.devices.iter_mut().find(|it| it.conn == Some(conn));
            if let Some(device) = device {
                device.session.handle_packet(self.now_ms, packet);
            }
        }
        for at in 0..self.devices.len() {
            self.turn(at);
        }
    }

    fn run_for(&mut self, span_ms: u64) {
        let until_ms = self.now_ms + span_ms;
        while self.now_ms < until_ms {
            self.step(until_ms);
        }
    }

    /// With the faults for a while, and then until all is healed.
    fn run_with_faults(&mut self, faults: Faults, span_ms: u64) {
        self.faults = faults;
        let until_ms = self.now_ms + span_ms;
        while self.now_ms < until_ms {
            self.step(until_ms);
            for at in 0..self.devices.len() {
                if self.strikes(faults.cut) {
                    self.cut(at);
                }
                if self.strikes(faults.restart) {
                    self.restart(at);
                }
                if self.strikes(faults.upset) {
                    self.upset(at);
                }
            }
        }
        self.faults = Faults::default();
        // Two slow rounds of looking at the heads.
        self.run_for(2 * self.config.heads_interval_ms + 120_000);
    }

    /// Every device has told every entry once, in order; nothing is unacked.
    fn check(&self) {
        for device in &self.devices {
            assert_eq!(
                device.session.outbox.len(),
                0,
                "{} has unacked",
                device.user
            );
            assert!(device.saved.outbox.is_empty());
            let inbox = device.entries.iter();
            let inbox: Vec<_> = inbox.filter(|it| !it.conversation.is_group()).collect();
            let expected = self.server.inboxes.get(device.user);
            let expected: Vec<_> = expected.into_iter().flatten().cloned().collect();
            assert_eq!(inbox.len(), expected.len(), "{}'s inbox", device.user);
            for (told, stored) in inbox.iter().zip(expected) {
                let stored = Entry::parse(stored.entry.unwrap(), stored.user_seq).unwrap();
                assert_eq!(**told, stored);
            }
            for (group, members) in &self.server.members {
                let Some(first) = members.get(device.user) else {
                    continue;
                };
                let told = device.entries.iter();
                let told: Vec<_> = told
                    .filter(|it| it.conversation.as_str() == group)
                    .collect();
                let log = &self.server.logs[group][*first as usize - 1..];
                assert_eq!(told.len(), log.len(), "{} in {group}", device.user);
                for (told, stored) in told.iter().zip(log) {
                    assert_eq!(**told, Entry::parse(stored.clone(), 0).unwrap());
                }
            }
            assert!(device.acked.values().all(|times| *times == 1));
        }
        assert_eq!(self.server.over_rate, 0, "packets over the limit");
        self.check_delivered();
    }

    /// The server knows what has been told, unless a process died with its acks.
    fn check_delivered(&self) {
        for device in self.devices.iter().filter(|it| it.lives == 1) {
            let others = device.entries.iter();
            let others = others.filter(|it| it.sender.as_str() != device.user);
            for entry in others {
                let key = (device.user.to_owned(), entry.conversation.to_string());
                let delivered = self.server.delivered.get(&key).copied();
                assert!(delivered >= Some(entry.seq.0), "{entry:?}: {delivered:?}");
            }
        }
    }

    fn bodies(&self, conversation: &ConversationId, sender: &str) -> Vec<String> {
        let log = self.server.logs.get(conversation.as_str());
        let of_sender = log.into_iter().flatten().filter(|it| it.sender == sender);
        of_sender
            .filter_map(|it| match it.content.as_ref()? {
                packet::entry::Content::Message(message) => {
                    Some(String::from_utf8(message.body.to_vec()).unwrap())
                }
                _ => None,
            })
            .collect()
    }
}

fn pair(one: &str, other: &str) -> ConversationId {
    ConversationId::private(&UserId::parse(one).unwrap(), &UserId::parse(other).unwrap()).unwrap()
}

const USERS: [(&str, &str); 4] = [
    ("alice", "phone"),
    ("bob", "phone"),
    ("bob", "desk"),
    ("carol", "phone"),
];

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{n}")).collect()
}

#[test]
fn a_quiet_session_only_pings_and_looks_at_its_heads() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 1);
    world.run_for(1_000);
    let seen = world.packets;
    world.run_for(DAY_MS / 24);
    let device = &world.devices[0];
    assert_eq!(
        device.events,
        [Event::Connected { resumed: false }, Event::CaughtUp]
    );
    // A ping and its answer each 30 s, heads and answer about each 5 minutes.
    let packets = world.packets - seen;
    assert!((200..320).contains(&packets), "{packets}");
}

#[test]
fn a_hole_is_pulled_after_its_patience() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 2);
    let pair = pair("alice", "bob");
    world.run_for(1_000);
    world.faults.push_lost = 1000;
    world.server.say(&pair, "bob", "lost");
    world.step(world.now_ms);
    world.faults.push_lost = 0;
    world.server.say(&pair, "bob", "seen");
    world.run_for(250);
    assert!(world.devices[0].entries.is_empty());
    world.run_for(500);
    assert_eq!(world.devices[0].entries.len(), 2);
    world.check();
}

#[test]
fn a_lost_last_push_is_found_by_looking_at_the_heads() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 3);
    world.run_for(1_000);
    world.faults.push_lost = 1000;
    world.server.say(&pair("alice", "bob"), "bob", "lost");
    world.run_for(1_000);
    world.faults.push_lost = 0;
    assert!(world.devices[0].entries.is_empty());
    world.run_for(460_000);
    assert_eq!(world.devices[0].entries.len(), 1);
}

#[test]
fn a_refused_send_fails_alone() {
    let mut world = World::new(&USERS[..2], SessionConfig::default(), 4);
    world.server.refused = Some((b"bad", packet::ErrorCode::Muted));
    let pair = pair("alice", "bob");
    world.run_for(1_000);
    let mut refused = Vec::new();
    for n in 0..12 {
        if n % 4 == 1 {
            refused.push(world.send(0, &pair, format!("bad {n}")));
        } else {
            world.send(0, &pair, format!("{n}"));
        }
    }
    world.run_for(60_000);
    world.check();
    assert_eq!(world.devices[0].refused, refused);
    let kept = ["0", "2", "3", "4", "6", "7", "8", "10", "11"];
    assert_eq!(world.bodies(&pair, "alice"), kept);
}

#[test]
fn busy_holds_back_its_conversation_only() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 5);
    let (slow, fast) = (pair("alice", "bob"), pair("alice", "carol"));
    world.run_for(1_000);
    world.faults.busy = 1000;
    for body in numbered(5) {
        world.send(0, &slow, body);
    }
    world.faults.busy = 0;
    for body in numbered(5) {
        world.send(0, &fast, body);
    }
    world.run_for(1_000);
    assert_eq!(world.bodies(&slow, "alice"), numbered(5));
    assert_eq!(world.bodies(&fast, "alice"), numbered(5));
    world.check();
}

#[test]
fn no_more_sends_than_the_window_are_under_way() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 6);
    let pair = pair("alice", "bob");
    world.run_for(1_000);
    let before = world.up.len();
    for body in numbered(100) {
        world.send(0, &pair, body);
    }
    assert_eq!(world.up.len() - before, 16);
    world.run_for(10_000);
    assert_eq!(world.bodies(&pair, "alice"), numbered(100));
}

#[test]
fn a_full_outbox_says_so() {
    let config = SessionConfig {
        outbox_max_sends: 3,
        ..SessionConfig::default()
    };
    let mut world = World::new(&USERS[..1], config, 7);
    let pair = pair("alice", "bob");
    let session = &mut world.devices[0].session;
    let mut send = || session.send(0, pair.clone(), packet::ContentType::Text, Bytes::new());
    for _ in 0..3 {
        send().unwrap();
    }
    assert_eq!(send(), Err(SendError::Full(3)));
}

#[test]
fn a_wrong_clock_is_set_by_the_server() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 8);
    let device = &mut world.devices[0];
    device.saved.clock_offset_ms = -3_600_000;
    let saved = device.saved.clone();
    let session = world.session("alice", "phone", saved);
    world.devices[0].session = session;
    let id = {
        world.run_for(3_000);
        world.send(0, &pair("alice", "bob"), "now".to_owned())
    };
    assert_eq!(world.server.connects.len(), 2);
    assert!(id.unix_ms().abs_diff(world.now_ms) < 100);
    assert_eq!(world.devices[0].events.last(), Some(&Event::CaughtUp));
}

#[test]
fn a_spent_resume_token_falls_back_to_the_login_token() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 9);
    world.devices[0].saved.resume_token = Bytes::from_static(b"spent");
    world.restart(0);
    world.run_for(3_000);
    let resumed = world.server.connects.iter();
    let resumed: Vec<_> = resumed.map(|it| !it.resume_token.is_empty()).collect();
    assert_eq!(resumed, [true, false]);
    world.cut(0);
    world.run_for(3_000);
    let connected = |event: &&Event| matches!(event, Event::Connected { .. });
    let connected = world.devices[0].events.iter().filter(connected);
    assert_eq!(
        connected.cloned().collect::<Vec<_>>(),
        [
            Event::Connected { resumed: false },
            Event::Connected { resumed: true }
        ]
    );
}

#[test]
fn silence_is_taken_for_death() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 10);
    world.run_for(1_000);
    let conn = world.devices[0].conn.unwrap();
    // The server forgets the connection without a word.
    world.server.close(conn);
    world.run_for(80_000);
    let silent = |event: &Event| matches!(event, Event::Disconnected { reason, .. } if *reason == DisconnectReason::Silent);
    assert!(world.devices[0].events.iter().any(silent));
    assert!(world.devices[0].session.is_online());
}

#[test]
fn failed_connects_back_off_with_jitter_up_to_a_bound() {
    let config = SessionConfig::default();
    let mut world = World::new(&USERS[..1], config, 11);
    let session = &mut world.devices[0].session;
    let mut now_ms = 0;
    let mut waits = Vec::new();
    for _ in 0..40 {
        assert!(session.connect_due(now_ms));
        session.connecting();
        let reason = DisconnectReason::ConnectFailed(String::new());
        session.handle_disconnected(now_ms, reason);
        let at = session.next_timeout_ms().unwrap();
        waits.push(at - now_ms);
        now_ms = at;
    }
    assert!(waits[0] <= 200 && waits[3] <= 1_600);
    assert!(waits.iter().all(|wait| *wait <= 30_000));
    assert!(waits[10..].iter().any(|wait| *wait > 15_000));
}

#[test]
fn a_question_is_asked_again_after_a_reconnect_unless_it_may_harm() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 12);
    world.run_for(1_000);
    let now_ms = world.now_ms;
    let session = &mut world.devices[0].session;
    let list = Body::ListConversations(packet::ListConversations::default());
    session.ask(now_ms, list, 30_000).unwrap();
    let request = Body::Request(packet::Request::default());
    session.ask(now_ms, request, 30_000).unwrap();
    world.cut(0);
    world.run_for(5_000);
    let answers = &world.devices[0].answers;
    assert_eq!(answers[0], Err(CallError::ConnectionLost));
    assert!(matches!(answers[1], Ok(Body::ConversationList(_))));
    assert_eq!(answers.len(), 2);
}

#[test]
fn one_who_is_no_member_any_more_stops_pulling() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 13);
    let group = world.server.create_group(9, &["bob", "alice"]);
    world.run_for(1_000);
    world.server.notices_are_bare = true;
    world.server.say(&group, "bob", "you are out");
    world.server.members.get_mut("g:9").unwrap().remove("alice");
    world.run_for(60_000);
    assert_eq!(world.devices[0].entries.len(), 1);
    assert!(matches!(
        world.devices[0].entries[0].content,
        Content::GroupChange { created: true, .. }
    ));
    let timeout = world.devices[0].session.sync.deadline_ms();
    assert!(timeout.is_none_or(|at| at > world.now_ms + 10_000));
}

#[test]
fn a_server_that_goes_is_left_within_its_span() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 14);
    let pair = pair("alice", "bob");
    world.run_for(1_000);
    let go_away = packet::GoAway {
        reason: packet::CloseReason::GoingAway.into(),
        reconnect_delay_min_ms: 1_000,
        reconnect_delay_max_ms: 2_000,
    };
    let conn = world.devices[0].conn.unwrap();
    world.server.push_to(conn, Body::GoAway(go_away));
    world.collect_down();
    world.run_for(500);
    world.send(0, &pair, "later".to_owned());
    assert_eq!(world.up.len(), 0);
    world.run_for(2_000);
    assert_ne!(world.devices[0].conn, Some(conn));
    assert_eq!(world.bodies(&pair, "alice"), ["later"]);
    let gone = Event::Disconnected {
        reason: DisconnectReason::Closed(Some(packet::CloseReason::GoingAway)),
        retry_in_ms: Some(0),
    };
    assert!(world.devices[0].events.contains(&gone));
}

#[test]
fn read_cursors_are_told_again_after_a_lost_connection() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 15);
    let pair = pair("alice", "bob");
    // Before there is a connection.
    world.devices[0].session.read(world.now_ms, pair.clone(), 3);
    world.run_for(1_000);
    for seq in [5, 4] {
        let now_ms = world.now_ms;
        world.devices[0].session.read(now_ms, pair.clone(), seq);
        world.turn(0);
    }
    world.run_for(1_000);
    world.cut(0);
    world.run_for(60_000);
    world.cut(0);
    world.run_for(60_000);
    let seqs: Vec<_> = world.server.reads.iter().map(|it| it.seq).collect();
    assert_eq!(seqs, [3, 5, 5]);
}

#[test]
fn a_token_is_refreshed_before_it_ends() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 16);
    world.run_for(DAY_MS - 3_600_000);
    assert_eq!(world.server.refreshes, 0);
    world.run_for(3_600_000);
    assert_eq!(world.server.refreshes, 1);
    assert_eq!(world.server.connects.len(), 1);
}

#[test]
fn a_send_that_the_server_keeps_failing_at_is_given_up() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 17);
    let pair = pair("alice", "bob");
    world.run_for(1_000);
    world.server.refused = Some((b"poison", packet::ErrorCode::Internal));
    let id = world.send(0, &pair, "poison".to_owned());
    world.send(0, &pair, "fine".to_owned());
    world.run_for(120_000);
    assert_eq!(world.devices[0].refused, [id]);
    assert_eq!(world.server.refusals, 6);
    world.check();
}

fn faults() -> impl Strategy<Value = Faults> {
    let rates = (0_u32..300, 0_u32..200, 0_u32..300, 0_u32..60, 0_u32..300);
    let rare = (0_u32..200, 0_u32..6, 0_u32..4, 0_u32..6, 0_u32..900);
    (rates, rare).prop_map(|(often, rare)| Faults {
        push_lost: often.0,
        push_doubled: often.1,
        push_late: often.2,
        answer_lost: often.3,
        answer_late: often.4,
        busy: rare.0,
        cut: rare.1,
        restart: rare.2,
        upset: rare.3,
        slow_application: rare.4,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_doubled_or_reordered(
        seed in any::<u64>(),
        faults in faults(),
        bare in any::<bool>(),
        page in 1_usize..20,
        plan in prop::collection::vec((0_usize..4, 0_usize..3, 0_u64..400), 1..160),
    ) {
        // Small bounds, so that they are met.
        let config = SessionConfig { events_max: 8, held_max_entries: 8, ..SessionConfig::default() };
        let mut world = World::new(&USERS, config, seed);
        world.server.page = page;
        world.server.notices_are_bare = bare;
        let group = world.server.create_group(7, &["alice", "bob", "carol"]);
        let mut sent: HashMap<(String, usize), Vec<String>> = HashMap::new();
        world.faults = faults;
        for (n, (device, to, pause)) in plan.into_iter().enumerate() {
            let user = world.devices[device].user;
            let others: Vec<_> = ["alice", "bob", "carol"].into_iter().filter(|it| *it != user).collect();
            let conversation = others.get(to).map_or(group.clone(), |other| pair(user, other));
            let body = format!("{n} of {device}");
            world.send(device, &conversation, body.clone());
            sent.entry((conversation.to_string(), device)).or_default().push(body);
            world.run_for(pause);
            if world.strikes(faults.cut) {
                world.cut(device);
            }
        }
        world.run_with_faults(faults, 20_000);
        world.check();
        for ((conversation, device), bodies) in sent {
            let conversation = ConversationId::parse(&conversation).unwrap();
            let mine = format!(" of {device}");
            let stored = world.bodies(&conversation, world.devices[device].user);
            // Another device of the same user has an order of its own.
            let stored: Vec<_> = stored.into_iter().filter(|it| it.ends_with(&mine)).collect();
            prop_assert_eq!(stored, bodies);
        }
    }
}

#[test]
fn more_groups_than_can_be_followed_are_no_catching_up() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 20);
    let known = (0..sync::GROUPS_MAX as u64)
        .map(|n| ConversationId::group(sluice_protocol::MessageId(1_000 + n)));
    world.devices[0].saved.groups = known.map(|group| (group, 0)).collect();
    let group = world.server.create_group(1, &["alice"]);
    world.restart(0);
    world.run_for(5_000);
    let events = &world.devices[0].events;
    assert!(!events.contains(&Event::CaughtUp), "{events:?}");
    let skipped = Event::TooManyGroups {
        conversation: group,
    };
    assert_eq!(events.iter().filter(|event| **event == skipped).count(), 1);
}

#[test]
fn a_server_that_was_set_back_is_told_and_followed_from_there() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 21);
    let pair = pair("alice", "bob");
    let group = world.server.create_group(1, &["alice", "bob"]);
    // Told by the server before it lost them.
    world.devices[0].saved.inbox = 50;
    world.devices[0].saved.groups.insert(group.clone(), 60);
    world.server.say(&pair, "bob", "kept");
    world.restart(0);
    world.run_for(3_000);
    let lost: Vec<_> = (world.devices[0].events.iter())
        .filter_map(|event| match event {
            Event::ServerBehind { group, told, .. } => Some((group.clone(), *told)),
            _ => None,
        })
        .collect();
    assert_eq!(lost, [(None, 50), (Some(group.clone()), 60)]);
    assert_eq!(world.devices[0].events.last(), Some(&Event::CaughtUp));
    assert_eq!(world.devices[0].saved.inbox, 1);
    world.server.say(&pair, "bob", "new");
    world.server.say(&group, "bob", "new too");
    world.step(world.now_ms);
    world.run_for(3_000);
    assert_eq!(world.devices[0].entries.len(), 2);
    assert_eq!(world.devices[0].saved.inbox, 2);
}

#[test]
fn one_who_comes_back_to_thousands_of_groups_keeps_the_servers_pace() {
    const GROUPS: u64 = 5_000;
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 22);
    (world.server.packets_per_s, world.server.packets_burst) = (50, 200);
    for number in 1..=GROUPS {
        world.server.create_group(number, &["bob", "alice"]);
    }
    // A pull and a cursor for each of them, at 50 a second.
    world.run_for(400_000);
    assert_eq!(world.devices[0].events.last(), Some(&Event::CaughtUp));
    assert_eq!(world.devices[0].entries.len() as u64, GROUPS);
    assert_eq!(world.server.connects.len(), 1);
    world.check();
    // What can't wait doesn't wait for the cursors.
    let most = world
        .server
        .push_acks
        .iter()
        .map(|(_, ack)| ack.cursors.len())
        .max();
    assert_eq!(most, Some(64));
}

#[test]
fn messages_go_beside_thousands_of_cursors() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 23);
    (world.server.packets_per_s, world.server.packets_burst) = (20, 40);
    let pair = pair("alice", "bob");
    world.run_for(1_000);
    let now_ms = world.now_ms;
    for number in 1..=2_000 {
        let group = ConversationId::group(sluice_protocol::MessageId(number));
        world.devices[0].session.acks.unpushed(&group, 1, now_ms);
    }
    world.run_for(20_000);
    let told = world.server.delivered.len();
    assert!((200..300).contains(&told), "{told}");
    for body in numbered(10) {
        world.send(0, &pair, body);
    }
    world.run_for(2_000);
    assert_eq!(world.bodies(&pair, "alice"), numbered(10));
    assert_eq!(world.server.over_rate, 0);
}

#[test]
fn notices_and_reads_on_a_stalled_connection_are_bounded() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 24);
    let pair = pair("alice", "bob");
    world.run_for(1_000);
    // The connection takes nothing: nobody polls for packets.
    let now_ms = world.now_ms;
    let session = &mut world.devices[0].session;
    let typing = || Body::Typing(packet::Typing::default());
    for _ in 0..NOTICES_MAX {
        assert_eq!(session.notify(typing()), Ok(()));
    }
    assert_eq!(
        session.notify(typing()),
        Err(SendError::Stalled(NOTICES_MAX))
    );
    for seq in 1..1_000 {
        session.read(now_ms, pair.clone(), seq);
    }
    let sent = std::iter::from_fn(|| session.poll_transmit(now_ms)).count();
    assert_eq!(sent, NOTICES_MAX + 1, "the newest read cursor alone");
    assert_eq!(session.notify(typing()), Ok(()));
    // And they die with their connection.
    world.cut(0);
    assert!(world.devices[0].session.notices.is_empty());
}

#[test]
fn a_message_and_its_recall_are_told_whichever_came_first() {
    let mut world = World::new(&USERS[..1], SessionConfig::default(), 25);
    let pair = pair("alice", "bob");
    world.run_for(1_000);
    // The push of the message is late (a retransmission, with its body), the
    // recall overtakes it.
    world.faults.push_lost = 1000;
    world.server.say(&pair, "bob", "regretted");
    world.step(world.now_ms);
    let late = world.server.inboxes["alice"][0].clone();
    world.faults.push_lost = 0;
    world.server.recall(&pair, "bob", 1);
    world.step(world.now_ms);
    world.run_for(100);
    assert!(world.devices[0].entries.is_empty(), "the recall is held");
    let push = packet::Push {
        number: 1,
        user_seq: 1,
        entry: late.entry,
    };
    let now_ms = world.now_ms;
    let packet = Packet {
        id: 0,
        body: Some(Body::Push(push)),
    };
    world.devices[0].session.handle_packet(now_ms, packet);
    world.turn(0);
    let told: Vec<_> = (world.devices[0].entries.iter())
        .map(|entry| match &entry.content {
            Content::Message { .. } => (entry.seq.0, None),
            Content::Recall { seq } => (entry.seq.0, Some(seq.0)),
            other => panic!("{other:?}"),
        })
        .collect();
    // The recall's entry comes after its message, so an application that applies
    // what it is told ends with the message recalled.
    assert_eq!(told, [(1, None), (2, Some(1))]);
}
