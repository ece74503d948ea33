//! Sessions that change their transport while messages are under way: what the
//! former connection had unacked is pushed on the next one, nothing is pulled for it.

use std::time::Duration;

use sluice_client::{Client, Content, ContentType, Event, EventStream, HttpApi, Target, Transport};
use sluice_relay::{DatagramRelay, FaultPlan};

use crate::{account::Account, outages::metric, server::Server};

const PATIENCE: Duration = Duration::from_secs(20);

async fn relay(server: &Server, faults: &str) -> DatagramRelay {
    let plan: FaultPlan = faults.parse().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    DatagramRelay::start(any, server.addresses.udp, plan, 7)
        .await
        .unwrap()
}

async fn caught_up(events: &mut EventStream) {
    while !matches!(events.next().await.unwrap(), Event::CaughtUp) {}
}

async fn say(client: &Client, to: &Account, text: &str) {
    let target = Target::User(to.user.clone());
    let sent = client.send(target, ContentType::Text, text.to_owned());
    sent.await.unwrap().acked().await.unwrap();
}

/// The other's texts, as they come.
async fn hear(events: &mut EventStream, count: usize) -> Vec<String> {
    let mut heard = Vec::new();
    let all = async {
        while heard.len() < count {
            if let Event::Entry { entry, own: false } = events.next().await.unwrap()
                && let Content::Message { body, .. } = entry.content
            {
                heard.push(String::from_utf8(body.to_vec()).unwrap());
            }
        }
    };
    tokio::time::timeout(PATIENCE, all)
        .await
        .expect("all that was said");
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_into_a_dead_network_arrive_on_another_transport_without_a_pull() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_with(folder.path(), None, "[gateway]\nevent_loops = 2\n");
    let admin = server.addresses.admin.clone();
    let api = HttpApi::new(&server.addresses.http).unwrap();
    let alice = Account::register(&api, "alice").await;
    let bob = Account::register(&api, "bob").await;
    let (bobs, mut bob_events) = bob.device_among("phone", vec![server.endpoint()]);
    caught_up(&mut bob_events).await;
    for round in 0..4_u64 {
        let relay = relay(&server, "").await;
        let mut endpoint = server.endpoint();
        endpoint.udp = Some(relay.local_addr());
        let (phone, mut events) = alice.device_among("phone", vec![endpoint]);
        phone.go_by(Transport::Udp).await.unwrap();
        caught_up(&mut events).await;
        say(&bobs, &alice, "before").await;
        hear(&mut events, 1).await;
        tokio::time::sleep(Duration::from_millis(200)).await;

        relay.block();
        let texts: Vec<_> = (0..20).map(|n| format!("{round} {n}")).collect();
        for text in &texts {
            say(&bobs, &alice, text).await;
        }
        let carried = metric(&admin, "sluice_gateway_pushes_carried_total").await;
        let pulls = metric(&admin, "sluice_pulls_total{kind=\"inbox\"}").await;
        let to = [Transport::Tcp, Transport::WebSocket][round as usize % 2];
        phone.go_by(to).await.unwrap();
        assert_eq!(hear(&mut events, texts.len()).await, texts);
        let carried = metric(&admin, "sluice_gateway_pushes_carried_total").await - carried;
        // One before them may have lost its ack to the dead network.
        assert!((20.0..=21.0).contains(&carried), "{carried}");
        caught_up(&mut events).await;
        let now = metric(&admin, "sluice_pulls_total{kind=\"inbox\"}").await;
        assert_eq!(now, pulls, "no pull was needed");
        phone.disconnect(false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn talk_goes_on_in_order_while_both_sides_move() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_with(folder.path(), None, "[gateway]\nevent_loops = 2\n");
    let admin = server.addresses.admin.clone();
    let relay = relay(&server, "loss=0.1,delay_ms=10,jitter_ms=5,dup=0.02").await;
    let api = HttpApi::new(&server.addresses.http).unwrap();
    let alice = Account::register(&api, "alice").await;
    let bob = Account::register(&api, "bob").await;
    let mut endpoint = server.endpoint();
    endpoint.udp = Some(relay.local_addr());
    let (alices, mut alice_events) = alice.device_among("phone", vec![endpoint.clone()]);
    let (bobs, mut bob_events) = bob.device_among("phone", vec![endpoint]);
    let count = 400;
    let texts: Vec<_> = (0..count).map(|n| n.to_string()).collect();
    let talk = async |client: &Client, to: &Account, first: usize| {
        let ways = [Transport::Udp, Transport::Tcp, Transport::WebSocket];
        let mut sent = Vec::new();
        for (n, text) in texts.iter().enumerate() {
            let target = Target::User(to.user.clone());
            let text = text.clone();
            sent.push(client.send(target, ContentType::Text, text).await.unwrap());
            if n % 25 == 24 {
                client.go_by(ways[(first + n / 25) % 3]).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(8)).await;
        }
        for sent in sent {
            sent.acked().await.unwrap();
        }
    };
    let (_, _, at_alice, at_bob) = tokio::join!(
        talk(&alices, &bob, 0),
        talk(&bobs, &alice, 1),
        hear(&mut alice_events, count),
        hear(&mut bob_events, count),
    );
    assert_eq!(at_alice, texts, "once and in order");
    assert_eq!(at_bob, texts, "once and in order");
    let carried = metric(&admin, "sluice_gateway_pushes_carried_total").await;
    assert!(carried > 0.0, "{carried}");
}
