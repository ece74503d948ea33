//! Client and server connections, with handshake and keys, over the same network.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use sluice_codec::datagram::{
    Acceptor, Arrival, Channel, ClientConnection, Config, End, Header, ServerConnection,
};

use super::{
    network::{Draw, Faults, Hop, Network},
    pair::{Inbox, SERVER, message},
};
use crate::datagram::pair::{UNIX_MS, acceptor, pins};

/// A server with a table, as a gateway's event loop has one, and one client.
struct Link {
    now_us: u64,
    network: Network,
    acceptor: Acceptor,
    config: Arc<Config>,
    table: BTreeMap<[u8; 8], ServerConnection>,
    client: ClientConnection,
    client_address: u32,
    inboxes: [Inbox; 2],
    sent: [u32; 2],
    /// Servers are packed whenever nothing is under way.
    sleeps: bool,
    slept: u64,
    draw: Draw,
}

fn address(number: u32) -> SocketAddr {
    SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], 4000))
}

impl Link {
    fn new(faults: Faults, seed: u64) -> Self {
        let config = Arc::new(Config::default());
        let client = ClientConnection::connect(
            0,
            pins(),
            None,
            [seed as u8; 8],
            [seed as u8; 32],
            Arc::clone(&config),
        );
        let mut link = Self {
            now_us: 0,
            network: Network::new(faults, seed),
            acceptor: acceptor(),
            config,
            table: BTreeMap::new(),
            client,
            client_address: 100,
            inboxes: [Inbox::default(), Inbox::default()],
            sent: [0; 2],
            sleeps: false,
            slept: 0,
            draw: Draw(seed),
        };
        link.pump();
        link
    }

    fn server(&mut self) -> Option<&mut ServerConnection> {
        self.table.values_mut().next()
    }

    fn send(&mut self, side: usize, bytes: usize) {
        let payload = message(self.sent[side], Channel::CONTROL, bytes);
        let now_us = self.now_us;
        let taken = match side {
            0 => self.client.send(now_us, Channel::CONTROL, payload),
            _ => self
                .server()
                .unwrap()
                .send(now_us, Channel::CONTROL, payload),
        };
        taken.unwrap();
        self.sent[side] += 1;
        self.pump();
    }

    fn run(&mut self, until_us: u64, is_enough: impl Fn(&Self) -> bool) -> bool {
        while !is_enough(self) {
            let server = self.table.values().filter_map(ServerConnection::timeout);
            let timers = server
                .chain(self.client.timeout())
                .chain(self.network.next_us());
            let Some(next) = timers.min().filter(|at_us| *at_us <= until_us) else {
                self.now_us = until_us;
                return is_enough(self);
            };
            self.now_us = self.now_us.max(next);
            while let Some((hop, mut packet)) = self.network.take(self.now_us) {
                self.arrive(hop, &mut packet);
            }
            let now_us = self.now_us;
            self.client.on_timeout(now_us);
            self.table.values_mut().for_each(|it| it.on_timeout(now_us));
            self.pump();
        }
        true
    }

