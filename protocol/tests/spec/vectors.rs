//! The example packets of SPEC.md, chapter "Example frames", as values.

use prost::Message as _;
use sluice_protocol::{
    ClientMsgId, ConnectionId, Incarnation,
    envelope::{
        self, BackendRequest, BackendResponse, Delivery, Down, Origin, PushEntry, Target, Up,
        delivery, up,
    },
    packet::{
        self as p, CloseReason, ContentType, ConversationKind, DeliveryClass, Entry, ErrorCode,
        MemberChangeKind, MemberRole, Packet, Platform, entry::Content, packet::Body,
    },
};

/// 2026-09-21T14:13:20.123Z.
const T: u64 = 1_790_000_000_123;
const CONVERSATION: &str = "p:5:alice:bob";
const GROUP: &str = "g:227717671219200000";
/// 2025-01-01T00:00:00Z, where message ids begin.
const MESSAGE_ID_EPOCH: u64 = 1_735_689_600_000;

/// One example: its name, the message's type, and the bytes.
pub(crate) struct Vector {
    pub(crate) name: &'static str,
    pub(crate) message: &'static str,
    pub(crate) is_frame: bool,
    pub(crate) encoded: Vec<u8>,
    /// Decodes and encodes again.
    pub(crate) again: fn(&[u8]) -> Vec<u8>,
    /// Name of the body, for packets.
    pub(crate) body: Option<&'static str>,
}

fn again<M: prost::Message + Default>(bytes: &[u8]) -> Vec<u8> {
    M::decode(bytes)
        .expect("an example decodes")
        .encode_to_vec()
}

fn packet(name: &'static str, id: u64, body: Body) -> Vector {
    let body_name = name.split('.').next();
    let packet = Packet {
        id,
        body: Some(body),
    };
    Vector {
        name,
        message: "Packet",
        is_frame: true,
        encoded: packet.encode_to_vec(),
        again: again::<Packet>,
        body: body_name,
    }
}

fn entry<M: prost::Message + Default>(
    name: &'static str,
    message: &'static str,
    value: &M,
) -> Vector {
    Vector {
        name,
        message,
        is_frame: false,
        encoded: value.encode_to_vec(),
        again: again::<M>,
        body: None,
    }
}

fn id(last: u8) -> bytes::Bytes {
    let random = [0x5a, 0xbc, 0x0d, 0xef, 1, 2, 3, 4, 5, last];
    ClientMsgId::new(T, random).as_bytes().to_vec().into()
}

/// Made by worker 2, `after_ms` after [`T`], the first of its millisecond.
fn message_id(after_ms: u8) -> u64 {
    (T + u64::from(after_ms) - MESSAGE_ID_EPOCH) << 22 | 2 << 12
}

fn connection() -> bytes::Bytes {
    let id = ConnectionId {
        incarnation: Incarnation(9),
        event_loop: 1,
        slot: 42,
        generation: 3,
    };
    id.to_bytes().to_vec().into()
}

fn message(seq: u64, sender: &str, last: u8, text: &'static str) -> Entry {
    Entry {
        conversation_id: CONVERSATION.into(),
        seq,
        message_id: message_id(last),
        sender: sender.into(),
        client_msg_id: id(last),
        server_time_ms: T + u64::from(last),
        content: Some(Content::Message(p::Message {
            content_type: ContentType::Text.into(),
            body: text.into(),
            recalled: false,
        })),
    }
}

fn joined() -> Entry {
    Entry {
        conversation_id: GROUP.into(),
        content: Some(Content::MemberChange(p::MemberChange {
            kind: MemberChangeKind::Joined.into(),
            users: vec!["carol".into(), "dave".into()],
            role: MemberRole::Member.into(),
        })),
        ..message(12, "alice", 5, "")
    }
}

fn connect() -> p::Connect {
    p::Connect {
        protocol_version: sluice_protocol::PROTOCOL_VERSION,
        device_id: "phone-1".into(),
        platform: Platform::Android.into(),
        nonce: (0..16).collect::<Vec<u8>>().into(),
        time_ms: T,
        agent: "example/1".into(),
        ..p::Connect::default()
    }
}

