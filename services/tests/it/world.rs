//! One service process on a real store, and a gateway that is this test: it
//! owns a `down` stream, speaks for devices, and sees what comes back for each.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use prost::Message as _;
use sluice_bus::{
    Bus, Directory, MemoryBus, MemoryBusConfig, MemoryDirectory, MemoryDirectoryConfig, NodeName,
    Reader, Stream,
};
use sluice_protocol::{
    ClientMsgId, ConnectionId, ConversationId, Incarnation, UserId,
    envelope::{
        self, CheckSessions, Delivery, Down, LiveSession, OpenSession, Origin, TokenClaims, Up,
        delivery, up,
    },
    limits::SHARED_PARTITIONS,
    packet::{self, Packet, packet::Body},
    partition_of,
};
use sluice_services::{Config, Parts, Services, TokenSigner};
use sluice_store::{NewUser, SqliteConfig, SqliteStore, Store};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub const PARTITIONS: u16 = 4;
const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough for what should not come to have come.
const SILENCE: Duration = Duration::from_millis(150);

pub struct World {
    // Stops before the folder goes.
    pub services: Option<Services>,
    pub shutdown: CancellationToken,
    pub store: Arc<SqliteStore>,
    pub bus: Arc<dyn Bus>,
    pub directory: Arc<MemoryDirectory>,
    pub signer: Arc<TokenSigner>,
    pub config: Config,
    pub gateway: Gateway,
    _folder: Arc<TempDir>,
}

/// The test's end of the bus.
pub struct Gateway {
    pub incarnation: Incarnation,
    bus: Arc<dyn Bus>,
    reader: Box<dyn Reader>,
    waiting: HashMap<(Bytes, String), VecDeque<Got>>,
    /// (producer, counter) of each entry.
    pub counters: Vec<(u64, u64)>,
    slots: AtomicU32,
}

/// What reached one connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Got {
    pub user_seq: u64,
    pub body: delivery::Body,
}

/// A connected device.
#[derive(Debug, Clone)]
pub struct Device {
    pub user: String,
    pub device: String,
    pub connection: ConnectionId,
}

static REQUESTS: AtomicU64 = AtomicU64::new(1);

pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64
}

pub fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

pub fn fresh_id() -> ClientMsgId {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut random = [0; 10];
    random[2..].copy_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    ClientMsgId::new(now_ms(), random)
}

