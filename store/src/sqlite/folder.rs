//! The data folder: one process at a time.

use std::{
    fs::{self, File, TryLockError},
    io::Write,
    path::{Path, PathBuf},
};

use crate::StoreError;

/// Held as long as the store is open. The kernel lets go of the lock when the
/// process ends, however it ends.
#[derive(Debug)]
pub(super) struct DataFolder {
    path: PathBuf,
    lock: File,
}

/// Locked while the folder is open; tells the id of the process that has it.
const LOCK_FILE: &str = "sluice.lock";

/// The process that had the folder open last; it may have ended since.
pub(super) fn holder_of(path: &Path) -> Option<u32> {
    let text = fs::read_to_string(path.join(LOCK_FILE)).ok()?;
    text.trim().parse().ok()
}

// === impl DataFolder ===

impl DataFolder {
    /// Makes the folder if need be and locks it.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process, or this one, has it open.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |what: &str, error: std::io::Error| {
            StoreError::Unavailable(format!("{what} {}: {error}", path.display()))
        };
        if !path.is_dir() {
            fs::create_dir_all(path).map_err(|error| failed("cannot make", error))?;
            // The folder's name must survive a power cut as well as what is in it.
            let parent = path.parent().filter(|parent| *parent != Path::new(""));
            File::open(parent.unwrap_or(Path::new(".")))
                .and_then(|parent| parent.sync_all())
                .map_err(|error| failed("cannot sync the parent of", error))?;
        }
        let mut lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK_FILE))
            .map_err(|error| failed("cannot write in", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse {
                    path: path.display().to_string(),
                    holder: holder_of(path),
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed("cannot lock", error)),
        }
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(|error| failed("cannot write in", error))?;
        Ok(Self {
            path: path.to_owned(),
            lock,
        })
    }

    /// The database file; its write-ahead log lies beside it.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join("sluice.db")
    }
}

impl Drop for DataFolder {
    /// Closing the file would do, but for a child process that was forked at
    /// this moment and still holds a copy of it.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}
