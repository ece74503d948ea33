//! The same load on the server and on the floor, in short rounds that alternate, so
//! that a noisy machine is noisy for both.

use std::net::SocketAddr;

use crate::{
    LoadError, Pace,
    clock::{MS_NS, now_ns},
    course::{Mark, open, wait_for_start},
    driver::Driver,
    engine::Engine,
    job::{Control, Job, Outcome, Told},
    session::{Session, Talk},
    streams::Streams,
};

const ROUND_NS: u64 = 250 * MS_NS;
/// A round's beginning, until all clients are under way.
const RUN_UP_NS: u64 = 30 * MS_NS;
const DRAIN_MAX_NS: u64 = 10_000 * MS_NS;

/// Pings both.
///
/// # Errors
/// A login is refused, nothing moves, or somebody asked to stop.
pub(crate) fn run(
    job: Job,
    floor: SocketAddr,
    control: &mut dyn Control,
) -> Result<Outcome, LoadError> {
    let clients = job.logins.len();
    let (warm_up, duration) = (job.warm_up_ms * MS_NS, job.duration_ms * MS_NS);
    let servers = job.servers.clone();
    let bare = Session::bare(job.transport, clients);
    let streams = Streams::new(floor, clients)?;
    let mut floor = Engine::new(bare, streams, clients, job.engine_options());
    let mut server = job.engine(Talk::Ping)?;
    floor.open(|_| control.goes_on())?;
    open(&mut server, control)?;
    wait_for_start(&mut server, control)?;
    let mut outcome = Outcome::default();
    let measured_ns = now_ns() + warm_up;
    let end_ns = measured_ns + duration;
    let mut told_ns = now_ns();
    while now_ns() < end_ns || outcome.rounds.is_empty() {
        let mut figures = Outcome::default();
        let from_server = round(&mut server, &servers, control, &mut figures)?;
        let from_floor = round(&mut floor, &[], control, &mut Outcome::default())?;
        let now = now_ns();
        control.tell(Told::Round(from_server, from_floor));
        if now >= told_ns + 1_000 * MS_NS {
            told_ns = now;
            control.tell(Told::Second(server.tally.interval(now)));
        }
        if now >= measured_ns {
            outcome.measured_s += figures.measured_s;
            outcome.acked += figures.acked;
            outcome.server_cpu_s += figures.server_cpu_s;
            outcome.generator_cpu_s += figures.generator_cpu_s;
            outcome.rounds.push((from_server, from_floor));
        }
    }
    control.tell(Told::Second(server.tally.interval(now_ns())));
    outcome.unacked = server.unacked() + floor.unacked();
    outcome.trouble = server.trouble.take().or(floor.trouble.take());
    Ok(outcome)
}

/// Answers a second of one server.
fn round<D: Driver>(
    engine: &mut Engine<D>,
    servers: &[u32],
    control: &dyn Control,
    figures: &mut Outcome,
) -> Result<f64, LoadError> {
    let start_ns = now_ns();
    let measured_ns = start_ns + RUN_UP_NS;
    engine
        .tally
        .begin(start_ns, (measured_ns, measured_ns + ROUND_NS));
    engine.start(Pace::Window, usize::MAX, start_ns, RUN_UP_NS + ROUND_NS);
    let goes_on = |_: &mut Engine<D>, _| control.goes_on();
    engine.turn_until(measured_ns, goes_on)?;
    let from = Mark::now(engine, servers);
    if !engine.turn_until(measured_ns + ROUND_NS, goes_on)? {
        return Err(LoadError::Stopped);
    }
    let to = Mark::now(engine, servers);
    from.measure(&to, figures);
    engine.stop();
    engine.turn_until(now_ns() + DRAIN_MAX_NS, |engine, _| {
        engine.unacked() > 0 && control.goes_on()
    })?;
    Ok(from.acked_per_s(&to))
}