fn session() -> Vec<Vector> {
    vec![
        packet(
            "connect",
            1,
            Body::Connect(p::Connect {
                // Too short to be one, so that the example stays short.
                token: "header.claims.signature".into(),
                ..connect()
            }),
        ),
        packet(
            "connect.resume",
            1,
            Body::Connect(p::Connect {
                resume_token: vec![0xa5; 32].into(),
                user_id: "alice".into(),
                ..connect()
            }),
        ),
        packet(
            "connect_ack",
            1,
            Body::ConnectAck(p::ConnectAck {
                connection_id: connection(),
                user_id: "alice".into(),
                server_time_ms: T,
                heartbeat_interval_ms: 30_000,
                frame_max_bytes: 65_536,
                body_max_bytes: 61_440,
                send_window: 64,
                resume_token: vec![0x5a; 32].into(),
                resume_token_expires_ms: T + 86_400_000,
                token_expires_ms: T + 86_400_000,
                inbox_seq: 17,
                packets_per_s: 1_000,
                packets_burst: 4_000,
                carried_pushes: 0,
            }),
        ),
        packet("ping", 0, Body::Ping(p::Ping {})),
        packet("pong", 0, Body::Pong(p::Pong { server_time_ms: T })),
        packet(
            "refresh_token",
            2,
            Body::RefreshToken(p::RefreshToken {
                token: "header.claims.signature".into(),
            }),
        ),
        packet(
            "token_refreshed",
            2,
            Body::TokenRefreshed(p::TokenRefreshed {
                token_expires_ms: T + 172_800_000,
                resume_token: vec![0x3c; 32].into(),
                resume_token_expires_ms: T + 172_800_000,
            }),
        ),
        packet(
            "disconnect",
            0,
            Body::Disconnect(p::Disconnect { logout: true }),
        ),
        packet(
            "kick",
            0,
            Body::Kick(p::Kick {
                reason: CloseReason::Replaced.into(),
                message: "a newer login took this place".into(),
            }),
        ),
        packet(
            "go_away",
            0,
            Body::GoAway(p::GoAway {
                reason: CloseReason::GoingAway.into(),
                reconnect_delay_min_ms: 0,
                reconnect_delay_max_ms: 5_000,
            }),
        ),
        packet(
            "error",
            7,
            Body::Error(p::Error {
                code: ErrorCode::OutOfOrder.into(),
                reason: "the predecessor isn't stored: resend from there".into(),
                client_msg_id: id(2),
                server_time_ms: T,
            }),
        ),
        packet(
            "busy",
            7,
            Body::Busy(p::Busy {
                retry_after_ms: 200,
                client_msg_id: id(2),
            }),
        ),
    ]
}

