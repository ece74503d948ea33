//! `kill -9` at random moments under load: what was acked is there, once.

use std::{collections::HashMap, sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use sluice_client::{
    Client, Content, ContentType, ConversationId, Endpoint, Event, EventStream, HttpApi,
    LocalState, Seq, Target,
};
use tokio::{sync::Mutex, task::JoinSet};

use crate::{account::Account, server::Server};

const PAIRS: usize = 8;
const MESSAGES_EACH: usize = 150;
const KILLS: usize = 4;

fn client(account: &Account, device: &str, endpoint: &Endpoint) -> (Client, EventStream) {
    account.device(device, endpoint, LocalState::memory())
}

/// Everything a device is handed until it has caught up.
async fn everything(
    account: &Account,
    device: &str,
    endpoint: &Endpoint,
) -> Vec<(ConversationId, Seq, String)> {
    let (client, mut events) = client(account, device, endpoint);
    let mut entries = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Entry { entry, .. } => {
                if let Content::Message { body, .. } = &entry.content {
                    let text = String::from_utf8(body.to_vec()).unwrap();
                    entries.push((entry.conversation, entry.seq, text));
                }
            }
            Event::CaughtUp => break,
            _ => {}
        }
    }
    client.disconnect(true).await;
    entries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acked_is_lost_or_doubled_by_kill_9() {
    let seed: u64 = rand::random();
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), None);
    let addresses = server.addresses.clone();
    let endpoint = server.endpoint();
    let api = HttpApi::new(&addresses.http).unwrap();

    let mut pairs = Vec::new();
    for pair in 0..PAIRS {
        let one = Account::register(&api, &format!("one-{pair}")).await;
        let other = Account::register(&api, &format!("other-{pair}")).await;
        pairs.push(Arc::new((one, other)));
    }

    let acked = Arc::new(Mutex::new(HashMap::new()));
    let mut senders = JoinSet::new();
    for pair in &pairs {
        let (pair, acked, endpoint) = (Arc::clone(pair), Arc::clone(&acked), endpoint.clone());
        senders.spawn(async move {
            let (client, mut events) = client(&pair.0, "first", &endpoint);
            let drain = tokio::spawn(async move { while events.next().await.is_some() {} });
            let mut acks = JoinSet::new();
            for message in 0..MESSAGES_EACH {
                let text = format!("{} {message}", pair.0.user);
                let target = Target::User(pair.1.user.clone());
                let sent = client
                    .send(target, ContentType::Text, text.clone())
                    .await
                    .unwrap();
                let acked = Arc::clone(&acked);
                acks.spawn(async move {
                    let receipt = sent.acked().await.unwrap();
                    acked
                        .lock()
                        .await
                        .insert(text, (receipt.conversation, receipt.seq));
                });
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            while let Some(done) = acks.join_next().await {
                done.unwrap();
            }
            client.disconnect(true).await;
            drain.await.unwrap();
        });
    }
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(rng.random_range(200..900))).await;
        server.kill();
        server = Server::start(folder.path(), Some(&addresses));
    }
    let all_sent = async {
        while let Some(sender) = senders.join_next().await {
            sender.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(120), all_sent)
        .await
        .expect("all sends are acked");

    let acked = acked.lock().await;
    assert_eq!(acked.len(), PAIRS * MESSAGES_EACH);
    for pair in &pairs {
        for account in [&pair.0, &pair.1] {
            let seen = everything(account, "fresh", &endpoint).await;
            let texts: Vec<String> = (0..MESSAGES_EACH)
                .map(|message| format!("{} {message}", pair.0.user))
                .collect();
            let seen_texts: Vec<String> = seen.iter().map(|(_, _, text)| text.clone()).collect();
            assert_eq!(
                seen_texts, texts,
                "each message once, in the order it was sent"
            );
            for (conversation, seq, text) in seen {
                assert_eq!(acked.get(&text), Some(&(conversation, seq)));
            }
        }
    }
    assert!(server.terminate(), "SIGTERM ends it with 0");
}
