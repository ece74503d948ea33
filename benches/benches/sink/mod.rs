//! A bus that takes everything and keeps nothing: what stands before it is measured.

use async_trait::async_trait;
use bytes::Bytes;
use sluice_bus::{Bus, BusError, Lag, NodeName, Reader, Stream};
use sluice_gateway::bed::Bed;

/// See the module.
pub(crate) struct Sink;

// === impl Sink ===

#[async_trait]
impl Bus for Sink {
    async fn append(&self, _: &Stream, _: Vec<Bytes>) -> Result<(), BusError> {
        Ok(())
    }

    async fn own(&self, stream: &Stream, _: &NodeName) -> Result<Box<dyn Reader>, BusError> {
        Err(BusError::Gone(stream.to_string()))
    }

    async fn join(&self, stream: &Stream, _: &NodeName) -> Result<Box<dyn Reader>, BusError> {
        Err(BusError::Gone(stream.to_string()))
    }

    async fn lag(&self, _: &Stream) -> Result<Lag, BusError> {
        Ok(Lag::default())
    }

    async fn delete(&self, _: &Stream) -> Result<(), BusError> {
        Ok(())
    }
}

/// Lets the writers of the lanes work until nothing waits.
pub(crate) async fn drained(bed: &Bed) {
    while bed.pending() > 0 {
        tokio::task::yield_now().await;
    }
}
