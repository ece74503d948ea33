//! A consumer's end of an in-process stream.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::task::coop;

use super::{
    bus::{StreamCell, StreamTable, closed, remove_cell},
    stream::{ReaderToken, Refused},
};
use crate::{BusError, EntryId, ReadBatch, Reader, Stream};

/// Reads one stream, alone (`exclusive`) or beside others.
#[derive(Debug)]
pub(super) struct MemoryReader {
    table: Arc<StreamTable>,
    stream: Stream,
    cell: Arc<StreamCell>,
    token: ReaderToken,
    exclusive: bool,
}

// === impl MemoryReader ===

impl MemoryReader {
    pub(super) fn new(
        table: Arc<StreamTable>,
        stream: Stream,
        cell: Arc<StreamCell>,
        token: ReaderToken,
        exclusive: bool,
    ) -> Self {
        Self {
            table,
            stream,
            cell,
            token,
            exclusive,
        }
    }

    fn refused(&self, refused: Refused) -> BusError {
        match refused {
            Refused::Ended => closed(&self.stream),
            Refused::LeaseLost => BusError::LeaseLost(self.stream.to_string()),
        }
    }
}

#[async_trait]
impl Reader for MemoryReader {
    async fn read(&mut self, max_entries: usize) -> Result<ReadBatch, BusError> {
        // Before anything is taken, so that a read dropped here holds nothing.
        coop::consume_budget().await;
        loop {
            let arrived = self.cell.arrived.notified();
            let taken = self
                .cell
                .state
                .lock()
                .take(self.token, self.exclusive, max_entries.max(1));
            let (entries, more) = taken.map_err(|refused| self.refused(refused))?;
            if !entries.is_empty() {
                if more && !self.exclusive {
                    self.cell.arrived.notify_one();
                }
                return Ok(ReadBatch {
                    entries,
                    ..ReadBatch::default()
                });
            }
            arrived.await;
        }
    }

    async fn ack(&mut self, ids: &[EntryId]) -> Result<(), BusError> {
        let acked = self.cell.state.lock().ack(self.token, self.exclusive, ids);
        if acked.map_err(|refused| self.refused(refused))? {
            self.cell.arrived.notify_one();
        }
        Ok(())
    }

    fn begin_again(&mut self) {
        if self.cell.state.lock().put_back(self.token) {
            self.cell.arrived.notify_one();
        }
    }
}

impl Drop for MemoryReader {
    fn drop(&mut self) {
        let (readable, ended) = {
            let mut state = self.cell.state.lock();
            (state.leave(self.token), state.end().is_some())
        };
        if ended {
            remove_cell(&self.table, &self.stream, &self.cell);
        } else if readable {
            self.cell.arrived.notify_one();
        }
    }
}
