//! What is asked for, whatever the workload: how many connections, by what, how deep
//! and how long, and of which server. And what each generator process is told of it.

use std::time::Duration;

use sluice_load::{Job, LoadTransport, PER_SOURCE_ADDRESS, Work};

use super::{
    OPENING_MAX,
    subject::{Server, Subject},
};

/// See the module.
#[derive(Debug, Clone)]
pub struct Load {
    /// By what to connect.
    pub transport: LoadTransport,
    /// How many connections.
    pub connections: usize,
    /// Messages that each may have under way.
    pub depth: u32,
    /// Of each message; 0 where there are none.
    pub body_bytes: usize,
    /// Load that isn't measured.
    pub warm_up: Duration,
    /// What is measured; of rounds that alternate with a floor's, both together.
    pub duration: Duration,
    /// Of what.
    pub server: Server,
}

/// Open files of a process that are no connections: logs, the store, what it begins
/// with.
const FILES_ELSE: usize = 200;

/// Streams that a process may hold, by the open files it may have (a soft limit, which
/// processes started by this one inherit).
pub fn streams_per_process() -> usize {
    open_files_max().saturating_sub(FILES_ELSE)
}

/// Files that a process may have open.
pub fn open_files_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit
        .current
        .map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX))
}

// === impl Load ===

impl Load {
    /// What generators are told to do to a server: as many as open files demand, whose
    /// clients are spread over all gateways. Neighbours, who chat, stay together.
    pub(super) fn jobs(&self, subject: &Subject, work: &Work) -> anyhow::Result<Vec<Job>> {
        let addresses = subject.addresses(self.transport)?;
        let generators = match self.transport {
            LoadTransport::Udp => 1,
            LoadTransport::Tcp | LoadTransport::WebSocket => {
                subject.logins.len().div_ceil(streams_per_process().max(2))
            }
        };
        let clients = subject.logins.len().div_ceil(generators.max(1));
        let clients = clients.next_multiple_of(2);
        let work = work.share_of(generators);
        let job = |index: usize, logins: &[_]| {
            let mut addresses = addresses.clone();
            // Each begins at another, so that none gets the odd ones of all.
            let places = addresses.len().max(1);
            addresses.rotate_left(index % places);
            Job {
                work: work.clone(),
                addresses,
                source: index * clients.div_ceil(PER_SOURCE_ADDRESS),
                transport: self.transport,
                protocol: subject.protocol,
                pins: subject.pins().cloned(),
                logins: logins.to_vec(),
                opening_max: OPENING_MAX.div_ceil(generators.max(1)),
                window_max: self.depth,
                body_bytes: self.body_bytes,
                warm_up_ms: self.warm_up.as_millis() as u64,
                duration_ms: self.duration.as_millis() as u64,
                servers: subject.pids(),
                core: None,
            }
        };
        let shares = subject.logins.chunks(clients.max(2)).enumerate();
        Ok(shares.map(|(index, logins)| job(index, logins)).collect())
    }
}
