//! A server in one struct, without I/O and clock, for tests: conversations,
//! inboxes, dedup, predecessors, pushes and pages as SPEC.md has them.
//!
//! It does what is right; what goes wrong on the way is up to the test.

#![allow(clippy::unwrap_used, dead_code)]

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use sluice_protocol::{
    ClientMsgId, ConversationId, ConversationKind, UserId,
    packet::{self, ErrorCode, Packet, packet::Body},
};

/// One connection of the model.
pub(crate) type Conn = u64;

#[derive(Default)]
pub(crate) struct ModelServer {
    pub(crate) now_ms: u64,
    pub(crate) logs: BTreeMap<String, Vec<packet::Entry>>,
    pub(crate) inboxes: HashMap<String, Vec<packet::InboxEntry>>,
    /// How many entries of each inbox are archived.
    pub(crate) archived: u64,
    /// Members of a group with the first seq that each may see.
    pub(crate) members: HashMap<String, BTreeMap<String, u64>>,
    dedup: HashMap<(String, String, Bytes), packet::SendAck>,
    /// The first recall of each message, by conversation and seq.
    recalls: HashMap<(String, u64), packet::SendAck>,
    pub(crate) conns: BTreeMap<Conn, Session>,
    /// What goes out, in order.
    pub(crate) out: VecDeque<(Conn, Packet)>,
    resume_tokens: HashMap<Bytes, (String, String)>,
    next_resume: u64,
    next_message: u64,
    /// Sends that are refused: bodies that start with this, with this code.
    pub(crate) refused: Option<(&'static [u8], ErrorCode)>,
    pub(crate) refusals: usize,
    /// Entries a page.
    pub(crate) page: usize,
    /// What a connection may send; 0: no limit.
    pub(crate) packets_per_s: u32,
    pub(crate) packets_burst: u32,
    /// Packets that a gateway would have refused for their rate.
    pub(crate) over_rate: usize,
    /// Group notices carry the entry only if so.
    pub(crate) notices_are_bare: bool,
    /// What the clients have acked and asked, for tests to look at.
    pub(crate) push_acks: Vec<(Conn, packet::PushAck)>,
    pub(crate) connects: Vec<packet::Connect>,
    pub(crate) duplicates: usize,
    pub(crate) refreshes: usize,
    /// Requests to the service `silent`.
    pub(crate) unanswered: Vec<(Conn, u64)>,
    /// So many refreshes are put off.
    pub(crate) busy_refreshes: usize,
    pub(crate) reads: Vec<packet::Read>,
    /// What users have, by user and conversation, as their acks say.
    pub(crate) delivered: HashMap<(String, String), u64>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Session {
    pub(crate) user: String,
    pub(crate) device: String,
    pub(crate) pushes: u64,
    /// Conversation and seq of each push, by number.
    pub(crate) pushed: Vec<(String, u64)>,
    /// When the packets taken so far are paid for.
    paid_at_us: u64,
}

impl ModelServer {
    pub(crate) fn new() -> Self {
        Self {
            now_ms: 1_790_000_000_000,
            page: 200,
            packets_per_s: 1_000,
            packets_burst: 4_000,
            ..Self::default()
        }
    }

    pub(crate) fn create_group(&mut self, number: u64, members: &[&str]) -> ConversationId {
        let group = ConversationId::parse(&format!("g:{number}")).unwrap();
        let seen_by = members.iter().map(|it| ((*it).to_owned(), 1)).collect();
        self.members.insert(group.to_string(), seen_by);
        let content = packet::entry::Content::GroupChange(packet::GroupChange {
            name: "group".to_owned(),
            created: true,
            members: members.iter().map(|it| (*it).to_owned()).collect(),
        });
        self.append(&group, members[0], Bytes::new(), content, None);
        group
    }

    pub(crate) fn join(&mut self, group: &ConversationId, user: &str) {
        let first = self.logs[group.as_str()].len() as u64 + 1;
        let members = self.members.get_mut(group.as_str()).unwrap();
        members.insert(user.to_owned(), first);
        let content = packet::entry::Content::MemberChange(packet::MemberChange {
            kind: packet::MemberChangeKind::Joined.into(),
            users: vec![user.to_owned()],
            role: 0,
        });
        self.append(group, user, Bytes::new(), content, None);
    }

    /// A message by somebody without a connection here.
    pub(crate) fn say(&mut self, conversation: &ConversationId, sender: &str, body: &str) {
        self.next_message += 1;
        let id = ClientMsgId::new(self.now_ms, {
            let mut random = [7; 10];
            random[2..10].copy_from_slice(&self.next_message.to_be_bytes());
            random
        });
        let content = packet::entry::Content::Message(packet::Message {
            content_type: 0,
            body: Bytes::copy_from_slice(body.as_bytes()),
            recalled: false,
        });
        let id = Bytes::copy_from_slice(id.as_bytes());
        self.append(conversation, sender, id, content, None);
    }

    /// The sender takes a message back, from a device that isn't here.
    pub(crate) fn recall(&mut self, conversation: &ConversationId, sender: &str, seq: u64) {
        let content = packet::entry::Content::Recall(packet::RecallEntry { seq });
        self.append(conversation, sender, Bytes::new(), content, None);
    }

    pub(crate) fn close(&mut self, conn: Conn) {
        self.conns.remove(&conn);
    }

    pub(crate) fn push_to(&mut self, conn: Conn, body: Body) {
        self.out.push_back((
            conn,
            Packet {
                id: 0,
                body: Some(body),
            },
        ));
    }

    pub(crate) fn answer(&mut self, conn: Conn, id: u64, body: Body) {
        self.out.push_back((
            conn,
            Packet {
                id,
                body: Some(body),
            },
        ));
    }

    fn refuse(&mut self, conn: Conn, id: u64, code: ErrorCode, client_msg_id: Bytes) {
        let error = packet::Error {
            code: code.into(),
            reason: "the model says no".to_owned(),
            client_msg_id,
            server_time_ms: self.now_ms,
        };
        self.answer(conn, id, Body::Error(error));
    }

    pub(crate) fn handle(&mut self, conn: Conn, packet: Packet) {
        let id = packet.id;
        let body = packet.body.unwrap();
        if let Body::Connect(connect) = body {
            return self.login(conn, id, connect);
        }
        let Some(session) = self.conns.get(&conn).cloned() else {
            return;
        };
        self.count(conn, &body);
        let user = session.user;
        match body {
            Body::Send(send) => self.send(conn, id, &user, send),
            Body::Recall(recall) => {
                let recalled = (recall.conversation_id.clone(), recall.seq);
                let conversation = ConversationId::parse(&recall.conversation_id).unwrap();
                let content =
                    packet::entry::Content::Recall(packet::RecallEntry { seq: recall.seq });
                let key = (
                    recall.conversation_id,
                    user.clone(),
                    recall.client_msg_id.clone(),
                );
                let done = self.dedup.get(&key).or(self.recalls.get(&recalled));
                let ack = match done {
                    // Whoever was first, and the asker's own id.
                    Some(ack) => packet::SendAck {
                        client_msg_id: recall.client_msg_id,
                        ..ack.clone()
                    },
                    None => {
                        let id = recall.client_msg_id;
                        let ack = self.append(&conversation, &user, id, content, Some(conn));
                        self.recalls.insert(recalled, ack.clone());
                        ack
                    }
                };
                self.answer(conn, id, Body::SendAck(ack));
            }
            Body::SyncInbox(sync) => {
                let inbox = self.inboxes.entry(user).or_default();
                let page = self.page.min(sync.limit as usize);
                let after = sync.after.max(self.archived) as usize;
                let after = after.min(inbox.len());
                let end = (after + page).min(inbox.len());
                let page = packet::InboxPage {
                    entries: inbox[after..end].to_vec(),
                    inbox_seq: inbox.len() as u64,
                    more: end < inbox.len(),
                    first_seq: self.archived + 1,
                };
                self.answer(conn, id, Body::InboxPage(page));
            }
            Body::SyncConversation(sync) => self.conversation_page(conn, id, &user, sync),
            Body::SyncHeads(_) => {
                let page = packet::HeadsPage {
                    inbox_seq: self.inboxes.get(&user).map_or(0, Vec::len) as u64,
                    groups: self
                        .members
                        .iter()
                        .filter_map(|(group, members)| {
                            Some(packet::Head {
                                conversation_id: group.clone(),
                                first_seq: *members.get(&user)?,
                                last_seq: self.logs[group].len() as u64,
                            })
                        })
                        .collect(),
                    more: false,
                };
                self.answer(conn, id, Body::HeadsPage(page));
            }
            Body::Ping(_) => {
                let server_time_ms = self.now_ms;
                self.answer(conn, id, Body::Pong(packet::Pong { server_time_ms }));
            }
            Body::Request(request) if request.service == "silent" => {
                self.unanswered.push((conn, id));
            }
            Body::Request(request) => {
                let response = packet::Response {
                    status: 0,
                    payload: request.payload,
                };
                self.answer(conn, id, Body::Response(response));
            }
            Body::PushAck(ack) => self.push_acked(conn, ack),
            Body::Read(read) => self.reads.push(read),
            Body::RefreshToken(_) => {
                if self.busy_refreshes > 0 {
                    self.busy_refreshes -= 1;
                    let busy = packet::Busy {
                        retry_after_ms: 500,
                        ..packet::Busy::default()
                    };
                    return self.answer(conn, id, Body::Busy(busy));
                }
                self.refreshes += 1;
                let refreshed = packet::TokenRefreshed {
                    token_expires_ms: self.now_ms + 86_400_000,
                    ..packet::TokenRefreshed::default()
                };
                self.answer(conn, id, Body::TokenRefreshed(refreshed));
            }
            Body::Disconnect(_) => self.close(conn),
            Body::ListConversations(_) => {
                let list = packet::ConversationList::default();
                self.answer(conn, id, Body::ConversationList(list));
            }
            _ => {}
        }
    }

    /// As a gateway's rate limit does.
    fn count(&mut self, conn: Conn, body: &Body) {
        let session = self.conns.get_mut(&conn).unwrap();
        let cost = match body {
            Body::PushAck(ack) => ack.cursors.len().clamp(1, 64) as u64,
            _ => 1,
        };
        let Some(interval_us) = 1_000_000_u64.checked_div(self.packets_per_s.into()) else {
            return;
        };
        let now_us = self.now_ms * 1_000;
        let paid_at_us = session.paid_at_us.max(now_us);
        let burst_us = interval_us * u64::from(self.packets_burst);
        if paid_at_us + interval_us - now_us > burst_us {
            self.over_rate += 1;
        }
        session.paid_at_us = paid_at_us + cost * interval_us;
    }

    fn push_acked(&mut self, conn: Conn, ack: packet::PushAck) {
        assert!(ack.ranges.len() <= 64 && ack.cursors.len() <= 64);
        let session = self.conns[&conn].clone();
        let ranges = ack.ranges.chunks(2).flat_map(|it| it[0]..=it[1]);
        let mut have: Vec<_> = (1..=ack.cumulative)
            .chain(ranges)
            .map(|number| session.pushed[number as usize - 1].clone())
            .collect();
        let cursors = ack.cursors.iter();
        have.extend(cursors.map(|it| (it.conversation_id.clone(), it.seq)));
        for (conversation, seq) in have {
            let key = (session.user.clone(), conversation);
            let delivered = self.delivered.entry(key).or_default();
            *delivered = seq.max(*delivered);
        }
        self.push_acks.push((conn, ack));
    }

    fn login(&mut self, conn: Conn, id: u64, connect: packet::Connect) {
        self.connects.push(connect.clone());
        if connect.time_ms.abs_diff(self.now_ms) > 300_000 {
            return self.refuse(conn, id, ErrorCode::ClockSkew, Bytes::new());
        }
        let owner = (connect.user_id.clone(), connect.device_id.clone());
        if connect.resume_token.is_empty() {
            // The model's tokens are the user's name.
            if connect.token != connect.user_id {
                return self.refuse(conn, id, ErrorCode::TokenExpired, Bytes::new());
            }
        } else if self.resume_tokens.remove(&connect.resume_token).as_ref() != Some(&owner) {
            return self.refuse(conn, id, ErrorCode::BadResumeToken, Bytes::new());
        }
        self.next_resume += 1;
        let resume_token = Bytes::copy_from_slice(&self.next_resume.to_be_bytes());
        self.resume_tokens.insert(resume_token.clone(), owner);
        self.conns.retain(|_, session| {
            session.user != connect.user_id || session.device != connect.device_id
        });
        self.conns.insert(
            conn,
            Session {
                user: connect.user_id.clone(),
                device: connect.device_id,
                ..Session::default()
            },
        );
        let ack = packet::ConnectAck {
            connection_id: Bytes::copy_from_slice(&[0; 16]),
            user_id: connect.user_id.clone(),
            server_time_ms: self.now_ms,
            heartbeat_interval_ms: 30_000,
            frame_max_bytes: 65_536,
            body_max_bytes: 61_440,
            send_window: 16,
            resume_token,
            resume_token_expires_ms: self.now_ms + 86_400_000,
            token_expires_ms: self.now_ms + 86_400_000,
            inbox_seq: self.inboxes.get(&connect.user_id).map_or(0, Vec::len) as u64,
            packets_per_s: self.packets_per_s,
            packets_burst: self.packets_burst,
            carried_pushes: 0,
        };
        self.answer(conn, id, Body::ConnectAck(ack));
    }

    fn send(&mut self, conn: Conn, id: u64, user: &str, send: packet::Send) {
        let me = UserId::parse(user).unwrap();
        let conversation = match send.target.clone().unwrap() {
            packet::send::Target::ToUser(other) => {
                ConversationId::private(&me, &UserId::parse(&other).unwrap()).unwrap()
            }
            packet::send::Target::ConversationId(id) => ConversationId::parse(&id).unwrap(),
        };
        if send.delivery_class() == packet::DeliveryClass::Ephemeral {
            let message = packet::EphemeralMessage {
                conversation_id: conversation.to_string(),
                sender: user.to_owned(),
                server_time_ms: self.now_ms,
                content_type: send.content_type,
                body: send.body,
            };
            for conn in self.audience(&conversation, Some(conn)) {
                self.push_to(conn, Body::EphemeralMessage(message.clone()));
            }
            return;
        }
        let msg_id = send.client_msg_id;
        ClientMsgId::parse(&msg_id).unwrap();
        let key = |id: &Bytes| (conversation.to_string(), user.to_owned(), id.clone());
        if let Some(ack) = self.dedup.get(&key(&msg_id)).cloned() {
            self.duplicates += 1;
            return self.answer(conn, id, Body::SendAck(ack));
        }
        if !send.predecessor.is_empty() && !self.dedup.contains_key(&key(&send.predecessor)) {
            return self.refuse(conn, id, ErrorCode::OutOfOrder, msg_id);
        }
        if let Some((prefix, code)) = self.refused
            && send.body.starts_with(prefix)
        {
            self.refusals += 1;
            return self.refuse(conn, id, code, msg_id);
        }
        let content = packet::entry::Content::Message(packet::Message {
            content_type: send.content_type,
            body: send.body,
            recalled: false,
        });
        let ack = self.append(&conversation, user, msg_id, content, Some(conn));
        self.answer(conn, id, Body::SendAck(ack));
    }

    fn parties(&self, conversation: &ConversationId) -> Vec<String> {
        match conversation.kind() {
            ConversationKind::Private(one, other) => vec![one.to_string(), other.to_string()],
            ConversationKind::Group(_) => self.members[conversation.as_str()]
                .keys()
                .cloned()
                .collect(),
        }
    }

    fn audience(&self, conversation: &ConversationId, but: Option<Conn>) -> Vec<Conn> {
        let parties = self.parties(conversation);
        let conns = self.conns.iter();
        conns
            .filter(|(conn, session)| Some(**conn) != but && parties.contains(&session.user))
            .map(|(conn, _)| *conn)
            .collect()
    }

    fn append(
        &mut self,
        conversation: &ConversationId,
        sender: &str,
        client_msg_id: Bytes,
        content: packet::entry::Content,
        origin: Option<Conn>,
    ) -> packet::SendAck {
        self.next_message += 1;
        let log = self.logs.entry(conversation.to_string()).or_default();
        let entry = packet::Entry {
            conversation_id: conversation.to_string(),
            seq: log.len() as u64 + 1,
            message_id: self.next_message,
            sender: sender.to_owned(),
            client_msg_id: client_msg_id.clone(),
            server_time_ms: self.now_ms,
            content: Some(content),
        };
        log.push(entry.clone());
        let mut ack = packet::SendAck {
            client_msg_id: client_msg_id.clone(),
            message_id: entry.message_id,
            conversation_id: entry.conversation_id.clone(),
            seq: entry.seq,
            user_seq: 0,
            server_time_ms: self.now_ms,
        };
        let is_group = conversation.is_group();
        if !is_group {
            for party in self.parties(conversation) {
                let inbox = self.inboxes.entry(party.clone()).or_default();
                let user_seq = inbox.len() as u64 + 1;
                inbox.push(packet::InboxEntry {
                    user_seq,
                    entry: Some(entry.clone()),
                });
                if party == sender {
                    ack.user_seq = user_seq;
                }
            }
        }
        for conn in self.audience(conversation, origin) {
            let session = self.conns.get_mut(&conn).unwrap();
            session.pushes += 1;
            let number = session.pushes;
            session.pushed.push((conversation.to_string(), entry.seq));
            let body = if is_group {
                Body::GroupNotice(packet::GroupNotice {
                    number,
                    conversation_id: entry.conversation_id.clone(),
                    seq: entry.seq,
                    entry: (!self.notices_are_bare).then(|| entry.clone()),
                })
            } else {
                Body::Push(packet::Push {
                    number,
                    user_seq: self.inboxes[&session.user].len() as u64,
                    entry: Some(entry.clone()),
                })
            };
            self.push_to(conn, body);
        }
        if !client_msg_id.is_empty() {
            let key = (conversation.to_string(), sender.to_owned(), client_msg_id);
            self.dedup.insert(key, ack.clone());
        }
        ack
    }

    fn conversation_page(
        &mut self,
        conn: Conn,
        id: u64,
        user: &str,
        sync: packet::SyncConversation,
    ) {
        let log = self.logs.get(&sync.conversation_id).cloned();
        let log = log.unwrap_or_default();
        let first = match self.members.get(&sync.conversation_id) {
            Some(members) => match members.get(user) {
                Some(first) => *first,
                None => return self.refuse(conn, id, ErrorCode::NotAMember, Bytes::new()),
            },
            None => 1,
        };
        let limit = self.page.min(sync.limit as usize);
        let (from, to, more) = match sync.range {
            Some(packet::sync_conversation::Range::After(after)) => {
                let from = after.max(first - 1) as usize;
                let to = (from + limit).min(log.len());
                (from.min(to), to, to < log.len())
            }
            Some(packet::sync_conversation::Range::Before(before)) => {
                let to = match before {
                    0 => log.len(),
                    before => (before as usize - 1).min(log.len()),
                };
                let from = to.saturating_sub(limit).max(first as usize - 1);
                (from, to, from as u64 + 1 > first)
            }
            None => (0, 0, false),
        };
        let page = packet::ConversationPage {
            conversation_id: sync.conversation_id,
            entries: log[from..to].to_vec(),
            first_seq: first,
            last_seq: log.len() as u64,
            more,
        };
        self.answer(conn, id, Body::ConversationPage(page));
    }
}
