//! The bus within a process: append, read by the owner, acknowledge, by the batch.
//!
//! `cargo bench -p sluice-benches --bench bus`
//!
//! On one thread, so that nobody waits to be woken. The bus on Redis is measured by whole
//! systems (`sluice demo --cluster`): there the engine and the network decide.

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sluice_bus::{Bus, BusError, MemoryBus, MemoryBusConfig, NodeName, Reader, Stream};
use sluice_protocol::Partition;

/// What a send of some thirty characters is on the bus.
const ENTRY: &[u8] = &[7; 160];
const BATCHES: [usize; 3] = [1, 16, 256];
const STREAM: Stream = Stream::Message(Partition(0));

/// One batch, through and done with.
async fn pass(bus: &MemoryBus, reader: &mut dyn Reader, batch: usize) -> Result<usize, BusError> {
    bus.append(&STREAM, vec![Bytes::from_static(ENTRY); batch])
        .await?;
    let mut passed = 0;
    while passed < batch {
        let read = reader.read(batch).await?;
        let ids: Vec<_> = read.entries.iter().map(|entry| entry.id).collect();
        passed += ids.len();
        reader.ack(&ids).await?;
    }
    Ok(passed)
}

fn append_read_ack(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap_or_else(|error| panic!("{error}"));
    let bus = MemoryBus::new(MemoryBusConfig::default());
    let name = NodeName("bench".into());
    let mut reader = runtime
        .block_on(bus.own(&STREAM, &name))
        .unwrap_or_else(|error| panic!("{error}"));
    let mut group = criterion.benchmark_group("memory_bus");
    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(format!("batch of {batch}"), |bencher| {
            bencher.iter(|| {
                let passed = runtime.block_on(pass(&bus, reader.as_mut(), batch));
                assert!(passed.is_ok_and(|passed| passed == batch));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, append_read_ack);
criterion_main!(benches);
