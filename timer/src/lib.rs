//! A hashed, hierarchical timing wheel on an index slab.
//!
//! After G. Varghese and T. Lauck, *Hashed and Hierarchical Timing Wheels* (SOSP 1987), scheme 7:
//! levels of 128 slots, each level 128 times coarser than the one below; a timer waits in the slot
//! of its deadline and moves down a level when the time of that slot begins. Ten levels span the
//! whole of a 64-bit clock, so no deadline is too far away and there is no overflow list.
//!
//! - **Time is an argument**, in milliseconds since any epoch. The wheel owns no clock and no thread.
//! - **One owner, no locks**: an event loop has its own wheel.
//! - **Bounded**: [`Wheel::schedule`] answers [`WheelFull`] at the capacity.
//! - **Precise to a tick**: a timer never fires early, and fires at most one tick late.
//! - **Handles are checked**: a [`TimerHandle`] carries a generation, so one that is kept after its
//!   timer fired or was cancelled does nothing.
//!
//! # Cost
//!
//! Schedule, cancel and re-arm take constant time and allocate nothing, apart from the growth of
//! the slab (doubling, up to the capacity) and, once each, of a level that was never used before.
//! Re-arming to a later time, which is what heartbeats and idle timers do, only writes the new
//! deadline; the timer is moved when its old slot comes up. A cancelled timer leaves at once and
//! its entry is reused. A tick on which nothing is due reads two bitmaps, whatever the population
//! and however long the clock stood still.
//!
//! What isn't constant is the tick at which a coarse slot begins: it moves all timers of that slot
//! down at once, and a timer moves at most once a level. A tick of 8 ms keeps two minutes in the
//! lower two levels, whose slots are a tick and a second wide.
//!
//! With a `u64` payload a timer takes 32 bytes. A wheel starts without heap memory, and adds 512
//! bytes for each level up to the highest that was used (two to four, usually).
//!
//! # Example
//!
//! ```
//! use sluice_timer::Wheel;
//!
//! let mut now_ms = 1_000;
//! let mut wheel: Wheel<u64> = Wheel::new(1, 10_000, now_ms);
//! let heartbeat = wheel.schedule(now_ms + 30_000, 7)?;
//! let login = wheel.schedule(now_ms + 5_000, 8)?;
//!
//! wheel.rearm(heartbeat, now_ms + 60_000);
//! assert_eq!(wheel.cancel(login), Some(8));
//!
//! let mut expired = Vec::new();
//! while let Some(wake_ms) = wheel.next_deadline_ms() {
//!     now_ms = now_ms.max(wake_ms); // here an event loop polls with this timeout
//!     wheel.advance(now_ms, &mut expired);
//! }
//! assert_eq!((now_ms, expired), (61_000, vec![7]));
//! # Ok::<(), sluice_timer::WheelFull>(())
//! ```

mod levels;
mod slab;
mod wheel;

pub use slab::TimerHandle;
pub use wheel::{Wheel, WheelFull};
