//! MySQL only: several owners, several servers, and servers that die.

use std::{sync::Arc, time::Duration};

use sluice_engines::MariaDb;
use sluice_protocol::{DeviceId, Partition, Seq, UserId, UserSeq, partition_of};
use sluice_store::{
    Commit, MysqlConfig, MysqlServer, MysqlStore, NewEntry, Outcome, SessionOpening,
    SessionOutcome, SessionProof, Store, StoreError, Stored,
};
use sqlx::Connection;

use crate::kit::{PAGE, PARTITION, fresh_database, new_user, pair, say, text_of, user};

const USERS: [&str; 6] = ["ann", "ben", "cat", "dan", "eve", "fay"];

/// Gives up on a dead server before the test does.
fn impatient(config: MysqlConfig) -> MysqlConfig {
    MysqlConfig {
        acquire_timeout_ms: 300,
        ..config
    }
}

async fn connected(config: &MysqlConfig) -> Arc<MysqlStore> {
    Arc::new(MysqlStore::connect(config).await.unwrap())
}

async fn add_users(store: &MysqlStore) {
    for name in USERS {
        store.create_user(new_user(name)).await.unwrap();
    }
}

/// The bodies of an inbox, whose numbers must have no gaps.
async fn inbox(store: &MysqlStore, name: &str) -> Vec<String> {
    let (mut texts, mut after) = (Vec::new(), UserSeq(0));
    loop {
        let page = store.inbox(&user(name), after, PAGE).await.unwrap();
        for (seq, entry) in &page.entries {
            assert_eq!(seq.0, after.0 + 1, "{name}");
            after = *seq;
            texts.push(text_of(&entry.content));
        }
        if !page.more {
            return texts;
        }
    }
}

fn stored(outcome: &Outcome) -> &Stored {
    match outcome {
        Outcome::Stored(stored) | Outcome::Duplicate(stored) => stored,
        Outcome::Refused(refusal) => panic!("{refusal:?}"),
    }
}

#[tokio::test]
async fn a_crash_between_the_two_steps_is_healed_by_the_redelivery() {
    let (first, second) = tokio::join!(MariaDb::start(), MariaDb::start());
    let (first, mut second) = (first.unwrap(), second.unwrap());
    let server = |server: &MariaDb, shards: &str| MysqlServer {
        url: server.url("sluice"),
        shards: shards.to_owned(),
        replicas: Vec::new(),
    };
    let config = impatient(MysqlConfig {
        servers: vec![server(&first, "0-31"), server(&second, "32-63")],
        ..MysqlConfig::default()
    });
    let store = connected(&config).await;
    add_users(&store).await;
    // A conversation on the first server with a party on the second.
    let on_second = |key: &str| partition_of(key.as_bytes(), 64).0 >= 32;
    let mut pairs = USERS.iter().flat_map(|a| USERS.iter().map(move |b| (a, b)));
    let (one, other) = pairs
        .find(|(a, b)| a < b && !on_second(pair(a, b).as_str()) && (on_second(a) || on_second(b)))
        .unwrap();
    let id = pair(one, other);
    let epoch = store.take_partition(PARTITION).await.unwrap();
    let commit = |epoch, entries| Commit {
        partition: PARTITION,
        epoch,
        entries,
    };
    let before = say(&id, one, "before");
    store.commit(commit(epoch, vec![before])).await.unwrap();

    second.kill().unwrap();
    let entry = say(&id, one, "between");
    let failed = store.commit(commit(epoch, vec![entry.clone()])).await;
    assert!(
        matches!(failed, Err(StoreError::Unavailable(_))),
        "{failed:?}"
    );
    second.restart().await.unwrap();

    let owner = connected(&config).await;
    let epoch = owner.take_partition(PARTITION).await.unwrap();
    let again = owner
        .commit(commit(epoch, vec![entry.clone()]))
        .await
        .unwrap();
    assert!(
        matches!(again[0], Outcome::Duplicate(_)),
        "the first step stands"
    );
    let answer = stored(&again[0]).clone();
    assert_eq!(answer.seq, Seq(2));
    assert_eq!(
        answer.inbox,
        [(user(one), UserSeq(2)), (user(other), UserSeq(2))]
    );
    let key = (id.clone(), user(one), entry.client_msg_id);
    let answers = owner.first_answers(&[key]).await.unwrap();
    assert_eq!(answers, [Some(answer)]);
    for name in [one, other] {
        assert_eq!(inbox(&owner, name).await, ["before", "between"]);
        let list = owner.conversations(&user(name), None, 10).await.unwrap();
        assert_eq!((list.len(), list[0].last_seq), (1, Seq(2)));
    }
}

