//! The contract of [`Bus`].

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use sluice_bus::{
    BATCH_MAX_BYTES, BATCH_MAX_ENTRIES, Bus, BusError, Lag, NodeName, ReadBatch, Reader, Stream,
};
use sluice_protocol::{Incarnation, Partition};
use tokio::{sync::Mutex, task::JoinSet, time::timeout};

use super::{MOMENT, eventually, soon};

/// Streams of a bus under test hold this many entries.
pub(crate) const STREAM_MAX_ENTRIES: usize = 64;

const UP: Stream = Stream::Message(Partition(7));
const SHARED: Stream = Stream::Query(Partition(1));
const DOWN: Stream = Stream::Down(Incarnation(9));

pub(crate) fn name(text: &str) -> NodeName {
    NodeName(text.into())
}

/// Entries that carry these numbers.
pub(crate) fn batch(numbers: impl IntoIterator<Item = u32>) -> Vec<Bytes> {
    let bytes = |n: u32| Bytes::copy_from_slice(&n.to_be_bytes());
    numbers.into_iter().map(bytes).collect()
}

/// The numbers that the entries carry.
pub(crate) fn numbers(read: &ReadBatch) -> Vec<u32> {
    let number = |payload: &Bytes| u32::from_be_bytes(payload[..].try_into().unwrap());
    read.entries.iter().map(|e| number(&e.payload)).collect()
}

async fn ack_all(reader: &mut Box<dyn Reader>, read: &ReadBatch) {
    let ids: Vec<_> = read.entries.iter().map(|e| e.id).collect();
    reader.ack(&ids).await.unwrap();
}

/// Reads and acks until that many have come.
async fn drain(reader: &mut Box<dyn Reader>, count: usize) -> Vec<u32> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let read = soon("entries", reader.read(count - seen.len()))
            .await
            .unwrap();
        seen.extend(numbers(&read));
        ack_all(reader, &read).await;
    }
    seen
}

pub(crate) async fn who_begins_again_gets_what_it_had(bus: Arc<dyn Bus>) {
    for stream in [UP, SHARED] {
        let mut reader = match stream {
            UP => bus.own(&stream, &name("a")).await.unwrap(),
            _ => bus.join(&stream, &name("a")).await.unwrap(),
        };
        bus.append(&stream, batch(0..6)).await.unwrap();
        let read = soon("the first", reader.read(2)).await.unwrap();
        ack_all(&mut reader, &read).await;
        let read = soon("the next", reader.read(2)).await.unwrap();
        assert_eq!(numbers(&read), [2, 3], "{stream}");
        reader.begin_again();
        bus.append(&stream, batch(6..8)).await.unwrap();
        assert_eq!(drain(&mut reader, 6).await, [2, 3, 4, 5, 6, 7], "{stream}");
        // With nothing in hand it changes nothing.
        reader.begin_again();
        bus.append(&stream, batch(8..9)).await.unwrap();
        assert_eq!(drain(&mut reader, 1).await, [8], "{stream}");
    }
}

pub(crate) async fn entries_keep_their_order(bus: Arc<dyn Bus>) {
    let mut reader = bus.own(&UP, &name("a")).await.unwrap();
    bus.append(&UP, Vec::new()).await.unwrap();
    for first in [0, 10, 20] {
        bus.append(&UP, batch(first..first + 10)).await.unwrap();
    }
    assert_eq!(drain(&mut reader, 30).await, (0..30).collect::<Vec<_>>());
}

pub(crate) async fn streams_are_apart(bus: Arc<dyn Bus>) {
    let request = |service: &str| Stream::Request {
        service: service.into(),
        partition: Partition(7),
    };
    let streams = [
        UP,
        Stream::Message(Partition(8)),
        Stream::Query(Partition(7)),
        Stream::Session(Partition(7)),
        Stream::Ack(Partition(7)),
        request("stock"),
        request("stocks"),
    ];
    for (n, stream) in (0..).zip(&streams) {
        bus.append(stream, batch([n])).await.unwrap();
    }
    for (n, stream) in (0..).zip(&streams) {
        let mut reader = bus.own(stream, &name("a")).await.unwrap();
        assert_eq!(drain(&mut reader, 1).await, [n], "{stream}");
    }
}

