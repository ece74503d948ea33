//! The client without sockets, on sockets of the test's: through a network that loses, doubles,
//! reorders, damages and forgets.

use std::time::{Duration, Instant};

use sluice_client::{
    Content, ContentType, DatagramClient, DatagramConfig, DatagramEvent, DatagramSettings,
    DeviceId, Event, SessionConfig, Target,
};
use sluice_relay::{DatagramRelay, FaultPlan};
use tokio::net::UdpSocket;

use crate::{messages::user, server::Server};

const MESSAGES: usize = 60;
const PATIENCE: Duration = Duration::from_secs(90);

/// One who says numbers to a peer, and notes what comes back.
struct Talker {
    client: DatagramClient,
    socket: UdpSocket,
    peer: Target,
    began: Instant,
    said: usize,
    acked: usize,
    heard: Vec<String>,
}

impl Talker {
    async fn start(server: &Server, relay: &DatagramRelay, name: &str, peer: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(relay.local_addr()).await.unwrap();
        let settings = DatagramSettings {
            user: user(name),
            device: DeviceId::parse("device").unwrap(),
            token: name.to_owned(),
            pins: server.udp.pins.clone(),
            unix_ms: 0,
            session: SessionConfig::default(),
            datagram: DatagramConfig::default(),
        };
        Self {
            client: DatagramClient::new(0, settings, None, rand::random()).unwrap(),
            socket,
            peer: Target::User(user(peer)),
            began: Instant::now(),
            said: 0,
            acked: 0,
            heard: Vec::new(),
        }
    }

    fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    fn is_done(&self) -> bool {
        self.acked == MESSAGES && self.heard.len() >= MESSAGES
    }

    /// Does what is due, and waits for what comes, at most a little.
    async fn turn(&mut self) {
        let now_us = self.now_us();
        // One at a time, at its own pace.
        if self.said < MESSAGES && self.said as u64 * 100_000 <= now_us {
            let text = self.said.to_string().into();
            let peer = self.peer.clone();
            self.client
                .send(now_us, peer, ContentType::Text, text)
                .unwrap();
            self.said += 1;
        }
        self.client.on_timeout(now_us);
        while let Some(event) = self.client.poll_event(now_us) {
            match event {
                DatagramEvent::Sent(_, outcome) => {
                    outcome.unwrap();
                    self.acked += 1;
                }
                DatagramEvent::Session(Event::Entry { entry, own: false }) => {
                    let Content::Message { body, .. } = entry.content else {
                        panic!("no message");
                    };
                    self.heard.push(String::from_utf8(body.to_vec()).unwrap());
                }
                _ => {}
            }
        }
        let mut datagram = Vec::new();
        while self.client.transmit(now_us, &mut datagram).is_some() {
            let _ = self.socket.send(&datagram).await;
            datagram.clear();
        }
        let mut datagram = [0; 2_000];
        let received = self.socket.recv(&mut datagram);
        let received = tokio::time::timeout(Duration::from_millis(5), received).await;
        if let Ok(Ok(bytes)) = received {
            let now_us = self.now_us();
            self.client.receive(now_us, &mut datagram[..bytes]);
        }
    }
}

#[tokio::test]
async fn what_is_said_arrives_once_and_in_order_whatever_the_network_does() {
    let server = Server::start().await;
    let plan = "loss=0.2,delay_ms=20,jitter_ms=10,dup=0.05,reorder=0.1,corrupt=0.02,rebind_s=3";
    let plan: FaultPlan = plan.parse().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let relay = DatagramRelay::start(any, server.udp.address, plan, 11);
    let relay = relay.await.unwrap();
    let mut alice = Talker::start(&server, &relay, "alice", "bob").await;
    let mut bob = Talker::start(&server, &relay, "bob", "alice").await;
    let expected: Vec<_> = (0..MESSAGES).map(|n| n.to_string()).collect();
    let since = Instant::now();
    while !(alice.is_done() && bob.is_done()) {
        tokio::join!(alice.turn(), bob.turn());
        assert!(since.elapsed() < PATIENCE, "{} {}", alice.acked, bob.acked);
    }
    // Nothing comes again.
    for _ in 0..50 {
        tokio::join!(alice.turn(), bob.turn());
    }
    assert_eq!((&alice.heard, &bob.heard), (&expected, &expected));
}
