//! Delivered cursors of a loop's channels, gathered for about a second so that
//! a hundred acks of one conversation travel as one cursor.

use std::sync::Arc;

use hashbrown::HashMap;
use prost::Message;
use sluice_protocol::{
    UserId,
    envelope::{Acks, DeliveredCursor, Up, up},
    limits::SHARED_PARTITIONS,
    partition_of,
};

use crate::{clock::Now, lane::Lanes, metrics::LoopMetrics};

/// Highest seq a user's devices have acked, by user and conversation.
#[derive(Debug, Default)]
pub(crate) struct AckTally {
    delivered: HashMap<(UserId, Arc<str>), u64>,
    failed: Vec<DeliveredCursor>,
    since_ms: Option<u64>,
}

/// Cursors in one bus entry.
const CURSORS_PER_ENTRY: usize = 256;
/// Failed pushes gathered at once; the rest is only counted in metrics.
const FAILED_MAX: usize = 4_096;

// === impl AckTally ===

impl AckTally {
    /// Raises a cursor.
    pub(crate) fn delivered(
        &mut self,
        user: &UserId,
        conversation: &Arc<str>,
        seq: u64,
        now_ms: u64,
    ) {
        self.since_ms.get_or_insert(now_ms);
        let key = (user.clone(), Arc::clone(conversation));
        let cursor = self.delivered.entry(key).or_default();
        *cursor = (*cursor).max(seq);
    }

    /// Notes a push that was given up.
    pub(crate) fn failed(&mut self, user: &UserId, conversation: &str, seq: u64, now_ms: u64) {
        if self.failed.len() < FAILED_MAX {
            self.since_ms.get_or_insert(now_ms);
            self.failed.push(DeliveredCursor {
                user_id: user.to_string(),
                conversation_id: conversation.to_owned(),
                seq,
            });
        }
    }

    /// Cursors gathered.
    pub(crate) fn len(&self) -> usize {
        self.delivered.len() + self.failed.len()
    }

    /// When the oldest of them came.
    pub(crate) fn since_ms(&self) -> Option<u64> {
        self.since_ms
    }

    /// Hands everything to the Ack lanes. What a full lane does not take is
    /// dropped: the next ack of that conversation raises the cursor all the same.
    pub(crate) fn flush(&mut self, lanes: &Lanes, now: Now, metrics: &LoopMetrics) {
        self.since_ms = None;
        let mut partitions: [Acks; SHARED_PARTITIONS as usize] = Default::default();
        let of = |acks: &mut [Acks; SHARED_PARTITIONS as usize], user: &str| {
            usize::from(partition_of(user.as_bytes(), SHARED_PARTITIONS).0) % acks.len()
        };
        for ((user, conversation), seq) in self.delivered.drain() {
            let index = of(&mut partitions, user.as_str());
            partitions[index].delivered.push(DeliveredCursor {
                user_id: user.to_string(),
                conversation_id: conversation.to_string(),
                seq,
            });
        }
        // A burst must not be remembered for ever.
        self.delivered.shrink_to(FAILED_MAX);
        for cursor in self.failed.drain(..) {
            let index = of(&mut partitions, &cursor.user_id);
            partitions[index].push_failed.push(cursor);
        }
        for (acks, partition) in partitions.into_iter().zip(0..) {
            offer(acks, partition, lanes, now, metrics);
        }
    }
}

fn offer(acks: Acks, partition: u16, lanes: &Lanes, now: Now, metrics: &LoopMetrics) {
    let delivered = acks.delivered.chunks(CURSORS_PER_ENTRY).map(|chunk| Acks {
        delivered: chunk.to_vec(),
        push_failed: Vec::new(),
    });
    let failed = acks
        .push_failed
        .chunks(CURSORS_PER_ENTRY)
        .map(|chunk| Acks {
            delivered: Vec::new(),
            push_failed: chunk.to_vec(),
        });
    for acks in delivered.chain(failed) {
        let cursors = acks.delivered.len() + acks.push_failed.len();
        let up = Up {
            origin: None,
            received_at_ms: now.unix_ms,
            body: Some(up::Body::Acks(acks)),
        };
        let entry = up.encode_to_vec().into();
        if lanes.ack(partition).offer(entry, now.mono_ms).is_err() {
            metrics.cursors_dropped.increment(cursors as u64);
        }
    }
}
