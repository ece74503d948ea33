//! Files that hold secrets: whoever may read one can pass for the server.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

/// Warns where others may read it. It is used all the same: a mounted secret may have
/// no other mode.
pub(crate) fn warn_if_others_read(path: &Path) {
    let Ok(mode) = std::fs::metadata(path).map(|it| it.permissions().mode() & 0o777) else {
        return;
    };
    if mode & 0o077 != 0 {
        tracing::warn!(
            "{} holds a secret, and its mode {mode:03o} lets others at it: chmod 600 it",
            path.display()
        );
    }
}
