//! Users and their sessions.

use sluice_protocol::{DeviceId, UserId, UserSeq, limits::CONNECT_SKEW_MAX_MS};

use crate::StoreError;

/// A user to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUser {
    /// The id that the user chose.
    pub id: UserId,
    /// Shown to others.
    pub username: String,
    /// PHC string; never the password.
    pub password_hash: String,
    /// Now, by the server's clock.
    pub created_ms: u64,
}

/// Whether a user may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UserStatus {
    /// May do everything.
    Normal,
    /// May log in and read, not send.
    Muted,
    /// May not log in.
    Banned,
}

// === impl UserStatus ===

impl UserStatus {
    /// As in `users.status`, in all engines.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Normal => 1,
            Self::Banned => 2,
            Self::Muted => 3,
        }
    }

    /// The inverse.
    pub(crate) fn of_code(code: u8) -> Result<Self, StoreError> {
        match code {
            1 => Ok(Self::Normal),
            2 => Ok(Self::Banned),
            3 => Ok(Self::Muted),
            other => Err(StoreError::Damaged(format!("unknown user status {other}"))),
        }
    }
}

/// A user as kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The id that the user chose.
    pub id: UserId,
    /// Shown to others.
    pub username: String,
    /// PHC string.
    pub password_hash: String,
    /// Whether the user may speak.
    pub status: UserStatus,
    /// Tokens of an older epoch are void.
    pub token_epoch: u64,
}

/// A device that wants a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOpening {
    /// Who it says it is.
    pub user: UserId,
    /// Which device.
    pub device: DeviceId,
    /// As in `Connect.platform`.
    pub platform: i32,
    /// How it proves it.
    pub proof: SessionProof,
    /// SHA-256 of the resume token to leave.
    pub new_resume_hash: [u8; 32],
    /// When the device asked, by its own clock; nothing when a session is prolonged.
    pub connect_time_ms: Option<u64>,
    /// Whether the device has a place. Without one nothing is spent: a proof
    /// that is good is answered with `TooManyDevices`.
    pub has_place: bool,
    /// Now, by the server's clock.
    pub now_ms: u64,
}

/// Proof of identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionProof {
    /// A token whose signature and expiry the gateway has checked.
    Token {
        /// Its epoch; must be the user's.
        token_epoch: u64,
        /// When it ends, and the session with it.
        expires_ms: u64,
    },
    /// SHA-256 of the resume token: single use, bound to user and device.
    Resume {
        /// The hash.
        hash: [u8; 32],
    },
}

/// What became of an opening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionOutcome {
    /// The session stands until `expires_ms`; so does the new resume token.
    Opened {
        /// Where the user's inbox ends.
        inbox_seq: UserSeq,
        /// When the session ends unless refreshed.
        expires_ms: u64,
        /// Number of this login among the user's; rises.
        login: u64,
    },
    /// It does not.
    Refused(SessionRefusal),
}

/// Why a session was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionRefusal {
    /// There is no such user.
    UnknownUser,
    /// The token's epoch has passed (logout, ban, password change).
    Revoked,
    /// The user is banned.
    Banned,
    /// The resume token is unknown, spent, expired or another device's.
    BadResumeToken,
    /// The user has the most devices allowed; the proof was good and still is.
    TooManyDevices,
    /// A login that the device made later was worked on before; the proof was good
    /// and still is.
    Overtaken,
}

// === impl SessionOpening ===

impl SessionOpening {
    /// Whether this device made a login later than this one, by the time of the last
    /// that was opened: a device that gave up waiting and tried another gateway may
    /// have its two logins worked on in any order. What is further behind than gateways
    /// let clocks be off is believed: the device's clock was put right in between.
    pub(crate) fn is_overtaken(&self, last_connect_time_ms: u64) -> bool {
        self.connect_time_ms.is_some_and(|asked_ms| {
            last_connect_time_ms
                .checked_sub(asked_ms)
                .is_some_and(|ahead_ms| (1..=CONNECT_SKEW_MAX_MS).contains(&ahead_ms))
        })
    }
}
