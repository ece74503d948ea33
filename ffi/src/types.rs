//! What both sides see. Plain data; nothing here is followed but by `boundary`.

#![allow(non_camel_case_types, reason = "these are the names in C")]

/// Grows with a change that old programs don't stand.
pub const SLUICE_ABI_VERSION: u32 = 1;
/// What a buffer for `sluice_transmit` must hold.
pub const SLUICE_DATAGRAM_MAX_BYTES: usize = 1452;
/// The longest datagram that `sluice_receive` takes.
pub const SLUICE_RECEIVE_MAX_BYTES: usize = 2048;
/// The longest body of a message.
pub const SLUICE_BODY_MAX_BYTES: usize = 61440;
/// No such time: `sluice_timeout` when all is over, `retry_in_ms` when no try comes.
pub const SLUICE_NEVER: u64 = u64::MAX;

/// What a call says. Negative: it has done nothing, except with `INTERNAL`.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum sluice_status {
    /// Done.
    OK = 0,
    /// A pointer is null that must not be.
    NULL_POINTER = -1,
    /// A length is over its bound.
    TOO_LARGE = -2,
    /// The buffer is too small.
    SMALL_BUFFER = -3,
    /// A user, device or conversation id is none.
    BAD_NAME = -4,
    /// The pins are no keys.
    BAD_PINS = -5,
    /// The kept state is damaged, or another user's or device's.
    BAD_STATE = -6,
    /// Text that is no UTF-8.
    BAD_TEXT = -7,
    /// The random bytes are all the same.
    BAD_RANDOM = -8,
    /// Neither a token nor a state.
    NO_TOKEN = -9,
    /// A number or a target that is none.
    BAD_ARGUMENT = -10,
    /// As many sends wait for their ack as may.
    FULL = -11,
    /// The connection has stalled, and as many packets wait for it as may.
    STALLED = -12,
    /// As many requests wait for their answer as may.
    TOO_MANY = -13,
    /// There is no connection, and repeating this might not be harmless.
    NOT_CONNECTED = -14,
    /// A conversation with oneself.
    TO_ONESELF = -15,
    /// The client has ended for good.
    ENDED = -16,
    /// A fault of this library. The client does nothing any more; free it.
    INTERNAL = -17,
}

/// Bytes of somebody else. `data` may be null when `len` is 0. Text is UTF-8 without a NUL.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct sluice_bytes {
    /// Where they begin.
    pub data: *const u8,
    /// How many there are.
    pub len: usize,
}

/// What a client needs. Nothing of it is kept after the call.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct sluice_config {
    /// Who logs in: 1 to 64 bytes.
    pub user: sluice_bytes,
    /// On which device, by a name that it keeps: 1 to 64 bytes.
    pub device: sluice_bytes,
    /// The login token (POST /users/login); may be empty with a state.
    pub token: sluice_bytes,
    /// The server's public keys as text (GET /endpoints, `pins`).
    pub pins: sluice_bytes,
    /// What `sluice_state` gave in an earlier life, or empty.
    pub state: sluice_bytes,
    /// From a cryptographic source and never the same twice: the keys come from it.
    pub random: [u8; 32],
    /// Unix milliseconds now; 0 where the device doesn't know (the server tells).
    pub unix_ms: u64,
    /// 0 none of these, 1 Android, 2 iOS, 3 web, 4 desktop, 5 game, 6 device, 7 bot.
    pub platform: u32,
    /// The longest datagram that may be tried, 1200 to 1452; 0: 1452. Without "don't
    /// fragment" on the socket, 1200.
    pub datagram_max_bytes: u32,
}

/// Where a message goes: one of the two, the other empty.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct sluice_to {
    /// To the private conversation with this user.
    pub user: sluice_bytes,
    /// To a group, or a private conversation by its id.
    pub conversation: sluice_bytes,
}

/// This side's name for a send.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct sluice_id {
    /// Unique over all clients and lives.
    pub bytes: [u8; 16],
}

/// What an event tells; in parentheses the fields that say more. Unknown ones are to be passed
/// over: a later library may have more.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum sluice_event_kind {
    /// Nothing.
    #[default]
    NONE = 0,
    /// Logged in (flag: by the resume token).
    CONNECTED = 1,
    /// The connection is gone (code: close reason of the protocol or 0; text; retry_in_ms).
    DISCONNECTED = 2,
    /// The client has ended for good (code: close reason, or error code; text).
    ENDED = 3,
    /// A message, one's own too, in order (conversation, user: the sender, seq, user_seq,
    /// message_id, server_time_ms, content_type, body, flag: one's own).
    MESSAGE = 4,
    /// A message was taken back (as MESSAGE; number: its seq).
    RECALLED = 5,
    /// A group's members or name have changed (as MESSAGE without body).
    GROUP_CHANGED = 6,
    /// A message without a promise (conversation, user, server_time_ms, content_type, body).
    EPHEMERAL = 7,
    /// Somebody is writing (conversation, user).
    TYPING = 8,
    /// The other party's device has all up to seq (conversation, user, seq).
    DELIVERED = 9,
    /// Somebody has read up to seq (conversation, user, seq).
    READ = 10,
    /// A send is stored (id, conversation, seq, user_seq, message_id, server_time_ms).
    SENT = 11,
    /// A send will never be stored (id, code: error code of the protocol or 0, text).
    REFUSED = 12,
    /// A request's answer (number: the request, code: the backend's status, body).
    ANSWERED = 13,
    /// A request without an answer (number, code: error code or 0, text).
    UNANSWERED = 14,
    /// All that the server had at the last connect has been told.
    CAUGHT_UP = 15,
    /// The login token ends soon: `sluice_renew_token`.
    TOKEN_WANTED = 16,
    /// The server no longer has, or does not tell, some entries (text).
    GAP = 17,
}

/// An event. What its pointers name lives until the next call with this client.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct sluice_event {
    /// One of `sluice_event_kind`.
    pub kind: u32,
    /// See the kind.
    pub code: i32,
    /// See the kind: 0 or 1.
    pub flag: u32,
    /// 0 text, 1 image, 2 file, 3 voice, 4 video, 5 location, 6 system, 7 custom.
    pub content_type: u32,
    /// Of the send.
    pub id: sluice_id,
    /// See the kind.
    pub number: u64,
    /// The place in its conversation: 1, 2, 3, … without gaps.
    pub seq: u64,
    /// The place in this user's inbox; 0 for groups.
    pub user_seq: u64,
    /// The server's name for it.
    pub message_id: u64,
    /// When it was stored or passed on, in Unix milliseconds by the server.
    pub server_time_ms: u64,
    /// When the next try to connect comes, or `SLUICE_NEVER`.
    pub retry_in_ms: u64,
    /// Its id.
    pub conversation: sluice_bytes,
    /// Who.
    pub user: sluice_bytes,
    /// What was said.
    pub body: sluice_bytes,
    /// For people.
    pub text: sluice_bytes,
}

// === impl sluice_bytes ===

impl From<&[u8]> for sluice_bytes {
    fn from(bytes: &[u8]) -> Self {
        Self {
            data: bytes.as_ptr(),
            len: bytes.len(),
        }
    }
}
