//! Channels: what a message's number promises of its delivery.

/// One of 256 channels of a session. The two high bits choose the [`Mode`], so
/// that nothing has to be agreed on before the first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(pub u8);

/// How the messages of a channel are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Each once, in the order of sending.
    ReliableOrdered,
    /// Each once, as soon as it is whole.
    ReliableUnordered,
    /// Never sent again; a message that is older than one delivered is dropped.
    UnreliableLatest,
    /// At most once, in any order.
    Unreliable,
}

// === impl Channel ===

impl Channel {
    /// Login, control, sends, acks and pulls.
    pub const CONTROL: Self = Self(0);
    /// Durable pushes: the client orders them by their sequence number.
    pub const PUSHES: Self = Self(0x40);
    /// Typing notices and the like, of which only the newest counts.
    pub const LATEST: Self = Self(0x80);
    /// Ephemeral messages.
    pub const EPHEMERAL: Self = Self(0xc0);

    /// How its messages are delivered.
    pub const fn mode(self) -> Mode {
        match self.0 >> 6 {
            0 => Mode::ReliableOrdered,
            1 => Mode::ReliableUnordered,
            2 => Mode::UnreliableLatest,
            _ => Mode::Unreliable,
        }
    }

    /// Its number within its mode.
    pub(crate) const fn number(self) -> u8 {
        self.0 & 0x3f
    }
}

impl Mode {
    /// Whether lost messages are sent again.
    pub const fn is_reliable(self) -> bool {
        matches!(self, Self::ReliableOrdered | Self::ReliableUnordered)
    }
}
