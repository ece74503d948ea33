//! The newest entries of groups, for the pulls of their members.
//!
//! A message of a group is stored once and pulled by each of its members, so
//! all but the first find it here. What is kept can't be out of date: a log is
//! only ever changed by its own next entry (a recall is one), every pull asks the
//! store where the log ends, and a tail that doesn't reach to there is not used.
//! So there is nothing to invalidate, and no time after which it ends.

use std::sync::Arc;

use quick_cache::{Weighter, sync::Cache};
use sluice_protocol::{ConversationId, Seq, UserId, limits::PAGE_MAX_ENTRIES};
use sluice_store::{
    Content, ConversationPage, PageLimit, Range, Store, StoreError, StoredEntry, fitting,
};

use crate::cache_metrics::{self, Cached};

/// Entries of one group.
const TAIL_MAX_ENTRIES: usize = PAGE_MAX_ENTRIES as usize;
/// What an entry is reckoned at beside its body.
const ENTRY_BYTES: usize = 256;
/// Bytes of one group.
const TAIL_MAX_BYTES: usize = 1 << 20;

/// Tails by group, within a bound of bytes; the least asked for go first.
pub(crate) struct RecentLogs {
    tails: Option<Cache<ConversationId, Arc<Tail>, Bytes>>,
}

/// The end of a log as it was once read: without gaps, ascending, not empty.
struct Tail {
    entries: Vec<StoredEntry>,
}

/// Weighs tails.
#[derive(Clone)]
struct Bytes;

// === impl RecentLogs ===

impl RecentLogs {
    /// With 0 nothing is kept.
    pub(crate) fn new(max_bytes: u64) -> Self {
        let groups = usize::try_from(max_bytes / (16 * 1024)).unwrap_or(usize::MAX);
        let tails = || Cache::with_weighter(groups.max(16), max_bytes, Bytes);
        Self {
            tails: (max_bytes > 0).then(tails),
        }
    }

    /// As [`Store::conversation_log`] answers at this moment.
    pub(crate) async fn log(
        &self,
        store: &dyn Store,
        user: &UserId,
        conversation: &ConversationId,
        range: Range,
        limit: PageLimit,
    ) -> Result<Option<ConversationPage>, StoreError> {
        let from_store = store.conversation_log(user, conversation, range, limit);
        let (Some(tails), Range::After(after)) = (&self.tails, range) else {
            return from_store.await;
        };
        if !conversation.is_group() {
            return from_store.await;
        }
        if let Some(tail) = tails.get(conversation) {
            let window = store.present_window(user, conversation).await?;
            if let Some(page) = window.and_then(|window| tail.page(window, after, limit)) {
                cache_metrics::count(Cached::Recent, 1, 0);
                return Ok(Some(page));
            }
        }
        cache_metrics::count(Cached::Recent, 1, 1);
        let page = from_store.await?;
        if let Some(page) = &page
            && !page.more
            && let Some(tail) = Tail::grown(tails.get(conversation).as_deref(), &page.entries)
        {
            tails.insert(conversation.clone(), Arc::new(tail));
        }
        Ok(page)
    }
}

// === impl Tail ===

impl Tail {
    /// What `before` becomes by entries that end the log; `None` when it knows
    /// as much already.
    fn grown(before: Option<&Tail>, news: &[StoredEntry]) -> Option<Tail> {
        let (first, last) = (news.first()?.seq, news.last()?.seq);
        let before = before.map_or(&[][..], |tail| &tail.entries);
        if before.last().is_some_and(|newest| newest.seq >= last) {
            return None;
        }
        // What was recalled since is not as it was read; what lies before a gap
        // is of no use.
        let recalled = news.iter().filter_map(|entry| match &entry.content {
            Content::Recall { seq } => Some(*seq),
            _ => None,
        });
        let stale = recalled.filter(|seq| *seq < first).max();
        let joins = |newest: &StoredEntry| newest.seq.0.saturating_add(1) >= first.0;
        let old = before
            .iter()
            .filter(|entry| entry.seq < first && stale.is_none_or(|stale| entry.seq > stale));
        let mut entries: Vec<_> = match before.last().is_some_and(joins) {
            true => old.chain(news).cloned().collect(),
            false => news.to_vec(),
        };
        let mut bytes: usize = 0;
        let fit = entries
            .iter()
            .rev()
            .take(TAIL_MAX_ENTRIES)
            .take_while(|entry| {
                bytes += entry_bytes(entry);
                bytes <= TAIL_MAX_BYTES
            });
        let too_old = entries.len() - fit.count();
        entries.drain(..too_old);
        (!entries.is_empty()).then_some(Tail { entries })
    }

    /// The page for a member whose window is (first entry, the log's end), if
    /// the tail reaches from `after` to that end.
    fn page(
        &self,
        (first, end): (Seq, Seq),
        after: Seq,
        limit: PageLimit,
    ) -> Option<ConversationPage> {
        let (oldest, newest) = (self.entries.first()?.seq, self.entries.last()?.seq);
        let next = after.0.saturating_add(1);
        // Before `first` lie the windows of earlier memberships.
        if newest != end || next < oldest.0 || next < first.0 {
            return None;
        }
        let skipped = usize::try_from(next - oldest.0).ok()?;
        let wanted = self.entries.get(skipped..).unwrap_or_default();
        let entries = wanted[..fitting(wanted, limit)].to_vec();
        let reached = entries.last().map_or(after, |entry| entry.seq);
        Some(ConversationPage {
            entries,
            first_seq: first,
            last_seq: end,
            more: reached < end,
        })
    }
}

// === impl Bytes ===

