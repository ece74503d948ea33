//! The stages of a message's road, in their order.

/// Where a message has come to, up to its ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its bytes were read from the sender's socket.
    Read,
    /// They are a packet.
    Decode,
    /// The pipeline has let it through: it goes into its lane.
    Lane,
    /// The lane's writer hands it to the bus.
    Append,
    /// Its partition's owner has it from the bus.
    Take,
    /// It has passed the owner's checks and is handed to the store.
    Check,
    /// It is stored.
    Commit,
    /// Who gets it is known: ack and pushes are handed to the gateways' streams.
    Emit,
    /// The ack is in the sender's output.
    Ack,
    /// The ack was written to the sender's socket. Over UDP: the session has taken it,
    /// which sends it as soon as the network lets it.
    AckWrite,
}

/// How far a message has come on its way to one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushStage {
    /// It is in that connection's output.
    Push,
    /// It was written to its socket; over UDP as [`Stage::AckWrite`].
    Write,
    /// Its PushAck has come.
    Ack,
}

// === impl Stage ===

impl Stage {
    /// All, in order.
    pub const ALL: [Self; 10] = [
        Self::Read,
        Self::Decode,
        Self::Lane,
        Self::Append,
        Self::Take,
        Self::Check,
        Self::Commit,
        Self::Emit,
        Self::Ack,
        Self::AckWrite,
    ];

    /// Its name in reports.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Decode => "decode",
            Self::Lane => "lane",
            Self::Append => "append",
            Self::Take => "take",
            Self::Check => "check",
            Self::Commit => "commit",
            Self::Emit => "emit",
            Self::Ack => "ack",
            Self::AckWrite => "ack_write",
        }
    }
}

// === impl PushStage ===

impl PushStage {
    /// All, in order.
    pub const ALL: [Self; 3] = [Self::Push, Self::Write, Self::Ack];

    /// Its name in reports.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Write => "push_write",
            Self::Ack => "push_ack",
        }
    }
}
