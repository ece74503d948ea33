//! Packets of a logged-in client: decoded, through all handlers, sends into their lane.
//!
//! `cargo bench -p sluice-benches --bench pipeline`
//!
//! Nanoseconds a packet of a turn of 16; what the lanes then do is not counted. No
//! recorder of metrics is installed, so their increments are left out.

#[path = "sink/mod.rs"]
mod sink;

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sluice_bus::Bus;
use sluice_codec::encode_packet;
use sluice_gateway::bed::Bed;
use sluice_protocol::{
    ClientMsgId,
    limits::FRAME_MAX_BYTES,
    packet::{ContentType, DeliveryClass, Packet, Ping, PushAck, Send, packet::Body, send::Target},
};

use sink::Sink;

const PACKETS: u64 = 16;

fn send() -> Body {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now_ms = now.map_or(0, |now| now.as_millis() as u64);
    let id = ClientMsgId::new(now_ms, [7; 10]);
    Body::Send(Send {
        delivery_class: DeliveryClass::Durable.into(),
        target: Some(Target::ToUser("bob".into())),
        client_msg_id: Bytes::copy_from_slice(id.as_bytes()),
        predecessor: Bytes::new(),
        content_type: ContentType::Text.into(),
        body: Bytes::from_static(b"what a message in a chat is like"),
    })
}

fn push_ack() -> Body {
    Body::PushAck(PushAck {
        cumulative: 5,
        ranges: vec![7, 9],
        cursors: Vec::new(),
    })
}

fn inbound(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap_or_else(|error| panic!("{error}"));
    let bus: Arc<dyn Bus> = Arc::new(Sink);
    let bed = runtime.block_on(async { Bed::new("alice", &bus, 64) });
    let mut bed = bed.unwrap_or_else(|| panic!("alice is a name"));
    let mut group = criterion.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(PACKETS));
    for (name, body) in [
        ("ping", Body::Ping(Ping {})),
        ("push_ack", push_ack()),
        ("send", send()),
    ] {
        let packet = Packet {
            id: 1,
            body: Some(body),
        };
        let payload = encode_packet(&packet, FRAME_MAX_BYTES).unwrap_or_default();
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|turns| {
                let mut spent = Duration::ZERO;
                for _ in 0..turns {
                    let began = Instant::now();
                    for _ in 0..PACKETS {
                        assert!(bed.inbound(black_box(&payload)));
                    }
                    spent += began.elapsed();
                    // A Busy would show as output.
                    assert!(bed.end_turn() == 0 || name == "ping");
                    runtime.block_on(sink::drained(&bed));
                }
                spent
            });
        });
    }
    group.finish();
}

criterion_group!(benches, inbound);
criterion_main!(benches);