#[tokio::test]
async fn months_ahead_get_their_partitions_at_every_start() {
    let config = MysqlConfig::single(fresh_database().await);
    drop(connected(&config).await);
    let mut sql = sqlx::MySqlConnection::connect(&config.servers[0].url)
        .await
        .unwrap();
    let list = "SELECT CAST(partition_name AS BINARY) FROM information_schema.partitions
        WHERE table_schema = DATABASE() AND partition_name IS NOT NULL
        ORDER BY table_name, partition_ordinal_position";
    let all: Vec<Vec<u8>> = sqlx::query_scalar(list).fetch_all(&mut sql).await.unwrap();
    // As if the last start had been two months ago.
    let newest = all.len() - 2;
    for table in ["message", "dedup"] {
        for name in &all[newest - 1..=newest] {
            let name = String::from_utf8_lossy(name);
            let drop = format!("ALTER TABLE {table} DROP PARTITION {name}");
            sqlx::query(sqlx::AssertSqlSafe(drop))
                .execute(&mut sql)
                .await
                .unwrap();
        }
    }
    let store = connected(&config).await;
    let found: Vec<Vec<u8>> = sqlx::query_scalar(list).fetch_all(&mut sql).await.unwrap();
    assert_eq!(found, all);
    add_users(&store).await;
}

#[tokio::test]
async fn an_owner_that_slept_is_fenced_and_numbers_are_not_given_twice() {
    let config = MysqlConfig::single(fresh_database().await);
    let (old, new) = (connected(&config).await, connected(&config).await);
    add_users(&old).await;
    let commit = |epoch| Commit {
        partition: PARTITION,
        epoch,
        entries: vec![say(&pair("ann", "ben"), "ann", "x")],
    };
    let slept = old.take_partition(PARTITION).await.unwrap();
    old.commit(commit(slept)).await.unwrap();
    let epoch = new.take_partition(PARTITION).await.unwrap();
    assert!(matches!(
        old.commit(commit(slept)).await,
        Err(StoreError::Fenced { .. })
    ));
    let outcomes = new.commit(commit(epoch)).await.unwrap();
    assert_eq!(stored(&outcomes[0]).seq, Seq(2));
    let (one, other) = (old.issue_worker_id().await, new.issue_worker_id().await);
    assert_ne!(one.unwrap(), other.unwrap());
    let (one, other) = tokio::join!(old.issue_incarnation(), new.issue_incarnation());
    assert_ne!(one.unwrap(), other.unwrap());
}

/// Commits messages between many pairs under one partition. Other partitions
/// write to the same conversations at the same time, which real ones never do.
async fn chat(store: Arc<MysqlStore>, number: u16, batches: u64) -> Vec<NewEntry> {
    let partition = Partition(number);
    let mut epoch = None;
    let mut acked = Vec::new();
    for batch in 0..batches {
        let entries: Vec<NewEntry> = (0..8_u64)
            .map(|at| {
                let step = usize::from(number) + (batch * 8 + at) as usize;
                let (one, other) = (step % 6, (step + 1 + usize::from(number) % 5) % 6);
                let (one, other) = (USERS[one], USERS[other]);
                say(&pair(one, other), one, &format!("{number}/{batch}/{at}"))
            })
            .collect();
        loop {
            let held = match epoch {
                Some(held) => held,
                None => match store.take_partition(partition).await {
                    Ok(taken) => taken,
                    Err(_) => continue,
                },
            };
            epoch = Some(held);
            let commit = Commit {
                partition,
                epoch: held,
                entries: entries.clone(),
            };
            match store.commit(commit).await {
                Ok(outcomes) => {
                    outcomes
                        .iter()
                        .for_each(|outcome| assert_eq!(stored(outcome).inbox.len(), 2));
                    break acked.extend(entries);
                }
                // As an owner does: start over, and redeliver.
                Err(StoreError::Unavailable(_)) => epoch = None,
                Err(error) => panic!("{error}"),
            }
        }
    }
    acked
}

