//! One user's session on one device, over any transport: a state machine
//! without I/O and clock.

mod answers;
mod config;

pub use answers::{ConversationList, ConversationSummary, HistoryPage, Response, Target};
pub use config::SessionConfig;

use sluice_protocol::{DeviceId, UserId};

use crate::state::Saved;

/// The state machine.
pub(crate) struct Session {
    config: SessionConfig,
    user: UserId,
    device: DeviceId,
}

impl Session {
    pub(crate) fn new(
        config: SessionConfig,
        user: UserId,
        device: DeviceId,
        _saved: Saved,
    ) -> Self {
        Self {
            config,
            user,
            device,
        }
    }
}
