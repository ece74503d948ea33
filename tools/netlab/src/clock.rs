//! The clocks of a measurement. Both ends are on one machine, so one clock serves both.

use rustix::time::{ClockId, clock_gettime};

/// Microseconds since the machine started.
pub(crate) fn now_us() -> u64 {
    read_us(ClockId::Monotonic)
}

/// Microseconds of CPU that this process has used so far, its system calls included.
pub(crate) fn cpu_us() -> u64 {
    read_us(ClockId::ProcessCPUTime)
}

fn read_us(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // Neither clock ever shows a negative time.
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}
