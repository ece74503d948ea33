//! Reads from outside stand in nobody's way who has a lane of their own.

use std::{sync::mpsc, time::Duration};

use rusqlite::Connection;
use sluice_protocol::{MessageId, packet::ContentType};

use super::*;
use crate::{Content, NewEntry, SessionProof};

/// A read that says when it has begun and ends when its test does.
struct Endless {
    begun: mpsc::SyncSender<()>,
    end: parking_lot::Mutex<mpsc::Receiver<()>>,
}

impl Read for Endless {
    type Answer = ();

    fn read(&self, _: &Connection) -> Result<(), StoreError> {
        let _ = self.begun.send(());
        let _ = self.end.lock().recv();
        Ok(())
    }
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

async fn add_user(store: &SqliteStore, name: &str) {
    let new = NewUser {
        id: user(name),
        username: name.to_owned(),
        password_hash: String::new(),
        created_ms: 1,
    };
    store.create_user(new).await.unwrap();
}

fn hello(conversation: &ConversationId) -> NewEntry {
    NewEntry {
        conversation: conversation.clone(),
        sender: user("ann"),
        client_msg_id: ClientMsgId::new(1, [7; 10]),
        predecessor: None,
        message_id: MessageId(1),
        server_time_ms: 1,
        content: Content::Message {
            content_type: ContentType::Text,
            body: "hello".into(),
        },
    }
}

/// Makes every outside reader busy until what is returned is dropped.
fn hold_outside_readers(
    store: &Arc<SqliteStore>,
    config: &SqliteConfig,
) -> Vec<mpsc::SyncSender<()>> {
    let (begun, begins) = mpsc::sync_channel(config.reader_threads);
    let mut ends = Vec::new();
    for _ in 0..config.reader_threads {
        let (end, ended) = mpsc::sync_channel(1);
        ends.push(end);
        let endless = Endless {
            begun: begun.clone(),
            end: parking_lot::Mutex::new(ended),
        };
        let store = Arc::clone(store);
        tokio::spawn(async move { store.read(endless).await });
    }
    for _ in 0..config.reader_threads {
        begins.recv_timeout(Duration::from_secs(60)).unwrap();
    }
    ends
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_reads_stand_in_no_owners_way() {
    let folder = tempfile::tempdir().unwrap();
    let config = SqliteConfig::default();
    let store = Arc::new(SqliteStore::open(folder.path(), &config).unwrap());
    add_user(&store, "ann").await;
    add_user(&store, "ben").await;

    let ends = hold_outside_readers(&store, &config);
    let outside = Arc::clone(&store);
    let outside = tokio::spawn(async move { outside.heads(&user("ann"), None, 1).await });

    let owners = store.for_owners();
    let all_an_owner_does = async {
        let partition = Partition(0);
        let epoch = owners.take_partition(partition).await?;
        let (ann, ben) = (user("ann"), user("ben"));
        let id = ConversationId::private(&ann, &ben).unwrap();
        assert_eq!(owners.users(std::slice::from_ref(&ann)).await?.len(), 1);
        assert_eq!(owners.blocks(&[(ben, ann.clone())]).await?, [false]);
        let entry = hello(&id);
        let key = (id.clone(), ann.clone(), entry.client_msg_id);
        let commit = Commit {
            partition,
            epoch,
            entries: vec![entry],
        };
        owners.commit(commit).await?;
        assert!(owners.first_answers(&[key]).await?[0].is_some());
        assert!(owners.entries(&[(id.clone(), Seq(1))]).await?[0].is_some());
        assert!(owners.conversation_members(&[id]).await?[0].is_some());
        assert_eq!(owners.group_counts(&[ann]).await?, [0]);
        Ok::<_, StoreError>(())
    };
    let done = tokio::time::timeout(Duration::from_secs(60), all_an_owner_does).await;
    done.expect("the outside readers hold the owner up")
        .unwrap();

    assert!(!outside.is_finished(), "the outside readers are busy");
    drop(ends);
    assert!(outside.await.unwrap().unwrap().groups.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_reads_stand_in_no_logins_way() {
    let folder = tempfile::tempdir().unwrap();
    let config = SqliteConfig::default();
    let store = Arc::new(SqliteStore::open(folder.path(), &config).unwrap());
    add_user(&store, "ann").await;

    let ends = hold_outside_readers(&store, &config);
    let outside = Arc::clone(&store);
    let outside = tokio::spawn(async move { outside.heads(&user("ann"), None, 1).await });

    let all_a_login_does = async {
        let found = store.users(&[user("ann")]).await?;
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
        let outcomes = store.open_sessions(vec![opening]).await?;
        assert!(matches!(outcomes[0], SessionOutcome::Opened { .. }));
        Ok::<_, StoreError>(())
    };
    let done = tokio::time::timeout(Duration::from_secs(60), all_a_login_does).await;
    done.expect("the outside readers hold the login up")
        .unwrap();

    assert!(!outside.is_finished(), "the outside readers are busy");
    drop(ends);
    assert!(outside.await.unwrap().unwrap().groups.is_empty());
}
