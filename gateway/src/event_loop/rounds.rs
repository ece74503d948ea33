//! What all channels of a loop are told, some of them in each turn: whoever is told
//! something is woken for it, and the others' packets are not to wait meanwhile.

use sluice_protocol::packet::CloseReason;

use super::EventLoop;
use crate::{
    farewell::{Farewell, go_away},
    slab::ChannelKey,
};

/// What they are told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Call {
    /// Deliveries may be missing.
    Resync,
    /// The gateway is going.
    GoAway,
    /// It is over.
    Stop,
}

/// How far each call has come.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    resync: Round,
    go_away: Round,
    stop: Round,
}

#[derive(Debug, Default)]
struct Round {
    /// `None`: everybody has been told.
    next_slot: Option<u32>,
    /// Asked for again meanwhile: those before it are told once more.
    again: bool,
}

/// Channels told in one turn, by each call.
const TOLD_PER_TURN: usize = 1_024;

// === impl Rounds ===

impl Rounds {
    /// Begins a round. Those who come during it need not be told: who logs in syncs
    /// in any case, and nobody is taken in by a gateway that is going.
    pub(super) fn begin(&mut self, call: Call) {
        let round = self.round(call);
        round.again = round.next_slot.is_some();
        round.next_slot.get_or_insert(0);
    }

    pub(super) fn is_idle(&self) -> bool {
        let rounds = [&self.resync, &self.go_away, &self.stop];
        rounds.iter().all(|round| round.next_slot.is_none())
    }

    fn round(&mut self, call: Call) -> &mut Round {
        match call {
            Call::Resync => &mut self.resync,
            Call::GoAway => &mut self.go_away,
            Call::Stop => &mut self.stop,
        }
    }
}

// === impl Round ===

impl Round {
    fn advance(&mut self, next_slot: Option<u32>) {
        self.next_slot = match next_slot {
            None if std::mem::take(&mut self.again) => Some(0),
            next_slot => next_slot,
        };
    }
}

// === impl EventLoop ===

impl EventLoop {
    /// This turn's part of all rounds.
    pub(super) fn go_round(&mut self) {
        for call in [Call::Resync, Call::GoAway, Call::Stop] {
            let Some(from_slot) = self.rounds.round(call).next_slot else {
                continue;
            };
            let (keys, next_slot) = self.connections.keys(from_slot, TOLD_PER_TURN);
            for key in keys {
                self.tell(call, key);
            }
            self.rounds.round(call).advance(next_slot);
        }
    }

    fn tell(&mut self, call: Call, key: ChannelKey) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let (channel, bench) = (&mut connection.channel, &mut self.bench);
        let delay_ms = bench.shared.config.drain.reconnect_delay_max_ms;
        match call {
            Call::Resync if channel.is_open() => channel.resync(bench),
            Call::Resync => {}
            Call::GoAway if channel.identity.is_some() && !channel.is_closing() => {
                go_away(CloseReason::GoingAway, delay_ms, channel, bench);
            }
            Call::GoAway | Call::Stop => channel.close(bench, Farewell::going_away(delay_ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_comes_again_meanwhile_goes_round_once_more() {
        let mut rounds = Rounds::default();
        assert!(rounds.is_idle());
        rounds.begin(Call::Resync);
        rounds.resync.advance(Some(7));
        rounds.begin(Call::Resync);
        rounds.begin(Call::Resync);
        assert_eq!(rounds.resync.next_slot, Some(7));
        rounds.resync.advance(None);
        assert_eq!(rounds.resync.next_slot, Some(0));
        rounds.resync.advance(None);
        assert!(rounds.is_idle());
    }
}
