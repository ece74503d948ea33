//! A stand-in for the services: opens every session, acks every send and pushes
//! it to both parties, answers requests for `echo`, and notes what it sees.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use prost::Message as _;
use sluice_bus::{
    Bind, BindOutcome, Bus, BusEntry, DevicePolicy, Directory, NodeName, Reader, Route, Stream,
};
use sluice_protocol::{
    ConnectionId, ConversationId, ConversationKind, DeviceId, Incarnation, Partition, SendRequest,
    UserId,
    envelope::{
        BackendRequest, BackendResponse, DeliveredCursor, Delivery, Down, LiveSession, OpenSession,
        Origin, PushEntry, SessionOpened, SessionRefused, Target, Up, delivery, up,
    },
    limits::SHARED_PARTITIONS,
    packet::{
        Entry, ErrorCode, HeadsPage, Kick, Message, Packet, Send, SendAck, entry, packet::Body,
    },
};
use tokio::{sync::Mutex, task::JoinSet};

use crate::{
    client::packet,
    rig::{PARTITIONS, now_ms},
};

/// The running stand-in; ends when it is dropped.
pub(crate) struct Services {
    inner: Arc<Inner>,
    _tasks: JoinSet<()>,
}

struct Inner {
    bus: Arc<dyn Bus>,
    directory: Arc<dyn Directory>,
    /// Entries appended to the down stream.
    counter: Mutex<u64>,
    seq: AtomicU64,
    logins: AtomicU64,
    /// While set, what comes on the message and query streams is left lying.
    paused: AtomicBool,
    /// While set, no login is bound or answered.
    sessions_held: AtomicBool,
    seen: Mutex<Seen>,
}

/// What came up.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    pub(crate) origins: Vec<Origin>,
    pub(crate) delivered: Vec<DeliveredCursor>,
    pub(crate) push_failed: Vec<DeliveredCursor>,
    pub(crate) logouts: usize,
    /// Sessions that the gateway has asked for.
    pub(crate) checked: Vec<LiveSession>,
    pub(crate) reads: usize,
    pub(crate) requests: Vec<BackendRequest>,
}

// === impl Services ===

impl Services {
    pub(crate) fn start(bus: Arc<dyn Bus>, directory: Arc<dyn Directory>) -> Self {
        let inner = Arc::new(Inner {
            bus,
            directory,
            counter: Mutex::new(0),
            seq: AtomicU64::new(0),
            logins: AtomicU64::new(0),
            paused: AtomicBool::new(false),
            sessions_held: AtomicBool::new(false),
            seen: Mutex::default(),
        });
        let messages = (0..PARTITIONS).map(|p| Stream::Message(Partition(p)));
        let mut streams: Vec<Stream> = messages.collect();
        for partition in (0..SHARED_PARTITIONS).map(Partition) {
            streams.push(Stream::Session(partition));
            streams.push(Stream::Query(partition));
            streams.push(Stream::Ack(partition));
            for service in ["echo", "silent"] {
                let service = service.into();
                streams.push(Stream::Request { service, partition });
            }
        }
        let mut tasks = JoinSet::new();
        for stream in streams {
            tasks.spawn(consume(Arc::clone(&inner), stream));
        }
        Self {
            inner,
            _tasks: tasks,
        }
    }

    pub(crate) async fn seen(&self) -> Seen {
        self.inner.seen.lock().await.clone()
    }

    pub(crate) fn pause(&self, paused: bool) {
        self.inner.paused.store(paused, Ordering::Relaxed);
    }

    pub(crate) fn hold_sessions(&self, held: bool) {
        self.inner.sessions_held.store(held, Ordering::Relaxed);
    }

    /// Routes of a user.
    pub(crate) async fn routes(&self, user: &str) -> Vec<Route> {
        let users = [UserId::parse(user).unwrap()];
        self.inner.directory.lookup(&users).await.unwrap().remove(0)
    }

    /// Pushes a text to every device of a user. Returns its seq.
    pub(crate) async fn push(&self, to: &str, body: &[u8]) -> u64 {
        let seq = self.inner.next_seq();
        let conversation = conversation_of("zed", to);
        let body = Bytes::copy_from_slice(body);
        let push = push_of(&entry_of(&conversation, "zed", seq, body));
        let targets = self.inner.targets(to, None, seq).await;
        self.inner.deliver_to_all(targets, push).await;
        seq
    }

