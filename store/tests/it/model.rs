//! Random histories, held against a model of a few lists in memory.
//!
//! The model says what the port's documentation says, the slow way. Held equal:
//! every outcome, every inbox and log, unread numbers, members, cursors; also
//! after the store was closed and opened between two steps.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use sluice_protocol::{
    ClientMsgId, ConversationId, ConversationKind, MessageId, Seq, UserId, UserSeq,
    packet::MemberRole,
};
use sluice_store::{
    CommitRefusal, Content, ConversationPage, Cursor, CursorAdvance, CursorKind, Member, NewEntry,
    Outcome, Range, Stored, StoredEntry,
};

use crate::kit::{Bench, Engine, PAGE, START_MS, client_id, entry, group, pair, text, user};

const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];

/// One of the users, now and then somebody unknown.
fn name() -> impl Strategy<Value = UserId> {
    prop_oneof![
        30 => Just(user("alice")),
        30 => Just(user("bob")),
        15 => Just(user("carol")),
        5 => Just(user("dave")),
        1 => Just(user("ghost")),
    ]
}

fn conversation() -> impl Strategy<Value = ConversationId> {
    prop_oneof![
        8 => Just(pair("alice", "bob")),
        4 => Just(pair("alice", "carol")),
        1 => Just(pair("bob", "ghost")),
        12 => Just(group(1)),
        2 => Just(group(2)),
    ]
}

fn content() -> impl Strategy<Value = Content> {
    let names = || prop::collection::vec(name(), 0..3);
    prop_oneof![
        20 => "[ab]{0,2}".prop_map(|words| text(&words)),
        4 => (1..12_u64).prop_map(|seq| Content::Recall { seq: Seq(seq) }),
        4 => ("[xy]", names()).prop_map(|(name, members)| Content::GroupCreated { name, members }),
        1 => "[xy]".prop_map(|name| Content::GroupRenamed { name }),
        3 => names().prop_map(|users| Content::Joined { users }),
        1 => Just(Content::Left),
        2 => name().prop_map(|user| Content::Removed { user }),
        1 => name().prop_map(|user| Content::RoleChanged { user, role: MemberRole::Admin }),
    ]
}

/// A small pool, so that ids repeat. `message_id` and time are filled in later.
fn new_entry() -> impl Strategy<Value = NewEntry> {
    let id = || (0..200_u64).prop_map(client_id);
    let predecessor = prop_oneof![20 => Just(None), 1 => id().prop_map(Some)];
    (conversation(), name(), id(), predecessor, content()).prop_map(
        |(conversation, sender, client_msg_id, predecessor, content)| NewEntry {
            conversation,
            sender,
            client_msg_id,
            predecessor,
            message_id: MessageId(0),
            server_time_ms: 0,
            content,
        },
    )
}

#[derive(Debug, Clone)]
enum Step {
    /// Commits that are handed in at once and may share a transaction.
    Commit(Vec<Vec<NewEntry>>),
    /// Entries that were handed in before, by their place in the history.
    Repeat(Vec<prop::sample::Index>),
    Advance(Vec<CursorAdvance>),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![Just(CursorKind::Read), Just(CursorKind::Delivered)];
    let advance =
        (name(), conversation(), kind, 0..15_u64).prop_map(|(user, conversation, kind, seq)| {
            CursorAdvance {
                cursor: Cursor {
                    user,
                    conversation,
                    kind,
                },
                seq: Seq(seq),
            }
        });
    let batch = prop::collection::vec(new_entry(), 0..16);
    prop_oneof![
        8 => prop::collection::vec(batch, 1..3).prop_map(Step::Commit),
        3 => prop::collection::vec(any::<prop::sample::Index>(), 1..6).prop_map(Step::Repeat),
        3 => prop::collection::vec(advance, 0..6).prop_map(Step::Advance),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Debug, Clone)]
struct Membership {
    /// Windows of earlier memberships, ascending.
    past: Vec<(u64, u64)>,
    first: u64,
    last: Option<u64>,
    role: MemberRole,
    delivered: u64,
    read: u64,
}

