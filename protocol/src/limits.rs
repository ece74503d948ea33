//! Sizes, counts and spans that both sides must agree on (SPEC.md, "Limits").

/// Largest frame before login, in bytes of one encoded packet.
pub const FRAME_MAX_BYTES_BEFORE_LOGIN: usize = 4 * 1024;
/// Largest frame after login, in bytes of one encoded packet; both directions.
pub const FRAME_MAX_BYTES: usize = 64 * 1024;
/// Largest message body in bytes.
pub const BODY_MAX_BYTES: usize = 60 * 1024;
/// Largest body that rides along inside a group notice, in bytes.
pub const NOTICE_BODY_MAX_BYTES: usize = 4 * 1024;
/// A user, device, service or agent name, in bytes of UTF-8.
pub const NAME_MAX_BYTES: usize = 64;
/// A token in a connect packet, in bytes.
pub const TOKEN_MAX_BYTES: usize = 2 * 1024;
/// The nonce of a connect packet, in bytes.
pub const NONCE_BYTES: usize = 16;
/// Entries in one page of a sync answer.
pub const PAGE_MAX_ENTRIES: u32 = 200;
/// A page stops growing here, in bytes of encoded entries; one entry always fits.
pub const PAGE_MAX_BYTES: usize = 56 * 1024;
/// Pairs in `PushAck.ranges`.
pub const PUSH_ACK_RANGES_MAX: usize = 32;
/// Cursors in one `PushAck`.
pub const PUSH_ACK_CURSORS_MAX: usize = 64;
/// Sends that one connection may have unacked.
pub const SEND_WINDOW: u32 = 64;
/// Live devices of one user.
pub const DEVICES_MAX: usize = 8;
/// Members of one group.
pub const GROUP_MEMBERS_MAX: usize = 500;
/// Groups that one user is in.
pub const GROUPS_PER_USER_MAX: usize = 5_000;
/// Of them, up to this many may come by others' adding; the rest are for groups
/// that the user founds.
pub const GROUPS_BY_OTHERS_MAX: usize = 4_000;
/// Groups that one user has left and still finds among the heads: those left last.
pub const LEFT_GROUPS_MAX: usize = 5_000;
/// Bytes of a group's name.
pub const GROUP_NAME_MAX_BYTES: usize = 128;
/// A client message id this much older than the server's clock is refused as
/// expired; younger ones are deduplicated.
pub const DEDUP_HORIZON_MS: u64 = 30 * 24 * 3600 * 1000;
/// How far a client message id's time may be ahead of the server's clock.
pub const CLIENT_MSG_ID_AHEAD_MAX_MS: u64 = 10 * 60 * 1000;
/// How far a connect packet's time may be off the server's clock.
pub const CONNECT_SKEW_MAX_MS: u64 = 5 * 60 * 1000;
/// Within this span a sender may recall a message.
pub const RECALL_WINDOW_MS: u64 = 2 * 60 * 1000;
/// A missing seq is pulled after this span: pushes of different partitions may cross.
pub const HOLE_PATIENCE_MS: u64 = 300;
/// Partitions of the conversation space, unless configured otherwise.
pub const PARTITIONS_DEFAULT: u16 = 64;
/// Partitions of the streams that are consumed concurrently (query, session,
/// ack, requests): by user or key, for balance and not for order.
pub const SHARED_PARTITIONS: u16 = 8;
