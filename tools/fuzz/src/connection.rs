//! Two honest ends and a network that does what the script says: nothing false, nothing
//! twice, nothing out of order comes of it.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc};

use sluice_codec::datagram::{
    Acceptor, Arrival, Channel, ClientConnection, Config, End, Header, Mode, ServerConnection,
};

use crate::{
    datagram::{NOW_US, UNIX_MS, acceptor_with_key, client_address, pins},
    script::Script,
};

const OPERATIONS_MAX: usize = 300;
/// Datagrams under way in one direction.
const QUEUE_MAX: usize = 64;
const PACKETS_MAX: usize = 2_000;
/// A minute without harm: less than a session bears of silence.
const SETTLE_ROUNDS_MAX: usize = 240;

/// Messages in one direction: what was sent, and what came of it.
#[derive(Default)]
struct Traffic {
    /// By channel, number and bytes; numbers of a channel count from 0.
    sent: Vec<(Channel, u16, usize)>,
    came: Vec<(Channel, u16)>,
}

struct World {
    now_us: u64,
    acceptor: Acceptor,
    client: ClientConnection,
    client_address: SocketAddr,
    server: Option<ServerConnection>,
    to_server: VecDeque<(SocketAddr, Vec<u8>)>,
    to_client: VecDeque<Vec<u8>>,
    up: Traffic,
    down: Traffic,
    takes: bool,
}

/// See the module.
pub(crate) fn connection(input: &[u8]) {
    play(input);
}

/// How many messages came, up and down.
fn play(input: &[u8]) -> (usize, usize) {
    let mut script = Script::new(input);
    let mut world = World::new();
    if !input.len().is_multiple_of(4) {
        // Without harm to the handshake.
        (0..3).for_each(|_| world.settle());
        assert!(world.client.is_open());
    }
    for _ in 0..OPERATIONS_MAX {
        if script.is_empty() {
            break;
        }
        world.step(&mut script);
        world.check();
    }
    world.takes = true;
    // Repeats back off to ten seconds, and one side may have to be found again.
    for _ in 0..SETTLE_ROUNDS_MAX {
        if world.is_settled() {
            break;
        }
        world.settle();
    }
    world.check();
    world.check_end();
    (world.up.came.len(), world.down.came.len())
}

// === impl World ===

