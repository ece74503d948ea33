//! What an operator and a draining gateway want to know of a loop.

use super::EventLoop;
use crate::{
    admin::{ConnectionRow, rank},
    connections::Sight,
    mailbox::{LoopLoad, RowOrder, Rows},
    slab::ChannelKey,
};

// === impl EventLoop ===

impl EventLoop {
    /// Ranks all channels, but spells out only those that are asked for: with a
    /// hundred thousand of them the loop must not stand still for a list.
    pub(super) fn rows(&self, order: RowOrder, rows_max: usize) -> Rows {
        let now_ms = self.bench.now.mono_ms;
        let sights = self.connections.sights();
        let mut ranked: Vec<_> = sights
            .map(|(key, sight)| (rank(&sight, order, now_ms), key))
            .collect();
        let total = ranked.len();
        let by_rank = |(rank, _): &(u64, ChannelKey)| std::cmp::Reverse(*rank);
        if rows_max < total {
            ranked.select_nth_unstable_by_key(rows_max, by_rank);
            ranked.truncate(rows_max);
        }
        ranked.sort_unstable_by_key(by_rank);
        let mut rows = Vec::with_capacity(ranked.len());
        for (rank, key) in ranked {
            let sight = self.connections.sight(key);
            let row = sight.and_then(|sight| ConnectionRow::of(&sight, &self.bench));
            rows.extend(row.map(|row| (rank, row)));
        }
        Rows { rows, total }
    }

    pub(super) fn load(&self) -> LoopLoad {
        let mut load = LoopLoad {
            is_telling: !self.rounds.is_idle(),
            ..LoopLoad::default()
        };
        for (_, sight) in self.connections.sights() {
            load.channels += 1;
            let Sight::Awake(connection) = sight else {
                continue;
            };
            let channel = &connection.channel;
            load.unacked_pushes += channel.pushes.as_ref().map_or(0, |window| window.len());
            load.unanswered += channel.unanswered as usize;
        }
        load
    }
}