pub(crate) async fn a_read_gives_no_more_than_asked(bus: Arc<dyn Bus>) {
    bus.append(&UP, batch(0..10)).await.unwrap();
    let mut reader = bus.own(&UP, &name("a")).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 10 {
        let read = reader.read(3).await.unwrap();
        assert!((1..=3).contains(&read.entries.len()));
        assert!(read.entries.iter().all(|entry| entry.deliveries == 1));
        seen.extend(numbers(&read));
    }
    assert_eq!(seen, (0..10).collect::<Vec<_>>());
}

pub(crate) async fn a_read_waits_for_the_first_entry(bus: Arc<dyn Bus>) {
    let mut reader = bus.own(&UP, &name("a")).await.unwrap();
    let reading = tokio::spawn(async move { reader.read(5).await });
    tokio::time::sleep(MOMENT).await;
    assert!(!reading.is_finished());
    bus.append(&UP, batch([1])).await.unwrap();
    let read = soon("the read", reading).await.unwrap().unwrap();
    assert_eq!(numbers(&read), [1]);
}

pub(crate) async fn the_next_owner_gets_what_was_not_acked_first_and_in_order(bus: Arc<dyn Bus>) {
    bus.append(&UP, batch(0..10)).await.unwrap();
    let mut first = bus.own(&UP, &name("a")).await.unwrap();
    let mut held = Vec::new();
    while held.len() < 6 {
        held.extend(first.read(6 - held.len()).await.unwrap().entries);
    }
    first.ack(&[held[1].id, held[4].id]).await.unwrap();
    drop(first);
    bus.append(&UP, batch(10..12)).await.unwrap();
    let mut second = soon("the lease", bus.own(&UP, &name("b"))).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 10 {
        let read = soon("entries", second.read(3)).await.unwrap();
        for (entry, number) in read.entries.iter().zip(numbers(&read)) {
            assert!(number > 5 || entry.deliveries >= 2, "{number} came before");
            seen.push(number);
        }
    }
    assert_eq!(seen, [0, 2, 3, 5, 6, 7, 8, 9, 10, 11]);
}

pub(crate) async fn acks_are_repeatable_and_in_any_order(bus: Arc<dyn Bus>) {
    bus.append(&UP, batch(0..3)).await.unwrap();
    let mut reader = bus.own(&UP, &name("a")).await.unwrap();
    let mut ids = Vec::new();
    while ids.len() < 3 {
        let read = reader.read(3).await.unwrap();
        ids.extend(read.entries.iter().map(|e| e.id));
    }
    reader.ack(&[]).await.unwrap();
    reader.ack(&[ids[2], ids[0], ids[2]]).await.unwrap();
    reader.ack(&[ids[0]]).await.unwrap();
    drop(reader);
    let mut next = soon("the lease", bus.own(&UP, &name("a"))).await.unwrap();
    assert_eq!(drain(&mut next, 1).await, [1]);
    assert!(timeout(MOMENT, next.read(1)).await.is_err(), "no more");
}

pub(crate) async fn one_owner_at_a_time(bus: Arc<dyn Bus>) {
    let first = bus.own(&UP, &name("a")).await.unwrap();
    let waiting = {
        let bus = Arc::clone(&bus);
        tokio::spawn(async move { bus.own(&UP, &name("b")).await })
    };
    tokio::time::sleep(MOMENT).await;
    assert!(!waiting.is_finished(), "two owners");
    drop(first);
    let mut second = soon("the lease", waiting).await.unwrap().unwrap();
    bus.append(&UP, batch([1])).await.unwrap();
    assert_eq!(drain(&mut second, 1).await, [1]);
}

pub(crate) async fn a_cancelled_own_takes_no_lease(bus: Arc<dyn Bus>) {
    let first = bus.own(&UP, &name("a")).await.unwrap();
    for _ in 0..3 {
        let cancelled = timeout(MOMENT / 3, bus.own(&UP, &name("b"))).await;
        assert!(cancelled.is_err());
    }
    drop(first);
    soon("the lease", bus.own(&UP, &name("c"))).await.unwrap();
}

