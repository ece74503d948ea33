//! A run at a pace: warm-up, what is measured, and the wait for what is under way.

use crate::{
    LoadError, Pace,
    clock::{MS_NS, SECOND_NS, now_ns, own_cpu_ns},
    driver::Driver,
    engine::Engine,
    job::{Control, Outcome, Told},
    memory::process_cpu_ms,
};

/// What is run.
#[derive(Debug, Clone)]
pub(crate) struct Course {
    pub(crate) pace: Pace,
    /// Clients that send: those numbered below.
    pub(crate) senders: usize,
    /// How often each message is received.
    pub(crate) copies: u64,
    pub(crate) warm_up_ns: u64,
    pub(crate) duration_ns: u64,
    pub(crate) servers: Vec<u32>,
    /// Without anything new for so long, what is missing is lost.
    pub(crate) patience_ns: u64,
}

/// Sums and CPU at a point in time.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    at_ns: u64,
    acked: u64,
    received: u64,
    server_cpu_ms: Vec<u64>,
    own_cpu_ns: u64,
}

const LOOK_EVERY_NS: u64 = 20 * MS_NS;
/// For the other generators, which may have more to open.
const START_WAIT_MAX_NS: u64 = 600 * SECOND_NS;
const TELL_EVERY_NS: u64 = SECOND_NS / 4;

/// Runs the course with clients that are logged in.
///
/// # Errors
/// Somebody asked to stop.
pub(crate) fn run<D: Driver>(
    engine: &mut Engine<D>,
    course: &Course,
    control: &mut dyn Control,
) -> Result<Outcome, LoadError> {
    let start_ns = wait_for_start(engine, control)?;
    let measured_ns = start_ns + course.warm_up_ns;
    let end_ns = measured_ns + course.duration_ns;
    engine.tally.begin((measured_ns, end_ns));
    let span_ns = course.warm_up_ns + course.duration_ns;
    engine.start(
        course.pace,
        course.senders,
        course.copies,
        start_ns,
        span_ns,
    );
    let mut second_ns = start_ns + SECOND_NS;
    let mut turn_until = |engine: &mut Engine<D>, control: &mut dyn Control, until_ns| {
        engine.turn_until(until_ns, |engine, now| {
            if now >= second_ns {
                second_ns += SECOND_NS;
                control.tell(Told::Second(engine.tally.interval(now, start_ns)));
            }
            control.goes_on()
        })
    };
    let mut outcome = Outcome::default();
    if turn_until(engine, control, measured_ns)? {
        let from = Mark::now(engine, &course.servers);
        turn_until(engine, control, end_ns)?;
        from.measure(&Mark::now(engine, &course.servers), &mut outcome);
    }
    if !control.goes_on() {
        return Err(LoadError::Stopped);
    }
    engine.stop();
    outcome.unsent = engine.abandon(now_ns());
    let mut moved = (now_ns(), 0);
    let mut looked_ns = 0;
    engine.turn_until(u64::MAX, |engine, now| {
        if now - looked_ns < LOOK_EVERY_NS {
            return true;
        }
        looked_ns = now;
        if now >= second_ns {
            second_ns = now + SECOND_NS;
            control.tell(Told::Second(engine.tally.interval(now, start_ns)));
        }
        let counts = engine.tally.counts;
        let sum = counts.acked + counts.received + counts.failed;
        if sum > moved.1 {
            moved = (now, sum);
        }
        outcome.unacked = engine.unacked();
        outcome.unreceived = engine.unreceived(course.copies);
        let is_done = outcome.unacked == 0 && outcome.unreceived == 0;
        !is_done && now - moved.0 < course.patience_ns && control.goes_on()
    })?;
    control.tell(Told::Second(engine.tally.interval(now_ns(), start_ns)));
    outcome.whole_s = (moved.0 - start_ns) as f64 / SECOND_NS as f64;
    outcome.trouble = engine.trouble.take();
    Ok(outcome)
}

/// Logs clients in until so many are, or all.
pub(crate) fn open<D: Driver>(
    engine: &mut Engine<D>,
    count: usize,
    control: &mut dyn Control,
) -> Result<(), LoadError> {
    let mut told_ns = 0;
    engine.open_up_to(count, |held| {
        let now = now_ns();
        if now - told_ns > TELL_EVERY_NS {
            told_ns = now;
            control.tell(Told::LoggedIn(held));
        }
        control.goes_on()
    })?;
    control.tell(Told::LoggedIn(engine.logged_in()));
    Ok(())
}

/// Keeps the clients alive for a span; what that costs is measured.
pub(crate) fn hold<D: Driver>(
    engine: &mut Engine<D>,
    span_ns: u64,
    servers: &[u32],
    control: &mut dyn Control,
) -> Result<Outcome, LoadError> {
    let from = Mark::now(engine, servers);
    let mut told_ns = from.at_ns;
    let done = engine.turn_until(from.at_ns + span_ns, |engine, now| {
        if now - told_ns > SECOND_NS {
            told_ns = now;
            control.tell(Told::LoggedIn(engine.logged_in()));
        }
        control.goes_on()
    })?;
    if !done {
        return Err(LoadError::Stopped);
    }
    let mut outcome = Outcome::default();
    from.measure(&Mark::now(engine, servers), &mut outcome);
    Ok(outcome)
}

/// Holds the clients until the start's time is known.
pub(crate) fn wait_for_start<D: Driver>(
    engine: &mut Engine<D>,
    control: &mut dyn Control,
) -> Result<u64, LoadError> {
    control.tell(Told::Ready);
    let mut start_ns = None;
    let until_ns = now_ns() + START_WAIT_MAX_NS;
    engine.turn_until(until_ns, |_, _| {
        start_ns = control.start_ns();
        start_ns.is_none() && control.goes_on()
    })?;
    match start_ns {
        Some(start_ns) => Ok(start_ns),
        None => Err(LoadError::Stopped),
    }
}

// === impl Mark ===

impl Mark {
    pub(crate) fn now<D: Driver>(engine: &Engine<D>, servers: &[u32]) -> Self {
        let counts = &engine.tally.counts;
        Self {
            at_ns: now_ns(),
            acked: counts.acked,
            received: counts.received,
            // One that has ended uses none any more.
            server_cpu_ms: (servers.iter())
                .map(|pid| process_cpu_ms(*pid).unwrap_or_default())
                .collect(),
            own_cpu_ns: own_cpu_ns(),
        }
    }

    /// What has come since then, in place of what an outcome says.
    pub(crate) fn measure(&self, later: &Self, outcome: &mut Outcome) {
        let seconds = |ns: u64| ns as f64 / SECOND_NS as f64;
        outcome.measured_s = seconds(later.at_ns - self.at_ns);
        outcome.acked = later.acked - self.acked;
        outcome.received = later.received - self.received;
        let server_ms = later.server_cpu_ms.iter().zip(&self.server_cpu_ms);
        let server_ms = server_ms.map(|(later, then)| later.saturating_sub(*then));
        outcome.server_cpu_s = server_ms.map(|ms| ms as f64 / 1_000.0).collect();
        outcome.generator_cpu_s = seconds(later.own_cpu_ns - self.own_cpu_ns);
    }
}