/// All of these, in every inbox that they belong to, once.
async fn check_inboxes(store: &MysqlStore, acked: &[NewEntry]) {
    for name in USERS {
        let id: UserId = user(name);
        let mut expected: Vec<String> = (acked.iter())
            .filter(|entry| entry.conversation.check_party(&id).is_ok())
            .map(|entry| text_of(&entry.content))
            .collect();
        let mut found = inbox(store, name).await;
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_touch_the_same_users_get_through() {
    let store = connected(&MysqlConfig::single(fresh_database().await)).await;
    add_users(&store).await;
    let chats = (0..8).map(|number| tokio::spawn(chat(Arc::clone(&store), number, 6)));
    let chats: Vec<_> = chats.collect();
    let mut acked = Vec::new();
    for chat in chats {
        acked.extend(chat.await.unwrap());
    }
    check_inboxes(&store, &acked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acked_survives_the_death_of_the_server() {
    let mut server = MariaDb::start().await.unwrap();
    let config = impatient(MysqlConfig::single(server.url("sluice")));
    let store = connected(&config).await;
    add_users(&store).await;
    let chats = (0..3).map(|number| tokio::spawn(chat(Arc::clone(&store), number, 60)));
    let chats: Vec<_> = chats.collect();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        server.kill().unwrap();
        server.restart().await.unwrap();
    }
    let mut acked = Vec::new();
    for chat in chats {
        acked.extend(chat.await.unwrap());
    }
    check_inboxes(&*connected(&config).await, &acked).await;
}

#[tokio::test]
async fn outside_reads_stand_in_no_owners_nor_logins_way() {
    let config = MysqlConfig {
        connections_max: 2,
        ..MysqlConfig::single(fresh_database().await)
    };
    let store = connected(&config).await;
    add_users(&store).await;
    let owners = store.for_owners();
    let epoch = owners.take_partition(PARTITION).await.unwrap();
    let id = pair("ann", "ben");
    let commit = |words| Commit {
        partition: PARTITION,
        epoch,
        entries: vec![say(&id, "ann", words)],
    };
    owners.commit(commit("before")).await.unwrap();

    // Lists wait for this lock, each with one of the outside connections.
    let mut sql = sqlx::MySqlConnection::connect(&config.servers[0].url)
        .await
        .unwrap();
    sqlx::raw_sql("LOCK TABLES user_conversation_list WRITE")
        .execute(&mut sql)
        .await
        .unwrap();
    let lists: Vec<_> = (0..2)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.conversations(&user("ann"), None, 1).await })
        })
        .collect();
    let waiting = "SELECT COUNT(*) FROM information_schema.processlist
        WHERE db = DATABASE() AND info LIKE '%FROM user_conversation_list%' AND id <> CONNECTION_ID()";
    while sqlx::query_scalar::<_, i64>(waiting)
        .fetch_one(&mut sql)
        .await
        .unwrap()
        < 2
    {
        tokio::task::yield_now().await;
    }
    let outside = Arc::clone(&store);
    let pairs = [(user("ben"), user("ann"))];
    let outside = tokio::spawn(async move { outside.blocks(&pairs).await });

    let pairs = [(user("ben"), user("ann"))];
    assert_eq!(owners.blocks(&pairs).await.unwrap(), [false]);
    assert!(owners.users(&[user("ann")]).await.unwrap()[0].is_some());
    let outcomes = owners.commit(commit("meanwhile")).await.unwrap();
    assert_eq!(stored(&outcomes[0]).seq, Seq(2));
    // A login has its own connections, too.
    let found = store.users(&[user("ann")]).await.unwrap();
    let opening = SessionOpening {
        user: user("ann"),
        device: DeviceId::parse("phone").unwrap(),
        platform: 1,
        proof: SessionProof::Token {
            token_epoch: found[0].as_ref().unwrap().token_epoch,
            expires_ms: 2,
        },
        new_resume_hash: [7; 32],
        connect_time_ms: Some(1),
        has_place: true,
        now_ms: 1,
    };
    let outcomes = store.open_sessions(vec![opening]).await.unwrap();
    assert!(matches!(outcomes[0], SessionOutcome::Opened { .. }));
    assert!(!outside.is_finished(), "the outside connections are taken");

    sqlx::raw_sql("UNLOCK TABLES")
        .execute(&mut sql)
        .await
        .unwrap();
    for list in lists {
        assert_eq!(list.await.unwrap().unwrap().len(), 1);
    }
    outside.await.unwrap().unwrap();
}