    fn arrive(&mut self, hop: Hop, packet: &mut [u8]) {
        let now_us = self.now_us;
        if hop.to != SERVER {
            if hop.to == self.client_address {
                let inbox = &mut self.inboxes[0];
                let _ = self
                    .client
                    .receive(now_us, packet, &mut |channel, payload| {
                        inbox.take(now_us, channel, payload)
                    });
            }
            return;
        }
        let from = address(hop.from);
        match Header::parse(packet) {
            Ok(Header::Session(header)) => {
                let id = header.connection_id.unwrap();
                let token = self.draw.next();
                if let Some(server) = self.table.get_mut(id.as_bytes()) {
                    let inbox = &mut self.inboxes[1];
                    let _ = server.receive(now_us, &header, packet, from, token, &mut |c, p| {
                        inbox.take(now_us, c, p)
                    });
                } else if let Some(reset) = self.acceptor.reset(id, packet.len()) {
                    self.answer(hop, &reset);
                }
            }
            Ok(Header::Handshake(_)) => match self.acceptor.receive(packet, from, UNIX_MS) {
                Arrival::Answer(answer) => self.answer(hop, &answer),
                Arrival::Knock(knock) => {
                    let id = *knock.connection_id().as_bytes();
                    if !self.table.contains_key(&id) {
                        let ephemeral = [self.draw.next() as u8; 32];
                        let Ok(accepted) = self.acceptor.accept(&knock, now_us, ephemeral) else {
                            return;
                        };
                        let config = Arc::clone(&self.config);
                        let server = ServerConnection::new(now_us, accepted, from, config);
                        self.table.insert(id, server);
                    }
                    if let Some(welcome) = self.table[&id].welcome() {
                        let welcome = welcome.to_vec();
                        self.answer(hop, &welcome);
                    }
                }
                Arrival::Drop(_) => {}
            },
            _ => {}
        }
    }

    fn answer(&mut self, hop: Hop, answer: &[u8]) {
        let back = Hop {
            from: hop.to,
            to: hop.from,
        };
        self.network.send(self.now_us, 1, back, answer);
    }

    fn pump(&mut self) {
        let mut out = Vec::new();
        while let Some(bytes) = self.client.transmit(self.now_us, &mut out) {
            assert_eq!(bytes, out.len());
            let hop = Hop {
                from: self.client_address,
                to: SERVER,
            };
            self.network.send(self.now_us, 0, hop, &out);
            out.clear();
        }
        let (now_us, network) = (self.now_us, &mut self.network);
        for server in self.table.values_mut() {
            while let Some(to) = server.transmit(now_us, &mut out) {
                let SocketAddr::V4(address) = to.address else {
                    unreachable!("the client has an IPv4 address");
                };
                let octets = address.ip().octets();
                let hop = Hop {
                    from: SERVER,
                    to: u32::from(octets[2]) << 8 | u32::from(octets[3]),
                };
                network.send(now_us, 1, hop, &out);
                out.clear();
            }
            if self.sleeps && server.pack(&mut out) {
                let mut input = out.as_slice();
                *server = ServerConnection::unpack(&mut input, Arc::clone(&self.config)).unwrap();
                assert!(input.is_empty());
                self.slept += 1;
                out.clear();
            }
        }
    }

    fn is_delivered(&self) -> bool {
        self.inboxes[1].messages as u32 == self.sent[0]
            && self.inboxes[0].messages as u32 == self.sent[1]
    }

    fn check(&self) {
        for inbox in &self.inboxes {
            for got in inbox.got.values() {
                assert!(
                    got.iter()
                        .enumerate()
                        .all(|(at, (number, _))| at as u32 == *number)
                );
            }
        }
    }
}

#[test]
fn login_rides_on_the_first_packet() {
    let mut link = Link::new(Faults::none(), 1);
    link.send(0, 300);
    assert!(link.run(5_000_000, Link::is_delivered));
    // Hello and Cookie, Knock and Welcome, one way.
    assert!(link.now_us < 201_000, "{}", link.now_us);
    assert!(link.client.is_open() && link.client.take_ticket().is_some());
    link.send(1, 300);
    assert!(link.run(5_000_000, Link::is_delivered));
    link.check();
}

#[test]
fn everything_comes_over_a_bad_network() {
    bad_network(false);
}

#[test]
fn everything_comes_to_servers_that_sleep() {
    assert!(bad_network(true) > 100);
}

