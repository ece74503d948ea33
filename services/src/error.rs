//! Why a batch could not be worked off; it stays on the bus.

use sluice_bus::BusError;
use sluice_store::StoreError;

/// The batch stays unacknowledged and is worked on again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Bus(#[from] BusError),
}

impl WorkError {
    /// Whether the reader is best kept, to begin again with the batch.
    pub(crate) fn spares_reader(&self) -> bool {
        matches!(self, WorkError::Bus(error) if !error.ends_reader())
    }

    /// Whether the batch had no chance because the store or the directory was away:
    /// it is kept in hand until that is back. Read again and again, it would count as
    /// poison.
    pub(crate) fn spares_batch(&self) -> bool {
        match self {
            WorkError::Store(error) => error.may_pass(),
            WorkError::Bus(error) => !error.ends_reader(),
        }
    }

    /// A bounded label for metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            WorkError::Store(error) => error.label(),
            WorkError::Bus(BusError::Unavailable(_)) => "bus_unavailable",
            WorkError::Bus(BusError::Unknown(_)) => "bus_unknown",
            WorkError::Bus(BusError::Gone(_)) => "bus_gone",
            WorkError::Bus(BusError::TooLarge { .. }) => "bus_too_large",
            WorkError::Bus(BusError::LeaseLost(_)) => "lease_lost",
            WorkError::Bus(BusError::Taken(_)) => "lease_taken",
            WorkError::Bus(BusError::Closed(_)) => "bus_closed",
        }
    }
}