#[derive(Debug, Default)]
struct Log {
    name: String,
    entries: Vec<(StoredEntry, Stored)>,
    sent: HashMap<(UserId, ClientMsgId), usize>,
    members: BTreeMap<UserId, Membership>,
}

#[derive(Debug, Default)]
struct Model {
    logs: BTreeMap<ConversationId, Log>,
    inboxes: HashMap<UserId, Vec<(ConversationId, usize)>>,
}

fn known(user: &UserId) -> Result<(), CommitRefusal> {
    if USERS.contains(&user.as_str()) {
        return Ok(());
    }
    Err(CommitRefusal::UnknownUser(user.clone()))
}

// === impl Log ===

impl Log {
    fn join(&mut self, user: &UserId, role: MemberRole) {
        let first = self.entries.len() as u64;
        let fresh = Membership {
            past: Vec::new(),
            first,
            last: None,
            role,
            delivered: 0,
            read: 0,
        };
        match self.members.get_mut(user) {
            None => {
                self.members.insert(user.clone(), fresh);
            }
            Some(member) => {
                if let Some(last) = member.last.take() {
                    member.past.push((member.first, last));
                    (member.first, member.role) = (first, role);
                }
            }
        }
    }

    fn leave(&mut self, user: &UserId) {
        let last = self.entries.len() as u64;
        if let Some(member) = self.members.get_mut(user) {
            member.last.get_or_insert(last);
        }
    }

    /// All that this user may see, window by window.
    fn windows(&self, user: &UserId) -> Vec<(u64, u64)> {
        let member = &self.members[user];
        let last = member.last.unwrap_or(self.entries.len() as u64);
        let latest = [(member.first, last)];
        member.past.iter().copied().chain(latest).collect()
    }

    fn unread(&self, user: &UserId) -> u64 {
        let member = &self.members[user];
        let windows = self.windows(user);
        let others = |(entry, _): &&(StoredEntry, Stored)| {
            let seq = entry.seq.0;
            windows
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&seq))
                && seq > member.read
                && entry.sender != *user
                && entry.content.counts_as_unread()
        };
        self.entries.iter().filter(others).count() as u64
    }
}

// === impl Model ===

impl Model {
    fn store(&mut self, entry: &NewEntry) -> Outcome {
        self.try_store(entry).unwrap_or_else(Outcome::Refused)
    }

    fn try_store(&mut self, entry: &NewEntry) -> Result<Outcome, CommitRefusal> {
        known(&entry.sender)?;
        let log = self.logs.get(&entry.conversation);
        let sent = |id: &ClientMsgId| {
            let log = log?;
            let index = log.sent.get(&(entry.sender.clone(), *id))?;
            Some(&log.entries[*index])
        };
        if let Some((kept, stored)) = sent(&entry.client_msg_id) {
            let wiped = kept.recalled && entry.content.counts_as_unread();
            if kept.content == entry.content || wiped {
                return Ok(Outcome::Duplicate(stored.clone()));
            }
            return Err(CommitRefusal::ClientMsgIdReused);
        }
        if let Some(predecessor) = &entry.predecessor
            && sent(predecessor).is_none()
        {
            return Err(CommitRefusal::OutOfOrder);
        }
        Self::check(log, entry)?;
        if let (Content::Recall { .. }, Some(log)) = (&entry.content, log)
            && let Some(first) =
                (log.entries.iter()).position(|(kept, _)| kept.content == entry.content)
        {
            let answer = log.entries[first].1.clone();
            let id = (entry.sender.clone(), entry.client_msg_id);
            if let Some(log) = self.logs.get_mut(&entry.conversation) {
                log.sent.insert(id, first);
            }
            return Ok(Outcome::Duplicate(answer));
        }
        Ok(Outcome::Stored(self.append(entry)))
    }

