//! Opening sessions: proofs checked, resume tokens spent and replaced.

use rusqlite::{Connection, OptionalExtension, params};
use sluice_protocol::{DeviceId, UserId, UserSeq};

use super::{
    conversation_state::{inbox_end, user_key},
    integer::{UserKey, from_sql, to_sql},
    memory::WriterMemory,
    users::status_from_sql,
    writer::Write,
};
use crate::{SessionOpening, SessionOutcome, SessionProof, SessionRefusal, StoreError, UserStatus};

/// Devices of one user whose resume tokens are kept.
const DEVICES_REMEMBERED_MAX: i64 = 64;

/// See [`Store::open_sessions`](crate::Store::open_sessions).
pub(super) struct OpenSessions(pub(super) Vec<SessionOpening>);

/// See [`Store::forget_device`](crate::Store::forget_device).
pub(super) struct ForgetDevice {
    pub(super) user: UserId,
    pub(super) device: DeviceId,
}

impl Write for OpenSessions {
    type Answer = Vec<SessionOutcome>;

    fn weight(&self) -> usize {
        self.0.len().max(1)
    }

    fn apply(
        &self,
        connection: &Connection,
        _: &mut WriterMemory,
    ) -> Result<Vec<SessionOutcome>, StoreError> {
        (self.0.iter())
            .map(|opening| open(connection, opening))
            .collect()
    }
}

impl Write for ForgetDevice {
    type Answer = ();

    fn apply(&self, connection: &Connection, _: &mut WriterMemory) -> Result<(), StoreError> {
        if let Some(user) = user_key(connection, &self.user)? {
            connection
                .prepare_cached("DELETE FROM device WHERE user = ?1 AND device_id = ?2")?
                .execute(params![user, self.device.as_str()])?;
        }
        Ok(())
    }
}

/// Forgets all resume tokens of a user.
pub(super) fn forget_devices(connection: &Connection, user: UserKey) -> Result<(), StoreError> {
    connection
        .prepare_cached("DELETE FROM device WHERE user = ?1")?
        .execute([user])?;
    Ok(())
}

fn open(connection: &Connection, opening: &SessionOpening) -> Result<SessionOutcome, StoreError> {
    let user = connection
        .prepare_cached("SELECT id, status, token_epoch FROM users WHERE user_id = ?1")?
        .query_row([opening.user.as_str()], |row| {
            Ok((
                row.get::<_, UserKey>(0)?,
                row.get::<_, i32>(1)?,
                from_sql(row.get(2)?),
            ))
        })
        .optional()?;
    let Some((user, status, epoch)) = user else {
        return Ok(SessionOutcome::Refused(SessionRefusal::UnknownUser));
    };
    if status_from_sql(status)? == UserStatus::Banned {
        return Ok(SessionOutcome::Refused(SessionRefusal::Banned));
    }
    let expires_ms = match opening.proof {
        SessionProof::Token {
            token_epoch,
            expires_ms,
        } => {
            if token_epoch != epoch {
                return Ok(SessionOutcome::Refused(SessionRefusal::Revoked));
            }
            expires_ms
        }
        SessionProof::Resume { hash } => match resumable_until(connection, user, opening, &hash)? {
            Some(expires_ms) => expires_ms,
            None => return Ok(SessionOutcome::Refused(SessionRefusal::BadResumeToken)),
        },
    };
    if !opening.has_place {
        return Ok(SessionOutcome::Refused(SessionRefusal::TooManyDevices));
    }
    let login = leave_token(connection, user, opening, expires_ms)?;
    Ok(SessionOutcome::Opened {
        inbox_seq: UserSeq(inbox_end(connection, user)?),
        expires_ms,
        login,
    })
}

/// When the session that the token resumes ends; `None` if the token is not good.
fn resumable_until(
    connection: &Connection,
    user: UserKey,
    opening: &SessionOpening,
    hash: &[u8; 32],
) -> Result<Option<u64>, StoreError> {
    let device = connection
        .prepare_cached(
            "SELECT resume_hash, expires_ms FROM device WHERE user = ?1 AND device_id = ?2",
        )?
        .query_row(params![user, opening.device.as_str()], |row| {
            Ok((row.get::<_, [u8; 32]>(0)?, from_sql(row.get(1)?)))
        })
        .optional()?;
    Ok(device
        .filter(|(stored, expires_ms)| {
            // The new hash is there already when this very opening is retried
            // after an answer that got lost: once more then.
            (stored == hash || *stored == opening.new_resume_hash) && *expires_ms > opening.now_ms
        })
        .map(|(_, expires_ms)| expires_ms))
}

/// Leaves the new resume token and counts the login.
fn leave_token(
    connection: &Connection,
    user: UserKey,
    opening: &SessionOpening,
    expires_ms: u64,
) -> Result<u64, StoreError> {
    let login: i64 = connection
        .prepare_cached("UPDATE users SET logins = logins + 1 WHERE id = ?1 RETURNING logins")?
        .query_row([user], |row| row.get(0))?;
    connection
        .prepare_cached(
            "INSERT INTO device (user, device_id, platform, resume_hash, expires_ms, login)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (user, device_id) DO UPDATE
             SET platform = excluded.platform, resume_hash = excluded.resume_hash,
                 expires_ms = excluded.expires_ms, login = excluded.login",
        )?
        .execute(params![
            user,
            opening.device.as_str(),
            opening.platform,
            opening.new_resume_hash,
            to_sql(expires_ms),
            login
        ])?;
    let devices: i64 = connection
        .prepare_cached("SELECT count(*) FROM device WHERE user = ?1")?
        .query_row([user], |row| row.get(0))?;
    if devices > DEVICES_REMEMBERED_MAX {
        connection
            .prepare_cached(
                "DELETE FROM device WHERE user = ?1 AND device_id IN (
                   SELECT device_id FROM device WHERE user = ?1 ORDER BY login LIMIT ?2)",
            )?
            .execute(params![user, devices - DEVICES_REMEMBERED_MAX])?;
    }
    Ok(from_sql(login))
}