pub fn id_bytes(id: ClientMsgId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

pub fn pair(one: &str, other: &str) -> ConversationId {
    ConversationId::private(&user(one), &user(other)).unwrap()
}

pub fn text_to(peer: &str, id: ClientMsgId, text: &str) -> packet::Send {
    packet::Send {
        target: Some(packet::send::Target::ToUser(peer.into())),
        client_msg_id: id_bytes(id),
        body: text.to_owned().into(),
        ..packet::Send::default()
    }
}

pub fn text_in(group: &ConversationId, id: ClientMsgId, text: &str) -> packet::Send {
    packet::Send {
        target: Some(packet::send::Target::ConversationId(group.to_string())),
        client_msg_id: id_bytes(id),
        body: text.to_owned().into(),
        ..packet::Send::default()
    }
}

pub fn config() -> Config {
    Config {
        // The cheapest that Argon2 knows.
        argon2_memory_kib: 8,
        argon2_iterations: 1,
        admin_token: "let me in".into(),
        // Tests change users behind the service's back.
        standing_ttl_ms: 0,
        ..Config::default()
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with(config(), MemoryBus::new(MemoryBusConfig::default())).await
    }

    pub async fn with(config: Config, bus: Arc<dyn Bus>) -> Self {
        let mut world = Self::idle(config, bus).await;
        world.start().await;
        world
    }

    /// Everything but the services.
    pub async fn idle(config: Config, bus: Arc<dyn Bus>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(folder.path(), &SqliteConfig::default()).unwrap());
        store.open_layout(PARTITIONS).await.unwrap();
        let directory = MemoryDirectory::new(MemoryDirectoryConfig::default());
        let signer = TokenSigner::open_or_create(&folder.path().join("key.pem")).unwrap();
        let gateway = Gateway::new(&store, &bus, &directory).await;
        Self {
            services: None,
            shutdown: CancellationToken::new(),
            store,
            bus,
            directory,
            signer: Arc::new(signer),
            config,
            gateway,
            _folder: Arc::new(folder),
        }
    }

    pub async fn parts(&self) -> Parts {
        Parts {
            store: self.store.clone(),
            bus: self.bus.clone(),
            directory: self.directory.clone(),
            signer: self.signer.clone(),
            partitions: PARTITIONS,
            worker: self.store.issue_worker_id().await.unwrap(),
            incarnation: self.store.issue_incarnation().await.unwrap(),
            tracer: sluice_trace::Tracer::new(),
        }
    }

    pub async fn start(&mut self) {
        let parts = self.parts().await;
        let services = Services::start(self.config.clone(), parts, self.shutdown.clone());
        self.services = Some(services.await.unwrap());
    }

    pub async fn stop(mut self) {
        self.shutdown.cancel();
        if let Some(mut services) = self.services.take() {
            tokio::time::timeout(PATIENCE, services.stopped())
                .await
                .expect("the services stop");
        }
    }

    pub async fn add_users(&self, names: &[&str]) {
        for name in names {
            self.store
                .create_user(NewUser {
                    id: user(name),
                    username: (*name).into(),
                    password_hash: "none".into(),
                    created_ms: now_ms(),
                })
                .await
                .unwrap();
        }
    }

    /// Registers a user and connects one device of theirs.
    pub async fn user_online(&mut self, name: &str) -> Device {
        self.add_users(&[name]).await;
        self.device_online(name, "phone").await
    }

    pub async fn device_online(&mut self, name: &str, device: &str) -> Device {
        let device = self.gateway.device(name, device);
        let opened = self.open(&device, self.claims(name).await).await;
        let delivery::Body::SessionOpened(_) = opened else {
            panic!("{opened:?}");
        };
        device
    }

    pub async fn claims(&self, name: &str) -> OpenSession {
        let users = self.store.users(&[user(name)]).await.unwrap();
        OpenSession {
            claims: Some(TokenClaims {
                token_epoch: users[0].as_ref().map_or(0, |user| user.token_epoch),
                expires_ms: now_ms() + 3_600_000,
            }),
            ..OpenSession::default()
        }
    }

    /// Asks for a session and returns the answer.
    pub async fn open(&mut self, device: &Device, open: OpenSession) -> delivery::Body {
        self.gateway
            .append(Stream::Session, device, up::Body::OpenSession(open))
            .await;
        self.gateway
            .find(device, |got| {
                matches!(
                    got.body,
                    delivery::Body::SessionOpened(_) | delivery::Body::SessionRefused(_)
                )
            })
            .await
            .body
    }

    /// Founds a group over the bus, as the HTTP API does.
    pub async fn group(&mut self, owner: &Device, members: &[&str]) -> ConversationId {
        static NUMBERS: AtomicU64 = AtomicU64::new(1000);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let group = ConversationId::group(sluice_protocol::MessageId(number));
        let create = envelope::CreateGroup {
            name: "friends".into(),
            members: members.iter().map(|name| (*name).to_owned()).collect(),
        };
        let answer = self
            .command(
                owner,
                &group,
                envelope::group_command::Command::Create(create),
            )
            .await;
        assert!(matches!(answer, Body::SendAck(_)), "{answer:?}");
        group
    }

    pub async fn command(
        &mut self,
        device: &Device,
        group: &ConversationId,
        command: envelope::group_command::Command,
    ) -> Body {
        self.command_as(device, group, fresh_id(), command).await
    }

    /// The same under an id of the caller's choice.
    pub async fn command_as(
        &mut self,
        device: &Device,
        group: &ConversationId,
        id: ClientMsgId,
        command: envelope::group_command::Command,
    ) -> Body {
        let command = envelope::GroupCommand {
            conversation_id: group.to_string(),
            command_id: id_bytes(id),
            command: Some(command),
        };
        let partition = group.partition(PARTITIONS);
        let id = self
            .gateway
            .append(
                |_| Stream::Message(partition),
                device,
                up::Body::GroupCommand(command),
            )
            .await;
        self.gateway.answer(device, id).await
    }

    /// Sends and returns the answer.
    pub async fn send(&mut self, device: &Device, send: packet::Send) -> Body {
        let id = self.gateway.send(device, send).await;
        self.gateway.answer(device, id).await
    }

    pub async fn recall(
        &mut self,
        device: &Device,
        conversation: &ConversationId,
        seq: u64,
    ) -> Body {
        let recall = Body::Recall(packet::Recall {
            conversation_id: conversation.to_string(),
            seq,
            client_msg_id: id_bytes(fresh_id()),
        });
        let partition = conversation.partition(PARTITIONS);
        let id = self
            .gateway
            .packet(|_| Stream::Message(partition), device, recall)
            .await;
        self.gateway.answer(device, id).await
    }

    /// Asks a question and returns the page.
    pub async fn query(&mut self, device: &Device, question: Body) -> Body {
        let id = self.gateway.packet(Stream::Query, device, question).await;
        self.gateway.answer(device, id).await
    }
}