pub(crate) async fn a_cancelled_read_loses_nothing(bus: Arc<dyn Bus>) {
    let mut reader = bus.own(&UP, &name("a")).await.unwrap();
    let producer = {
        let bus = Arc::clone(&bus);
        tokio::spawn(async move {
            for number in 0..300 {
                bus.append(&UP, batch([number])).await.unwrap();
                if number % 3 == 0 {
                    tokio::time::sleep(Duration::from_micros(300)).await;
                }
            }
        })
    };
    let mut seen = Vec::new();
    while seen.len() < 300 {
        let cut = Duration::from_micros(50 * (seen.len() as u64 % 9));
        if let Ok(read) = timeout(cut, reader.read(2)).await {
            let read = read.unwrap();
            seen.extend(numbers(&read));
            ack_all(&mut reader, &read).await;
        }
    }
    producer.await.unwrap();
    assert_eq!(seen, (0..300).collect::<Vec<_>>());
}

pub(crate) async fn consumers_share_and_inherit(bus: Arc<dyn Bus>) {
    let mut one = bus.join(&SHARED, &name("one")).await.unwrap();
    let mut two = bus.join(&SHARED, &name("two")).await.unwrap();
    bus.append(&SHARED, batch(0..20)).await.unwrap();
    let held = soon("a first part", one.read(5)).await.unwrap();
    let done = soon("a second part", two.read(5)).await.unwrap();
    assert!(numbers(&held).iter().all(|n| !numbers(&done).contains(n)));
    ack_all(&mut two, &done).await;
    let already_done = done.entries.len();
    let waiting = tokio::spawn(async move { drain(&mut two, 20 - already_done).await });
    // What the first holds stays with it while it is there, and goes to the other then.
    tokio::time::sleep(MOMENT).await;
    assert!(!waiting.is_finished());
    drop(one);
    let mut seen = soon("the inheritance", waiting).await.unwrap();
    seen.extend(numbers(&done));
    seen.sort_unstable();
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
}

pub(crate) async fn one_append_wakes_as_many_consumers_as_it_feeds(bus: Arc<dyn Bus>) {
    let mut reading = JoinSet::new();
    for consumer in ["one", "two", "three"] {
        let mut reader = bus.join(&SHARED, &name(consumer)).await.unwrap();
        // Each comes back with its part and keeps it.
        reading.spawn(async move { (reader.read(5).await.unwrap(), reader) });
    }
    tokio::time::sleep(MOMENT).await;
    bus.append(&SHARED, batch(0..15)).await.unwrap();
    let parts = soon("all three", reading.join_all()).await;
    let mut seen: Vec<_> = parts.iter().flat_map(|(read, _)| numbers(read)).collect();
    seen.sort_unstable();
    seen.dedup();
    assert!(parts.iter().all(|(read, _)| !read.entries.is_empty()));
    let held: usize = parts.iter().map(|(read, _)| read.entries.len()).sum();
    assert_eq!(seen.len(), held, "each to one of them");
}

pub(crate) async fn a_full_up_stream_makes_producers_wait_in_turn(bus: Arc<dyn Bus>) {
    let bound = STREAM_MAX_ENTRIES as u32;
    bus.append(&UP, batch(0..bound)).await.unwrap();
    let mut waiting = Vec::new();
    for n in 0..4 {
        let bus = Arc::clone(&bus);
        let more = batch(bound + n * 10..bound + n * 10 + 10);
        waiting.push(tokio::spawn(async move { bus.append(&UP, more).await }));
        tokio::time::sleep(MOMENT).await;
    }
    assert!(waiting.iter().all(|append| !append.is_finished()));
    let mut reader = bus.own(&UP, &name("a")).await.unwrap();
    let seen = drain(&mut reader, STREAM_MAX_ENTRIES + 40).await;
    assert_eq!(seen, (0..bound + 40).collect::<Vec<_>>());
    for append in waiting {
        soon("an append", append).await.unwrap().unwrap();
    }
}