fn messages() -> Vec<Vector> {
    vec![
        packet(
            "send",
            6,
            Body::Send(p::Send {
                target: Some(p::send::Target::ToUser("bob".into())),
                client_msg_id: id(1),
                body: "hello".into(),
                ..p::Send::default()
            }),
        ),
        packet(
            "send.next",
            7,
            Body::Send(p::Send {
                target: Some(p::send::Target::ConversationId(CONVERSATION.into())),
                client_msg_id: id(2),
                predecessor: id(1),
                content_type: ContentType::Custom.into(),
                body: vec![0, 1, 0xff].into(),
                ..p::Send::default()
            }),
        ),
        packet(
            "send.ephemeral",
            0,
            Body::Send(p::Send {
                delivery_class: DeliveryClass::Ephemeral.into(),
                target: Some(p::send::Target::ConversationId(GROUP.into())),
                body: "x=3 y=4".into(),
                ..p::Send::default()
            }),
        ),
        packet(
            "send_ack",
            6,
            Body::SendAck(p::SendAck {
                client_msg_id: id(1),
                message_id: message_id(1),
                conversation_id: CONVERSATION.into(),
                seq: 3,
                user_seq: 18,
                server_time_ms: T + 1,
            }),
        ),
        packet(
            "push",
            0,
            Body::Push(p::Push {
                number: 1,
                user_seq: 300,
                entry: Some(message(3, "alice", 1, "hello")),
            }),
        ),
        packet(
            "group_notice",
            0,
            Body::GroupNotice(p::GroupNotice {
                number: 2,
                conversation_id: GROUP.into(),
                seq: 12,
                entry: Some(joined()),
            }),
        ),
        packet(
            "group_notice.bare",
            0,
            Body::GroupNotice(p::GroupNotice {
                number: 3,
                conversation_id: GROUP.into(),
                seq: 13,
                entry: None,
            }),
        ),
        packet(
            "push_ack",
            0,
            Body::PushAck(p::PushAck {
                cumulative: 4,
                ranges: vec![6, 6, 9, 300],
                cursors: vec![p::Cursor {
                    conversation_id: GROUP.into(),
                    seq: 13,
                }],
            }),
        ),
        packet(
            "delivered_notice",
            0,
            Body::DeliveredNotice(p::DeliveredNotice {
                conversation_id: CONVERSATION.into(),
                user_id: "bob".into(),
                seq: 3,
            }),
        ),
        packet(
            "read",
            0,
            Body::Read(p::Read {
                conversation_id: CONVERSATION.into(),
                seq: 3,
            }),
        ),
        packet(
            "read_notice",
            0,
            Body::ReadNotice(p::ReadNotice {
                conversation_id: CONVERSATION.into(),
                user_id: "bob".into(),
                seq: 3,
            }),
        ),
        packet(
            "recall",
            8,
            Body::Recall(p::Recall {
                conversation_id: CONVERSATION.into(),
                seq: 3,
                client_msg_id: id(3),
            }),
        ),
        packet(
            "typing",
            0,
            Body::Typing(p::Typing {
                target: Some(p::typing::Target::ToUser("bob".into())),
            }),
        ),
        packet(
            "typing_notice",
            0,
            Body::TypingNotice(p::TypingNotice {
                conversation_id: CONVERSATION.into(),
                user_id: "alice".into(),
            }),
        ),
        packet(
            "ephemeral_message",
            0,
            Body::EphemeralMessage(p::EphemeralMessage {
                conversation_id: GROUP.into(),
                sender: "alice".into(),
                server_time_ms: T,
                content_type: ContentType::Text.into(),
                body: "x=3 y=4".into(),
            }),
        ),
        packet(
            "overflow",
            0,
            Body::Overflow(p::Overflow {
                scope: p::OverflowScope::All.into(),
                dropped: 40,
            }),
        ),
        packet(
            "resync",
            0,
            Body::Resync(p::Resync {
                delay_max_ms: 2_000,
            }),
        ),
    ]
}

fn sync() -> Vec<Vector> {
    vec![
        packet(
            "sync_inbox",
            3,
            Body::SyncInbox(p::SyncInbox {
                after: 15,
                limit: 200,
            }),
        ),
        packet(
            "inbox_page",
            3,
            Body::InboxPage(p::InboxPage {
                entries: vec![
                    p::InboxEntry {
                        user_seq: 16,
                        entry: Some(Entry {
                            content: Some(Content::Message(p::Message {
                                recalled: true,
                                ..p::Message::default()
                            })),
                            ..message(2, "bob", 4, "")
                        }),
                    },
                    p::InboxEntry {
                        user_seq: 17,
                        entry: Some(Entry {
                            content: Some(Content::Recall(p::RecallEntry { seq: 2 })),
                            ..message(3, "bob", 6, "")
                        }),
                    },
                ],
                first_seq: 3,
                inbox_seq: 17,
                more: false,
            }),
        ),
        packet(
            "sync_conversation",
            4,
            Body::SyncConversation(p::SyncConversation {
                conversation_id: GROUP.into(),
                range: Some(p::sync_conversation::Range::Before(0)),
                limit: 50,
            }),
        ),
        packet(
            "conversation_page",
            4,
            Body::ConversationPage(p::ConversationPage {
                conversation_id: GROUP.into(),
                entries: vec![joined()],
                first_seq: 1,
                last_seq: 12,
                more: true,
            }),
        ),
        packet(
            "sync_heads",
            5,
            Body::SyncHeads(p::SyncHeads {
                after: String::new(),
                limit: 200,
            }),
        ),
        packet(
            "heads_page",
            5,
            Body::HeadsPage(p::HeadsPage {
                inbox_seq: 17,
                groups: vec![p::Head {
                    conversation_id: GROUP.into(),
                    first_seq: 1,
                    last_seq: 12,
                }],
                more: false,
            }),
        ),
        packet(
            "list_conversations",
            9,
            Body::ListConversations(p::ListConversations {
                cursor: bytes::Bytes::new(),
                limit: 20,
            }),
        ),
        packet(
            "conversation_list",
            9,
            Body::ConversationList(p::ConversationList {
                conversations: vec![p::ConversationSummary {
                    conversation_id: CONVERSATION.into(),
                    kind: ConversationKind::Private.into(),
                    title: "bob".into(),
                    first_seq: 1,
                    last_seq: 3,
                    read_seq: 2,
                    unread: 1,
                    peer_delivered_seq: 3,
                    peer_read_seq: 3,
                    last_entry: Some(message(3, "alice", 1, "hello")),
                }],
                next: bytes::Bytes::new(),
            }),
        ),
        packet(
            "request",
            10,
            Body::Request(p::Request {
                service: "stock".into(),
                key: "sku-7".into(),
                payload: "take 1".into(),
                timeout_ms: 3_000,
            }),
        ),
        packet(
            "response",
            10,
            Body::Response(p::Response {
                status: 0,
                payload: "left 41".into(),
            }),
        ),
    ]
}

