//! The store is away: what was read waits in hand, and nothing of it counts as
//! poison.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use sluice_bus::{
    Bus, BusError, EntryId, Lag, MemoryBus, MemoryBusConfig, NodeName, ReadBatch, Reader, RedisBus,
    RedisConfig, Stream,
};
use sluice_engines::Redis;
use sluice_protocol::{
    ClientMsgId, ConversationId, DeviceId, Incarnation, LayoutEpoch, Partition, PartitionEpoch,
    Seq, UserId, UserSeq, WorkerId,
    envelope::{Acks, DeliveredCursor, Up, delivery, up},
    limits::SHARED_PARTITIONS,
    packet::{self, packet::Body},
};
use sluice_services::{Parts, Services};
use sluice_store::{
    Commit, Conversation, ConversationPage, ConversationRow, CursorAdvance, Heads, InboxPage,
    ListCursor, NewUser, Outcome, PageLimit, Range, SessionOpening, SessionOutcome, SqliteStore,
    Store, StoreError, Stored, StoredEntry, User, UserStatus,
};
use tokio_util::sync::CancellationToken;

use crate::world::{Device, Got, PARTITIONS, World, ack, config, fresh_id, pair, text_to};

/// So often every kind of work is refused before the store comes back; with the
/// first pauses between them that is a second.
const REFUSALS: u32 = 5;
/// Fewer than that: were it read as often, it would be a dead letter.
const DELIVERIES_MAX: u32 = 3;
/// Far less than the outage lasts.
const CLAIM_IDLE_MS: u64 = 300;

/// A store that can be away.
struct Outage {
    inner: Arc<SqliteStore>,
    is_away: AtomicBool,
    /// How often each call was refused.
    refused: Mutex<HashMap<Call, u32>>,
}

