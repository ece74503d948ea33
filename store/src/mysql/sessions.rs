//! Opening sessions: proofs checked, resume tokens spent and replaced.

use std::collections::BTreeSet;

use sluice_protocol::{DeviceId, UserId, UserSeq};
use sqlx::{MySqlConnection, Row};

use super::{
    failure::Failure,
    rows::{ROWS_MAX, Sql, push_list},
    servers::Work,
};
use crate::{SessionOpening, SessionOutcome, SessionProof, SessionRefusal, UserStatus};

/// Devices of one user whose resume tokens are kept.
const DEVICES_REMEMBERED_MAX: i64 = 64;

/// See [`Store::open_sessions`](crate::Store::open_sessions); all of one server.
pub(super) struct OpenSessions<'o>(pub(super) Vec<&'o SessionOpening>);

/// See [`Store::forget_device`](crate::Store::forget_device).
pub(super) struct ForgetDevice {
    pub(super) user: UserId,
    pub(super) device: DeviceId,
}

impl Work for OpenSessions<'_> {
    type Answer = Vec<SessionOutcome>;
    // Once more, a resume token is found replaced by the very one to be left.
    const REPEATABLE: bool = true;

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        _: u32,
    ) -> Result<Vec<SessionOutcome>, Failure> {
        // All users in one order, so that batches don't lock each other out.
        let users: BTreeSet<&UserId> = self.0.iter().map(|opening| &opening.user).collect();
        let users: Vec<&UserId> = users.into_iter().collect();
        for users in users.chunks(ROWS_MAX) {
            let mut sql = Sql::new("SELECT user_id FROM users WHERE user_id IN (");
            push_list(&mut sql, users.iter().map(|id| id.as_str().as_bytes()));
            sql.push(") ORDER BY user_id FOR UPDATE");
            sql.build().fetch_all(&mut *connection).await?;
        }
        let mut outcomes = Vec::with_capacity(self.0.len());
        for opening in &self.0 {
            outcomes.push(open(connection, opening).await?);
        }
        Ok(outcomes)
    }
}

impl Work for ForgetDevice {
    type Answer = ();
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut MySqlConnection, _: u32) -> Result<(), Failure> {
        sqlx::query("DELETE FROM device WHERE user = ? AND device_id = ?")
            .bind(self.user.as_str().as_bytes())
            .bind(self.device.as_str().as_bytes())
            .execute(connection)
            .await?;
        Ok(())
    }
}

async fn open(
    connection: &mut MySqlConnection,
    opening: &SessionOpening,
) -> Result<SessionOutcome, Failure> {
    let refused = |refusal| Ok(SessionOutcome::Refused(refusal));
    let user = sqlx::query(
        "SELECT u.status, u.token_epoch, i.max_seq, u.logins
         FROM users u JOIN inbox i ON i.user = u.user_id WHERE u.user_id = ?",
    )
    .bind(opening.user.as_str().as_bytes())
    .fetch_optional(&mut *connection)
    .await?;
    let Some(user) = user else {
        return refused(SessionRefusal::UnknownUser);
    };
    if UserStatus::of_code(user.try_get(0)?)? == UserStatus::Banned {
        return refused(SessionRefusal::Banned);
    }
    let last = last_session(connection, opening).await?;
    let expires_ms = match &opening.proof {
        SessionProof::Token {
            token_epoch,
            expires_ms,
        } => {
            if *token_epoch != user.try_get::<u64, _>(1)? {
                return refused(SessionRefusal::Revoked);
            }
            *expires_ms
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
                None => return refused(SessionRefusal::BadResumeToken),
            }
        }
    };
    if last.is_some_and(|last| opening.is_overtaken(last.connect_time_ms)) {
        return refused(SessionRefusal::Overtaken);
    }
    if !opening.has_place {
        return refused(SessionRefusal::TooManyDevices);
    }
    let login = user.try_get::<u64, _>(3)? + 1;
    leave_token(connection, opening, expires_ms, login).await?;
    Ok(SessionOutcome::Opened {
        inbox_seq: UserSeq(user.try_get(2)?),
        expires_ms,
        login,
    })
}

/// What the device's last login left.
struct LastSession {
    resume_hash: Vec<u8>,
    expires_ms: u64,
    connect_time_ms: u64,
}

async fn last_session(
    connection: &mut MySqlConnection,
    opening: &SessionOpening,
) -> Result<Option<LastSession>, Failure> {
    let device = sqlx::query(
        "SELECT resume_hash, expires_ms, connect_time_ms FROM device
         WHERE user = ? AND device_id = ?",
    )
    .bind(opening.user.as_str().as_bytes())
    .bind(opening.device.as_str().as_bytes())
    .fetch_optional(connection)
    .await?;
    let last = device.map(|row| {
        Ok::<_, sqlx::Error>(LastSession {
            resume_hash: row.try_get(0)?,
            expires_ms: row.try_get(1)?,
            connect_time_ms: row.try_get(2)?,
        })
    });
    Ok(last.transpose()?)
}

/// Leaves the new resume token and counts the login.
async fn leave_token(
    connection: &mut MySqlConnection,
    opening: &SessionOpening,
    expires_ms: u64,
    login: u64,
) -> Result<(), Failure> {
    let user = opening.user.as_str().as_bytes();
    sqlx::query("UPDATE users SET logins = ? WHERE user_id = ?")
        .bind(login)
        .bind(user)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO device
           (user, device_id, platform, resume_hash, expires_ms, login, connect_time_ms)
         VALUES (?, ?, ?, ?, ?, ?, IFNULL(?, 0))
         ON DUPLICATE KEY UPDATE platform = VALUES(platform), resume_hash = VALUES(resume_hash),
           expires_ms = VALUES(expires_ms), login = VALUES(login),
           connect_time_ms = IFNULL(?, connect_time_ms)",
    )
    .bind(user)
    .bind(opening.device.as_str().as_bytes())
    .bind(opening.platform)
    .bind(&opening.new_resume_hash[..])
    .bind(expires_ms)
    .bind(login)
    .bind(opening.connect_time_ms)
    .bind(opening.connect_time_ms)
    .execute(&mut *connection)
    .await?;
    let devices: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM device WHERE user = ?")
        .bind(user)
        .fetch_one(&mut *connection)
        .await?;
    if devices > DEVICES_REMEMBERED_MAX {
        sqlx::query("DELETE FROM device WHERE user = ? ORDER BY login LIMIT ?")
            .bind(user)
            .bind(devices - DEVICES_REMEMBERED_MAX)
            .execute(connection)
            .await?;
    }
    Ok(())
}
