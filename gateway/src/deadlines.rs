//! A channel's time limits. One timer a channel, at the earliest of them; packets
//! don't touch it: when it fires, what has come meanwhile is looked at, and it
//! is set anew.

use sluice_protocol::{
    Refusal,
    packet::{self, CloseReason, ErrorCode, packet::Body},
};

use crate::{
    channel::{Channel, Phase},
    workbench::Workbench,
};

// === impl Channel ===

impl Channel {
    /// The timer has fired.
    pub(crate) fn on_timer(&mut self, bench: &mut Workbench) {
        self.timer = None;
        let now_ms = bench.now.mono_ms;
        if let Some(reason) = self.overdue(bench) {
            match reason {
                Overdue::Close(reason) => self.close(bench, reason.into()),
                Overdue::Drop => self.abandon(bench, "closing_timeout"),
            }
        }
        if self.flags.gone {
            return;
        }
        if !self.is_closing() && !self.flags.paused {
            self.retransmit(bench);
            self.expire_requests(bench);
        }
        if let Some(due_ms) = self.next_deadline_ms(bench) {
            // Never in this very millisecond, so that a turn cannot spin.
            self.arm(bench, due_ms.max(now_ms + 1));
        }
    }

    /// Other limits hold from now on: the timer goes by these alone.
    pub(crate) fn arm_anew(&mut self, bench: &mut Workbench) {
        if let Some(timer) = self.timer.take() {
            bench.wheel.cancel(timer);
        }
        if let Some(due_ms) = self.next_deadline_ms(bench) {
            self.arm(bench, due_ms.max(bench.now.mono_ms + 1));
        }
    }

    fn overdue(&self, bench: &Workbench) -> Option<Overdue> {
        let limits = self.limits(bench);
        let now = bench.now;
        if let Some(expires_unix_ms) = limits.expires_unix_ms
            && expires_unix_ms <= now.unix_ms
        {
            return Some(Overdue::Close(CloseReason::TokenExpired));
        }
        let (due_ms, overdue) = limits.next?;
        (due_ms <= now.mono_ms).then_some(overdue)
    }

    fn next_deadline_ms(&self, bench: &Workbench) -> Option<u64> {
        let limits = self.limits(bench);
        let expiry = limits.expires_unix_ms.map(|at_ms| {
            let left_ms = at_ms.saturating_sub(bench.now.unix_ms);
            bench.now.mono_ms.saturating_add(left_ms)
        });
        let running = !self.is_closing() && !self.flags.paused;
        let pushes = self.pushes.as_ref().and_then(|w| w.next_due_ms());
        let requests = self.requests.as_ref().and_then(|r| r.next_deadline_ms());
        let work = [pushes, requests].into_iter().flatten();
        let work = work.filter(|_| running).min();
        [limits.next.map(|(due_ms, _)| due_ms), expiry, work]
            .into_iter()
            .flatten()
            .min()
    }

    /// The limit that is met first, and when the session ends.
    fn limits(&self, bench: &Workbench) -> TimeLimits {
        let timeouts = &bench.shared.config.timeouts;
        let close = |at_ms: u64, reason| Some((at_ms, Overdue::Close(reason)));
        let next = match self.phase {
            Phase::Closing => Some((self.phase_since_ms + timeouts.closing_ms, Overdue::Drop)),
            // While its own output stands still, a channel is judged by that only.
            _ if self.flags.paused => close(
                self.output_full_since_ms + timeouts.slow_reader_ms,
                CloseReason::SlowReader,
            ),
            Phase::AwaitLogin | Phase::Opening => close(
                self.phase_since_ms + timeouts.login_ms,
                CloseReason::LoginTimeout,
            ),
            Phase::Open => close(
                self.last_inbound_ms + 2 * u64::from(timeouts.heartbeat_interval_ms),
                CloseReason::Idle,
            ),
        };
        let frame_applies = self.frame_began_ms > 0 && !self.is_closing() && !self.flags.paused;
        let frame = frame_applies.then(|| {
            let due_ms = self.frame_began_ms + timeouts.frame_ms;
            (due_ms, Overdue::Close(CloseReason::FrameTimeout))
        });
        let identity = self.identity.as_ref().filter(|_| self.is_open());
        TimeLimits {
            next: [next, frame]
                .into_iter()
                .flatten()
                .min_by_key(|(at, _)| *at),
            expires_unix_ms: identity.map(|identity| identity.expires_unix_ms),
        }
    }

