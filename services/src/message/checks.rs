//! May this sender do this, here, now? Answers from what a batch has gathered;
//! asks nobody itself.

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use prost::Message as _;
use sluice_protocol::{
    ConversationId, ConversationKind, Refusal, Seq, UserId,
    limits::{GROUPS_BY_OTHERS_MAX, GROUPS_PER_USER_MAX},
    packet::{self, ErrorCode, Packet, packet::Body},
};
use sluice_store::{Content, PageLimit, Range, Store, StoreError, StoredEntry, UserStatus};

use super::{
    group::{Group, Groups},
    job::{Ask, Job},
    recall,
};
use crate::standing::{Standing, Standings};

const ONE_ENTRY: PageLimit = PageLimit {
    entries: 1,
    bytes: 0,
};

/// What a round's checks need to know, beside the groups.
#[derive(Debug, Default)]
pub(super) struct Facts {
    standing: Standing,
    /// Entries that are to be recalled.
    targets: HashMap<(ConversationId, Seq), StoredEntry>,
    /// How many groups those who are to join one are in.
    group_counts: HashMap<UserId, usize>,
    /// Those of them that lie in a window of an earlier membership of the asker.
    seen_before: HashSet<(UserId, ConversationId, Seq)>,
}

/// What a job that passed comes down to.
#[derive(Debug)]
pub(super) enum Passed {
    /// Entries to be stored, each under its id; the last one is the answer's.
    Store(Vec<(sluice_protocol::ClientMsgId, Content)>),
    /// An encoded packet, told to these users and never stored.
    Tell(Bytes, Vec<UserId>),
}

// === impl Facts ===

impl Facts {
    /// Asks the store, a batch a question.
    pub(super) async fn gather(
        store: &dyn Store,
        standings: &Standings,
        groups: &Groups,
        jobs: &[Job],
        now_ms: u64,
    ) -> Result<Self, StoreError> {
        let mut users = HashSet::new();
        let mut pairs = HashSet::new();
        let mut positions = Vec::new();
        let mut joiners = HashSet::new();
        for job in jobs {
            let sender = &job.origin.user;
            if let Ask::Group { command, .. } = &job.ask {
                for user in command.joiners(sender) {
                    pairs.insert((user.clone(), sender.clone()));
                    joiners.insert(user.clone());
                }
            }
            users.insert(sender.clone());
            if let Some(peer) = peer(&job.conversation, sender) {
                // What is stored is refused by the store when there is no such peer.
                if matches!(job.ask, Ask::Ephemeral { .. }) {
                    users.insert(peer.clone());
                }
                pairs.insert((peer, sender.clone()));
            }
            if let Ask::Recall { seq, .. } = job.ask {
                positions.push((job.conversation.clone(), seq));
            }
        }
        let standing = standings.of(store, &users, &pairs, now_ms).await?;
        let entries = match positions.is_empty() {
            true => Vec::new(),
            false => store.entries(&positions).await?,
        };
        let targets = positions
            .into_iter()
            .zip(entries)
            .filter_map(|(position, entry)| Some((position, entry?)))
            .collect();
        let joiners: Vec<_> = joiners.into_iter().collect();
        let counts = match joiners.is_empty() {
            true => Vec::new(),
            false => store.group_counts(&joiners).await?,
        };
        Ok(Self {
            standing,
            targets,
            group_counts: joiners.into_iter().zip(counts).collect(),
            seen_before: seen_before(store, groups, jobs).await?,
        })
    }

    /// Nobody is put into a group by whom they block, and others leave places for
    /// the user's own founding. Owners of two partitions may both see the last
    /// free place: the bound of the clients leaves room for that.
    fn check_joiner(&self, user: &UserId, sender: &UserId) -> Result<(), Refusal> {
        if user != sender && self.standing.is_blocked(user, sender) {
            return Err(Refusal::new(
                ErrorCode::Blocked,
                format!("{user} can't be added by you"),
            ));
        }
        let (max, whose) = match user == sender {
            true => (GROUPS_PER_USER_MAX, "the most there may be"),
            false => (GROUPS_BY_OTHERS_MAX, "the most to which others may add"),
        };
        if self
            .group_counts
            .get(user)
            .is_some_and(|count| *count >= max)
        {
            return Err(Refusal::new(
                ErrorCode::TooLarge,
                format!("{user} is in {max} groups, {whose}"),
            ));
        }
        Ok(())
    }
}

/// Asks where the groups can't tell: of recalls that reach behind the asker's
/// latest joining. They are rare, so one question each.
async fn seen_before(
    store: &dyn Store,
    groups: &Groups,
    jobs: &[Job],
) -> Result<HashSet<(UserId, ConversationId, Seq)>, StoreError> {
    let mut seen = HashSet::new();
    for job in jobs {
        let Ask::Recall { seq, .. } = job.ask else {
            continue;
        };
        let (user, conversation) = (&job.origin.user, &job.conversation);
        let membership = groups.of(conversation).and_then(|it| it.membership(user));
        if membership.is_none_or(|member| seq >= member.first_seq) {
            continue;
        }
        let range = Range::After(Seq(seq.0.saturating_sub(1)));
        let page = store.conversation_log(user, conversation, range, ONE_ENTRY);
        let entry = page.await?.and_then(|page| page.entries.into_iter().next());
        if entry.is_some_and(|entry| entry.seq == seq) {
            seen.insert((user.clone(), conversation.clone(), seq));
        }
    }
    Ok(seen)
}

