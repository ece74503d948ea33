//! What memory costs: of a process by its pages, of the kernel by its slabs.

use std::{fs, io};

/// Memory of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessMemory {
    /// Proportional set size: private pages, and its share of the others.
    pub pss_bytes: u64,
    /// CPU time used so far, user and system.
    pub cpu_ms: u64,
}

/// Memory that the kernel holds for sockets and what belongs to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelMemory {
    /// Slabs of the whole machine.
    pub slab_bytes: u64,
}

// === impl ProcessMemory ===

impl ProcessMemory {
    /// Reads it from /proc.
    ///
    /// # Errors
    /// There is no such process, or it may not be looked at.
    pub fn of(pid: u32) -> io::Result<Self> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        Ok(Self {
            pss_bytes: kib_line(&rollup, "Pss:")? * 1024,
            cpu_ms: process_cpu_ms(pid)?,
        })
    }
}

/// CPU time that a process has used so far, user and system.
///
/// # Errors
/// There is no such process.
pub fn process_cpu_ms(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold spaces; the numbers come after it.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|field| field.parse::<u64>().ok());
    // utime and stime, in ticks of 10 ms (USER_HZ).
    Ok((ticks().unwrap_or(0) + ticks().unwrap_or(0)) * 10)
}

/// Resident memory of a process.
///
/// # Errors
/// There is no such process.
pub fn process_rss_bytes(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(kib_line(&status, "VmRSS:")? * 1024)
}

// === impl KernelMemory ===

impl KernelMemory {
    /// Reads it from /proc.
    ///
    /// # Errors
    /// /proc is not what it should be.
    pub fn now() -> io::Result<Self> {
        let info = fs::read_to_string("/proc/meminfo")?;
        Ok(Self {
            slab_bytes: kib_line(&info, "Slab:")? * 1024,
        })
    }
}

fn kib_line(text: &str, name: &str) -> io::Result<u64> {
    text.lines()
        .find_map(|line| {
            line.strip_prefix(name)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .ok_or_else(|| io::Error::other(format!("no {name} in /proc")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory() {
        let memory = ProcessMemory::of(std::process::id()).unwrap();
        assert!(memory.pss_bytes > 100_000, "{memory:?}");
        assert!(KernelMemory::now().unwrap().slab_bytes > 0);
        assert!(ProcessMemory::of(u32::MAX).is_err());
    }
}
