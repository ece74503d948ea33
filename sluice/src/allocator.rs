//! How the system's allocator treats large blocks.
//!
//! glibc raises the size from which it maps blocks one by one to the largest
//! that was ever freed, up to 32 MiB. The 19 MiB of a password hash then come
//! from the arenas, of which each thread may have another and none gives back:
//! 742 MB stayed resident after a few hundred logins. A fixed size keeps such
//! blocks mapped one by one, so that freeing them frees them. (mimalloc does
//! so too, but costs an idle connection 1,490 bytes where glibc takes 905.)
//!
//! What a burst leaves behind in the arenas is given back once it is calm again: after
//! 15,000 clients had come back at once, 6 of 40 MB. While there is work nothing is
//! looked for, since that would hold the arenas' locks.
//!
//! Arenas stay as many as there are threads: one a core would spare an idle session
//! 30 to 50 bytes, and take a fifth off the durable messages a second.

use std::time::Duration;

use sluice_load::process_cpu_ms;
use tokio_util::sync::CancellationToken;

/// Between two looks at what the process has used.
const LOOK: Duration = Duration::from_secs(1);
/// CPU of this process in a look's time from which on there is work,
const BUSY_MS: u64 = 250;
/// and up to which it is calm.
const CALM_MS: u64 = 50;

/// Tells when work has ended.
#[derive(Debug, Default)]
struct Calm {
    used_ms: u64,
    has_worked: bool,
}

/// Blocks from this size on are mapped, and unmapped when they are freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_FROM_BYTES: i32 = 1024 * 1024;

/// Sets it, for the whole process. To be called first of all.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "mallopt has no safe form; measured, see above")]
pub fn give_large_blocks_back() {
    // SAFETY: mallopt takes two integers and touches the allocator's own
    // parameters only, under its own lock. An unknown parameter changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM_BYTES);
    }
}

/// Other allocators decide for themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_large_blocks_back() {}

/// Whenever work has ended, gives back what lies free; until shutdown.
pub async fn trim_when_calm(shutdown: CancellationToken) {
    let mut calm = Calm::default();
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(looks.tick()).await.is_some() {
        // By /proc: the clock's call goes through the vDSO, which valgrind hides.
        let used_ms = process_cpu_ms(std::process::id()).unwrap_or(calm.used_ms);
        if calm.begins(used_ms) {
            // A panic in there is impossible, and would change nothing.
            let _ = tokio::task::spawn_blocking(trim).await;
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(
    unsafe_code,
    reason = "malloc_trim has no safe form; measured, see above"
)]
fn trim() {
    // SAFETY: malloc_trim takes an integer, and gives back pages on which nothing
    // lives, under the arenas' own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators give back by themselves, or never.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}

// === impl Calm ===

impl Calm {
    /// Takes the process' CPU time at a look; true once after each spell of work.
    fn begins(&mut self, used_ms: u64) -> bool {
        let spent_ms = used_ms.saturating_sub(std::mem::replace(&mut self.used_ms, used_ms));
        self.has_worked |= spent_ms >= BUSY_MS;
        spent_ms <= CALM_MS && std::mem::take(&mut self.has_worked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calm_begins_once_after_work() {
        let mut calm = Calm::default();
        let looks = [0, 10, 900, 1_700, 1_800, 1_850, 1_860, 1_870, 2_200, 2_210];
        let begins: Vec<bool> = looks.map(|used_ms| calm.begins(used_ms)).to_vec();
        let at: Vec<usize> = (0..looks.len()).filter(|at| begins[*at]).collect();
        // The look after 1,700 is neither work nor calm.
        assert_eq!(at, [5, 9]);
    }
}
