//! Why a relay did not start.

use crate::plan::{Carries, FaultPlan};
use std::io;
use std::net::SocketAddr;

/// Why a relay did not start. Always the fault of who asked for it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The plan holds a fault that what the relay carries can't have.
    #[error(
        "fault `{key}` is not for {carries}, and this relay carries nothing else; leave it out"
    )]
    ForeignFault {
        /// The key.
        key: &'static str,
        /// What the relay carries.
        carries: Carries,
    },
    /// The address can't be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address as given.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

// === impl RelayError ===

impl RelayError {
    /// Refuses a plan that a relay for `carries` can't serve whole.
    pub(crate) fn check(plan: &FaultPlan, carries: Carries) -> Result<(), Self> {
        match plan.foreign_to(carries) {
            Some(key) => Err(RelayError::ForeignFault { key, carries }),
            None => Ok(()),
        }
    }
}