pub(crate) async fn a_cancelled_append_is_whole_or_absent(bus: Arc<dyn Bus>) {
    let bound = STREAM_MAX_ENTRIES as u32;
    bus.append(&UP, batch(0..bound)).await.unwrap();
    let cancelled = timeout(MOMENT, bus.append(&UP, batch(bound..bound + 5))).await;
    assert!(cancelled.is_err(), "the stream is full");
    let later = {
        let bus = Arc::clone(&bus);
        tokio::spawn(async move { bus.append(&UP, batch([999])).await })
    };
    let mut reader = bus.own(&UP, &name("a")).await.unwrap();
    let mut seen = Vec::new();
    while seen.last() != Some(&999) {
        seen.extend(drain(&mut reader, 1).await);
    }
    soon("the later append", later).await.unwrap().unwrap();
    seen.pop();
    let whole = (0..bound + 5).collect::<Vec<_>>();
    assert!(seen == whole || seen == whole[..STREAM_MAX_ENTRIES]);
}

pub(crate) async fn a_down_stream_lives_as_long_as_its_owner(bus: Arc<dyn Bus>) {
    let gone = Err(BusError::Gone(DOWN.to_string()));
    assert_eq!(bus.append(&DOWN, batch([1])).await, gone);
    let mut reader = bus.own(&DOWN, &name("gateway")).await.unwrap();
    bus.append(&DOWN, batch([2, 3])).await.unwrap();
    assert_eq!(drain(&mut reader, 2).await, [2, 3]);
    bus.append(&DOWN, batch([4])).await.unwrap();
    drop(reader);
    eventually("the stream to go", async || {
        bus.append(&DOWN, batch([5])).await == gone
    })
    .await;
    assert_eq!(bus.lag(&DOWN).await.unwrap(), Lag::default());
}

pub(crate) async fn a_full_down_stream_drops_whole_batches(bus: Arc<dyn Bus>) {
    let mut reader = bus.own(&DOWN, &name("gateway")).await.unwrap();
    let rounds = STREAM_MAX_ENTRIES as u32 / 10 * 2;
    for round in 0..rounds {
        let append = bus.append(&DOWN, batch(round * 10..round * 10 + 10));
        soon("a down append", append).await.unwrap();
    }
    let lag = bus.lag(&DOWN).await.unwrap();
    assert!(lag.entries <= STREAM_MAX_ENTRIES as u64, "{lag:?}");
    let kept = drain(&mut reader, lag.entries as usize).await;
    let whole = (0..lag.entries as u32).collect::<Vec<_>>();
    assert_eq!(kept, whole, "the oldest stay, no batch in part");
    assert_eq!(kept.len() % 10, 0);
    bus.append(&DOWN, batch([7])).await.unwrap();
    assert_eq!(drain(&mut reader, 1).await, [7], "room again");
}

pub(crate) async fn oversize_batches_are_refused_whole(bus: Arc<dyn Bus>) {
    let too_many = batch(0..BATCH_MAX_ENTRIES as u32 + 1);
    let half = Bytes::from(vec![0; BATCH_MAX_BYTES / 2]);
    let too_big = vec![half.clone(), half.clone(), Bytes::from_static(b"x")];
    for refused in [too_many, too_big] {
        let error = bus.append(&UP, refused).await.unwrap_err();
        assert!(matches!(error, BusError::TooLarge { .. }), "{error}");
    }
    assert_eq!(bus.lag(&UP).await.unwrap(), Lag::default());
    // The largest batch fits an empty stream, whatever the stream's own bound.
    bus.append(&UP, vec![half.clone(), half]).await.unwrap();
    let mut reader = bus.own(&UP, &name("a")).await.unwrap();
    let mut seen = 0;
    while seen < 2 {
        let read = reader.read(2).await.unwrap();
        seen += read.entries.len();
        ack_all(&mut reader, &read).await;
    }
    bus.append(&UP, batch(0..BATCH_MAX_ENTRIES as u32))
        .await
        .unwrap();
    let seen = drain(&mut reader, BATCH_MAX_ENTRIES).await;
    assert_eq!(seen, (0..BATCH_MAX_ENTRIES as u32).collect::<Vec<_>>());
}

