//! Sessions against a model of the server, on a fake clock and a bad network.

use std::collections::{BTreeMap, HashMap};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use sluice_protocol::packet::{self, Packet};

use super::*;
use crate::{Content, DisconnectReason, Entry};
use model::{Conn, ModelServer};

mod all_faults;
mod calls;
mod connection;
#[path = "../../tests/model/mod.rs"]
#[allow(unreachable_pub)]
mod model;
mod pace;
mod sends;
mod timelines;

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
    /// Of pulls of the inbox, transmissions.
    pulls: u64,
    faults: Faults,
    /// The transport is a datagram session.
    keeps_itself_alive: bool,
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
            pulls: 0,
            faults: Faults::default(),
            keeps_itself_alive: false,
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
                Output::Heartbeat(_) => {}
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
            device
                .session
                .handle_connected(now_ms, token, self.keeps_itself_alive);
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
            if let Some(change) = Change::after(&event) {
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
        self.pulls += u64::from(matches!(body, Body::SyncInbox(_)));
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
