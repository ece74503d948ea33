//! A store of one engine or the other, and short words for what tests say to it.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use sluice_engines::MariaDb;
use sluice_protocol::{
    ClientMsgId, ConversationId, MessageId, Partition, PartitionEpoch, Seq, UserId, UserSeq,
    packet::ContentType,
};
use sluice_store::{
    Commit, Content, MysqlConfig, MysqlStore, NewEntry, NewUser, Outcome, PageLimit, SqliteConfig,
    SqliteStore, Store, Stored,
};
use tokio::sync::OnceCell;

pub(crate) const PAGE: PageLimit = PageLimit {
    entries: 1_000,
    bytes: usize::MAX,
};

/// Where all tests put their conversations.
pub(crate) const PARTITION: Partition = Partition(3);

/// Server time of the first entry of every test; each entry is 1 ms later.
pub(crate) const START_MS: u64 = 1_790_000_000_000;

static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// A number that no other caller in this process gets.
pub(crate) fn fresh_number() -> u64 {
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// What stands behind the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    /// A database of its own on this process's MariaDB server.
    Mysql,
}

/// Where the data of a test is.
#[derive(Clone)]
enum Home {
    Folder(Arc<tempfile::TempDir>),
    Database(MysqlConfig),
}

/// An open store that owns its partition.
pub(crate) struct Bench {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) epoch: PartitionEpoch,
    home: Home,
}

impl Bench {
    /// A new store with these users.
    pub(crate) async fn with_users(engine: Engine, names: &[&str]) -> Self {
        let home = match engine {
            Engine::Sqlite => Home::Folder(Arc::new(tempfile::tempdir().unwrap())),
            Engine::Mysql => Home::Database(MysqlConfig::single(fresh_database().await)),
        };
        let bench = Self::open(home).await;
        for name in names {
            bench.store.create_user(new_user(name)).await.unwrap();
        }
        bench
    }

    async fn open(home: Home) -> Self {
        let store: Arc<dyn Store> = match &home {
            Home::Folder(folder) => {
                Arc::new(SqliteStore::open(folder.path(), &SqliteConfig::default()).unwrap())
            }
            Home::Database(config) => Arc::new(MysqlStore::connect(config).await.unwrap()),
        };
        let epoch = store.take_partition(PARTITION).await.unwrap();
        Self { store, epoch, home }
    }

    /// Closes the store and opens it anew: only what is on the disk is left.
    pub(crate) async fn reopened(self) -> Self {
        let Self { store, home, .. } = self;
        drop(store);
        Self::open(home).await
    }

    /// The folder of an embedded store.
    pub(crate) fn folder(&self) -> &Path {
        match &self.home {
            Home::Folder(folder) => folder.path(),
            Home::Database(_) => panic!("no folder but a database"),
        }
    }

    pub(crate) async fn commit(&self, entries: Vec<NewEntry>) -> Vec<Outcome> {
        let commit = Commit {
            partition: PARTITION,
            epoch: self.epoch,
            entries,
        };
        self.store.commit(commit).await.unwrap()
    }

    pub(crate) async fn commit_one(&self, entry: NewEntry) -> Outcome {
        self.commit(vec![entry]).await.remove(0)
    }

    /// Stores an entry that is new.
    pub(crate) async fn stored(&self, entry: NewEntry) -> Stored {
        match self.commit_one(entry).await {
            Outcome::Stored(stored) => stored,
            other => panic!("not stored: {other:?}"),
        }
    }

    /// The user seqs of an inbox and the bodies at them.
    pub(crate) async fn inbox_texts(&self, name: &str) -> Vec<(u64, String)> {
        let page = self.store.inbox(&user(name), UserSeq(0), PAGE).await;
        (page.unwrap().entries.iter())
            .map(|(seq, entry)| (seq.0, text_of(&entry.content)))
            .collect()
    }
}

/// The URL of an empty database on the server that all tests share.
pub(crate) async fn fresh_database() -> String {
    static SERVER: OnceCell<MariaDb> = OnceCell::const_new();
    let server = SERVER.get_or_init(async || MariaDb::start().await.unwrap());
    let server = server.await;
    let name = format!("test{}", fresh_number());
    server.create_database(&name).await.unwrap();
    server.url(&name)
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

pub(crate) fn new_user(name: &str) -> NewUser {
    NewUser {
        id: user(name),
        username: name.to_uppercase(),
        password_hash: format!("$argon2id${name}"),
        created_ms: START_MS,
    }
}

pub(crate) fn pair(one: &str, other: &str) -> ConversationId {
    ConversationId::private(&user(one), &user(other)).unwrap()
}

pub(crate) fn group(number: u64) -> ConversationId {
    ConversationId::group(MessageId(number))
}

pub(crate) fn client_id(number: u64) -> ClientMsgId {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&number.to_be_bytes());
    ClientMsgId::new(START_MS + number, random)
}

/// An entry with fresh ids.
pub(crate) fn entry(conversation: &ConversationId, sender: &str, content: Content) -> NewEntry {
    let number = fresh_number();
    NewEntry {
        conversation: conversation.clone(),
        sender: user(sender),
        client_msg_id: client_id(number),
        predecessor: None,
        message_id: MessageId(number),
        server_time_ms: START_MS + number,
        content,
    }
}

pub(crate) fn text(text: &str) -> Content {
    Content::Message {
        content_type: ContentType::Text,
        body: Bytes::copy_from_slice(text.as_bytes()),
    }
}

/// A text message with fresh ids.
pub(crate) fn say(conversation: &ConversationId, sender: &str, words: &str) -> NewEntry {
    entry(conversation, sender, text(words))
}

pub(crate) fn text_of(content: &Content) -> String {
    match content {
        Content::Message { body, .. } => String::from_utf8_lossy(body).into_owned(),
        other => format!("{other:?}"),
    }
}

pub(crate) fn seqs(seqs: impl IntoIterator<Item = u64>) -> Vec<Seq> {
    seqs.into_iter().map(Seq).collect()
}
