//! The same load on the server and on the floor, in short rounds that alternate, so
//! that a noisy machine is noisy for both.

use crate::{
    LoadError, Pace,
    clock::{MS_NS, SECOND_NS, now_ns},
    course::{Mark, wait_for_start},
    driver::Driver,
    engine::Engine,
    job::{Control, Outcome, Told},
    session::Session,
};

/// What a round counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Answers to those who sent.
    Acked,
    /// Messages at those who received.
    Received,
}

/// What is run.
#[derive(Debug, Clone)]
pub(crate) struct Rounds {
    pub(crate) counted: Counted,
    /// Clients that send: those numbered below.
    pub(crate) senders: usize,
    /// How often each message is received.
    pub(crate) copies: u64,
    pub(crate) round_ns: u64,
    /// A round's beginning, until all clients are under way; not counted.
    pub(crate) run_up_ns: u64,
    pub(crate) warm_up_ns: u64,
    pub(crate) duration_ns: u64,
    pub(crate) servers: Vec<u32>,
}

/// For what is under way at a round's end.
const DRAIN_MAX_NS: u64 = 10 * SECOND_NS;

// === impl Rounds ===

impl Rounds {
    /// Loads both in turn.
    ///
    /// # Errors
    /// Somebody asked to stop.
    pub(crate) fn alternate(
        &self,
        server: &mut Engine<Session>,
        floor: &mut Engine<Session>,
        control: &mut dyn Control,
    ) -> Result<Outcome, LoadError> {
        wait_for_start(server, control)?;
        let mut outcome = Outcome::default();
        let start_ns = now_ns();
        let measured_ns = start_ns + self.warm_up_ns;
        let end_ns = measured_ns + self.duration_ns;
        let mut told_ns = start_ns;
        while now_ns() < end_ns || outcome.rounds.is_empty() {
            let (mut figures, mut floor_figures) = (Outcome::default(), Outcome::default());
            let is_measured = now_ns() >= measured_ns;
            let from_server = self.round(server, is_measured, control, &mut figures)?;
            let from_floor = self.round(floor, false, control, &mut floor_figures)?;
            let now = now_ns();
            control.tell(Told::Round(from_server, from_floor));
            if now >= told_ns + SECOND_NS {
                told_ns = now;
                control.tell(Told::Second(server.tally.interval(now, start_ns)));
            }
            if is_measured {
                outcome.add(&figures);
                outcome.floor_measured_s += floor_figures.measured_s;
                outcome.rounds.push((from_server, from_floor));
            }
        }
        self.conclude(server, floor, &mut outcome);
        control.tell(Told::Second(server.tally.interval(now_ns(), start_ns)));
        Ok(outcome)
    }

    /// Only the floor, in rounds that are added to an outcome.
    ///
    /// # Errors
    /// Somebody asked to stop.
    pub(crate) fn floor_alone(
        &self,
        floor: &mut Engine<Session>,
        control: &dyn Control,
        outcome: &mut Outcome,
    ) -> Result<(), LoadError> {
        let end_ns = now_ns() + self.duration_ns;
        while now_ns() < end_ns {
            let mut figures = Outcome::default();
            let from_floor = self.round(floor, false, control, &mut figures)?;
            outcome.floor_measured_s += figures.measured_s;
            outcome.rounds.push((0.0, from_floor));
        }
        Ok(())
    }

    /// What came of one round of one server, a second.
    fn round<D: Driver>(
        &self,
        engine: &mut Engine<D>,
        is_measured: bool,
        control: &dyn Control,
        figures: &mut Outcome,
    ) -> Result<f64, LoadError> {
        let start_ns = now_ns();
        let measured_ns = start_ns + self.run_up_ns;
        let end_ns = measured_ns + self.round_ns;
        let recorded_ns = if is_measured { measured_ns } else { end_ns };
        engine.tally.begin((recorded_ns, end_ns));
        engine.start(Pace::Window, self.senders, self.copies, start_ns, 0);
        let goes_on = |_: &mut Engine<D>, _| control.goes_on();
        engine.turn_until(measured_ns, goes_on)?;
        let from = Mark::now(engine, &self.servers);
        if !engine.turn_until(end_ns, goes_on)? {
            return Err(LoadError::Stopped);
        }
        let to = Mark::now(engine, &self.servers);
        from.measure(&to, figures);
        engine.stop();
        let mut looked_ns = 0;
        engine.turn_until(now_ns() + DRAIN_MAX_NS, |engine, now| {
            if now - looked_ns < MS_NS {
                return true;
            }
            looked_ns = now;
            let is_under_way = engine.unacked() > 0 || engine.unreceived(self.copies) > 0;
            // What is owed for pushes would be late after the other's turn.
            (is_under_way || !engine.is_settled()) && control.goes_on()
        })?;
        let counted = match self.counted {
            Counted::Acked => figures.acked,
            Counted::Received => figures.received,
        };
        Ok(counted as f64 / figures.measured_s)
    }

    fn conclude(
        &self,
        server: &mut Engine<Session>,
        floor: &mut Engine<Session>,
        outcome: &mut Outcome,
    ) {
        outcome.unacked = server.unacked() + floor.unacked();
        outcome.unreceived = server.unreceived(self.copies) + floor.unreceived(self.copies);
        outcome.trouble = server.trouble.take().or(floor.trouble.take());
    }
}
