//! The bus against a model: one stream, one owner at a time, random steps.

use std::{collections::VecDeque, sync::Arc};

use proptest::prelude::*;
use sluice_bus::{Bus, EntryId, Reader, Stream};
use sluice_protocol::Partition;

use super::{
    bus::{STREAM_MAX_ENTRIES, batch, name, numbers},
    soon,
};

/// One step.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Append so many entries, if there is room.
    Append(usize),
    /// Read at most so many, if there are any.
    Read(usize),
    /// Ack what is held where the mask has a bit.
    Ack(u64),
    /// Drop the reader and own the stream again.
    Handover,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    number: u32,
    deliveries: u32,
}

/// What the stream should hold: `held` with the reader, `waiting` for it.
#[derive(Debug, Default)]
struct Model {
    appended: u32,
    waiting: VecDeque<Entry>,
    held: Vec<(EntryId, Entry)>,
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..12usize).prop_map(Step::Append),
        4 => (1..10usize).prop_map(Step::Read),
        3 => any::<u64>().prop_map(Step::Ack),
        1 => Just(Step::Handover),
    ];
    prop::collection::vec(step, 1..120)
}

/// Walks the steps and panics where bus and model differ; acks the rest at the end.
pub(crate) async fn walk(bus: Arc<dyn Bus>, steps: Vec<Step>) {
    let stream = Stream::Message(Partition(3));
    let mut model = Model::default();
    let mut reader = bus.own(&stream, &name("owner")).await.unwrap();
    for step in steps {
        match step {
            Step::Append(count) => {
                if model.len() + count <= STREAM_MAX_ENTRIES {
                    let entries = batch(model.append(count));
                    bus.append(&stream, entries).await.unwrap();
                }
            }
            Step::Read(max_entries) => model.read(&mut reader, max_entries).await,
            Step::Ack(mask) => model.ack(&mut reader, mask).await,
            Step::Handover => {
                drop(reader);
                reader = soon("the lease", bus.own(&stream, &name("owner")))
                    .await
                    .unwrap();
                model.hand_over();
            }
        }
        let lag = bus.lag(&stream).await.unwrap();
        assert_eq!(lag.entries, model.len() as u64);
    }
    while model.len() > 0 {
        model.read(&mut reader, usize::MAX).await;
        model.ack(&mut reader, u64::MAX).await;
    }
    assert_eq!(bus.lag(&stream).await.unwrap().entries, 0);
}

// === impl Model ===

impl Model {
    fn len(&self) -> usize {
        self.waiting.len() + self.held.len()
    }

    fn append(&mut self, count: usize) -> Vec<u32> {
        let first = self.appended;
        self.appended += count as u32;
        let fresh: Vec<_> = (first..self.appended).collect();
        let deliveries = 0;
        self.waiting
            .extend(fresh.iter().map(|&number| Entry { number, deliveries }));
        fresh
    }

    async fn read(&mut self, reader: &mut Box<dyn Reader>, max_entries: usize) {
        if self.waiting.is_empty() {
            return;
        }
        let read = soon("entries", reader.read(max_entries)).await.unwrap();
        let count = read.entries.len();
        assert!((1..=max_entries).contains(&count));
        assert!(!read.reset && read.lost_entries == 0);
        let expected: Vec<_> = self.waiting.drain(..count).collect();
        let expected_numbers: Vec<_> = expected.iter().map(|entry| entry.number).collect();
        assert_eq!(numbers(&read), expected_numbers);
        for (got, mut entry) in read.entries.iter().zip(expected) {
            entry.deliveries += 1;
            assert_eq!(got.deliveries, entry.deliveries);
            self.held.push((got.id, entry));
        }
    }

    async fn ack(&mut self, reader: &mut Box<dyn Reader>, mask: u64) {
        let mut bit = 0;
        let mut ids = Vec::new();
        self.held.retain(|(id, _)| {
            let done = mask >> (bit % 64) & 1 == 1;
            bit += 1;
            if done {
                ids.push(*id);
            }
            !done
        });
        reader.ack(&ids).await.unwrap();
    }

    fn hand_over(&mut self) {
        for (_, entry) in self.held.drain(..).rev() {
            self.waiting.push_front(entry);
        }
    }
}
