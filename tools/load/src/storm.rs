//! A storm: all clients are cut at once, and all come back at once.

use crate::{
    LoadError,
    clock::{SECOND_NS, now_ns},
    course::{Mark, open, wait_for_start},
    engine::Engine,
    job::{Control, Outcome, Told},
    memory::process_rss_bytes,
    session::Session,
};

/// What is run.
#[derive(Debug, Clone)]
pub(crate) struct Storm {
    /// For the server to come to rest before its memory is read, before and after.
    pub(crate) rest_ns: u64,
    pub(crate) servers: Vec<u32>,
    /// Without anybody's coming back for so long, the others don't.
    pub(crate) patience_ns: u64,
}

const MB: f64 = 1024.0 * 1024.0;

// === impl Storm ===

impl Storm {
    /// Logs all in, cuts them, and waits until all are back and synced.
    ///
    /// # Errors
    /// A login is refused, or somebody asked to stop.
    pub(crate) fn run(
        &self,
        engine: &mut Engine<Session>,
        control: &mut dyn Control,
    ) -> Result<Outcome, LoadError> {
        open(engine, usize::MAX, control)?;
        let start_ns = wait_for_start(engine, control)?;
        self.rest(engine, control)?;
        let before_mb = self.rss_mb();
        let from = Mark::now(engine, &self.servers);
        let cut_ns = now_ns();
        engine.tally.begin((cut_ns, u64::MAX));
        engine.cut_all(cut_ns);
        open(engine, usize::MAX, control)?;
        let wanted = engine.logged_in() as u64;
        let mut moved = (now_ns(), 0);
        engine.turn_until(u64::MAX, |engine, now| {
            if engine.synced() > moved.1 {
                moved = (now, engine.synced());
            }
            moved.1 < wanted && now - moved.0 < self.patience_ns && control.goes_on()
        })?;
        let mut outcome = Outcome {
            unacked: wanted - engine.synced(),
            last_back_s: (moved.0 - cut_ns) as f64 / SECOND_NS as f64,
            ..Outcome::default()
        };
        from.measure(&Mark::now(engine, &self.servers), &mut outcome);
        self.rest(engine, control)?;
        outcome.rss_mb = before_mb.into_iter().zip(self.rss_mb()).collect();
        outcome.trouble = engine.trouble.take();
        control.tell(Told::Second(engine.tally.interval(now_ns(), start_ns)));
        Ok(outcome)
    }

    fn rest(
        &self,
        engine: &mut Engine<Session>,
        control: &mut dyn Control,
    ) -> Result<(), LoadError> {
        match engine.turn_until(now_ns() + self.rest_ns, |_, _| control.goes_on())? {
            true => Ok(()),
            false => Err(LoadError::Stopped),
        }
    }

    /// One by one; of one that has ended there is none.
    fn rss_mb(&self) -> Vec<f64> {
        let all = self.servers.iter();
        let bytes = all.map(|pid| process_rss_bytes(*pid).unwrap_or_default());
        bytes.map(|bytes| bytes as f64 / MB).collect()
    }
}
