//! A TCP proxy that alters packets on their way, below the SDK, alike on every
//! connection: what a broken server would do.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use futures_util::{SinkExt, StreamExt};
use sluice_codec::PacketCodec;
use sluice_protocol::{
    limits::FRAME_MAX_BYTES,
    packet::{Entry, GroupChange, Packet, entry::Content, packet::Body},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::codec::Framed;

/// What is done to the victim, one message of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    /// Nobody ever gets it.
    Lose,
    /// It comes a second time, in the place of another message.
    Double,
    /// It and its neighbour change places in every page.
    Swap,
    /// A byte of it is another one.
    Alter,
    /// Its sender never hears that it is stored.
    Unack,
    /// One user sees another message in its place.
    Disagree,
}

#[derive(Default)]
struct Victims {
    /// The message itself, as first seen.
    victim: Option<Entry>,
    /// The user who is told otherwise.
    fooled: Option<String>,
}

/// Starts a proxy before `upstream`; it ends with the runtime.
pub(crate) async fn start(upstream: SocketAddr, harm: Harm) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let victims = Arc::new(Mutex::new(Victims::default()));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(pass(client, upstream, harm, Arc::clone(&victims)));
        }
    });
    address
}

async fn pass(client: TcpStream, upstream: SocketAddr, harm: Harm, victims: Arc<Mutex<Victims>>) {
    let Ok(server) = TcpStream::connect(upstream).await else {
        return;
    };
    let codec = || PacketCodec::new(2 * FRAME_MAX_BYTES, 2 * FRAME_MAX_BYTES);
    let (mut to_client, mut from_client) = Framed::new(client, codec()).split();
    let (mut to_server, mut from_server) = Framed::new(server, codec()).split();
    let up = async {
        while let Some(Ok(packet)) = from_client.next().await {
            if to_server.send(packet).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        let mut user = String::new();
        while let Some(Ok(mut packet)) = from_server.next().await {
            if let Some(Body::ConnectAck(ack)) = &packet.body {
                user.clone_from(&ack.user_id);
            }
            let kept = victims.lock().unwrap().tamper(harm, &user, &mut packet);
            if kept && to_client.send(packet).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

impl Victims {
    /// Alters a packet for `user`; false drops it.
    fn tamper(&mut self, harm: Harm, user: &str, packet: &mut Packet) -> bool {
        match &mut packet.body {
            Some(Body::Push(push)) => {
                if let Some(entry) = &mut push.entry {
                    self.choose(entry, user);
                    self.alter(harm, user, entry);
                }
            }
            Some(Body::InboxPage(page)) => {
                let mut entries: Vec<&mut Entry> = page
                    .entries
                    .iter_mut()
                    .filter_map(|inbox| inbox.entry.as_mut())
                    .collect();
                for entry in &mut entries {
                    self.alter(harm, user, entry);
                }
                if harm == Harm::Swap {
                    self.swap(&mut entries);
                }
            }
            Some(Body::SendAck(ack)) if harm == Harm::Unack => {
                // The first ack of the run; it is repeated when asked for again.
                let unacked = self.victim.get_or_insert_with(|| Entry {
                    client_msg_id: ack.client_msg_id.clone(),
                    sender: user.to_owned(),
                    ..Entry::default()
                });
                return unacked.client_msg_id != ack.client_msg_id;
            }
            _ => {}
        }
        true
    }

    /// The first message that is pushed to somebody else than its sender.
    fn choose(&mut self, entry: &Entry, user: &str) {
        if self.victim.is_none() && entry.sender != user {
            self.victim = Some(entry.clone());
            self.fooled = Some(user.to_owned());
        }
    }

    fn alter(&mut self, harm: Harm, user: &str, entry: &mut Entry) {
        let Some(victim) = &self.victim else { return };
        let is_victim = entry.client_msg_id == victim.client_msg_id;
        let follows =
            entry.conversation_id == victim.conversation_id && entry.seq == victim.seq + 1;
        match (harm, &mut entry.content) {
            (Harm::Lose, content) if is_victim => hide(content),
            (Harm::Unack, content) if is_victim && victim.sender == user => {
                hide(content);
                // Its name in the log would be as good as an ack.
                entry.client_msg_id.clear();
            }
            (Harm::Alter, Some(Content::Message(message))) if is_victim => {
                let mut body = message.body.to_vec();
                body.push(b'!');
                message.body = body.into();
            }
            (Harm::Double, _) if follows => copy_message(victim, entry),
            (Harm::Disagree, _) if is_victim && self.fooled.as_deref() == Some(user) => {
                let mut id = [0x70; 16];
                id[8] = 0x80;
                entry.client_msg_id = id.to_vec().into();
            }
            _ => {}
        }
    }

    fn swap(&self, entries: &mut [&mut Entry]) {
        let Some(victim) = &self.victim else { return };
        let at = entries
            .iter()
            .position(|entry| entry.client_msg_id == victim.client_msg_id);
        let Some(at) = at else { return };
        let next = entries.iter().skip(at + 1).position(|entry| {
            entry.conversation_id == victim.conversation_id && entry.seq == victim.seq + 1
        });
        let Some(next) = next.map(|offset| at + 1 + offset) else {
            return;
        };
        let (first, second) = (entries[at].clone(), entries[next].clone());
        copy_message(&second, entries[at]);
        copy_message(&first, entries[next]);
    }
}

/// Takes a message away without leaving a hole.
fn hide(content: &mut Option<Content>) {
    *content = Some(Content::GroupChange(GroupChange::default()));
}

/// Puts a message into another's place.
fn copy_message(from: &Entry, to: &mut Entry) {
    to.client_msg_id = from.client_msg_id.clone();
    to.message_id = from.message_id;
    to.sender.clone_from(&from.sender);
    to.content.clone_from(&from.content);
}