/// How often a server slept.
fn bad_network(sleeps: bool) -> u64 {
    let mut slept = 0;
    for seed in 0..60 {
        let faults = Faults {
            jitter_us: 20_000,
            duplicate: 0.05,
            reorder: 0.1,
            corrupt: 0.02,
            ..Faults::lossy(0.2)
        };
        let mut link = Link::new(faults, seed);
        link.sleeps = sleeps;
        link.send(0, 500);
        if !link.run(20_000_000, Link::is_delivered) {
            assert!(link.client.failure().is_some(), "seed {seed}");
            continue;
        }
        for at in 0..40 {
            let bytes = 5 + link.draw.below(3000) as usize;
            let side = link.draw.below(2) as usize;
            link.send(side, bytes);
            if at % 15 == 14 {
                link.client_address += 1; // a NAT that forgot
            }
            // Now and then there is time to sleep.
            let most_us = if at % 10 == 0 { 10_000_000 } else { 100_000 };
            let until_us = link.now_us + link.draw.below(most_us);
            link.run(until_us, |_| false);
        }
        let until_us = link.now_us + 120_000_000;
        assert!(link.run(until_us, Link::is_delivered), "seed {seed}");
        link.check();
        let client = address(link.client_address);
        assert_eq!(link.server().unwrap().address(), client);
        slept += link.slept;
    }
    slept
}

#[test]
fn keys_change_under_way() {
    let mut link = Link::new(Faults::lossy(0.05), 9);
    // The last of the peer's keys sleeps beside the new one.
    link.sleeps = true;
    link.send(0, 100);
    assert!(link.run(20_000_000, Link::is_delivered));
    for _ in 0..200 {
        // Longer than a key lives, a hundred times.
        let until_us = link.now_us + 1_800_000_000;
        link.run(until_us, |_| false);
        link.send(0, 100);
        link.send(1, 100);
        let until_us = link.now_us + 20_000_000;
        assert!(link.run(until_us, Link::is_delivered), "at {}", link.now_us);
    }
    link.check();
    assert!(link.slept > 200, "{}", link.slept);
}

#[test]
fn a_server_that_forgot_says_so() {
    let mut link = Link::new(Faults::none(), 2);
    link.send(0, 100);
    assert!(link.run(5_000_000, Link::is_delivered));
    link.table.clear();
    link.send(0, 100);
    let until_us = link.now_us + 1_000_000;
    link.run(until_us, |_| false);
    assert_eq!(link.client.end(), Some(End::Forgotten));
    assert_eq!(link.client.timeout(), None);
}

/// Whoever writes another's address into its packets can write any port there.
#[test]
fn other_ports_of_a_host_that_is_not_proven_get_no_more() {
    let mut link = Link::new(Faults::none(), 3);
    link.send(0, 100);
    assert!(link.run(5_000_000, Link::is_delivered));
    link.run(10_000_000, |_| false);
    let (mut came, mut sent, mut out) = (0, 0, Vec::new());
    for port in 4000..4020 {
        link.now_us += 1_000;
        let now_us = link.now_us;
        let from = SocketAddr::from(([10, 9, 9, 9], port));
        let server = link.table.values_mut().next().unwrap();
        let payload = message(u32::from(port), Channel::CONTROL, 10);
        link.client.send(now_us, Channel::CONTROL, payload).unwrap();
        while link.client.transmit(now_us, &mut out).is_some() {
            let Ok(Header::Session(header)) = Header::parse(&out) else {
                panic!("no packet of the session");
            };
            came += out.len();
            let received = server.receive(now_us, &header, &mut out, from, 99, &mut |_, _| true);
            assert_eq!(received, Ok(false));
            out.clear();
        }
        let payload = message(u32::from(port), Channel::PUSHES, 1_000);
        server.send(now_us, Channel::PUSHES, payload).unwrap();
        while let Some(to) = server.transmit(now_us, &mut out) {
            assert_eq!(to.address, from);
            sent += to.bytes;
            out.clear();
        }
        assert!(sent <= 3 * came, "{sent} of {came}");
    }
    // Other ports of the host that was proven are a NAT's doing.
    let home = SocketAddr::from((address(100).ip(), 5000));
    let server = link.table.values_mut().next().unwrap();
    link.client.ping(link.now_us);
    while link.client.transmit(link.now_us, &mut out).is_some() {
        if let Ok(Header::Session(header)) = Header::parse(&out) {
            let _ = server.receive(link.now_us, &header, &mut out, home, 99, &mut |_, _| true);
        }
        out.clear();
    }
    sent = 0;
    while let Some(to) = server.transmit(link.now_us, &mut out) {
        assert_eq!(to.address, home);
        sent += to.bytes;
        out.clear();
    }
    assert!(sent > 1_000, "{sent}");
}

