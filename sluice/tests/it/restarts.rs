//! Everything restarts at once: the server by `kill -9` and by SIGTERM, devices
//! that keep their state, a member who comes and goes. A group's log stays one.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use sluice_client::{
    Client, Content, ContentType, ConversationId, Endpoint, Entry, EventStream, HttpApi,
    LocalState, Target,
};
use tokio::task::JoinSet;

use crate::{
    account::{Account, take},
    server::{Addresses, Server},
};

const TALKERS: usize = 4;
const MESSAGES_EACH: usize = 120;
const SERVER_LIVES: usize = 5;

async fn start(account: &Account, device: &str, state: Option<&Path>, to: &Addresses) -> Opened {
    let deadline = Instant::now() + Duration::from_secs(10);
    let state = loop {
        match state.map(LocalState::open) {
            None => break LocalState::memory(),
            Some(Ok(state)) => break state,
            // The life before lets go of its file in a moment.
            Some(Err(error)) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    account.device(device, &Endpoint::tcp(to.tcp), state)
}

type Opened = (Client, EventStream);

/// Talks to the group through several lives of one device; what it was handed.
async fn talk(
    account: Account,
    group: ConversationId,
    state: std::path::PathBuf,
    to: Addresses,
    seed: u64,
) -> Vec<Entry> {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut seen, mut said) = (Vec::new(), 0);
    while said < MESSAGES_EACH {
        let (client, mut events) = start(&account, "phone", Some(&state), &to).await;
        let life = async {
            for _ in 0..rng.random_range(5..40) {
                if said == MESSAGES_EACH {
                    break;
                }
                let text = format!("{} {said}", account.user);
                let target = Target::Conversation(group.clone());
                // Its ack is not waited for: a later life may get it.
                drop(client.send(target, ContentType::Text, text).await.unwrap());
                said += 1;
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..40))).await;
            }
        };
        tokio::select! {
            () = life => {}
            () = take(&mut events, &mut seen, false) => {}
        }
        drop(events);
        client.disconnect(false).await;
    }
    seen
}

