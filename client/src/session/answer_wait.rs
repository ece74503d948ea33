//! How long an answer is waited for before it is asked for again.
//!
//! Where much is lost, an answer may be long on its way behind what is sent
//! before it. To ask again then would only lengthen the way. So as long as
//! something is heard, the wait is longer, up to a bound: the answer may have
//! been lost behind the gateway, where no transport repeats it. What was asked in
//! vain waits longer each time; that is patience enough, and not lengthened as much.

/// One wait.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AnswerWait {
    asked_ms: u64,
    /// Of silence.
    span_ms: u64,
    /// Whatever is heard.
    longest_ms: u64,
}

/// The longest span is the first one's times 2 to this.
const DOUBLINGS_MAX: u32 = 3;
/// Without any silence the wait is the first one's span times this at most, unless its
/// own span is longer.
const PATIENCE: u64 = 4;

// === impl AnswerWait ===

impl AnswerWait {
    /// `first_ms`: the span of the first wait, doubled `doublings` times.
    pub(super) fn new(asked_ms: u64, first_ms: u64, doublings: u32) -> Self {
        let span_ms = first_ms.saturating_mul(1 << doublings.min(DOUBLINGS_MAX));
        Self {
            asked_ms,
            span_ms,
            longest_ms: span_ms.max(first_ms.saturating_mul(PATIENCE)),
        }
    }

    /// When to ask again, if the last that was heard came at `heard_ms` (0: what is
    /// heard says nothing). Never goes back while that goes on.
    pub(super) fn ends_ms(&self, heard_ms: u64) -> u64 {
        let silent = self.asked_ms.max(heard_ms).saturating_add(self.span_ms);
        silent.min(self.asked_ms.saturating_add(self.longest_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::AnswerWait;

    #[test]
    fn it_ends_after_a_silence_and_in_any_case() {
        let wait = AnswerWait::new(5_000, 10_000, 0);
        assert_eq!(wait.ends_ms(0), 15_000);
        assert_eq!(wait.ends_ms(4_000), 15_000);
        assert_eq!(wait.ends_ms(12_000), 22_000);
        assert_eq!(wait.ends_ms(44_000), 45_000);
    }

    #[test]
    fn it_doubles_up_to_a_bound_that_what_is_heard_does_not_move() {
        let ends_ms = |doublings, heard_ms| AnswerWait::new(0, 10_000, doublings).ends_ms(heard_ms);
        let silent = [0, 1, 2, 3, 4, u32::MAX].map(|doublings| ends_ms(doublings, 0));
        assert_eq!(silent, [10_000, 20_000, 40_000, 80_000, 80_000, 80_000]);
        let heard = [0, 1, 2, 3, 4].map(|doublings| ends_ms(doublings, 1_000_000));
        assert_eq!(heard, [40_000, 40_000, 40_000, 80_000, 80_000]);
    }
}
