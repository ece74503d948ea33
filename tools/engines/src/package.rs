//! What Debian knows of a server.

use std::process::{Command, Stdio};

/// The version of a Debian package; `None` where it isn't installed, or this is no Debian.
pub fn package_version(package: &str) -> Option<String> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Version}", package])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let version = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !version.is_empty()).then_some(version)
}