impl Gateway {
    async fn new(store: &SqliteStore, bus: &Arc<dyn Bus>, directory: &MemoryDirectory) -> Self {
        let incarnation = store.issue_incarnation().await.unwrap();
        directory
            .lease(incarnation, Duration::from_secs(600))
            .await
            .unwrap();
        let reader = bus
            .own(&Stream::Down(incarnation), &NodeName("test".into()))
            .await
            .unwrap();
        Self {
            incarnation,
            bus: bus.clone(),
            reader,
            waiting: HashMap::new(),
            counters: Vec::new(),
            slots: AtomicU32::new(1),
        }
    }

    /// A connection that has not logged in.
    pub fn device(&self, name: &str, device: &str) -> Device {
        Device {
            user: name.into(),
            device: device.into(),
            connection: ConnectionId {
                incarnation: self.incarnation,
                event_loop: 0,
                slot: self.slots.fetch_add(1, Ordering::Relaxed),
                generation: 0,
            },
        }
    }

    /// Appends to the stream of this device's partition; returns the request's id.
    pub async fn append(
        &self,
        stream: impl Fn(sluice_protocol::Partition) -> Stream,
        device: &Device,
        body: up::Body,
    ) -> u64 {
        let request_id = REQUESTS.fetch_add(1, Ordering::Relaxed);
        let up = Up {
            origin: Some(Origin {
                user_id: device.user.clone(),
                device_id: device.device.clone(),
                connection_id: Bytes::copy_from_slice(&device.connection.to_bytes()),
                request_id,
                reply_to: Stream::Down(self.incarnation).to_string(),
            }),
            received_at_ms: now_ms(),
            body: Some(body),
        };
        let partition = partition_of(device.user.as_bytes(), SHARED_PARTITIONS);
        self.append_bytes(&stream(partition), up.encode_to_vec().into())
            .await;
        request_id
    }

    /// Asks as a gateway does that holds this connection open, since that epoch.
    pub async fn check_session(&self, device: &Device, token_epoch: u64) {
        let session = LiveSession {
            user_id: device.user.clone(),
            connection_id: Bytes::copy_from_slice(&device.connection.to_bytes()),
            token_epoch,
        };
        let up = Up {
            origin: None,
            received_at_ms: now_ms(),
            body: Some(up::Body::CheckSessions(CheckSessions {
                sessions: vec![session],
            })),
        };
        let partition = partition_of(device.user.as_bytes(), SHARED_PARTITIONS);
        self.append_bytes(&Stream::Session(partition), up.encode_to_vec().into())
            .await;
    }

