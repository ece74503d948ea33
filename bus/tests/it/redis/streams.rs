//! `RedisBus` on a healthy server and cluster.

use std::sync::Arc;

use sluice_bus::{Bus, RedisBus, RedisConfig};

use super::{on_cluster, on_one_server};
use crate::contract::{bus::STREAM_MAX_ENTRIES, bus_contract};

mod one_server {
    use super::*;
    bus_contract!(async { open(&small(on_one_server().await)) as Arc<dyn Bus> });
}

mod cluster {
    use super::*;
    bus_contract!(async { open(&small(on_cluster().await)) as Arc<dyn Bus> });
}

pub(super) fn open(config: &RedisConfig) -> Arc<RedisBus> {
    RedisBus::open(config).unwrap()
}

/// Small streams and short times.
pub(super) fn small(config: RedisConfig) -> RedisConfig {
    RedisConfig {
        stream_max_entries: STREAM_MAX_ENTRIES as u64,
        lease_ttl_ms: 2_000,
        lease_poll_ms: 20,
        claim_idle_ms: 1_500,
        block_ms: 200,
        ..config
    }
}