impl Weighter<ConversationId, Arc<Tail>> for Bytes {
    fn weight(&self, _: &ConversationId, tail: &Arc<Tail>) -> u64 {
        tail.entries.iter().map(entry_bytes).sum::<usize>() as u64
    }
}

fn entry_bytes(entry: &StoredEntry) -> usize {
    let content = match &entry.content {
        Content::Message { body, .. } => body.len(),
        Content::GroupCreated { members: users, .. } | Content::Joined { users } => {
            users.len() * 64
        }
        _ => 0,
    };
    ENTRY_BYTES + content
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
    use sluice_protocol::{ClientMsgId, MessageId, Partition, PartitionEpoch, packet::ContentType};
    use sluice_store::{Commit, NewEntry, NewUser, SqliteConfig, SqliteStore};

    use super::*;

    const PEOPLE: [&str; 4] = ["ann", "ben", "cat", "dan"];

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    async fn store() -> (tempfile::TempDir, SqliteStore, PartitionEpoch) {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path(), &SqliteConfig::default()).unwrap();
        store.open_layout(1).await.unwrap();
        for name in PEOPLE {
            let new = NewUser {
                id: user(name),
                username: name.into(),
                password_hash: String::new(),
                created_ms: 1,
            };
            store.create_user(new).await.unwrap();
        }
        let epoch = store.take_partition(Partition(0)).await.unwrap();
        (folder, store, epoch)
    }

    async fn commit(store: &SqliteStore, epoch: PartitionEpoch, sender: &str, content: Content) {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        let mut random = [0; 10];
        random[2..].copy_from_slice(&id.to_be_bytes());
        let entry = NewEntry {
            conversation: ConversationId::group(MessageId(1)),
            sender: user(sender),
            client_msg_id: ClientMsgId::new(1, random),
            predecessor: None,
            message_id: MessageId(id),
            server_time_ms: 1,
            content,
        };
        let commit = Commit {
            partition: Partition(0),
            epoch,
            entries: vec![entry],
        };
        store.commit(commit).await.unwrap();
    }

    /// Anything that may become of a group of which `ann` is the owner.
    fn anything(random: &mut StdRng, end: u64) -> (&'static str, Content) {
        let who = *PEOPLE[1..].choose(random).unwrap();
        match random.random_range(0..10) {
            0 => (
                "ann",
                Content::Joined {
                    users: vec![user(who)],
                },
            ),
            1 => ("ann", Content::Removed { user: user(who) }),
            2 => (who, Content::Left),
            3 | 4 => {
                let seq = Seq(random.random_range(1..=end));
                ("ann", Content::Recall { seq })
            }
            _ => {
                let body = vec![b'x'; random.random_range(0..300)].into();
                let content_type = ContentType::Text;
                ("ann", Content::Message { content_type, body })
            }
        }
    }

    #[tokio::test]
    async fn a_pull_is_answered_as_the_store_would() {
        for seed in 0..8 {
            let mut random = StdRng::seed_from_u64(seed);
            let (_folder, store, epoch) = store().await;
            let group = ConversationId::group(MessageId(1));
            let members = PEOPLE[1..].iter().map(|name| user(name)).collect();
            let name = "gang".to_owned();
            let founded = Content::GroupCreated { name, members };
            commit(&store, epoch, "ann", founded).await;
            // So little that others must go, or plenty.
            let recent = RecentLogs::new(if seed % 2 == 0 { 4096 } else { 1 << 20 });
            for _ in 0..120 {
                let window = store.present_window(&user("ann"), &group).await.unwrap();
                let end = window.unwrap().1.0;
                let (sender, content) = anything(&mut random, end);
                commit(&store, epoch, sender, content).await;
                for _ in 0..4 {
                    let who = user(PEOPLE.choose(&mut random).unwrap());
                    let behind = random.random_range(0..20);
                    let at = Seq((end + 2).saturating_sub(behind));
                    let range = match random.random_range(0..5) {
                        0 => Range::Before(at),
                        _ => Range::After(at),
                    };
                    let limit = PageLimit {
                        entries: random.random_range(1..20),
                        bytes: random.random_range(100..3000),
                    };
                    let expected = store.conversation_log(&who, &group, range, limit).await;
                    let page = recent.log(&store, &who, &group, range, limit).await;
                    assert_eq!(
                        page.unwrap(),
                        expected.unwrap(),
                        "{who} {range:?} {limit:?}, seed {seed}"
                    );
                }
            }
        }
    }

    #[tokio::test]
    async fn members_who_pull_the_same_ask_the_store_once() {
        let (_folder, store, epoch) = store().await;
        let group = ConversationId::group(MessageId(1));
        let members = PEOPLE[1..].iter().map(|name| user(name)).collect();
        let name = "gang".to_owned();
        commit(
            &store,
            epoch,
            "ann",
            Content::GroupCreated { name, members },
        )
        .await;
        let recent = RecentLogs::new(1 << 20);
        let all = PageLimit {
            entries: 100,
            bytes: 100_000,
        };
        let pull = async |who: &str| {
            let (who, range) = (user(who), Range::After(Seq(0)));
            let page = recent.log(&store, &who, &group, range, all).await;
            page.unwrap().unwrap()
        };
        let first = pull("ann").await;
        let kept = |recent: &RecentLogs| recent.tails.as_ref().unwrap().get(&group).unwrap();
        let tail = kept(&recent);
        for name in &PEOPLE[1..] {
            assert_eq!(pull(name).await, first);
        }
        assert!(Arc::ptr_eq(&tail, &kept(&recent)), "it was not read again");
        let window = (Seq(1), Seq(1));
        assert_eq!(tail.page(window, Seq(0), all), Some(first));
    }
}