#[test]
fn a_session_that_nobody_confirms_ends() {
    let mut link = Link::new(Faults::none(), 3);
    link.run(120_000, |_| false);
    link.client_address = 0; // gone
    link.run(30_000_000, |_| false);
    assert_eq!(link.server().unwrap().end(), Some(End::Silent));
}

#[test]
fn an_idle_connection_is_small() {
    let bytes = size_of::<ServerConnection>();
    println!("{bytes} bytes");
    assert!(bytes <= 352, "{bytes}");
    let mut link = Link::new(Faults::none(), 4);
    link.send(0, 100);
    assert!(link.run(5_000_000, Link::is_delivered));
    link.send(1, 100);
    link.run(10_000_000, |_| false);
    assert_eq!(link.server().unwrap().heap_bytes(), 0);
    let mut packed = Vec::new();
    assert!(link.server().unwrap().pack(&mut packed));
    println!("{} bytes asleep", packed.len());
    assert!(packed.len() <= 150, "{}", packed.len());
}

#[test]
fn a_server_with_something_under_way_is_not_packed() {
    let mut link = Link::new(Faults::none(), 7);
    link.run(121_000, |_| false);
    let mut packed = vec![9];
    assert!(!link.server().unwrap().pack(&mut packed), "unconfirmed");
    link.send(0, 100);
    assert!(link.run(5_000_000, Link::is_delivered));
    let now_us = link.now_us;
    assert!(!link.server().unwrap().pack(&mut packed), "an ACK is owed");
    link.run(now_us + 5_000_000, |_| false);
    link.send(1, 100);
    assert!(!link.server().unwrap().pack(&mut packed), "unacknowledged");
    link.run(now_us + 10_000_000, |_| false);
    link.client_address += 256; // another host
    link.send(0, 100);
    link.run(now_us + 10_041_000, |_| false);
    assert!(!link.server().unwrap().pack(&mut packed), "unproven");
    link.run(now_us + 20_000_000, |_| false);
    assert_eq!(packed, [9]);
    assert!(link.server().unwrap().pack(&mut packed));
    let config = Arc::clone(&link.config);
    for end in 1..packed.len() {
        let cut = ServerConnection::unpack(&mut &packed[1..end], Arc::clone(&config));
        assert!(cut.is_none(), "{end} of {}", packed.len());
    }
    let now_us = link.now_us;
    link.server().unwrap().close(now_us, 1, "");
    assert!(!link.server().unwrap().pack(&mut packed), "ended");
}

#[test]
fn a_client_keeps_the_silence_that_its_server_bears() {
    let mut link = Link::new(Faults::none(), 5);
    link.send(0, 100);
    assert!(link.run(5_000_000, Link::is_delivered));
    link.client.configure(Arc::new(Config {
        keepalive_max_ms: 3_000,
        keepalive_min_ms: 3_000,
        ..Config::default()
    }));
    // Between two pings.
    let until_us = link.now_us + 60_500_000;
    link.run(until_us, |_| false);
    let next_us = link.client.timeout().unwrap();
    assert!(next_us <= link.now_us + 3_000_000);
    assert_eq!(link.client.session().unwrap().silent_since_us(), None);
    link.network = Network::new(Faults::lossy(1.0), 6);
    link.run(until_us + 10_000_000, |_| false);
    let since_us = link.client.session().unwrap().silent_since_us().unwrap();
    assert!((until_us..=until_us + 3_000_000).contains(&since_us));
}
