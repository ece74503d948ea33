//! How the system's allocator treats large blocks.
//!
//! glibc raises the size from which it maps blocks one by one to the largest
//! that was ever freed, up to 32 MiB. The 19 MiB of a password hash then come
//! from the arenas, of which each thread may have another and none gives back:
//! 742 MB stayed resident after a few hundred logins. A fixed size keeps such
//! blocks mapped one by one, so that freeing them frees them. (mimalloc does
//! so too, but costs an idle connection 1,490 bytes where glibc takes 905.)
//!
//! Arenas stay as many as there are threads: one a core would spare an idle session
//! 30 to 50 bytes, and take a fifth off the durable messages a second.

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