    fn check(log: Option<&Log>, entry: &NewEntry) -> Result<(), CommitRefusal> {
        let founding = matches!(entry.content, Content::GroupCreated { .. });
        if let ConversationKind::Private(first, second) = entry.conversation.kind() {
            if entry.sender != first && entry.sender != second {
                return Err(CommitRefusal::UnknownConversation);
            }
            match &entry.content {
                Content::Message { .. } => {
                    known(&first)?;
                    known(&second)?;
                }
                Content::Recall { .. } => {}
                _ => return Err(CommitRefusal::UnknownConversation),
            }
        } else if founding == log.is_some() {
            return Err(CommitRefusal::UnknownConversation);
        }
        match &entry.content {
            Content::GroupCreated { members: users, .. } | Content::Joined { users } => {
                users.iter().try_for_each(known)
            }
            Content::Removed { user } | Content::RoleChanged { user, .. } => known(user),
            Content::Recall { seq } => {
                let target = log.and_then(|log| log.entries.get((seq.0 as usize).wrapping_sub(1)));
                match target {
                    Some((kept, _)) if kept.content.counts_as_unread() => Ok(()),
                    _ => Err(CommitRefusal::UnknownMessage),
                }
            }
            _ => Ok(()),
        }
    }

    fn append(&mut self, entry: &NewEntry) -> Stored {
        let log = self.logs.entry(entry.conversation.clone()).or_default();
        let index = log.entries.len();
        let mut stored = Stored {
            message_id: entry.message_id,
            seq: Seq(index as u64 + 1),
            server_time_ms: entry.server_time_ms,
            inbox: Vec::new(),
        };
        if let ConversationKind::Private(first, second) = entry.conversation.kind() {
            for party in [first, second] {
                let inbox = self.inboxes.entry(party.clone()).or_default();
                inbox.push((entry.conversation.clone(), index));
                stored.inbox.push((party, UserSeq(inbox.len() as u64)));
            }
        }
        let kept = StoredEntry {
            conversation: entry.conversation.clone(),
            seq: stored.seq,
            message_id: entry.message_id,
            sender: entry.sender.clone(),
            client_msg_id: entry.client_msg_id,
            server_time_ms: entry.server_time_ms,
            content: entry.content.clone(),
            recalled: false,
        };
        log.entries.push((kept, stored.clone()));
        log.sent
            .insert((entry.sender.clone(), entry.client_msg_id), index);
        Self::affect(log, entry, &stored);
        stored
    }

    fn affect(log: &mut Log, entry: &NewEntry, stored: &Stored) {
        match &entry.content {
            Content::Message { .. } => {
                for (party, _) in &stored.inbox {
                    log.join(party, MemberRole::Member);
                }
            }
            Content::Recall { seq } => {
                let (target, _) = &mut log.entries[seq.0 as usize - 1];
                target.recalled = true;
                if let Content::Message { body, .. } = &mut target.content {
                    body.clear();
                }
            }
            Content::GroupCreated { name, members } => {
                log.name.clone_from(name);
                log.join(&entry.sender, MemberRole::Owner);
                for member in members {
                    log.join(member, MemberRole::Member);
                }
            }
            Content::GroupRenamed { name } => log.name.clone_from(name),
            Content::Joined { users } => {
                for user in users {
                    log.join(user, MemberRole::Member);
                }
            }
            Content::Left => log.leave(&entry.sender),
            Content::Removed { user } => log.leave(user),
            Content::RoleChanged { user, role } => {
                if let Some(member) = log.members.get_mut(user)
                    && member.last.is_none()
                {
                    member.role = *role;
                }
            }
        }
    }

    fn advance(&mut self, wish: &CursorAdvance) -> Option<Seq> {
        let log = self.logs.get_mut(&wish.cursor.conversation)?;
        let end = log.entries.len() as u64;
        let member = log.members.get_mut(&wish.cursor.user)?;
        let target = wish.seq.0.min(member.last.unwrap_or(end));
        let cursor = match wish.cursor.kind {
            CursorKind::Delivered => &mut member.delivered,
            CursorKind::Read => &mut member.read,
        };
        (target > *cursor).then(|| {
            *cursor = target;
            Seq(target)
        })
    }
}

