//! What lies on a page of entries: how much fits, and from which window.

use crate::{Content, PageLimit, Range, StoredEntry};

/// A page never has more entries, whatever is asked.
const PAGE_ENTRIES_MAX: u32 = 1_000;

/// Counts a page's entries and bytes.
pub(crate) struct Budget {
    /// How many may still be selected.
    pub(crate) entries: u32,
    bytes: usize,
    any: bool,
}

/// The window of membership that a page lies in: the one with the next entry in
/// the direction asked for. `past` holds the closed windows of earlier
/// memberships, ascending; `latest` is the present (or last) one.
pub(crate) fn window_of(range: Range, past: &[(u64, u64)], latest: (u64, u64)) -> (u64, u64) {
    let earlier = match range {
        Range::After(after) => past.iter().find(|(_, last)| *last > after.0),
        Range::Before(before) if before.0 == 0 || before.0 > latest.0 => None,
        Range::Before(before) => (past.iter().rev())
            .find(|(first, _)| *first < before.0)
            .or(past.first()),
    };
    earlier.copied().unwrap_or(latest)
}

/// How many of the entries, in this order, fit on a page.
pub fn fitting(entries: &[StoredEntry], limit: PageLimit) -> usize {
    let mut budget = Budget::new(limit);
    let entries = entries.iter().take(budget.entries as usize);
    entries.take_while(|entry| budget.take(entry)).count()
}

// === impl Budget ===

impl Budget {
    pub(crate) fn new(limit: PageLimit) -> Self {
        Self {
            entries: limit.entries.min(PAGE_ENTRIES_MAX),
            bytes: limit.bytes,
            any: false,
        }
    }

    /// Whether the entry fits; the first always does.
    pub(crate) fn take(&mut self, entry: &StoredEntry) -> bool {
        let bytes = page_bytes(entry);
        if self.any && bytes > self.bytes {
            return false;
        }
        self.any = true;
        self.bytes = self.bytes.saturating_sub(bytes);
        true
    }
}

/// Bytes of an entry on a page, roughly as encoded.
fn page_bytes(entry: &StoredEntry) -> usize {
    /// Seq, ids, times and field tags.
    const FIXED_BYTES: usize = 64;
    let body = match &entry.content {
        Content::Message { body, .. } => body.len(),
        Content::GroupCreated { name, members } => {
            name.len()
                + members
                    .iter()
                    .map(|user| user.as_str().len() + 2)
                    .sum::<usize>()
        }
        Content::GroupRenamed { name } => name.len(),
        Content::Joined { users } => users
            .iter()
            .map(|user| user.as_str().len() + 2)
            .sum::<usize>(),
        Content::Removed { user } | Content::RoleChanged { user, .. } => user.as_str().len(),
        Content::Recall { .. } | Content::Left => 0,
    };
    FIXED_BYTES + entry.conversation.as_str().len() + entry.sender.as_str().len() + body
}
