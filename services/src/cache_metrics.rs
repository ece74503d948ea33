//! How often the caches of a service node spare it a question to the store.

/// One of the caches, as the label `cache`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cached {
    /// Statuses of users.
    User,
    /// Blocks between users.
    Block,
    /// Members of groups, at the owner of their partition.
    Membership,
    /// The newest entries of groups.
    Recent,
}

/// Counts what was asked for and how much of it was not there.
pub(crate) fn count(cache: Cached, asked: usize, missed: usize) {
    let label = match cache {
        Cached::User => "user",
        Cached::Block => "block",
        Cached::Membership => "membership",
        Cached::Recent => "recent",
    };
    let hits = asked.saturating_sub(missed);
    if hits > 0 {
        metrics::counter!("sluice_cache_hits_total", "cache" => label).increment(hits as u64);
    }
    if missed > 0 {
        metrics::counter!("sluice_cache_misses_total", "cache" => label).increment(missed as u64);
    }
}