/// Everything that can be read is what the model says.
async fn check_reads(bench: &Bench, model: &Model) {
    for name in USERS {
        let id = user(name);
        let inbox = bench.store.inbox(&id, UserSeq(0), PAGE).await.unwrap();
        let expected: Vec<_> = (model.inboxes.get(&id).into_iter().flatten())
            .map(|(conversation, index)| model.logs[conversation].entries[*index].0.clone())
            .collect();
        let numbers: Vec<u64> = inbox.entries.iter().map(|(seq, _)| seq.0).collect();
        assert_eq!(numbers, (1..=expected.len() as u64).collect::<Vec<_>>());
        assert_eq!(inbox.inbox_seq.0, expected.len() as u64);
        let found: Vec<_> = inbox.entries.into_iter().map(|(_, entry)| entry).collect();
        assert_eq!(found, expected);
        check_list(bench, model, &id).await;
        for (conversation, log) in &model.logs {
            check_log(bench, &id, conversation, log).await;
        }
    }
    for (conversation, log) in &model.logs {
        let found = bench
            .store
            .conversation_members(std::slice::from_ref(conversation))
            .await;
        let mut found = found.unwrap().remove(0).unwrap();
        assert_eq!(found.name, log.name);
        assert_eq!(found.max_seq.0, log.entries.len() as u64);
        found.members.sort_by(|a, b| a.user.cmp(&b.user));
        let current = (log.members.iter()).filter(|(_, member)| member.last.is_none());
        let expected: Vec<_> = current
            .map(|(user, member)| Member {
                user: user.clone(),
                role: member.role,
                first_seq: Seq(member.first),
            })
            .collect();
        assert_eq!(found.members, expected);
    }
}

/// Each window comes as a page of its own, forwards and backwards, and a page
/// says whether others follow.
async fn check_log(bench: &Bench, id: &UserId, conversation: &ConversationId, log: &Log) {
    let store = &bench.store;
    let page = async |range| {
        let page = store.conversation_log(id, conversation, range, PAGE).await;
        page.unwrap()
    };
    let member = log.members.get(id);
    let present = member.filter(|member| member.last.is_none());
    assert_eq!(
        store.present_window(id, conversation).await.unwrap(),
        present.map(|member| (Seq(member.first), Seq(log.entries.len() as u64)))
    );
    if member.is_none() {
        assert_eq!(page(Range::After(Seq(0))).await, None);
        return;
    }
    let windows = log.windows(id);
    let expected: Vec<_> = (windows.iter().enumerate())
        .map(|(place, (first, last))| ConversationPage {
            entries: (log.entries[*first as usize - 1..*last as usize].iter())
                .map(|(entry, _)| entry.clone())
                .collect(),
            first_seq: Seq(*first),
            last_seq: Seq(*last),
            more: place + 1 < windows.len(),
        })
        .collect();
    let mut after = Seq(0);
    for expected in &expected {
        assert_eq!(page(Range::After(after)).await.as_ref(), Some(expected));
        after = expected.last_seq;
    }
    let mut before = Seq(0);
    for (place, expected) in expected.iter().enumerate().rev() {
        let expected = ConversationPage {
            more: place > 0,
            ..expected.clone()
        };
        before = match page(Range::Before(before)).await {
            Some(page) if page == expected => page.first_seq,
            other => panic!("{id} before {before} in {conversation}: {other:?}"),
        };
    }
    for hidden in 1..=log.entries.len() as u64 {
        let found = page(Range::After(Seq(hidden - 1))).await.unwrap().entries;
        let next = (windows.iter())
            .find(|(_, last)| *last >= hidden)
            .map(|(first, _)| Seq(hidden.max(*first)));
        assert_eq!(found.first().map(|entry| entry.seq), next);
    }
}

