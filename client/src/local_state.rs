//! Where a client keeps what it needs over a restart.

mod file;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use sluice_protocol::{DeviceId, UserId};

use crate::{
    StateError,
    state::{Change, Saved},
};
use file::StateFile;

/// Where a client keeps its positions, its unacked sends and its resume token.
///
/// Clones are the same state. One client at a time may run on it: two would
/// spend each other's resume tokens and tell the same entries twice.
#[derive(Debug, Clone)]
pub struct LocalState(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Memory(Arc<Mutex<MemoryState>>),
    File(Arc<StateFile>),
}

#[derive(Debug, Default)]
struct MemoryState {
    owner: Option<(UserId, DeviceId)>,
    saved: Saved,
}

// === impl LocalState ===

impl LocalState {
    /// Kept as long as the process lives (and a clone of this).
    pub fn memory() -> Self {
        Self(Kind::Memory(Arc::default()))
    }

    /// Kept in a file, made when it isn't there. Blocks for a few disk accesses.
    /// A file can be open once only.
    ///
    /// # Errors
    /// The file can't be opened, or is none of this crate's.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StateError> {
        Ok(Self(Kind::File(Arc::new(StateFile::open(path.as_ref())?))))
    }

    /// All that is kept; takes the state for this user and device if it is new.
    pub(crate) fn load(&self, user: &UserId, device: &DeviceId) -> Result<Saved, StateError> {
        match &self.0 {
            Kind::Memory(memory) => {
                let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
                let (of_user, of_device) = memory
                    .owner
                    .get_or_insert_with(|| (user.clone(), device.clone()));
                if of_user != user || of_device != device {
                    return Err(StateError::Foreign {
                        user: of_user.to_string(),
                        device: of_device.to_string(),
                    });
                }
                Ok(memory.saved.clone())
            }
            Kind::File(file) => file.load(user, device),
        }
    }

    /// Whether [`LocalState::write`] goes to the disk, so must not run on a reactor.
    pub(crate) fn is_durable(&self) -> bool {
        matches!(self.0, Kind::File(_))
    }

    /// Writes a batch, whole or not at all; on return it is safe.
    pub(crate) fn write(&self, batch: Vec<Change>) -> Result<(), StateError> {
        match &self.0 {
            Kind::Memory(memory) => {
                let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
                batch
                    .into_iter()
                    .for_each(|change| memory.saved.apply(change));
                Ok(())
            }
            Kind::File(file) => file.write(&batch),
        }
    }
}
