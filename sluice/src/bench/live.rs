//! What a run looks like while it goes: a bar on a terminal, lines elsewhere.

use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

use super::generator::Second;

/// See the module.
pub struct Live {
    bar: ProgressBar,
    connections: u64,
    seconds: u64,
    told_at: Instant,
    errors: u64,
}

/// Where no bar is drawn, a line tells how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(5);
const OPENING: &str = "{msg:24} {wide_bar} {pos}/{len} {per_sec} {elapsed}";
const RUNNING: &str = "{msg} {wide_bar} {pos}/{len} s";

// === impl Live ===

impl Live {
    /// Of so many connections, measured for so many seconds, warm-up included.
    pub fn new(connections: usize, seconds: u64) -> anyhow::Result<Self> {
        let bar = ProgressBar::new(connections as u64);
        let style = ProgressStyle::with_template(OPENING);
        bar.set_style(style.context("the progress bar's template")?);
        Ok(Self {
            bar,
            connections: connections as u64,
            seconds,
            told_at: Instant::now(),
            errors: 0,
        })
    }

    /// What is going on before anybody logs in.
    pub(super) fn doing(&self, what: &'static str) {
        self.bar.set_message(what);
    }

    pub(super) fn logged_in(&mut self, count: usize) {
        self.bar.set_position(count as u64);
        self.tell(|live| format!("{count} of {} logged in", live.connections));
    }

    pub(super) fn running(&mut self) {
        if let Ok(style) = ProgressStyle::with_template(RUNNING) {
            self.bar.set_style(style);
        }
        self.bar.set_length(self.seconds);
        self.bar.set_position(0);
        self.bar.set_message("running");
    }

    pub(super) fn second(&mut self, at: u64, second: &Second) {
        let counts = &second.counts;
        self.errors += counts.failed + counts.disconnects;
        let mut line = format!("{} connections, {} acked/s", self.connections, counts.acked);
        for (name, latencies) in [("ack", &second.ack), ("receive", &second.recv)] {
            if latencies.count() > 0 {
                let (p50, p99) = (latencies.percentile_ms(50.0), latencies.percentile_ms(99.0));
                line = format!("{line}, {name} p50 {p50:.1} ms p99 {p99:.1} ms");
            }
        }
        let line = format!("{line}, {} errors", self.errors);
        self.bar.set_position((at + 1).min(self.seconds));
        self.bar.set_message(line.clone());
        self.tell(|live| format!("second {} of {}: {line}", at + 1, live.seconds));
    }

    pub(super) fn round(&mut self, server: f64, floor: f64) {
        let line = format!("{server:.0}/s of the floor's {floor:.0}/s");
        self.bar.set_message(line);
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn tell(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.bar.is_hidden() && self.told_at.elapsed() > TOLD_EVERY {
            self.told_at = Instant::now();
            eprintln!("{}", line(self));
        }
    }
}