    /// Sends a delivery to exactly this connection.
    pub(crate) async fn deliver(&self, connection: ConnectionId, user: &str, body: delivery::Body) {
        self.inner.deliver(connection, user, body).await;
    }

    pub(crate) async fn kick(&self, user: &str, kick: Kick) {
        let targets = self.inner.targets(user, None, 0).await;
        let body = delivery::Body::Kick(kick);
        self.inner.deliver_to_all(targets, body).await;
    }

    /// Counts an entry that never gets to the stream.
    pub(crate) async fn lose_a_down_entry(&self) {
        *self.inner.counter.lock().await += 1;
    }
}

// === impl Inner ===

impl Inner {
    fn next_seq(&self) -> u64 {
        self.seq.fetch_add(1, Ordering::Relaxed) + 1
    }

    async fn deliver(&self, connection: ConnectionId, user: &str, body: delivery::Body) {
        let target = Target {
            connection_id: connection.to_bytes().to_vec().into(),
            user_id: user.into(),
            user_seq: 1,
        };
        let gateway = connection.incarnation;
        self.append(gateway, vec![target], body).await;
    }

    async fn deliver_to_all(&self, targets: Vec<Target>, body: delivery::Body) {
        let Some(first) = targets.first() else { return };
        let connection = ConnectionId::parse(&first.connection_id).unwrap();
        self.append(connection.incarnation, targets, body).await;
    }

    async fn append(&self, gateway: Incarnation, targets: Vec<Target>, body: delivery::Body) {
        let mut counter = self.counter.lock().await;
        *counter += 1;
        let down = Down {
            producer: 1,
            counter: *counter,
            deliveries: vec![Delivery {
                targets,
                body: Some(body),
            }],
        };
        let entry = down.encode_to_vec().into();
        // A gateway that has ended takes nothing more; tests look at the client.
        let _ = self.bus.append(&Stream::Down(gateway), vec![entry]).await;
    }

    async fn targets(&self, user: &str, except: Option<&[u8]>, user_seq: u64) -> Vec<Target> {
        let users = [UserId::parse(user).unwrap()];
        let routes = self.directory.lookup(&users).await.unwrap().remove(0);
        let connections = routes.iter().map(|route| route.connection.to_bytes());
        connections
            .filter(|connection| except != Some(connection.as_slice()))
            .map(|connection| Target {
                connection_id: connection.to_vec().into(),
                user_id: user.into(),
                user_seq,
            })
            .collect()
    }

    async fn handle(&self, stream: &Stream, entry: BusEntry) {
        if let Stream::Request { service, .. } = stream {
            let request = BackendRequest::decode(entry.payload).unwrap();
            self.seen.lock().await.requests.push(request.clone());
            if service == "echo" {
                self.respond(request).await;
            }
            return;
        }
        let up = Up::decode(entry.payload).unwrap();
        let origin = up.origin.unwrap_or_default();
        match up.body.unwrap() {
            up::Body::OpenSession(open) => self.open(origin, open).await,
            up::Body::CloseSession(_) => self.seen.lock().await.logouts += 1,
            up::Body::Acks(acks) => {
                let mut seen = self.seen.lock().await;
                seen.delivered.extend(acks.delivered);
                seen.push_failed.extend(acks.push_failed);
            }
            up::Body::Packet(bytes) => {
                let packet = Packet::decode(bytes).unwrap();
                self.handle_packet(origin, packet).await;
            }
            up::Body::CheckSessions(check) => {
                self.seen.lock().await.checked.extend(check.sessions);
            }
            up::Body::GroupCommand(_) => panic!("clients have no group commands"),
        }
    }

    async fn respond(&self, request: BackendRequest) {
        let origin = request.origin.unwrap();
        let connection = ConnectionId::parse(&origin.connection_id).unwrap();
        let body = delivery::Body::Response(BackendResponse {
            request_id: origin.request_id,
            status: 0,
            payload: request.payload,
        });
        self.deliver(connection, &origin.user_id, body).await;
    }

