//! Cleans up after a process that may die at any moment.

use std::{
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

/// Where a server's process id is, for the guard.
pub(crate) const PID_FILE: &str = "engine.pid";

/// A shell that waits for the end of its standard input, which comes when this
/// process ends or drops the guard; then it kills the server and removes its folder.
#[derive(Debug)]
pub(crate) struct Guard(Child);

const SCRIPT: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
[ -s "$1/engine.pid" ] && kill -9 "$(cat "$1/engine.pid")" 2>/dev/null
# What the dying server still writes may come between.
for _ in 1 2 3 4 5 6 7 8 9 10; do
    rm -rf "$1" 2>/dev/null
    [ -e "$1" ] || exit 0
    sleep 0.2
done
"#;

// === impl Guard ===

impl Guard {
    pub(crate) fn of(folder: &Path) -> io::Result<Self> {
        let child = Command::new("sh")
            .args(["-c", SCRIPT, "engine-guard"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It ends by itself; waiting for it leaves no zombie behind.
        let _ = self.0.wait();
    }
}
