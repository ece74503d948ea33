//! Users and whom they have blocked, on the users' shards.

use sluice_protocol::UserId;
use sqlx::{MySqlConnection, Row, mysql::MySqlRow};

use super::{
    failure::Failure,
    rows::{ROWS_MAX, Second, Sql, push_list, push_pairs, text, user_id},
    servers::Work,
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

/// See [`Store::set_block`](crate::Store::set_block); both must exist.
pub(super) struct SetBlock {
    pub(super) blocker: UserId,
    pub(super) blocked: UserId,
    pub(super) on: bool,
}

/// Those of these users who are on the server, in any order.
pub(super) struct FindUsers(pub(super) Vec<UserId>);

/// Those of these pairs (blocker, blocked) of which the block stands, in any order.
pub(super) struct FindBlocks(pub(super) Vec<(UserId, UserId)>);

impl Work for CreateUser {
    type Answer = ();
    // Once more after it was done, it would say that the user exists.
    const REPEATABLE: bool = false;

    async fn run(&self, connection: &mut MySqlConnection, _: u32) -> Result<(), Failure> {
        let user = &self.0;
        let inserted = sqlx::query(
            "INSERT IGNORE INTO users
               (user_id, username, password, status, token_epoch, logins, create_ms)
             VALUES (?, ?, ?, ?, 0, 0, ?)",
        )
        .bind(user.id.as_str().as_bytes())
        .bind(user.username.as_bytes())
        .bind(user.password_hash.as_bytes())
        .bind(UserStatus::Normal.code())
        .bind(user.created_ms)
        .execute(&mut *connection)
        .await?;
        if inserted.rows_affected() == 0 {
            return Err(StoreError::UserExists(user.id.clone()).into());
        }
        sqlx::query("INSERT INTO inbox (user, max_seq) VALUES (?, 0)")
            .bind(user.id.as_str().as_bytes())
            .execute(connection)
            .await?;
        Ok(())
    }
}

impl Work for SetStatus {
    type Answer = bool;
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut MySqlConnection, _: u32) -> Result<bool, Failure> {
        let Some(old) = lock_user(connection, &self.user).await? else {
            return Ok(false);
        };
        if old == self.status.code() {
            return Ok(true);
        }
        sqlx::query("UPDATE users SET status = ? WHERE user_id = ?")
            .bind(self.status.code())
            .bind(self.user.as_str().as_bytes())
            .execute(&mut *connection)
            .await?;
        if self.status == UserStatus::Banned {
            raise_epoch(connection, &self.user).await?;
        }
        Ok(true)
    }
}

impl Work for RevokeTokens {
    type Answer = u64;
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut MySqlConnection, _: u32) -> Result<u64, Failure> {
        if lock_user(connection, &self.user).await?.is_none() {
            return Err(StoreError::UnknownUser(self.user.clone()).into());
        }
        if let Some(hash) = &self.new_password_hash {
            sqlx::query("UPDATE users SET password = ? WHERE user_id = ?")
                .bind(hash.as_bytes())
                .bind(self.user.as_str().as_bytes())
                .execute(&mut *connection)
                .await?;
        }
        raise_epoch(connection, &self.user).await
    }
}

impl Work for SetBlock {
    type Answer = ();
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut MySqlConnection, _: u32) -> Result<(), Failure> {
        let sql = if self.on {
            "INSERT IGNORE INTO block (blocker, blocked) VALUES (?, ?)"
        } else {
            "DELETE FROM block WHERE blocker = ? AND blocked = ?"
        };
        sqlx::query(sql)
            .bind(self.blocker.as_str().as_bytes())
            .bind(self.blocked.as_str().as_bytes())
            .execute(connection)
            .await?;
        Ok(())
    }
}

impl Work for FindUsers {
    type Answer = Vec<User>;
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut MySqlConnection, _: u32) -> Result<Vec<User>, Failure> {
        let mut users = Vec::with_capacity(self.0.len());
        for ids in self.0.chunks(ROWS_MAX) {
            let mut sql = Sql::new(
                "SELECT user_id, username, password, status, token_epoch
                 FROM users WHERE user_id IN (",
            );
            push_list(&mut sql, ids.iter().map(|id| id.as_str().as_bytes()));
            sql.push(")");
            for row in sql.build().fetch_all(&mut *connection).await? {
                users.push(user(&row)?);
            }
        }
        Ok(users)
    }
}

impl Work for FindBlocks {
    type Answer = Vec<(UserId, UserId)>;
    const REPEATABLE: bool = true;

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        _: u32,
    ) -> Result<Vec<(UserId, UserId)>, Failure> {
        let mut blocks = Vec::new();
        for pairs in self.0.chunks(ROWS_MAX) {
            let mut sql = Sql::new("SELECT blocker, blocked FROM block WHERE");
            let pairs = pairs.iter();
            let pairs = pairs.map(|(blocker, blocked)| (blocker.as_str(), Second::User(blocked)));
            push_pairs(&mut sql, "blocker", "blocked", pairs);
            for row in sql.build().fetch_all(&mut *connection).await? {
                blocks.push((user_id(&row, 0)?, user_id(&row, 1)?));
            }
        }
        Ok(blocks)
    }
}

fn user(row: &MySqlRow) -> Result<User, Failure> {
    Ok(User {
        id: user_id(row, 0)?,
        username: text(row, 1)?,
        password_hash: text(row, 2)?,
        status: UserStatus::of_code(row.try_get(3)?)?,
        token_epoch: row.try_get(4)?,
    })
}

/// The user's status, locked.
async fn lock_user(
    connection: &mut MySqlConnection,
    user: &UserId,
) -> Result<Option<u8>, sqlx::Error> {
    sqlx::query_scalar("SELECT status FROM users WHERE user_id = ? FOR UPDATE")
        .bind(user.as_str().as_bytes())
        .fetch_optional(connection)
        .await
}

/// Makes all tokens of a user void.
async fn raise_epoch(connection: &mut MySqlConnection, user: &UserId) -> Result<u64, Failure> {
    sqlx::query("DELETE FROM device WHERE user = ?")
        .bind(user.as_str().as_bytes())
        .execute(&mut *connection)
        .await?;
    sqlx::query("UPDATE users SET token_epoch = token_epoch + 1 WHERE user_id = ?")
        .bind(user.as_str().as_bytes())
        .execute(&mut *connection)
        .await?;
    let epoch = sqlx::query_scalar("SELECT token_epoch FROM users WHERE user_id = ?")
        .bind(user.as_str().as_bytes())
        .fetch_one(connection)
        .await?;
    Ok(epoch)
}