    pub async fn append_bytes(&self, stream: &Stream, bytes: Bytes) {
        use sluice_bus::BusError::{Unavailable, Unknown};
        loop {
            match self.bus.append(stream, vec![bytes.clone()]).await {
                Ok(()) => return,
                Err(Unavailable(_) | Unknown(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub async fn packet(
        &self,
        stream: impl Fn(sluice_protocol::Partition) -> Stream,
        device: &Device,
        body: Body,
    ) -> u64 {
        let packet = Packet {
            id: 0,
            body: Some(body),
        };
        self.append(
            stream,
            device,
            up::Body::Packet(packet.encode_to_vec().into()),
        )
        .await
    }

    pub async fn send(&self, device: &Device, send: packet::Send) -> u64 {
        let conversation = match &send.target {
            Some(packet::send::Target::ToUser(peer)) => {
                ConversationId::private(&user(&device.user), &user(peer)).unwrap()
            }
            Some(packet::send::Target::ConversationId(id)) => ConversationId::parse(id).unwrap(),
            None => panic!("no target"),
        };
        let partition = conversation.partition(PARTITIONS);
        self.packet(|_| Stream::Message(partition), device, Body::Send(send))
            .await
    }

    /// The first thing for this device that fits; what came before it stays.
    pub async fn find(&mut self, device: &Device, fits: impl Fn(&Got) -> bool) -> Got {
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let waiting = self.waiting.entry(key(device)).or_default();
                if let Some(place) = waiting.iter().position(&fits) {
                    return waiting.remove(place).unwrap();
                }
                self.take_in().await;
            }
        });
        match found.await {
            Ok(got) => got,
            Err(_) => panic!("nothing came for {device:?}; it has {:?}", self.waiting),
        }
    }

    /// The answer to a request.
    pub async fn answer(&mut self, device: &Device, id: u64) -> Body {
        let is_it = |bytes: &Bytes| Packet::decode(bytes.clone()).is_ok_and(|it| it.id == id);
        let got = self
            .find(
                device,
                |got| matches!(&got.body, delivery::Body::Answer(bytes) if is_it(bytes)),
            )
            .await;
        let delivery::Body::Answer(bytes) = got.body else {
            unreachable!()
        };
        Packet::decode(bytes).unwrap().body.unwrap()
    }

    /// The next durable push, with its user seq (0 for groups).
    pub async fn push(&mut self, device: &Device) -> (u64, envelope::PushEntry) {
        let got = self.find(device, is_push).await;
        match got.body {
            delivery::Body::Push(push) | delivery::Body::Notice(push) => (got.user_seq, push),
            _ => unreachable!(),
        }
    }

    /// The next push, which must bring its entry along.
    pub async fn entry(&mut self, device: &Device) -> packet::Entry {
        let (_, push) = self.push(device).await;
        packet::Entry::decode(push.entry).unwrap()
    }

    /// The next event.
    pub async fn event(&mut self, device: &Device) -> Body {
        let got = self
            .find(device, |got| matches!(got.body, delivery::Body::Event(_)))
            .await;
        let delivery::Body::Event(bytes) = got.body else {
            unreachable!()
        };
        Packet::decode(bytes).unwrap().body.unwrap()
    }

    pub async fn kick(&mut self, device: &Device) -> packet::CloseReason {
        let got = self
            .find(device, |got| matches!(got.body, delivery::Body::Kick(_)))
            .await;
        let delivery::Body::Kick(kick) = got.body else {
            unreachable!()
        };
        kick.reason()
    }

    /// What else has come for the device by now.
    pub async fn rest(&mut self, device: &Device) -> Vec<Got> {
        while tokio::time::timeout(SILENCE, self.take_in()).await.is_ok() {}
        self.waiting.remove(&key(device)).unwrap_or_default().into()
    }

    async fn take_in(&mut self) {
        let Ok(batch) = self.reader.read(64).await else {
            return;
        };
        for entry in &batch.entries {
            let down = Down::decode(entry.payload.clone()).unwrap();
            self.counters.push((down.producer, down.counter));
            for Delivery { targets, body } in down.deliveries {
                for target in targets {
                    let key = (target.connection_id, target.user_id);
                    self.waiting.entry(key).or_default().push_back(Got {
                        user_seq: target.user_seq,
                        body: body.clone().unwrap(),
                    });
                }
            }
        }
        let ids: Vec<_> = batch.entries.iter().map(|entry| entry.id).collect();
        let _ = self.reader.ack(&ids).await;
    }
}

pub fn is_push(got: &Got) -> bool {
    matches!(
        got.body,
        delivery::Body::Push(_) | delivery::Body::Notice(_)
    )
}

fn key(device: &Device) -> (Bytes, String) {
    (
        Bytes::copy_from_slice(&device.connection.to_bytes()),
        device.user.clone(),
    )
}

pub fn ack(body: Body) -> packet::SendAck {
    match body {
        Body::SendAck(ack) => ack,
        other => panic!("{other:?}"),
    }
}

pub fn refusal(body: Body) -> packet::ErrorCode {
    match body {
        Body::Error(error) => error.code(),
        other => panic!("{other:?}"),
    }
}

pub fn text(entry: &packet::Entry) -> &str {
    match &entry.content {
        Some(packet::entry::Content::Message(message)) => {
            std::str::from_utf8(&message.body).unwrap()
        }
        other => panic!("{other:?}"),
    }
}
