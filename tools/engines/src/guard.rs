//! Cleans up after a process that may die at any moment.

use std::{
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A folder that goes, and takes the processes noted in it along, when it is
/// dropped and when this process dies in whatever way.
#[derive(Debug)]
pub struct GuardedFolder {
    path: PathBuf,
    _guard: Guard,
}

/// A shell that waits for the end of its standard input, which comes when this
/// process ends or drops the guard; then it kills what is noted in the folder
/// and removes it.
#[derive(Debug)]
struct Guard(Child);

const SCRIPT: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
# What is being started notes itself a moment later; what dies may still write.
tries_left=50
while [ "$tries_left" -gt 0 ]; do
    tries_left=$((tries_left - 1))
    for note in "$1"/*.guarded; do
        [ -s "$note" ] && kill -9 "$(cat "$note")" 2>/dev/null
    done
    rm -rf "$1" 2>/dev/null
    [ -e "$1" ] || exit 0
    sleep 0.2
done
"#;

// === impl GuardedFolder ===

impl GuardedFolder {
    /// Makes one among the temporary files, its name beginning with `prefix`.
    pub fn new(prefix: &str) -> io::Result<Self> {
        let path = tempfile::Builder::new().prefix(prefix).tempdir()?.keep();
        let guard = Guard::of(&path)?;
        Ok(Self {
            path,
            _guard: guard,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From now on this process dies with the folder. A new note of one name
    /// takes the place of the former.
    pub fn note(&self, name: &str, pid: u32) -> io::Result<()> {
        std::fs::write(self.note_file(name), pid.to_string())
    }

    /// To be called when it has ended: nobody who gets its id next may die for it.
    pub fn forget(&self, name: &str) {
        // There may be none.
        let _ = std::fs::remove_file(self.note_file(name));
    }

    fn note_file(&self, name: &str) -> PathBuf {
        self.path.join(name).with_extension("guarded")
    }
}

// === impl Guard ===

impl Guard {
    fn of(folder: &Path) -> io::Result<Self> {
        let child = Command::new("sh")
            .args(["-c", SCRIPT, "guard"])
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