    fn retransmit(&mut self, bench: &mut Workbench) {
        let Some(window) = &mut self.pushes else {
            return;
        };
        let random = bench.random.next();
        let rule = bench.shared.retry_rule;
        let due = window.take_due(bench.now.mono_ms, &self.rtt, rule, random);
        bench
            .metrics
            .pushes_resent
            .increment(due.resend.len() as u64);
        let mut appended = 0;
        for push in due.resend {
            let output = self.output.get_or_insert_with(|| bench.pool.take());
            appended += output.push(
                self.framing,
                &push.content,
                push.number,
                push.user_seq,
                &mut bench.pool,
            );
            window.appended_again(push.number, self.appended_bytes + appended as u64);
        }
        if appended > 0 {
            self.appended(appended, bench);
        }
        if due.failed.is_empty() {
            return;
        }
        bench
            .metrics
            .pushes_failed
            .increment(due.failed.len() as u64);
        if let Some(identity) = &self.identity {
            for content in &due.failed {
                let (tally, now_ms) = (&mut bench.tally, bench.now.mono_ms);
                tally.failed(&identity.user, &content.conversation, content.seq, now_ms);
            }
        }
        self.shrink_window(bench);
        self.resync(bench);
    }

    /// Tells the client to check what it has.
    pub(crate) fn resync(&mut self, bench: &mut Workbench) {
        let delay_max_ms = bench.shared.config.push.resync_delay_max_ms;
        self.send(bench, 0, Body::Resync(packet::Resync { delay_max_ms }));
    }

    fn expire_requests(&mut self, bench: &mut Workbench) {
        while let Some(id) = self
            .requests
            .as_mut()
            .and_then(|requests| requests.pop_expired(bench.now.mono_ms))
        {
            let refusal = Refusal::new(
                ErrorCode::Timeout,
                "the service has not answered in time; it may still do what was asked",
            );
            self.refuse(bench, id, &refusal, bytes::Bytes::new());
        }
        self.requests.take_if(|requests| {
            // Of a pull whose answer was lost nothing is said, but it ends, too: a
            // channel that waits for something doesn't sleep.
            requests.pulls(bench.now.mono_ms);
            requests.is_empty()
        });
    }

    /// Some output was written (`progress`) or the socket is full.
    pub(crate) fn after_write(&mut self, bench: &mut Workbench, progress: bool) {
        let now_ms = bench.now.mono_ms;
        if progress {
            self.output_full_since_ms = now_ms;
            if let Some(window) = &mut self.pushes {
                let (rto, random) = (bench.shared.retry_rule.rto, bench.random.next());
                window.written(self.written_bytes, now_ms, &self.rtt, rto, random);
                if let Some(due_ms) = window.next_due_ms() {
                    self.arm(bench, due_ms);
                }
            }
        }
        if self.flags.paused {
            if self.output_bytes() <= bench.shared.config.push.output_low_bytes {
                self.flags.paused = false;
                // Its silence was our doing.
                self.last_inbound_ms = now_ms;
                if self.frame_began_ms > 0 {
                    self.frame_began_ms = now_ms;
                }
                self.mark_ready(bench);
            }
            if let Some(due_ms) = self.next_deadline_ms(bench) {
                self.arm(bench, due_ms.max(now_ms + 1));
            }
        }
        if self.pushes_dropped > 0 {
            self.shrink_window(bench);
        }
    }
}

/// What happens at a time limit.
#[derive(Debug, Clone, Copy)]
enum Overdue {
    Close(CloseReason),
    Drop,
}

struct TimeLimits {
    next: Option<(u64, Overdue)>,
    expires_unix_ms: Option<u64>,
}
