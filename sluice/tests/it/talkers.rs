//! Pairs who talk without pause, each with a device at a gateway, and what each
//! of them met.

use std::time::{Duration, Instant};

use sluice_client::{
    Client, Content, ContentType, Endpoint, Event, EventStream, HttpApi, Target, UserId,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::account::Account;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
const END: &str = "end";

/// Conversations that are going on.
pub(crate) struct Talkers {
    talks: JoinSet<Met>,
    stop: CancellationToken,
}

/// What one of them met.
#[derive(Debug, Default)]
pub(crate) struct Met {
    /// Messages sent and acked.
    pub(crate) sent: u32,
    /// Longest time without an ack.
    pub(crate) slowest_ack: Duration,
    /// The other's messages, in the order they came.
    heard: Vec<u32>,
    pub(crate) disconnects: usize,
    /// Longest time that it was away beyond what it had been told to wait.
    pub(crate) late: Duration,
}

impl Talkers {
    /// Two people a pair: one at the first endpoint, the other at the last; each
    /// goes on at the others when its own goes away.
    pub(crate) async fn start(api: &HttpApi, pairs: usize, endpoints: &[Endpoint]) -> Self {
        let stop = CancellationToken::new();
        let mut talks = JoinSet::new();
        for pair in 0..pairs {
            let run = rand::random::<u32>();
            let one = Account::register(api, &format!("one-{run:08x}-{pair}")).await;
            let other = Account::register(api, &format!("other-{run:08x}-{pair}")).await;
            let forward = endpoints.to_vec();
            let backward = endpoints.iter().rev().cloned().collect();
            for (account, peer, order) in [(&one, &other, forward), (&other, &one, backward)] {
                let (client, events) = account.device_among("phone", order);
                talks.spawn(talk(client, events, peer.user.clone(), stop.clone()));
            }
        }
        Self { talks, stop }
    }

    /// Lets them finish; everything sent must have arrived once and in order.
    pub(crate) async fn finish(mut self) -> Vec<Met> {
        self.stop.cancel();
        let mut all = Vec::new();
        let finished = async {
            while let Some(met) = self.talks.join_next().await {
                all.push(met.unwrap());
            }
        };
        let in_time = tokio::time::timeout(2 * PATIENCE, finished).await;
        in_time.expect("all that was said arrives");
        let heard: u32 = all.iter().map(|met| met.heard.len() as u32).sum();
        let sent: u32 = all.iter().map(|met| met.sent).sum();
        assert_eq!(heard, sent);
        for met in &all {
            let expected: Vec<u32> = (0..met.heard.len() as u32).collect();
            assert_eq!(met.heard, expected, "once and in order");
        }
        all
    }
}

/// Waits for its ack.
pub(crate) async fn say(client: &Client, target: Target, text: &str) {
    let sent = client.send(target, ContentType::Text, text.to_owned());
    let acked = sent.await.unwrap().acked();
    let in_time = tokio::time::timeout(PATIENCE, acked).await;
    in_time.expect("acked in time").unwrap();
}

async fn talk(
    client: Client,
    mut events: EventStream,
    peer: UserId,
    stop: CancellationToken,
) -> Met {
    let talking = async {
        let (mut sent, mut slowest_ack) = (0, Duration::ZERO);
        while !stop.is_cancelled() {
            let began = Instant::now();
            say(&client, Target::User(peer.clone()), &sent.to_string()).await;
            slowest_ack = slowest_ack.max(began.elapsed());
            sent += 1;
            tokio::time::sleep(PAUSE).await;
        }
        say(&client, Target::User(peer.clone()), END).await;
        (sent, slowest_ack)
    };
    let listening = async {
        let mut met = Met::default();
        let mut due: Option<Instant> = None;
        loop {
            match events.next().await.unwrap() {
                Event::Disconnected { retry_in_ms, .. } => {
                    met.disconnects += 1;
                    let wait = Duration::from_millis(retry_in_ms.unwrap());
                    due.get_or_insert(Instant::now() + wait);
                }
                Event::Connected { .. } => {
                    if let Some(due) = due.take() {
                        met.late = met.late.max(Instant::now().saturating_duration_since(due));
                    }
                }
                Event::Entry { entry, own: false } => {
                    let Content::Message { body, .. } = entry.content else {
                        panic!("not said here: {entry:?}");
                    };
                    match std::str::from_utf8(&body).unwrap() {
                        END => return met,
                        number => met.heard.push(number.parse().unwrap()),
                    }
                }
                Event::Entry { .. }
                | Event::CaughtUp
                | Event::Delivered { .. }
                | Event::Read { .. } => {}
                other => panic!("an error at a client: {other:?}"),
            }
        }
    };
    let ((sent, slowest_ack), met) = tokio::join!(talking, listening);
    client.disconnect(true).await;
    Met {
        sent,
        slowest_ack,
        ..met
    }
}
