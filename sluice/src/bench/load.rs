//! What is asked for, whatever the workload: how many connections, by what, how deep
//! and how long, and of which server.

use std::time::Duration;

use sluice_load::{Job, LoadTransport, Work};

use super::subject::{RunningServer, Subject};

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
    /// `None`: start one.
    pub server: Option<RunningServer>,
}

// === impl Load ===

impl Load {
    /// What a generator is told to do to a server.
    pub(super) fn job(&self, subject: &Subject, work: Work) -> anyhow::Result<Job> {
        Ok(Job {
            work,
            address: subject.address(self.transport)?,
            transport: self.transport,
            pins: subject.addresses.pins.clone(),
            logins: subject.logins.clone(),
            window_max: self.depth,
            body_bytes: self.body_bytes,
            warm_up_ms: self.warm_up.as_millis() as u64,
            duration_ms: self.duration.as_millis() as u64,
            servers: vec![subject.pid],
            core: None,
        })
    }
}
