//! What both clients over UDP go by, the one with sockets and the one without.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use sluice_codec::datagram::Config;

/// Messages that wait for the session; more stay in the datagram session, and in
/// the end at the server, for want of credit.
const RECEIVED_MAX: usize = 256;

/// For a server that bears silences of twice this heartbeat. Three quarters of that leave
/// time for a ping that is lost.
pub(crate) fn kept_alive(config: &Config, heartbeat: Duration) -> Config {
    let most_ms = u32::try_from(heartbeat.as_millis() * 3 / 2).unwrap_or(u32::MAX);
    let keepalive_max_ms = config.keepalive_max_ms.min(most_ms);
    Config {
        keepalive_max_ms,
        keepalive_first_ms: config.keepalive_first_ms.min(keepalive_max_ms),
        keepalive_min_ms: config.keepalive_min_ms.min(keepalive_max_ms),
        ..config.clone()
    }
}

/// False when there is no room.
pub(crate) fn keep(received: &mut VecDeque<Bytes>, message: &[u8]) -> bool {
    let has_room = received.len() < RECEIVED_MAX;
    if has_room {
        received.push_back(Bytes::copy_from_slice(message));
    }
    has_room
}