    async fn open(&self, origin: Origin, open: OpenSession) {
        let connection = ConnectionId::parse(&origin.connection_id).unwrap();
        let user = origin.user_id.as_str();
        while self.sessions_held.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if user == "banned" {
            let body = delivery::Body::SessionRefused(SessionRefused {
                request_id: origin.request_id,
                code: ErrorCode::Banned.into(),
                reason: "banned".into(),
            });
            return self.deliver(connection, user, body).await;
        }
        let login = self.logins.fetch_add(1, Ordering::Relaxed) + 1;
        if !open.refresh {
            let bind = Bind {
                user: UserId::parse(user).unwrap(),
                route: Route {
                    device: DeviceId::parse(&origin.device_id).unwrap(),
                    platform: 0,
                    connection,
                },
                login,
            };
            let bound = self.directory.bind(bind, DevicePolicy::default(), 8).await;
            assert!(matches!(bound, Ok(BindOutcome::Bound { .. })), "{bound:?}");
        }
        let body = delivery::Body::SessionOpened(SessionOpened {
            request_id: origin.request_id,
            resume_token: Bytes::from_static(b"resume"),
            resume_token_expires_ms: now_ms() + 60_000,
            session_expires_ms: match open.claims {
                Some(claims) if open.refresh => claims.expires_ms,
                _ if user == "brief" => now_ms() + 300,
                _ if user == "sleepy" => now_ms() + 4_000,
                _ => now_ms() + 60_000,
            },
            inbox_seq: 0,
            login,
            token_epoch: 1,
        });
        self.deliver(connection, user, body).await;
    }

    async fn handle_packet(&self, origin: Origin, request: Packet) {
        self.seen.lock().await.origins.push(origin.clone());
        let connection = ConnectionId::parse(&origin.connection_id).unwrap();
        let id = request.id;
        let answer = match request.body.unwrap() {
            Body::Send(send) => self.store(&origin, send).await,
            Body::Read(_) => {
                self.seen.lock().await.reads += 1;
                return;
            }
            Body::SyncHeads(_) => Body::HeadsPage(HeadsPage::default()),
            _ => return,
        };
        let body = delivery::Body::Answer(packet(id, answer).encode_to_vec().into());
        self.deliver(connection, &origin.user_id, body).await;
    }

    async fn store(&self, origin: &Origin, send: Send) -> Body {
        let sender = UserId::parse(&origin.user_id).unwrap();
        let client_msg_id = send.client_msg_id.clone();
        let request = SendRequest::parse(send, &sender, now_ms()).unwrap();
        let seq = self.next_seq();
        let conversation = request.conversation.to_string();
        let entry = entry_of(&conversation, sender.as_str(), seq, request.body);
        if let ConversationKind::Private(one, other) = request.conversation.kind() {
            for party in [one, other] {
                let except = Some(origin.connection_id.as_ref());
                let targets = self.targets(party.as_str(), except, seq).await;
                self.deliver_to_all(targets, push_of(&entry)).await;
            }
        }
        Body::SendAck(SendAck {
            client_msg_id,
            message_id: seq,
            conversation_id: conversation,
            seq,
            user_seq: seq,
            server_time_ms: now_ms(),
        })
    }
}

pub(crate) fn conversation_of(one: &str, other: &str) -> String {
    let (one, other) = (UserId::parse(one).unwrap(), UserId::parse(other).unwrap());
    ConversationId::private(&one, &other).unwrap().to_string()
}

fn entry_of(conversation: &str, sender: &str, seq: u64, body: Bytes) -> Entry {
    Entry {
        conversation_id: conversation.into(),
        seq,
        message_id: seq,
        sender: sender.into(),
        content: Some(entry::Content::Message(Message {
            body,
            ..Message::default()
        })),
        ..Entry::default()
    }
}

fn push_of(entry: &Entry) -> delivery::Body {
    delivery::Body::Push(PushEntry {
        conversation_id: entry.conversation_id.clone(),
        seq: entry.seq,
        entry: entry.encode_to_vec().into(),
    })
}

async fn consume(inner: Arc<Inner>, stream: Stream) {
    let name = NodeName("services".into());
    let is_message = matches!(stream, Stream::Message(_));
    let may_pause = is_message || matches!(stream, Stream::Query(_));
    let mut reader: Box<dyn Reader> = if is_message {
        inner.bus.own(&stream, &name).await.unwrap()
    } else {
        inner.bus.join(&stream, &name).await.unwrap()
    };
    loop {
        let Ok(batch) = reader.read(16).await else {
            return;
        };
        while may_pause && inner.paused.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for entry in batch.entries {
            let id = entry.id;
            inner.handle(&stream, entry).await;
            reader.ack(&[id]).await.unwrap();
        }
    }
}