async fn check_list(bench: &Bench, model: &Model, id: &UserId) {
    let heads = bench.store.heads(id, None, 100).await.unwrap();
    for (group, first, last) in &heads.groups {
        let windows = model.logs[group].windows(id);
        let (begin, end) = (windows[0].0, windows[windows.len() - 1].1);
        assert_eq!((first.0, last.0), (begin, end), "{id} in {group}");
    }
    let rows = bench.store.conversations(id, None, 100).await.unwrap();
    let mine = (model.logs.iter()).filter(|(_, log)| log.members.contains_key(id));
    assert_eq!(rows.len(), mine.count());
    assert!(rows.is_sorted_by(|a, b| a.cursor > b.cursor));
    for row in rows {
        let log = &model.logs[&row.conversation];
        let member = &log.members[id];
        let last = member.last.unwrap_or(log.entries.len() as u64);
        assert_eq!(
            (row.first_seq.0, row.last_seq.0, row.read_seq.0, row.unread),
            (log.windows(id)[0].0, last, member.read, log.unread(id)),
            "{id} in {}",
            row.conversation
        );
        let last_entry = &log.entries[last as usize - 1].0;
        assert_eq!(row.last_entry.as_ref(), Some(last_entry));
        assert_eq!(row.cursor.last_ms, last_entry.server_time_ms);
        let peer = (log.members.iter())
            .find(|(user, _)| *user != id && !row.conversation.is_group())
            .map_or((0, 0), |(_, peer)| (peer.delivered, peer.read));
        assert_eq!((row.peer_delivered_seq.0, row.peer_read_seq.0), peer);
    }
}

async fn run(engine: Engine, steps: Vec<Step>) {
    let mut bench = Bench::with_users(engine, &USERS).await;
    let mut model = Model::default();
    let mut history: Vec<NewEntry> = Vec::new();
    let founding = Content::GroupCreated {
        name: "tea".to_owned(),
        members: vec![user("bob")],
    };
    let founding = entry(&group(1), "alice", founding);
    let expected = model.store(&founding);
    assert_eq!(bench.commit_one(founding).await, expected);
    for step in steps {
        match step {
            Step::Commit(mut batches) => {
                for entry in batches.iter_mut().flatten() {
                    let number = history.len() as u64 + 1;
                    entry.message_id = MessageId(number);
                    entry.server_time_ms = START_MS + number;
                    history.push(entry.clone());
                }
                let mut expected = Vec::new();
                for entry in batches.iter().flatten() {
                    expected.push(model.store(entry));
                }
                let mut batches = batches.into_iter();
                let first = bench.commit(batches.next().unwrap_or_default());
                // The queue keeps the order in which they are handed in.
                let second = bench.commit(batches.next().unwrap_or_default());
                let (mut outcomes, more) = tokio::join!(biased; first, second);
                outcomes.extend(more);
                assert_eq!(outcomes, expected);
            }
            Step::Repeat(places) if !history.is_empty() => {
                let entries = places.iter().map(|place| place.get(&history).clone());
                let entries: Vec<NewEntry> = entries.collect();
                let expected: Vec<_> = entries.iter().map(|entry| model.store(entry)).collect();
                assert_eq!(bench.commit(entries).await, expected);
            }
            Step::Repeat(_) => {}
            Step::Advance(wishes) => {
                let expected: Vec<_> = wishes.iter().map(|wish| model.advance(wish)).collect();
                let risen = bench.store.advance_cursors(wishes).await.unwrap();
                assert_eq!(risen, expected);
            }
            Step::Reopen => bench = bench.reopened().await,
        }
    }
    check_reads(&bench, &model).await;
    check_reads(&bench.reopened().await, &model).await;
}

/// As often as the engine's speed allows.
fn check(engine: Engine, cases: u32) {
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    proptest!(config, |(steps in prop::collection::vec(step(), 1..24))| {
        runtime.block_on(run(engine, steps));
    });
}

#[test]
fn sqlite_does_what_the_model_does() {
    check(Engine::Sqlite, 96);
}

#[test]
fn mysql_does_what_the_model_does() {
    check(Engine::Mysql, 8);
}