pub(crate) async fn deleting_closes_the_reader(bus: Arc<dyn Bus>) {
    let mut reader = bus.own(&UP, &name("a")).await.unwrap();
    bus.append(&UP, batch([1])).await.unwrap();
    let held = reader.read(1).await.unwrap();
    let reading = tokio::spawn(async move { (reader.read(1).await.err(), reader) });
    tokio::time::sleep(MOMENT).await;
    bus.delete(&UP).await.unwrap();
    bus.delete(&UP).await.unwrap();
    let (error, mut reader) = soon("the read to end", reading).await.unwrap();
    let closed = BusError::Closed(UP.to_string());
    assert_eq!(error, Some(closed.clone()));
    assert_eq!(reader.ack(&[held.entries[0].id]).await, Err(closed));
    assert_eq!(bus.lag(&UP).await.unwrap(), Lag::default());
    drop(reader);
    // A stream of that name may come into being again.
    bus.append(&UP, batch([2])).await.unwrap();
    let mut reader = soon("the lease", bus.own(&UP, &name("b"))).await.unwrap();
    assert_eq!(drain(&mut reader, 1).await, [2]);
}

pub(crate) async fn lag_counts_what_is_not_acked(bus: Arc<dyn Bus>) {
    assert_eq!(bus.lag(&UP).await.unwrap(), Lag::default());
    bus.append(&UP, batch(0..10)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    let mut reader = bus.own(&UP, &name("a")).await.unwrap();
    let read = reader.read(4).await.unwrap();
    let lag = bus.lag(&UP).await.unwrap();
    assert_eq!(lag.entries, 10);
    assert!(lag.oldest_ms >= 25, "{lag:?}");
    ack_all(&mut reader, &read).await;
    let left = 10 - read.entries.len();
    assert_eq!(bus.lag(&UP).await.unwrap().entries, left as u64);
    drain(&mut reader, left).await;
    assert_eq!(bus.lag(&UP).await.unwrap(), Lag::default());
}

/// Four producers, three consumers of which one keeps leaving: every entry is
/// acked, none is seen again once it was, and each producer's order holds.
pub(crate) async fn producers_and_consumers_at_full_speed(bus: Arc<dyn Bus>) {
    const EACH: u32 = 500;
    let mut producers = JoinSet::new();
    for producer in 0..4 {
        let bus = Arc::clone(&bus);
        producers.spawn(async move {
            for chunk in (0..EACH).collect::<Vec<_>>().chunks(7) {
                let entries = batch(chunk.iter().map(|n| producer * 100_000 + n));
                bus.append(&SHARED, entries).await.unwrap();
            }
        });
    }
    let acked = Arc::new(Mutex::new(BTreeMap::<u32, u32>::new()));
    let mut consumers = JoinSet::new();
    for consumer in 0..3 {
        let (bus, acked) = (Arc::clone(&bus), Arc::clone(&acked));
        let quits = consumer == 0;
        consumers.spawn(async move {
            loop {
                let consumer = name(&format!("consumer {consumer}"));
                let mut reader = bus.join(&SHARED, &consumer).await.unwrap();
                for _ in 0..10 {
                    let read = reader.read(9).await.unwrap();
                    let mut acked = acked.lock().await;
                    let quit = quits && read.entries.len() % 3 == 0;
                    let fresh: Vec<_> = numbers(&read);
                    assert!(fresh.iter().all(|n| !acked.contains_key(n)), "acked before");
                    assert!(
                        fresh
                            .windows(2)
                            .all(|w| { w[0] / 100_000 != w[1] / 100_000 || w[0] < w[1] })
                    );
                    if quit {
                        break;
                    }
                    ack_all(&mut reader, &read).await;
                    acked.extend(fresh.into_iter().map(|n| (n, 1)));
                }
            }
        });
    }
    while let Some(done) = producers.join_next().await {
        done.unwrap();
    }
    eventually("all to be acked", async || {
        acked.lock().await.len() == 4 * EACH as usize
    })
    .await;
    eventually("no lag", async || {
        bus.lag(&SHARED).await.unwrap() == Lag::default()
    })
    .await;
    consumers.shutdown().await;
}