fn bus() -> Vec<Vector> {
    let origin = |request_id| Origin {
        user_id: "alice".into(),
        device_id: "phone-1".into(),
        connection_id: connection(),
        request_id,
        reply_to: "down:{9}".into(),
    };
    let target = |user_seq| Target {
        connection_id: connection(),
        user_id: "alice".into(),
        user_seq,
    };
    let read = Packet {
        id: 0,
        body: Some(Body::Read(p::Read {
            conversation_id: CONVERSATION.into(),
            seq: 3,
        })),
    };
    vec![
        entry(
            "up",
            "Up",
            &Up {
                origin: Some(origin(0)),
                received_at_ms: T,
                body: Some(up::Body::Packet(read.encode_to_vec().into())),
            },
        ),
        entry(
            "down",
            "Down",
            &Down {
                producer: 2,
                counter: 77,
                deliveries: vec![Delivery {
                    targets: vec![target(300)],
                    body: Some(delivery::Body::Push(PushEntry {
                        conversation_id: CONVERSATION.into(),
                        seq: 3,
                        entry: message(3, "bob", 1, "hello").encode_to_vec().into(),
                    })),
                }],
            },
        ),
        entry(
            "backend_request",
            "BackendRequest",
            &BackendRequest {
                origin: Some(origin(10)),
                service: "stock".into(),
                key: "sku-7".into(),
                payload: "take 1".into(),
                received_at_ms: T,
                deadline_ms: T + 3_000,
            },
        ),
        entry(
            "backend_response",
            "Down",
            &Down {
                producer: 0,
                counter: 0,
                deliveries: vec![Delivery {
                    targets: vec![target(0)],
                    body: Some(delivery::Body::Response(BackendResponse {
                        request_id: 10,
                        status: 0,
                        payload: "left 41".into(),
                    })),
                }],
            },
        ),
        entry(
            "group_command",
            "Up",
            &Up {
                origin: Some(Origin {
                    device_id: String::new(),
                    connection_id: bytes::Bytes::new(),
                    ..origin(3)
                }),
                received_at_ms: T,
                body: Some(up::Body::GroupCommand(envelope::GroupCommand {
                    conversation_id: GROUP.into(),
                    command_id: id(5),
                    command: Some(envelope::group_command::Command::Add(
                        envelope::AddMembers {
                            users: vec!["carol".into(), "dave".into()],
                        },
                    )),
                })),
            },
        ),
    ]
}

/// All examples, in the order of SPEC.md.
pub(crate) fn all() -> Vec<Vector> {
    [session(), messages(), sync(), bus()]
        .into_iter()
        .flatten()
        .collect()
}
