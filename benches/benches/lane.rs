//! A lane: from the offer of an event loop to the append of its writer, by the batch.
//!
//! `cargo bench -p sluice-benches --bench lane`
//!
//! On one thread, over a bus that takes everything at once. In the gateway the two ends
//! are on different threads, and the waking of one by the other comes on top.

#[path = "sink/mod.rs"]
mod sink;

use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sluice_bus::Bus;
use sluice_gateway::bed::Bed;
use sluice_protocol::Partition;

use sink::Sink;

/// What a send of some thirty characters is on the bus.
const ENTRY: &[u8] = &[7; 160];
const BATCHES: [u64; 3] = [1, 16, 256];

fn offer_and_append(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap_or_else(|error| panic!("{error}"));
    let bus: Arc<dyn Bus> = Arc::new(Sink);
    let bed = runtime.block_on(async { Bed::new("alice", &bus, 1) });
    let bed = bed.unwrap_or_else(|| panic!("alice is a name"));
    let mut group = criterion.benchmark_group("lane");
    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(format!("batch of {batch}"), |bencher| {
            bencher.iter(|| {
                for _ in 0..batch {
                    assert!(bed.offer(Partition(0), Bytes::from_static(ENTRY)));
                }
                runtime.block_on(sink::drained(&bed));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, offer_and_append);
criterion_main!(benches);
