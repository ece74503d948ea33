//! Users and whom they have blocked.

use rusqlite::{Connection, OptionalExtension, Row, params};
use sluice_protocol::UserId;

use super::{
    conversation_state::user_key,
    entry_row::user_id,
    integer::{UserKey, from_sql, to_sql},
    memory::WriterMemory,
    readers::Read,
    sessions::forget_devices,
    writer::Write,
};
use crate::{NewUser, StoreError, User, UserStatus};

/// See [`Store::create_user`](crate::Store::create_user).
pub(super) struct CreateUser(pub(super) NewUser);

/// See [`Store::set_status`](crate::Store::set_status).
pub(super) struct SetStatus {
    pub(super) user: UserId,
    pub(super) status: UserStatus,
}

/// See [`Store::revoke_tokens`](crate::Store::revoke_tokens).
pub(super) struct RevokeTokens {
    pub(super) user: UserId,
    pub(super) new_password_hash: Option<String>,
}

/// See [`Store::set_block`](crate::Store::set_block).
pub(super) struct SetBlock {
    pub(super) blocker: UserId,
    pub(super) blocked: UserId,
    pub(super) on: bool,
}

/// See [`Store::users`](crate::Store::users).
pub(super) struct Users(pub(super) Vec<UserId>);

/// See [`Store::blocks`](crate::Store::blocks).
pub(super) struct Blocks(pub(super) Vec<(UserId, UserId)>);

impl Write for CreateUser {
    type Answer = ();

    fn apply(&self, connection: &Connection, _: &mut WriterMemory) -> Result<(), StoreError> {
        let user = &self.0;
        let rows = connection
            .prepare_cached(
                "INSERT INTO users
                   (user_id, username, password, status, token_epoch, logins, create_ms)
                 VALUES (?1, ?2, ?3, ?4, 0, 0, ?5) ON CONFLICT (user_id) DO NOTHING",
            )?
            .execute(params![
                user.id.as_str(),
                user.username,
                user.password_hash,
                UserStatus::Normal.code(),
                to_sql(user.created_ms)
            ])?;
        match rows {
            0 => Err(StoreError::UserExists(user.id.clone())),
            _ => Ok(()),
        }
    }
}

impl Write for SetStatus {
    type Answer = bool;

    fn apply(&self, connection: &Connection, _: &mut WriterMemory) -> Result<bool, StoreError> {
        let Some(user) = user_key(connection, &self.user)? else {
            return Ok(false);
        };
        let status = self.status.code();
        let changed = connection
            .prepare_cached("UPDATE users SET status = ?2 WHERE id = ?1 AND status <> ?2")?
            .execute(params![user, status])?;
        if self.status == UserStatus::Banned && changed == 1 {
            raise_epoch(connection, user)?;
        }
        Ok(true)
    }
}

impl Write for RevokeTokens {
    type Answer = u64;

    fn apply(&self, connection: &Connection, _: &mut WriterMemory) -> Result<u64, StoreError> {
        let user = known_user(connection, &self.user)?;
        if let Some(hash) = &self.new_password_hash {
            connection
                .prepare_cached("UPDATE users SET password = ?2 WHERE id = ?1")?
                .execute(params![user, hash])?;
        }
        raise_epoch(connection, user)
    }
}

impl Write for SetBlock {
    type Answer = ();

    fn apply(&self, connection: &Connection, _: &mut WriterMemory) -> Result<(), StoreError> {
        let blocker = known_user(connection, &self.blocker)?;
        let blocked = known_user(connection, &self.blocked)?;
        let sql = if self.on {
            "INSERT INTO block (blocker, blocked) VALUES (?1, ?2) ON CONFLICT DO NOTHING"
        } else {
            "DELETE FROM block WHERE blocker = ?1 AND blocked = ?2"
        };
        connection
            .prepare_cached(sql)?
            .execute(params![blocker, blocked])?;
        Ok(())
    }
}

impl Read for Users {
    type Answer = Vec<Option<User>>;

    fn read(&self, connection: &Connection) -> Result<Vec<Option<User>>, StoreError> {
        let mut statement = connection.prepare_cached(
            "SELECT user_id, username, password, status, token_epoch
             FROM users WHERE user_id = ?1",
        )?;
        let mut users = Vec::with_capacity(self.0.len());
        for id in &self.0 {
            let mut rows = statement.query([id.as_str()])?;
            users.push(rows.next()?.map(user).transpose()?);
        }
        Ok(users)
    }
}

impl Read for Blocks {
    type Answer = Vec<bool>;

    fn read(&self, connection: &Connection) -> Result<Vec<bool>, StoreError> {
        let mut statement = connection.prepare_cached(
            "SELECT 1 FROM block
             WHERE blocker = (SELECT id FROM users WHERE user_id = ?1)
               AND blocked = (SELECT id FROM users WHERE user_id = ?2)",
        )?;
        let mut blocks = Vec::with_capacity(self.0.len());
        for (blocker, blocked) in &self.0 {
            blocks.push(statement.exists([blocker.as_str(), blocked.as_str()])?);
        }
        Ok(blocks)
    }
}

fn user(row: &Row<'_>) -> Result<User, StoreError> {
    Ok(User {
        id: user_id(row, 0)?,
        username: row.get(1)?,
        password_hash: row.get(2)?,
        status: UserStatus::of_code(row.get(3)?)?,
        token_epoch: from_sql(row.get(4)?),
    })
}

fn known_user(connection: &Connection, user: &UserId) -> Result<UserKey, StoreError> {
    user_key(connection, user)?.ok_or_else(|| StoreError::UnknownUser(user.clone()))
}

/// Makes all tokens of a user void.
fn raise_epoch(connection: &Connection, user: UserKey) -> Result<u64, StoreError> {
    forget_devices(connection, user)?;
    let epoch = connection
        .prepare_cached(
            "UPDATE users SET token_epoch = token_epoch + 1 WHERE id = ?1 RETURNING token_epoch",
        )?
        .query_row([user], |row| row.get(0))
        .optional()?;
    Ok(from_sql(epoch.unwrap_or(0)))
}
