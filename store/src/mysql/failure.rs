//! Why a piece of work failed, and whether trying again can help.

use sqlx::mysql::MySqlDatabaseError;

use crate::StoreError;

/// A row of this key is there already.
const DUPLICATE_KEY: u16 = 1_062;
/// A lock was held for too long.
const LOCK_WAIT_TIMEOUT: u16 = 1_205;
/// Two transactions waited for each other; this one was chosen to die.
const DEADLOCK: u16 = 1_213;
/// No room for more rows; no room on the disk; a write that fell short; a file
/// that could not be written, by what InnoDB reports of it.
const DISK_FULL: [u16; 4] = [1_114, 1_021, 1_026, 3];
/// What the server can't keep, today or tomorrow: NULL in a column without, a
/// number out of range, text that is none or too long, a CHECK that fails (of
/// MySQL, of MariaDB).
const UNFIT: [u16; 6] = [1_048, 1_264, 1_366, 1_406, 3_819, 4_025];
/// The server is going down.
const SERVER_SHUTDOWN: u16 = 1_053;

/// Why a try failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Before the commit: nothing was done.
    Engine(sqlx::Error),
    /// At the commit: nobody knows whether all or nothing was done.
    Unknown(sqlx::Error),
    /// No answer in time; the connection is given up.
    Late,
    /// For good.
    Store(StoreError),
}

// === impl Failure ===

impl Failure {
    pub(super) fn may_be_tried_again(&self, repeatable: bool) -> bool {
        match self {
            Failure::Engine(error) => match error {
                sqlx::Error::Io(_) => true,
                error => matches!(
                    number(error),
                    Some(DUPLICATE_KEY | LOCK_WAIT_TIMEOUT | DEADLOCK | SERVER_SHUTDOWN)
                ),
            },
            Failure::Unknown(_) => repeatable,
            Failure::Late | Failure::Store(_) => false,
        }
    }

    /// Somebody held a lock for too long.
    pub(super) fn is_lock_wait(&self) -> bool {
        matches!(self, Failure::Engine(error) if number(error) == Some(LOCK_WAIT_TIMEOUT))
    }

    /// Whether nothing was done, and one part of what ran together may be to blame.
    pub(super) fn may_be_of_one_part(&self) -> bool {
        match self {
            Failure::Engine(
                sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed,
            ) => false,
            Failure::Engine(error) => {
                number(error).is_none_or(|it| it != SERVER_SHUTDOWN && !DISK_FULL.contains(&it))
            }
            Failure::Unknown(_) | Failure::Late => false,
            Failure::Store(_) => true,
        }
    }

    /// A bounded label for metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Failure::Engine(error) => match number(error) {
                Some(DUPLICATE_KEY) => "duplicate_key",
                Some(LOCK_WAIT_TIMEOUT) => "lock_wait",
                Some(DEADLOCK) => "deadlock",
                Some(number) if DISK_FULL.contains(&number) => "disk_full",
                Some(number) if UNFIT.contains(&number) => "unfit",
                Some(_) => "server",
                None => "connection",
            },
            Failure::Unknown(_) => "unknown_outcome",
            Failure::Late => "late",
            Failure::Store(_) => "refused",
        }
    }
}

pub(super) fn number(error: &sqlx::Error) -> Option<u16> {
    let error = error.as_database_error()?;
    Some(error.try_downcast_ref::<MySqlDatabaseError>()?.number())
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Failure::Engine(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::Store(error)
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Engine(
                error @ (sqlx::Error::ColumnDecode { .. }
                | sqlx::Error::ColumnNotFound(_)
                | sqlx::Error::Decode(_)),
            ) => StoreError::Damaged(error.to_string()),
            Failure::Engine(error) if number(&error).is_some_and(|it| UNFIT.contains(&it)) => {
                StoreError::Damaged(error.to_string())
            }
            Failure::Engine(error) if number(&error).is_some_and(|it| DISK_FULL.contains(&it)) => {
                StoreError::Unavailable(format!("the disk of the server is full: {error}"))
            }
            Failure::Engine(sqlx::Error::PoolTimedOut) => StoreError::Unavailable(
                "no connection in time: the server is away, or all connections to it are busy"
                    .to_owned(),
            ),
            Failure::Engine(error) => StoreError::Unavailable(error.to_string()),
            Failure::Unknown(error) => {
                StoreError::Unavailable(format!("the outcome of a commit is not known: {error}"))
            }
            Failure::Late => {
                StoreError::Unavailable("the server did not answer in time".to_owned())
            }
            Failure::Store(error) => error,
        }
    }
}
