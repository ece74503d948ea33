//! What all loops of a gateway share.

use std::sync::Arc;

use sluice_bus::Stream;
use sluice_codec::datagram::{self, ServerKeys};
use sluice_protocol::Incarnation;
use sluice_trace::Tracer;

use crate::{
    address_limits::AddressLimits,
    clock::Clock,
    config::{Config, DatagramConfig, PushConfig},
    handover::LegacyRule,
    lane::Lanes,
    pipeline::Pipeline,
    push_window::RetryRule,
    rate::Rate,
    registration::Unbinder,
    replay::ReplayGuard,
    rtt::RtoBounds,
    token::TokenVerifier,
};

/// Settings and services of one gateway, read-only or behind their own locks.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) incarnation: Incarnation,
    /// Where answers to this gateway go.
    pub(crate) reply_to: String,
    pub(crate) clock: Clock,
    pub(crate) lanes: Lanes,
    pub(crate) verifier: TokenVerifier,
    pub(crate) replay: ReplayGuard,
    pub(crate) addresses: AddressLimits,
    pub(crate) unbinder: Unbinder,
    pub(crate) pipeline: Pipeline,
    pub(crate) packet_rate: Rate,
    pub(crate) retry_rule: RetryRule,
    pub(crate) legacy_rule: LegacyRule,
    pub(crate) datagram_config: Arc<datagram::Config>,
    /// For TCP connections that clients encrypt; `None` where they can't.
    pub(crate) stream_keys: Option<ServerKeys>,
    pub(crate) tracer: Tracer,
}

/// What [`Shared`] is made of, apart from what follows from the settings.
pub(crate) struct SharedParts {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) incarnation: Incarnation,
    pub(crate) lanes: Lanes,
    pub(crate) verifier: TokenVerifier,
    pub(crate) unbinder: Unbinder,
    pub(crate) pipeline: Pipeline,
    pub(crate) stream_keys: Option<ServerKeys>,
    pub(crate) tracer: Tracer,
}

// === impl Shared ===

impl Shared {
    pub(crate) fn new(parts: SharedParts) -> Self {
        let limits = &parts.config.limits;
        Self {
            incarnation: parts.incarnation,
            reply_to: Stream::Down(parts.incarnation).to_string(),
            clock: parts.clock,
            lanes: parts.lanes,
            verifier: parts.verifier,
            replay: ReplayGuard::new(limits.connect_skew_max_ms, limits.replay_entries_max),
            addresses: AddressLimits::new(limits),
            unbinder: parts.unbinder,
            pipeline: parts.pipeline,
            stream_keys: parts.stream_keys,
            tracer: parts.tracer,
            packet_rate: Rate::per_second(limits.packets_per_s, limits.packets_burst),
            retry_rule: retry_rule(&parts.config.push),
            legacy_rule: LegacyRule {
                kept_ms: parts.config.push.legacy_ms,
                max_bytes: parts.config.push.legacy_max_bytes,
            },
            datagram_config: Arc::new(datagram_config(&parts.config.datagrams)),
            config: parts.config,
        }
    }
}

fn datagram_config(datagrams: &DatagramConfig) -> datagram::Config {
    datagram::Config {
        silence_ms: datagrams.silence_ms,
        idle_ms: datagrams.idle_ms,
        datagram_max_bytes: datagrams.datagram_max_bytes,
        ..datagram::Config::default()
    }
}

fn retry_rule(push: &PushConfig) -> RetryRule {
    RetryRule {
        rto: RtoBounds {
            initial_ms: push.rto_initial_ms,
            min_ms: push.rto_min_ms,
            max_ms: push.rto_max_ms,
        },
        tries_max: push.tries_max.max(1),
        resend_max_bytes: push.output_low_bytes,
    }
}
