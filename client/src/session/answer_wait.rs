//! How long the answer to a pull is waited for before it is asked for again.
//!
//! Where much is lost, a page may be long on its way behind what is sent
//! before it. To ask again then would only lengthen the way. So as long as
//! something is heard, the wait is longer, up to a bound: the answer may have
//! been lost behind the gateway, where no transport repeats it.

/// One wait.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AnswerWait {
    asked_ms: u64,
    /// Of silence.
    span_ms: u64,
}

/// The longest wait is its span, without any silence, times this.
const PATIENCE: u64 = 4;

// === impl AnswerWait ===

impl AnswerWait {
    pub(super) fn new(asked_ms: u64, span_ms: u64) -> Self {
        Self { asked_ms, span_ms }
    }

    /// When to ask again, if the last that was heard came at `heard_ms` (0: what is
    /// heard says nothing). Never goes back while that goes on.
    pub(super) fn ends_ms(&self, heard_ms: u64) -> u64 {
        let silent = self.asked_ms.max(heard_ms).saturating_add(self.span_ms);
        let longest = self.span_ms.saturating_mul(PATIENCE);
        silent.min(self.asked_ms.saturating_add(longest))
    }
}

#[cfg(test)]
mod tests {
    use super::AnswerWait;

    #[test]
    fn it_ends_after_a_silence_and_in_any_case() {
        let wait = AnswerWait::new(5_000, 10_000);
        assert_eq!(wait.ends_ms(0), 15_000);
        assert_eq!(wait.ends_ms(4_000), 15_000);
        assert_eq!(wait.ends_ms(12_000), 22_000);
        assert_eq!(wait.ends_ms(44_000), 45_000);
    }
}