/// The other party of a private conversation.
pub(super) fn peer(conversation: &ConversationId, user: &UserId) -> Option<UserId> {
    match conversation.kind() {
        ConversationKind::Private(first, second) => {
            Some(if first == *user { second } else { first })
        }
        ConversationKind::Group(_) => None,
    }
}

/// Lets the job pass or says why not.
pub(super) fn check(
    job: &Job,
    facts: &Facts,
    groups: &Groups,
    recall_window_ms: u64,
    now_ms: u64,
) -> Result<Passed, Refusal> {
    let sender = &job.origin.user;
    check_standing(job, &facts.standing)?;
    let group = groups.of(&job.conversation);
    let founds = matches!(
        &job.ask,
        Ask::Group { command, .. } if command.founds()
    );
    if job.conversation.is_group() && !founds {
        check_member(group, sender)?;
    }
    match &job.ask {
        Ask::Send {
            client_msg_id,
            content_type,
            body,
            ..
        } => Ok(Passed::Store(vec![(
            *client_msg_id,
            Content::Message {
                content_type: *content_type,
                body: body.clone(),
            },
        )])),
        Ask::Recall { client_msg_id, seq } => {
            let target = facts.targets.get(&(job.conversation.clone(), *seq));
            let membership = group.and_then(|group| group.membership(sender));
            let seen_before =
                (facts.seen_before).contains(&(sender.clone(), job.conversation.clone(), *seq));
            recall::check(
                sender,
                target,
                membership,
                seen_before,
                recall_window_ms,
                now_ms,
            )?;
            Ok(Passed::Store(vec![(
                *client_msg_id,
                Content::Recall { seq: *seq },
            )]))
        }
        Ask::Group {
            command_id,
            command,
        } => {
            let entries = command.entries(sender, *command_id, group)?;
            let is_new = |user: &&UserId| group.is_none_or(|it| it.membership(user).is_none());
            for user in command.joiners(sender).filter(is_new) {
                facts.check_joiner(user, sender)?;
            }
            Ok(Passed::Store(entries))
        }
        Ask::Typing => {
            let notice = Body::TypingNotice(packet::TypingNotice {
                conversation_id: job.conversation.as_str().to_owned(),
                user_id: sender.as_str().to_owned(),
            });
            let mut users = audience(job, group);
            users.retain(|user| user != sender);
            Ok(Passed::Tell(unasked(notice), users))
        }
        Ask::Ephemeral { content_type, body } => {
            if let Some(peer) = peer(&job.conversation, sender)
                && facts.standing.status(&peer).is_none()
            {
                let refusal = format!("there is no user {peer}");
                return Err(Refusal::new(ErrorCode::UnknownUser, refusal));
            }
            let message = ephemeral(job, *content_type, body.clone(), now_ms);
            Ok(Passed::Tell(unasked(message), audience(job, group)))
        }
    }
}

fn check_standing(job: &Job, standing: &Standing) -> Result<(), Refusal> {
    let sender = &job.origin.user;
    match standing.status(sender) {
        Some(UserStatus::Normal) => {}
        // Who is muted may still go.
        Some(UserStatus::Muted) if matches!(&job.ask, Ask::Group { command, .. } if command.leaves()) =>
            {}
        Some(UserStatus::Muted) => {
            return Err(Refusal::new(ErrorCode::Muted, "you are muted"));
        }
        Some(UserStatus::Banned) => {
            return Err(Refusal::new(ErrorCode::Banned, "you are banned"));
        }
        None => {
            return Err(Refusal::new(
                ErrorCode::UnknownUser,
                "the sender does not exist",
            ));
        }
    }
    let recalls = matches!(job.ask, Ask::Recall { .. });
    match peer(&job.conversation, sender) {
        // Taking back what was said before the block stays possible.
        Some(peer) if !recalls && standing.is_blocked(&peer, sender) => Err(Refusal::new(
            ErrorCode::Blocked,
            "the recipient takes no messages from you",
        )),
        _ => Ok(()),
    }
}

fn check_member(group: Option<&Group>, sender: &UserId) -> Result<(), Refusal> {
    let group = group
        .ok_or_else(|| Refusal::new(ErrorCode::UnknownConversation, "there is no such group"))?;
    match group.membership(sender) {
        Some(_) => Ok(()),
        None => Err(Refusal::new(
            ErrorCode::NotAMember,
            "you are not in this group",
        )),
    }
}

/// Everybody in the conversation, the sender too.
fn audience(job: &Job, group: Option<&Group>) -> Vec<UserId> {
    match (job.conversation.kind(), group) {
        (ConversationKind::Private(first, second), _) => vec![first, second],
        (ConversationKind::Group(_), Some(group)) => group
            .roster()
            .iter()
            .map(|(user, _)| user.clone())
            .collect(),
        (ConversationKind::Group(_), None) => Vec::new(),
    }
}

fn ephemeral(job: &Job, content_type: packet::ContentType, body: Bytes, now_ms: u64) -> Body {
    Body::EphemeralMessage(packet::EphemeralMessage {
        conversation_id: job.conversation.as_str().to_owned(),
        sender: job.origin.user.as_str().to_owned(),
        server_time_ms: now_ms,
        content_type: content_type.into(),
        body,
    })
}

fn unasked(body: Body) -> Bytes {
    let packet = Packet {
        id: 0,
        body: Some(body),
    };
    packet.encode_to_vec().into()
}
