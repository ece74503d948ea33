//! The ways in which a peer breaks RFC 6455 once the WebSocket is open.

/// A broken rule; the section that holds it is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Section 5.2: no extension was negotiated.
    #[error("a reserved bit is set, but no extension was negotiated (RFC 6455, 5.2)")]
    ReservedBits,
    /// Section 5.2.
    #[error("opcode {0:#x} is reserved (RFC 6455, 5.2)")]
    ReservedOpcode(u8),
    /// Section 5.1.
    #[error("a client must mask its frames (RFC 6455, 5.1)")]
    Unmasked,
    /// Section 5.2: the shortest form must be used.
    #[error("the payload length is not in its shortest form (RFC 6455, 5.2)")]
    LengthNotMinimal,
    /// Section 5.2: 63 bits.
    #[error("the payload length has its highest bit set (RFC 6455, 5.2)")]
    NegativeLength,
    /// Section 5.5.
    #[error("a control frame is fragmented (RFC 6455, 5.5)")]
    FragmentedControl,
    /// Section 5.5.
    #[error("a control frame has more than 125 bytes (RFC 6455, 5.5)")]
    LongControl,
    /// Section 5.4.
    #[error("a continuation frame without a message to continue (RFC 6455, 5.4)")]
    NothingToContinue,
    /// Section 5.4.
    #[error("a new message before the last one ended (RFC 6455, 5.4)")]
    MessageUnfinished,
    /// Section 5.5.1 and 7.4.
    #[error("the close frame has no valid status code (RFC 6455, 7.4)")]
    CloseCode,
    /// Section 5.5.1.
    #[error("the close frame's reason is not UTF-8 (RFC 6455, 5.5.1)")]
    CloseReasonNotUtf8,
}