/// A method, and whether an owner called it.
type Call = (&'static str, bool);

impl Outage {
    fn check(&self, call: Call) -> Result<(), StoreError> {
        if !self.is_away.load(Ordering::Relaxed) {
            return Ok(());
        }
        *self.refused.lock().entry(call).or_default() += 1;
        Err(StoreError::Unavailable("out for lunch".into()))
    }

    fn begin(&self) {
        self.refused.lock().clear();
        self.is_away.store(true, Ordering::Relaxed);
    }

    fn end(&self) {
        self.is_away.store(false, Ordering::Relaxed);
    }

    /// Until each of these has been tried often enough.
    async fn is_felt(&self, calls: &[Call]) {
        let felt = async {
            let tried = |call| self.refused.lock().get(call).copied().unwrap_or_default();
            while !calls.iter().all(|call| tried(call) >= REFUSALS) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let felt = tokio::time::timeout(Duration::from_secs(60), felt).await;
        assert!(felt.is_ok(), "{:?}", self.refused.lock());
    }
}

macro_rules! pass_on {
    ($($name:ident($($arg:ident: $kind:ty),*) -> $answer:ty;)*) => {
        struct Handle {
            outage: Arc<Outage>,
            of_owner: bool,
        }

        #[async_trait]
        impl Store for Handle {
            fn for_owners(&self) -> Arc<dyn Store> {
                let outage = self.outage.clone();
                Arc::new(Handle { outage, of_owner: true })
            }
            $(async fn $name(&self, $($arg: $kind),*) -> Result<$answer, StoreError> {
                self.outage.check((stringify!($name), self.of_owner))?;
                self.outage.inner.$name($($arg),*).await
            })*
        }
    };
}

pass_on! {
    open_layout(partitions: u16) -> LayoutEpoch;
    issue_incarnation() -> Incarnation;
    issue_worker_id() -> WorkerId;
    newest_message_id() -> u64;
    take_partition(partition: Partition) -> PartitionEpoch;
    commit(commit: Commit) -> Vec<Outcome>;
    first_answers(sent: &[(ConversationId, UserId, ClientMsgId)]) -> Vec<Option<Stored>>;
    advance_cursors(advances: Vec<CursorAdvance>) -> Vec<Option<Seq>>;
    entries(positions: &[(ConversationId, Seq)]) -> Vec<Option<StoredEntry>>;
    inbox(user: &UserId, after: UserSeq, limit: PageLimit) -> InboxPage;
    conversation_log(
        user: &UserId, id: &ConversationId, range: Range, limit: PageLimit
    ) -> Option<ConversationPage>;
    present_window(user: &UserId, id: &ConversationId) -> Option<(Seq, Seq)>;
    heads(user: &UserId, after: Option<&ConversationId>, limit: u32) -> Heads;
    group_counts(users: &[UserId]) -> Vec<usize>;
    conversations(
        user: &UserId, cursor: Option<ListCursor>, limit: u32
    ) -> Vec<ConversationRow>;
    conversation_members(ids: &[ConversationId]) -> Vec<Option<Conversation>>;
    create_user(user: NewUser) -> ();
    users(ids: &[UserId]) -> Vec<Option<User>>;
    set_status(user: &UserId, status: UserStatus) -> bool;
    revoke_tokens(user: &UserId, hash: Option<String>) -> u64;
    set_block(blocker: &UserId, blocked: &UserId, on: bool) -> ();
    blocks(pairs: &[(UserId, UserId)]) -> Vec<bool>;
    open_sessions(openings: Vec<SessionOpening>) -> Vec<SessionOutcome>;
    forget_device(user: &UserId, device: &DeviceId) -> ();
}

/// The highest count of deliveries of each stream's entries.
pub(crate) type Most = Arc<Mutex<HashMap<String, u32>>>;

/// A bus that keeps count of how often entries were handed out.
pub(crate) struct Counting {
    pub(crate) inner: Arc<dyn Bus>,
    pub(crate) most: Most,
}

struct CountingReader {
    inner: Box<dyn Reader>,
    stream: String,
    most: Most,
}

impl Counting {
    fn count(&self, stream: &Stream, inner: Box<dyn Reader>) -> Box<dyn Reader> {
        Box::new(CountingReader {
            inner,
            stream: stream.to_string(),
            most: self.most.clone(),
        })
    }
}

#[async_trait]
impl Bus for Counting {
    async fn append(&self, stream: &Stream, entries: Vec<Bytes>) -> Result<(), BusError> {
        self.inner.append(stream, entries).await
    }
    async fn own(&self, stream: &Stream, owner: &NodeName) -> Result<Box<dyn Reader>, BusError> {
        let owned = self.inner.own(stream, owner).await?;
        Ok(self.count(stream, owned))
    }
    async fn join(&self, stream: &Stream, name: &NodeName) -> Result<Box<dyn Reader>, BusError> {
        let joined = self.inner.join(stream, name).await?;
        Ok(self.count(stream, joined))
    }
    async fn lag(&self, stream: &Stream) -> Result<Lag, BusError> {
        self.inner.lag(stream).await
    }
    async fn delete(&self, stream: &Stream) -> Result<(), BusError> {
        self.inner.delete(stream).await
    }
}

#[async_trait]
impl Reader for CountingReader {
    async fn read(&mut self, max_entries: usize) -> Result<ReadBatch, BusError> {
        let batch = self.inner.read(max_entries).await?;
        if let Some(most) = batch.entries.iter().map(|entry| entry.deliveries).max() {
            let mut table = self.most.lock();
            let known = table.entry(self.stream.clone()).or_default();
            *known = most.max(*known);
        }
        Ok(batch)
    }
    async fn ack(&mut self, ids: &[EntryId]) -> Result<(), BusError> {
        self.inner.ack(ids).await
    }
    fn begin_again(&mut self) {
        self.inner.begin_again();
    }
}

/// What is asked for while the store is away.
struct Asked {
    tablet: Device,
    send: u64,
}

/// A delivered cursor, a login, a message and a pull.
async fn ask(world: &mut World, alice: &Device, tablet: &str, seq: u64) -> Asked {
    let tablet = world.gateway.device("bob", tablet);
    let delivered = DeliveredCursor {
        user_id: "bob".into(),
        conversation_id: pair("alice", "bob").to_string(),
        seq,
    };
    let acks = Acks {
        delivered: vec![delivered],
        push_failed: Vec::new(),
    };
    let up = Up {
        body: Some(up::Body::Acks(acks)),
        ..Up::default()
    };
    let bytes = up.encode_to_vec().into();
    let stream = Stream::Ack(Partition(1));
    world.gateway.append_bytes(&stream, bytes).await;
    let open = up::Body::OpenSession(world.claims("bob").await);
    world.gateway.append(Stream::Session, &tablet, open).await;
    let text = text_to("bob", fresh_id(), "are you there?");
    let send = world.gateway.send(alice, text).await;
    let pull = Body::SyncInbox(packet::SyncInbox::default());
    let answer = world.query(alice, pull).await;
    assert!(matches!(answer, Body::Busy(_)), "{answer:?}");
    Asked { tablet, send }
}

/// All of it has been done.
async fn answered(world: &mut World, alice: &Device, asked: &Asked, seq: u64) {
    let opened = |got: &Got| matches!(got.body, delivery::Body::SessionOpened(_));
    world.gateway.find(&asked.tablet, opened).await;
    let stored = ack(world.gateway.answer(alice, asked.send).await);
    assert_eq!(stored.seq, seq + 1);
    match world.gateway.event(alice).await {
        Body::DeliveredNotice(notice) => assert_eq!(notice.seq, seq),
        other => panic!("{other:?}"),
    }
}

async fn an_outage_costs_no_delivery(inner: Arc<dyn Bus>) {
    let most = Most::default();
    let bus: Arc<dyn Bus> = Arc::new(Counting {
        inner: inner.clone(),
        most: Arc::clone(&most),
    });
    // What the test itself reads isn't counted.
    let mut world = World::idle(config(), inner).await;
    let outage = Arc::new(Outage {
        inner: world.store.clone(),
        is_away: AtomicBool::new(false),
        refused: Mutex::default(),
    });
    let start = async |world: &World| {
        let parts = Parts {
            store: Arc::new(Handle {
                outage: outage.clone(),
                of_owner: false,
            }),
            bus: bus.clone(),
            ..world.parts().await
        };
        let shutdown = CancellationToken::new();
        let started = Services::start(config(), parts, shutdown.clone()).await;
        (started.unwrap(), shutdown)
    };
    let stop = async |(mut services, shutdown): (Services, CancellationToken)| {
        shutdown.cancel();
        let stopped = tokio::time::timeout(Duration::from_secs(10), services.stopped()).await;
        assert!(stopped.is_ok(), "still at it: {:?}", services.unfinished());
    };
    let (one, other) = (start(&world).await, start(&world).await);
    let alice = world.user_online("alice").await;
    world.add_users(&["bob"]).await;
    ack(world
        .send(&alice, text_to("bob", fresh_id(), "hello"))
        .await);

    let calls = [
        ("advance_cursors", false),
        ("users", false),
        ("users", true),
    ];
    outage.begin();
    let asked = ask(&mut world, &alice, "tablet", 1).await;
    outage.is_felt(&calls).await;
    outage.end();
    answered(&mut world, &alice, &asked, 1).await;
    let seldom = |count| {
        // Not locked while the message is made.
        let most = most.lock().clone();
        assert!(most.values().all(|most| *most <= count), "{most:?}");
    };
    seldom(1);

    // Stopped with its batches in hand; another life finds them.
    outage.begin();
    let asked = ask(&mut world, &alice, "desk", 2).await;
    outage.is_felt(&calls).await;
    stop(one).await;
    stop(other).await;
    outage.end();
    let last = start(&world).await;
    answered(&mut world, &alice, &asked, 2).await;
    seldom(3);
    stop(last).await;
}

#[tokio::test]
async fn an_outage_costs_no_delivery_in_process() {
    an_outage_costs_no_delivery(MemoryBus::new(MemoryBusConfig::default())).await;
}

#[tokio::test]
async fn an_outage_makes_no_dead_letters_on_redis() {
    let redis = Redis::start().await.unwrap();
    let bus = RedisBus::open(&RedisConfig {
        urls: vec![redis.url()],
        deliveries_max: DELIVERIES_MAX,
        claim_idle_ms: CLAIM_IDLE_MS,
        ..RedisConfig::default()
    });
    let bus = bus.unwrap();
    an_outage_costs_no_delivery(bus.clone()).await;
    let shared = (0..SHARED_PARTITIONS).map(Partition);
    let shared = shared.flat_map(|it| [Stream::Ack(it), Stream::Session(it), Stream::Query(it)]);
    let owned = (0..PARTITIONS).map(|it| Stream::Message(Partition(it)));
    for stream in shared.chain(owned) {
        let dead = bus.dead_letters(&stream, None, 10).await.unwrap();
        assert_eq!(dead, [], "{stream}");
    }
}
