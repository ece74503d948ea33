//! [`RedisBus`]: the port [`Bus`] on Redis Streams.
//!
//! A batch is one script on one key, so it is in the stream as a whole or not at
//! all, whatever else goes on. Scripts run over one connection that all share;
//! each reader has another for its doorbell, which alone may block. Every write
//! of a reader is fenced by its lease within the same script.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::{
    config::RedisConfig,
    doorbell::Doorbell,
    held::Membership,
    lease::Lease,
    link::RedisLink,
    names::Names,
    reader::{RedisReader, Seat},
    scripts::Scripts,
};
use crate::{BATCH_MAX_BYTES, BATCH_MAX_ENTRIES, Bus, BusError, Lag, NodeName, Reader, Stream};

/// Streams on Redis.
pub struct RedisBus {
    pub(super) engine: Arc<Engine>,
    /// Appends wait for replicas on a connection where nobody waits behind them.
    appends: Arc<RedisLink>,
    turns: Turns,
}

/// What the bus and its readers share.
pub(super) struct Engine {
    pub(super) link: Arc<RedisLink>,
    pub(super) config: RedisConfig,
    pub(super) scripts: Scripts,
}

/// One append at a time for each stream that makes producers wait, so that they
/// are served first come, first served. As many as there are partitions.
type Turns = Mutex<HashMap<Stream, Arc<tokio::sync::Mutex<()>>>>;

// === impl RedisBus ===

impl RedisBus {
    /// Takes the configuration; connects when something is to be done.
    ///
    /// # Errors
    /// [`BusError::Unavailable`] when the configuration makes no sense.
    pub fn open(config: &RedisConfig) -> Result<Arc<Self>, BusError> {
        let link = RedisLink::open(config)?;
        let appends = match config.wait_replicas {
            0 => Arc::clone(&link),
            _ => RedisLink::open(config)?,
        };
        Ok(Arc::new(Self {
            engine: Arc::new(Engine {
                link,
                config: config.clone(),
                scripts: Scripts::new(),
            }),
            appends,
            turns: Turns::default(),
        }))
    }

    /// Asks Redis for a sign of life; for readiness probes.
    ///
    /// # Errors
    /// [`BusError::Unavailable`] or [`BusError::Unknown`] when there is none.
    pub async fn ping(&self) -> Result<(), BusError> {
        self.engine
            .link
            .run::<String>("", &redis::cmd("PING"))
            .await?;
        Ok(())
    }

    fn turn(&self, stream: &Stream) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let mut turns = self.turns.lock();
        let turn = || Arc::clone(turns.entry(stream.clone()).or_default());
        stream.blocks_producer().then(turn)
    }

    fn reader(&self, names: Arc<Names>, seat: Seat) -> Box<dyn Reader> {
        let doorbell = Doorbell::new(&self.engine, &names.stream);
        let engine = Arc::clone(&self.engine);
        Box::new(RedisReader::new(engine, names, seat, doorbell))
    }

    async fn try_append(&self, names: &Names, entries: &[Bytes]) -> Result<String, BusError> {
        let keys = [names.stream.as_str(), names.lease.as_str()];
        let bound = self.engine.config.stream_max_entries;
        let script = &self.engine.scripts.append;
        let answer = self.appends.script_kept(script, &keys, |call| {
            call.arg(bound).arg(names.down_flag());
            for entry in entries {
                call.arg(&entry[..]);
            }
        });
        answer.await
    }
}

#[async_trait]
impl Bus for RedisBus {
    async fn append(&self, stream: &Stream, entries: Vec<Bytes>) -> Result<(), BusError> {
        let bytes = entries.iter().map(Bytes::len).sum();
        if entries.len() > BATCH_MAX_ENTRIES || bytes > BATCH_MAX_BYTES {
            let entries = entries.len();
            return Err(BusError::TooLarge { entries, bytes });
        }
        if entries.is_empty() {
            return Ok(());
        }
        let names = Names::of(&self.engine.link, stream);
        let turn = self.turn(stream);
        let _turn = match &turn {
            Some(turn) => Some(turn.lock().await),
            None => None,
        };
        loop {
            match self.try_append(&names, &entries).await?.as_str() {
                "OK" => return Ok(()),
                "GONE" => return Err(BusError::Gone(names.plain)),
                _ if stream.blocks_producer() => {
                    let pause = Duration::from_millis(self.engine.config.full_poll_ms);
                    tokio::time::sleep(pause).await;
                }
                _ => {
                    metrics::counter!("sluice_bus_dropped_entries_total")
                        .increment(entries.len() as u64);
                    return Ok(());
                }
            }
        }
    }

    async fn own(&self, stream: &Stream, owner: &NodeName) -> Result<Box<dyn Reader>, BusError> {
        let names = Arc::new(Names::of(&self.engine.link, stream));
        let lease = Lease::take(&self.engine, &names).await?;
        tracing::debug!(%stream, owner = %owner.0, "lease taken");
        Ok(self.reader(names, Seat::Owner(lease)))
    }

    async fn join(
        &self,
        stream: &Stream,
        consumer: &NodeName,
    ) -> Result<Box<dyn Reader>, BusError> {
        let names = Arc::new(Names::of(&self.engine.link, stream));
        let membership = Membership::begin(&self.engine, &names, consumer).await?;
        tracing::debug!(%stream, consumer = %consumer.0, "joined");
        Ok(self.reader(names, Seat::Member(membership)))
    }

    async fn lag(&self, stream: &Stream) -> Result<Lag, BusError> {
        let names = Names::of(&self.engine.link, stream);
        let script = &self.engine.scripts.lag;
        let keys = [names.stream.as_str()];
        let answer = self.engine.link.script(script, &keys, |_| ());
        let (entries, oldest_ms) = answer.await?;
        Ok(Lag { entries, oldest_ms })
    }

    async fn delete(&self, stream: &Stream) -> Result<(), BusError> {
        let names = Names::of(&self.engine.link, stream);
        let keys = [
            names.stream.as_str(),
            names.lease.as_str(),
            names.closed.as_str(),
        ];
        let script = &self.engine.scripts.delete;
        self.engine
            .link
            .script::<String>(script, &keys, |_| ())
            .await?;
        Ok(())
    }
}
