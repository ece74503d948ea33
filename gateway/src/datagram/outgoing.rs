//! The datagrams that a turn sends, written at its end.

use std::{io, net::SocketAddr, sync::Arc};

use super::DatagramSocket;
use crate::metrics::LoopMetrics;

/// Filled by sessions and answers, emptied by [`Outgoing::flush`].
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    socket: Option<Arc<DatagramSocket>>,
    bytes: Vec<u8>,
    /// To whom, and where in `bytes` it ends.
    datagrams: Vec<(SocketAddr, usize)>,
}

/// So much is not gathered, but written at once.
const GATHER_MAX_BYTES: usize = 256 * 1024;
/// UDP's own limit on what one call may hold.
const RUN_MAX_BYTES: usize = 65_000;

// === impl Outgoing ===

impl Outgoing {
    pub(crate) fn by(socket: Arc<DatagramSocket>) -> Self {
        Self {
            socket: Some(socket),
            ..Self::default()
        }
    }

    /// Takes what `write` appends as one datagram to where it says; nothing if it
    /// says nowhere.
    pub(crate) fn append(
        &mut self,
        metrics: &LoopMetrics,
        write: impl FnOnce(&mut Vec<u8>) -> Option<SocketAddr>,
    ) -> bool {
        if self.bytes.len() >= GATHER_MAX_BYTES {
            self.flush(metrics);
        }
        let start = self.bytes.len();
        match write(&mut self.bytes) {
            Some(to) if self.bytes.len() > start => {
                self.datagrams.push((to, self.bytes.len()));
                true
            }
            _ => {
                self.bytes.truncate(start);
                false
            }
        }
    }

    /// Writes all that was gathered. What the kernel has no room for is dropped:
    /// the sessions take it for lost and send it again, more slowly.
    pub(crate) fn flush(&mut self, metrics: &LoopMetrics) {
        let Some(socket) = &self.socket else { return };
        let (mut start, mut next) = (0, 0);
        while let Some(&(to, end)) = self.datagrams.get(next) {
            let segment_bytes = end - start;
            let run = run_of(&self.datagrams, next, start, socket.segments_max());
            let run_end = self.datagrams[next + run - 1].1;
            match socket.send(to, &self.bytes[start..run_end], segment_bytes) {
                Ok(()) => {
                    metrics.datagrams_out.increment(run as u64);
                    metrics.bytes_out.increment((run_end - start) as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::debug!(%to, %error, "datagrams were not sent");
                    metrics.datagrams_unsent.increment(run as u64);
                }
            }
            (start, next) = (run_end, next + run);
        }
        self.bytes.clear();
        self.datagrams.clear();
    }
}

/// How many datagrams from the one at `first` on go by one call: those to the
/// same peer, of one length, and at the end a shorter one.
fn run_of(
    datagrams: &[(SocketAddr, usize)],
    first: usize,
    start: usize,
    segments_max: usize,
) -> usize {
    let Some(&(to, first_end)) = datagrams.get(first) else {
        return 0;
    };
    let segment_bytes = first_end - start;
    let (mut run, mut end) = (1, first_end);
    while run < segments_max
        && let Some(&(peer, next_end)) = datagrams.get(first + run)
    {
        let bytes = next_end - end;
        if peer != to || bytes > segment_bytes || next_end - start > RUN_MAX_BYTES {
            break;
        }
        run += 1;
        end = next_end;
        if bytes < segment_bytes {
            break;
        }
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_of_one_peer_and_one_length_with_a_shorter_end() {
        let (a, b) = (([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into());
        let queued = [(a, 100), (a, 200), (a, 250), (a, 350), (b, 450), (b, 600)];
        assert_eq!(run_of(&queued, 0, 0, 64), 3);
        assert_eq!(run_of(&queued, 0, 0, 2), 2);
        assert_eq!(run_of(&queued, 3, 250, 64), 1);
        // The second is longer.
        assert_eq!(run_of(&queued, 4, 350, 64), 1);
        assert_eq!(run_of(&queued, 5, 450, 64), 1);
        assert_eq!(run_of(&queued, 6, 600, 64), 0);
    }
}
