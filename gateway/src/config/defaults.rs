//! What a single node ships with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sluice_codec::datagram;
use sluice_protocol::limits::{CONNECT_SKEW_MAX_MS, FRAME_MAX_BYTES, SEND_WINDOW};

use super::{
    AdminToken, Config, DatagramConfig, DirectoryConfig, DrainConfig, LaneConfig, Limits,
    PushConfig, RequestConfig, TcpEncryption, Timeouts,
};

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

const fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tcp_address: Some(everywhere(8900)),
            ws_address: Some(everywhere(8902)),
            udp_address: Some(everywhere(8901)),
            tcp_encryption: TcpEncryption::default(),
            admin_address: Some(loopback(8081)),
            admin_token: AdminToken::default(),
            event_loops: 0,
            connections_per_loop_max: 1_000_000,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            push: PushConfig::default(),
            datagrams: DatagramConfig::default(),
            lanes: LaneConfig::default(),
            requests: RequestConfig::default(),
            directory: DirectoryConfig::default(),
            drain: DrainConfig::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_max_bytes: FRAME_MAX_BYTES,
            packets_per_s: 1_000,
            packets_burst: 4_000,
            connections_per_address: 10_000,
            connects_per_address_per_s: 500,
            connects_per_address_burst: 5_000,
            failed_logins_per_address_per_min: 60,
            addresses_max: 100_000,
            address_limit_exempt: vec![
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ],
            unanswered_max: 2 * SEND_WINDOW,
            pulls_pending_max: 32,
            replay_entries_max: 1_000_000,
            connect_skew_max_ms: CONNECT_SKEW_MAX_MS,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            login_ms: 10_000,
            frame_ms: 15_000,
            heartbeat_interval_ms: 30_000,
            slow_reader_ms: 30_000,
            closing_ms: 2_000,
            bus_ms: 5_000,
        }
    }
}

impl Default for PushConfig {
    fn default() -> Self {
        Self {
            output_high_bytes: 256 * 1024,
            output_low_bytes: 64 * 1024,
            output_max_bytes: 4 * 1024 * 1024,
            window_max: 512,
            window_max_bytes: 1024 * 1024,
            rto_initial_ms: 3_000,
            rto_min_ms: 1_000,
            rto_max_ms: 20_000,
            tries_max: 5,
            resync_delay_max_ms: 2_000,
            ack_flush_ms: 1_000,
            ack_cursors_max: 4_096,
            legacy_ms: 30_000,
            legacy_max_bytes: 16 * 1024 * 1024,
        }
    }
}

impl Default for DatagramConfig {
    fn default() -> Self {
        let datagram::Config {
            silence_ms,
            idle_ms,
            datagram_max_bytes,
            ..
        } = datagram::Config::default();
        Self {
            silence_ms,
            idle_ms,
            datagram_max_bytes,
        }
    }
}

impl Default for LaneConfig {
    fn default() -> Self {
        Self {
            entries_max: 4_096,
            bytes_max: 8 * 1024 * 1024,
            retry_after_ms: 200,
            append_retry_min_ms: 20,
            append_retry_max_ms: 2_000,
        }
    }
}

impl Default for RequestConfig {
    fn default() -> Self {
        Self {
            services: Vec::new(),
            pending_max: 64,
            timeout_default_ms: 10_000,
            timeout_max_ms: 60_000,
        }
    }
}

impl Default for DirectoryConfig {
    fn default() -> Self {
        Self {
            lease_ttl_ms: 15_000,
            reassert_interval_ms: 60_000,
            session_check_interval_ms: 60_000,
            unbind_queue_max: 65_536,
        }
    }
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self {
            reconnect_delay_max_ms: 5_000,
            grace_ms: 5_000,
        }
    }
}