impl World {
    fn new() -> Self {
        Self {
            now_us: NOW_US,
            acceptor: acceptor_with_key(),
            client: ClientConnection::connect(
                NOW_US,
                pins(),
                None,
                [3; 8],
                [4; 32],
                Arc::new(Config::default()),
            ),
            client_address: client_address(),
            server: None,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            up: Traffic::default(),
            down: Traffic::default(),
            takes: true,
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 16 {
            0 => {
                let channel = Channel(script.byte() & 0xc1);
                let payload = self.up.next(channel, script.byte());
                if self
                    .client
                    .send(self.now_us, channel, payload.into())
                    .is_err()
                {
                    self.up.sent.pop();
                }
            }
            1 => {
                let channel = Channel(script.byte() & 0xc1);
                if let Some(server) = &mut self.server {
                    let payload = self.down.next(channel, script.byte());
                    if server.send(self.now_us, channel, payload.into()).is_err() {
                        self.down.sent.pop();
                    }
                }
            }
            2 => self.transmit_client(),
            3 => self.transmit_server(),
            4 | 13 => self.deliver_to_server(),
            5 | 14 => self.deliver_to_client(),
            6 => drop(self.to_server.pop_front()),
            7 => drop(self.to_client.pop_front()),
            8 => {
                if let Some((from, datagram)) = self.to_server.front().cloned() {
                    self.to_server.push_back((from, datagram));
                }
                self.to_client.extend(self.to_client.front().cloned());
            }
            9 => {
                if let Some((_, datagram)) = self.to_server.front_mut() {
                    script.damage(datagram);
                }
                if let Some(datagram) = self.to_client.front_mut() {
                    script.damage(datagram);
                }
            }
            10 => self.pass_time(u64::from(script.byte()) * 10_000),
            11 => {
                let junk = script.bytes(40).to_vec();
                self.to_client.push_front(junk.clone());
                self.to_server.push_front((self.client_address, junk));
            }
            12 => {
                let (host, port) = (script.byte() % 2, 4000 + u16::from(script.byte()));
                self.client_address = SocketAddr::from(([192, 0, 2, 7 + host], port));
                if port % 2 == 0 {
                    self.client.rebind(self.now_us);
                }
            }
            _ => {
                self.takes = !self.takes;
                self.to_server.rotate_left(self.to_server.len().min(1));
                self.drain();
            }
        }
        self.to_server.truncate(QUEUE_MAX);
        self.to_client.truncate(QUEUE_MAX);
    }

    fn transmit_client(&mut self) {
        for _ in 0..PACKETS_MAX {
            let mut datagram = Vec::new();
            if self.client.transmit(self.now_us, &mut datagram).is_none() {
                return;
            }
            assert!(datagram.len() <= 1452);
            self.to_server.push_back((self.client_address, datagram));
        }
        panic!("the client never stops sending");
    }

    fn transmit_server(&mut self) {
        let Some(server) = &mut self.server else {
            return;
        };
        for _ in 0..PACKETS_MAX {
            let mut datagram = Vec::new();
            let Some(to) = server.transmit(self.now_us, &mut datagram) else {
                return;
            };
            assert!(datagram.len() == to.bytes && to.bytes <= 1452);
            // What goes to an address that it no longer has is lost.
            if to.address == self.client_address {
                self.to_client.push_back(datagram);
            }
        }
        panic!("the server never stops sending");
    }

    fn deliver_to_server(&mut self) {
        let Some((from, mut datagram)) = self.to_server.pop_front() else {
            return;
        };
        match (Header::parse(&datagram), &mut self.server) {
            (Ok(Header::Session(header)), Some(server))
                if header.connection_id == Some(server.connection_id()) =>
            {
                let (up, takes) = (&mut self.up, self.takes);
                let sink = &mut |channel, message: &[u8]| takes && up.take(channel, message);
                let token = self.now_us ^ 0x5555;
                // A forgery, or one that came before.
                let _ = server.receive(self.now_us, &header, &mut datagram, from, token, sink);
            }
            (Ok(Header::Handshake(_)), server) => {
                match self.acceptor.receive(&datagram, from, UNIX_MS) {
                    Arrival::Answer(answer) => self.to_client.push_back(answer.to_vec()),
                    Arrival::Knock(_) if server.is_some() => {
                        let welcome = server.as_ref().and_then(|server| server.welcome());
                        self.to_client.extend(welcome.map(|it| it.to_vec()));
                    }
                    Arrival::Knock(knock) => {
                        if let Ok(accepted) = self.acceptor.accept(&knock, self.now_us, [6; 32]) {
                            self.to_client.push_back(accepted.answer.to_vec());
                            let config = Arc::new(Config::default());
                            let server = ServerConnection::new(self.now_us, accepted, from, config);
                            self.server = Some(server);
                        }
                    }
                    Arrival::Drop(_) => {}
                }
            }
            _ => {}
        }
    }

    fn deliver_to_client(&mut self) {
        if let Some(mut datagram) = self.to_client.pop_front() {
            let (down, takes) = (&mut self.down, self.takes);
            let sink = &mut |channel, message: &[u8]| takes && down.take(channel, message);
            let _ = self.client.receive(self.now_us, &mut datagram, sink);
        }
    }

    fn drain(&mut self) {
        let (up, down) = (&mut self.up, &mut self.down);
        if let Some(server) = &mut self.server {
            server.drain(&mut |channel, message| up.take(channel, message));
        }
        self.client
            .drain(&mut |channel, message| down.take(channel, message));
    }

    fn pass_time(&mut self, us: u64) {
        let until_us = self.now_us + us;
        loop {
            let server = self.server.as_ref().and_then(ServerConnection::timeout);
            let client = match self.client.is_open() {
                true => self.client.timeout(),
                false => None,
            };
            let Some(at_us) = [server, client].into_iter().flatten().min() else {
                break;
            };
            if at_us > until_us {
                break;
            }
            self.now_us = self.now_us.max(at_us);
            self.client.on_timeout(self.now_us);
            if let Some(server) = &mut self.server {
                server.on_timeout(self.now_us);
            }
            self.transmit_client();
            self.transmit_server();
            self.to_server.truncate(QUEUE_MAX);
            self.to_client.truncate(QUEUE_MAX);
        }
        self.now_us = until_us;
    }

    /// A quarter of a second in which the network does no harm.
    fn settle(&mut self) {
        self.drain();
        self.transmit_client();
        while !self.to_server.is_empty() {
            self.deliver_to_server();
        }
        self.transmit_server();
        while !self.to_client.is_empty() {
            self.deliver_to_client();
        }
        self.pass_time(250_000);
    }

    /// Nothing is missing, or nothing more will come.
    fn is_settled(&self) -> bool {
        let is_over = self.client.end().is_some()
            || (self.server.as_ref()).is_none_or(|server| server.end().is_some());
        is_over || (self.up.is_complete() && self.down.is_complete())
    }

    fn check(&self) {
        self.up.check();
        self.down.check();
        let ends = [
            self.client.end(),
            self.server.as_ref().and_then(|it| it.end()),
        ];
        // Honest peers never take each other for liars, whatever lies between them.
        for end in ends.into_iter().flatten() {
            assert!(!matches!(end, End::Violated(_) | End::Forged), "{end:?}");
        }
    }

    /// When nothing has ended, all that is reliable has come.
    fn check_end(&self) {
        let Some(server) = &self.server else { return };
        if self.client.is_open() && self.client.end().is_none() && server.end().is_none() {
            self.up.check_complete();
            self.down.check_complete();
        }
    }
}

// === impl Traffic ===

impl Traffic {
    /// The next message of this channel.
    fn next(&mut self, channel: Channel, size: u8) -> Vec<u8> {
        let number = self.sent.iter().filter(|sent| sent.0 == channel).count() as u16;
        let bytes = 3 + usize::from(size) * usize::from(size) / 16;
        self.sent.push((channel, number, bytes));
        message(channel, number, bytes)
    }

