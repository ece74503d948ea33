//! Which cores threads may run on.

use std::{fs, io};

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

/// Cores that this process may use, by number.
///
/// # Errors
/// The system's.
pub fn allowed() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|core| set.is_set(*core))
        .collect())
}

/// Keeps all threads of a process (`None`: of this one), and those that they start,
/// on one core.
///
/// # Errors
/// There is no such process or core, or it may not be touched.
pub fn pin(process: Option<u32>, core: usize) -> io::Result<()> {
    if core >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut set = CpuSet::new();
    set.set(core);
    let process = process.unwrap_or_else(std::process::id);
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let name = thread?.file_name();
        let id = name.to_str().and_then(|name| name.parse().ok());
        let thread = id.and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        match sched_setaffinity(Some(thread), &set) {
            // It has ended meanwhile.
            Err(rustix::io::Errno::SRCH) => {}
            other => other?,
        }
    }
    Ok(())
}
