//! Where a device's state is kept between runs: one file a server, user and
//! device, in folders that only their owner enters, as it holds a resume token.

use std::{
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use sluice_client::{DeviceId, LocalState, StateError, UserId};

/// The user's own folder for such things.
pub(crate) fn default() -> anyhow::Result<PathBuf> {
    let from = |name: &str| {
        std::env::var_os(name)
            .filter(|it| !it.is_empty())
            .map(PathBuf::from)
    };
    from("XDG_STATE_HOME")
        .or_else(|| from("HOME").map(|home| home.join(".local/state")))
        .map(|folder| folder.join("sluice"))
        .context("neither XDG_STATE_HOME nor HOME is set; name a folder by --state-dir")
}

/// Opens the state, or begins it.
pub(crate) fn open(
    folder: &Path,
    server: &str,
    user: &UserId,
    device: &DeviceId,
) -> anyhow::Result<LocalState> {
    let folder = of_user(folder, server, user)?;
    let path = folder.join(format!("{}.redb", file_name(device.as_str())));
    LocalState::open(&path).map_err(|error| match error {
        StateError::InUse => anyhow!(
            "{user:?} is running as device {device:?} on this machine already; name another \
             --device, or another folder by --state-dir ({} is in use)",
            path.display()
        ),
        error => anyhow!("cannot open {}: {error}", path.display()),
    })
}

/// What is kept of a user at a server; made if need be.
pub(crate) fn of_user(folder: &Path, server: &str, user: &UserId) -> anyhow::Result<PathBuf> {
    let server = server.trim_start_matches("http://").trim_end_matches('/');
    let folder = folder
        .join(file_name(server))
        .join(file_name(user.as_str()));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    Ok(folder)
}

/// Any text as the name of a file: what might mean something to a file system
/// is written as %XX. Names of 64 bytes stay below the usual limit of 255.
fn file_name(text: &str) -> String {
    let mut name = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(byte.into()),
            b'.' if !name.is_empty() => name.push('.'),
            _ => name += &format!("%{byte:02X}"),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_makes_a_file_name() {
        assert_eq!(file_name("127.0.0.1:8080"), "127.0.0.1%3A8080");
        assert_eq!(file_name(".."), "%2E.");
        assert_eq!(file_name("../a b"), "%2E.%2Fa%20b");
        assert!(file_name(&"é".repeat(32)).len() < 250);
        assert_ne!(file_name("a%2F"), file_name("a/"));
    }
}
