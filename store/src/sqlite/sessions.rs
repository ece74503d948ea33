//! Opening sessions: proofs checked, resume tokens spent and replaced.

use rusqlite::{Connection, OptionalExtension, params};
use sluice_protocol::{DeviceId, UserId, UserSeq};

use super::{
    conversation_state::{inbox_end, user_key},
    integer::{UserKey, from_sql, to_sql},
    memory::WriterMemory,
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
                row.get::<_, u8>(1)?,
                from_sql(row.get(2)?),
            ))
        })
        .optional()?;
    let Some((user, status, epoch)) = user else {
        return Ok(SessionOutcome::Refused(SessionRefusal::UnknownUser));
    };
    if UserStatus::of_code(status)? == UserStatus::Banned {
        return Ok(SessionOutcome::Refused(SessionRefusal::Banned));
    }
    let last = last_session(connection, user, opening)?;
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
        SessionProof::Resume { hash } => {
            // The new hash is there already when this very opening is retried
            // after an answer that got lost: once more then.
            let good = last.as_ref().filter(|last| {
                (last.resume_hash == hash || last.resume_hash == opening.new_resume_hash)
                    && last.expires_ms > opening.now_ms
            });
            match good {
                Some(last) => last.expires_ms,
                None => return Ok(SessionOutcome::Refused(SessionRefusal::BadResumeToken)),
            }
        }
    };
    if last.is_some_and(|last| opening.is_overtaken(last.connect_time_ms)) {
        return Ok(SessionOutcome::Refused(SessionRefusal::Overtaken));
    }
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

/// What the device's last login left.
struct LastSession {
    resume_hash: [u8; 32],
    expires_ms: u64,
    connect_time_ms: u64,
}

fn last_session(
    connection: &Connection,
    user: UserKey,
    opening: &SessionOpening,
) -> Result<Option<LastSession>, StoreError> {
    let last = connection
        .prepare_cached(
            "SELECT resume_hash, expires_ms, connect_time_ms FROM device
             WHERE user = ?1 AND device_id = ?2",
        )?
        .query_row(params![user, opening.device.as_str()], |row| {
            Ok(LastSession {
                resume_hash: row.get(0)?,
                expires_ms: from_sql(row.get(1)?),
                connect_time_ms: from_sql(row.get(2)?),
            })
        })
        .optional()?;
    Ok(last)
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
            "INSERT INTO device
               (user, device_id, platform, resume_hash, expires_ms, login, connect_time_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ifnull(?7, 0))
             ON CONFLICT (user, device_id) DO UPDATE
             SET platform = excluded.platform, resume_hash = excluded.resume_hash,
                 expires_ms = excluded.expires_ms, login = excluded.login,
                 connect_time_ms = ifnull(?7, connect_time_ms)",
        )?
        .execute(params![
            user,
            opening.device.as_str(),
            opening.platform,
            opening.new_resume_hash,
            to_sql(expires_ms),
            login,
            opening.connect_time_ms.map(to_sql),
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
