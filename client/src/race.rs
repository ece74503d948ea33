//! Connects by whichever way is there first (the idea of RFC 8305): each way gets
//! a head start before the next is tried beside it. Nobody has logged in by then,
//! so those that lose are dropped without a trace.

use std::{collections::VecDeque, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};

use crate::{LinkError, Transport, endpoint::Route, link::Link};

/// One way to the server.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) transport: Transport,
    pub(crate) route: Route,
    /// Before the next candidate, unless this one fails earlier.
    pub(crate) head_start: Duration,
}

/// The winner.
pub(crate) struct Raced {
    pub(crate) link: Link,
    /// UDP was tried too.
    pub(crate) udp_lost: bool,
}

/// Connects, each candidate within `timeout`.
///
/// # Errors
/// What the last one met that failed.
pub(crate) async fn race(
    candidates: Vec<Candidate>,
    timeout: Duration,
) -> Result<Raced, LinkError> {
    let mut waiting: VecDeque<_> = candidates.into();
    let mut running = FuturesUnordered::new();
    let mut udp_tried = false;
    let mut failure = LinkError::NoAddress;
    while let Some(candidate) = waiting.pop_front() {
        udp_tried |= candidate.transport == Transport::Udp;
        running.push(Link::connect(candidate.route, timeout));
        let first = tokio::time::timeout(candidate.head_start, running.next());
        match first.await {
            Ok(Some(Ok(link))) => return Ok(Raced::new(link, udp_tried)),
            Ok(Some(Err(error))) => failure = error,
            // Beside those that are on their way.
            Ok(None) | Err(_) => {}
        }
    }
    while let Some(connected) = running.next().await {
        match connected {
            Ok(link) => return Ok(Raced::new(link, udp_tried)),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

// === impl Raced ===

impl Raced {
    fn new(link: Link, udp_tried: bool) -> Self {
        let udp_lost = udp_tried && link.transport() != Transport::Udp;
        Self { link, udp_lost }
    }
}
