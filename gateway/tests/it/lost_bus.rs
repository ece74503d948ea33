//! A bus that can't be reached while a test says so.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use sluice_bus::{
    Bus, BusError, EntryId, Lag, MemoryBus, MemoryBusConfig, NodeName, ReadBatch, Reader, Stream,
};

use crate::{
    admin::get,
    client::text,
    rig::{Rig, config, eventually},
};
use sluice_protocol::packet::packet::Body;

struct LostBus {
    inner: Arc<MemoryBus>,
    away: Arc<AtomicBool>,
}

struct LostReader {
    inner: Box<dyn Reader>,
    away: Arc<AtomicBool>,
}

fn reach(away: &AtomicBool) -> Result<(), BusError> {
    match away.load(Ordering::Relaxed) {
        true => Err(BusError::Unavailable("it is away".into())),
        false => Ok(()),
    }
}

#[async_trait]
impl Bus for LostBus {
    async fn append(&self, stream: &Stream, entries: Vec<Bytes>) -> Result<(), BusError> {
        reach(&self.away)?;
        self.inner.append(stream, entries).await
    }

    async fn own(&self, stream: &Stream, owner: &NodeName) -> Result<Box<dyn Reader>, BusError> {
        reach(&self.away)?;
        let inner = self.inner.own(stream, owner).await?;
        let away = Arc::clone(&self.away);
        Ok(Box::new(LostReader { inner, away }))
    }

    async fn join(&self, stream: &Stream, name: &NodeName) -> Result<Box<dyn Reader>, BusError> {
        self.inner.join(stream, name).await
    }

    async fn lag(&self, stream: &Stream) -> Result<Lag, BusError> {
        self.inner.lag(stream).await
    }

    async fn delete(&self, stream: &Stream) -> Result<(), BusError> {
        self.inner.delete(stream).await
    }
}

#[async_trait]
impl Reader for LostReader {
    async fn read(&mut self, max_entries: usize) -> Result<ReadBatch, BusError> {
        loop {
            reach(&self.away)?;
            let read = self.inner.read(max_entries);
            if let Ok(batch) = tokio::time::timeout(Duration::from_millis(20), read).await {
                return batch;
            }
        }
    }

    async fn ack(&mut self, ids: &[EntryId]) -> Result<(), BusError> {
        reach(&self.away)?;
        self.inner.ack(ids).await
    }

    fn begin_again(&mut self) {
        self.inner.begin_again();
    }
}

#[tokio::test]
async fn a_gateway_without_its_bus_is_alive_and_not_ready() {
    let mut config = config();
    config.timeouts.bus_ms = 500;
    let inner = MemoryBus::new(MemoryBusConfig::default());
    let away = Arc::new(AtomicBool::new(false));
    let bus = LostBus {
        inner: Arc::clone(&inner),
        away: Arc::clone(&away),
    };
    let rig = Rig::start_parts(config, Arc::new(bus), inner, Vec::new()).await;
    let mut alice = rig.login("alice").await;
    assert_eq!(get(rig.admin, "/readyz", "").await.0, 200);
    away.store(true, Ordering::Relaxed);
    alice.send(5, Body::Send(text("bob", "later"))).await;
    // A hiccup is none of anybody's business.
    assert_eq!(get(rig.admin, "/readyz", "").await.0, 200);
    eventually("not ready", async || {
        get(rig.admin, "/readyz", "").await.0 == 503
    })
    .await;
    let (_, reason) = get(rig.admin, "/readyz", "").await;
    assert!(reason.contains("it is away"), "{reason}");
    assert_eq!(get(rig.admin, "/healthz", "").await.0, 200);
    away.store(false, Ordering::Relaxed);
    assert!(matches!(alice.answer(5).await, Body::SendAck(_)));
    eventually("ready", async || {
        get(rig.admin, "/readyz", "").await.0 == 200
    })
    .await;
}