    fn take(&mut self, channel: Channel, came: &[u8]) -> bool {
        let number = u16::from_be_bytes([came[1], came[2]]);
        assert!(
            self.sent.contains(&(channel, number, came.len())),
            "{channel:?} {number}"
        );
        assert_eq!(came, message(channel, number, came.len()));
        self.came.push((channel, number));
        true
    }

    fn check(&self) {
        for (at, (channel, number)) in self.came.iter().enumerate() {
            let before = &self.came[..at];
            assert!(
                !before.contains(&(*channel, *number)),
                "{channel:?} {number} came twice"
            );
            let earlier = before.iter().rev().find(|it| it.0 == *channel);
            match channel.mode() {
                Mode::ReliableOrdered => {
                    assert_eq!(*number, earlier.map_or(0, |it| it.1 + 1), "{channel:?}");
                }
                Mode::UnreliableLatest => {
                    assert!(earlier.is_none_or(|it| it.1 < *number), "{channel:?}");
                }
                Mode::ReliableUnordered | Mode::Unreliable => {}
            }
        }
    }

    fn is_complete(&self) -> bool {
        let [came, sent] = self.reliable();
        came == sent
    }

    fn check_complete(&self) {
        let [came, sent] = self.reliable();
        assert_eq!(came, sent, "reliable messages are missing");
    }

    /// How many came, and were sent.
    fn reliable(&self) -> [usize; 2] {
        let reliable = |channel: &Channel| {
            matches!(
                channel.mode(),
                Mode::ReliableOrdered | Mode::ReliableUnordered
            )
        };
        let sent = self.sent.iter().filter(|it| reliable(&it.0)).count();
        let came = self.came.iter().filter(|it| reliable(&it.0)).count();
        [came, sent]
    }
}

fn message(channel: Channel, number: u16, bytes: usize) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    let mut message = vec![channel.0, high, low];
    message.resize(bytes, channel.0 ^ low);
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mutator, seeds};

    /// A script that gets nowhere finds nothing.
    #[test]
    fn scripts_get_messages_across() {
        let mut mutator = Mutator::new(1, seeds::scripts());
        let came: Vec<_> = (0..300).map(|_| play(mutator.next_input())).collect();
        let both = came.iter().filter(|(up, down)| *up > 0 && *down > 0);
        let (count, most) = (both.count(), came.iter().map(|it| it.0).max());
        assert!(count >= 40 && most >= Some(10), "{count} {most:?}");
    }
}