fn text(entry: &Entry) -> Option<String> {
    match &entry.content {
        Content::Message { body, .. } => Some(String::from_utf8(body.to_vec()).unwrap()),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_groups_log_stays_one_while_everything_restarts() {
    let seed: u64 = rand::random();
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), None);
    let addresses = server.addresses.clone();
    let api = HttpApi::new(&addresses.http).unwrap();
    let mut accounts = Vec::new();
    for talker in 0..TALKERS {
        accounts.push(Account::register(&api, &format!("talker-{talker}")).await);
    }
    let guest = Account::register(&api, "guest").await;
    let owner = accounts[0].token.clone();
    let members: Vec<_> = accounts[1..].iter().map(|it| it.user.clone()).collect();
    let group = api.create_group(&owner, "all", &members).await.unwrap();

    let mut talkers = JoinSet::new();
    for (place, account) in accounts.iter().cloned().enumerate() {
        let state = folder.path().join(format!("state-{place}"));
        let (group, to, seed) = (group.clone(), addresses.clone(), rng.random());
        talkers.spawn(async move { (place, talk(account, group, state, to, seed).await) });
    }
    let (guest_client, mut guest_events) = start(&guest, "phone", None, &addresses).await;
    let watching = tokio::spawn(async move {
        let mut seen = Vec::new();
        take(&mut guest_events, &mut seen, false).await;
        seen
    });
    // Some of these calls meet no server: the log says what has happened.
    let coming_and_going = {
        let (api, guest) = (HttpApi::new(&addresses.http).unwrap(), guest.user.clone());
        let (owner, group) = (owner.clone(), group.clone());
        tokio::spawn(async move {
            loop {
                let users = std::slice::from_ref(&guest);
                let _ = api.add_members(&owner, &group, users).await;
                tokio::time::sleep(Duration::from_millis(60)).await;
                let _ = api.remove_member(&owner, &group, &guest).await;
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
        })
    };
    for life in 0..SERVER_LIVES {
        tokio::time::sleep(Duration::from_millis(rng.random_range(300..900))).await;
        if life % 2 == 0 {
            server.kill();
        } else {
            assert!(server.terminate(), "SIGTERM under load ends it with 0");
        }
        server = Server::start(folder.path(), Some(&addresses));
    }
    let mut seen = BTreeMap::new();
    let all_said = async {
        while let Some(done) = talkers.join_next().await {
            let (place, entries) = done.unwrap();
            seen.insert(place, entries);
        }
    };
    tokio::time::timeout(Duration::from_secs(120), all_said)
        .await
        .expect("all is said");
    coming_and_going.abort();

    // Last lives: first what was left unsent goes out, then all comes in.
    let count = TALKERS * MESSAGES_EACH;
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut patience = Duration::from_secs(1);
    let log = loop {
        for (place, account) in accounts.iter().enumerate() {
            let entries = seen.get_mut(&place).unwrap();
            let state = folder.path().join(format!("state-{place}"));
            let (client, mut events) = start(account, "phone", Some(&state), &addresses).await;
            let taken = take(&mut events, entries, false);
            let _ = tokio::time::timeout(patience, taken).await;
            drop(events);
            client.disconnect(false).await;
        }
        let (client, mut events) = start(&accounts[0], "fresh", None, &addresses).await;
        let mut log = Vec::new();
        take(&mut events, &mut log, true).await;
        client.disconnect(true).await;
        if log.iter().filter_map(text).count() >= count {
            break log;
        }
        assert!(Instant::now() < deadline, "some sends never arrive");
        patience *= 2;
    };
    for (place, account) in accounts.iter().enumerate() {
        let entries = seen.get_mut(&place).unwrap();
        let state = folder.path().join(format!("state-{place}"));
        let (client, mut events) = start(account, "phone", Some(&state), &addresses).await;
        let taken = take(&mut events, entries, true);
        let in_time = tokio::time::timeout(Duration::from_secs(30), taken).await;
        in_time.expect("caught up");
        drop(events);
        client.disconnect(false).await;
    }

    let seqs: Vec<u64> = log.iter().map(|entry| entry.seq.0).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    for account in &accounts {
        let own = log.iter().filter(|entry| entry.sender == account.user);
        let expected: Vec<_> = (0..MESSAGES_EACH)
            .map(|n| format!("{} {n}", account.user))
            .collect();
        assert_eq!(own.filter_map(text).collect::<Vec<_>>(), expected);
    }
    for (place, entries) in &seen {
        let mut next = 1;
        for entry in entries {
            let seq = entry.seq.0;
            assert!(seq <= next, "talker-{place} was handed {seq} before {next}");
            next = next.max(seq + 1);
            assert_eq!(text(entry), text(&log[seq as usize - 1]));
        }
        assert_eq!(next, seqs.len() as u64 + 1, "talker-{place} has all");
    }

    guest_client.disconnect(false).await;
    let mut inside = Vec::new();
    let mut is_in = false;
    for entry in &log {
        let about_guest = format!("{:?}", entry.content).contains("\"guest\"");
        inside.push(is_in || about_guest);
        if about_guest {
            is_in = !is_in;
        }
    }
    let handed = watching.await.unwrap();
    assert!(handed.len() > 10, "the guest was there: {}", handed.len());
    for entry in handed {
        assert!(
            inside[entry.seq.0 as usize - 1],
            "not the guest's: {entry:?}"
        );
    }
    // A new device of the guest gets every window, whole.
    let (client, mut events) = start(&guest, "fresh", None, &addresses).await;
    let mut pulled = Vec::new();
    take(&mut events, &mut pulled, true).await;
    client.disconnect(true).await;
    let pulled: Vec<u64> = pulled.iter().map(|entry| entry.seq.0).collect();
    let expected: Vec<u64> = (1..)
        .zip(&inside)
        .filter(|(_, is_in)| **is_in)
        .map(|(seq, _)| seq)
        .collect();
    assert_eq!(pulled, expected);
    assert!(server.terminate());
}
