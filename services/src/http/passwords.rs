//! Password hashes: Argon2id on blocking threads, each with a slot (`hash_slots`).

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version,
    password_hash::phc::PasswordHash,
};
use sluice_protocol::packet::ErrorCode;

use super::{
    error::ApiError,
    hash_slots::{HashSlots, Slot},
};
use crate::{Config, Peer};

/// Longest password in bytes: hashing reads all of it.
const PASSWORD_MAX_BYTES: usize = 1024;
/// Shortest password in bytes.
const PASSWORD_MIN_BYTES: usize = 8;

/// Makes and verifies hashes.
pub(crate) struct Passwords {
    argon2: Argon2<'static>,
    slots: HashSlots,
    /// Of no password: who asks for a user that isn't there waits as long.
    nobody: String,
}

// === impl Passwords ===

impl Passwords {
    /// # Errors
    /// The configured parameters are out of Argon2's range.
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        let params = Params::new(config.argon2_memory_kib, config.argon2_iterations, 1, None)
            .map_err(|error| error.to_string())?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let nobody = argon2
            .hash_password(&rand::random::<[u8; 32]>())
            .map_err(|error| error.to_string())?
            .to_string();
        Ok(Self {
            argon2,
            slots: HashSlots::new(config),
            nobody,
        })
    }

    /// A PHC string for a new password.
    pub(crate) async fn hash(
        &self,
        password: String,
        peer: Option<Peer>,
    ) -> Result<String, ApiError> {
        if password.len() < PASSWORD_MIN_BYTES || password.len() > PASSWORD_MAX_BYTES {
            return Err(ApiError::new(
                ErrorCode::BadRequest,
                format!("password must have {PASSWORD_MIN_BYTES} to {PASSWORD_MAX_BYTES} bytes"),
            ));
        }
        let argon2 = self.argon2.clone();
        run(self.slot(peer).await?, move || {
            argon2
                .hash_password(password.as_bytes())
                .map(|hash| hash.to_string())
                .map_err(|error| {
                    tracing::error!(%error, "a password can't be hashed");
                    ApiError::new(ErrorCode::Internal, "the server failed")
                })
        })
        .await?
    }

    /// A place among those that hash at once, in its turn.
    pub(crate) async fn slot(&self, peer: Option<Peer>) -> Result<Slot, ApiError> {
        self.slots.take(peer).await
    }

    /// Whether the password fits; takes as long when there is no hash to hold
    /// it against.
    pub(crate) async fn verify(
        &self,
        slot: Slot,
        password: String,
        hash: Option<String>,
    ) -> Result<bool, ApiError> {
        let exists = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.nobody.clone());
        let argon2 = self.argon2.clone();
        let fits = run(slot, move || {
            // Too long a one costs its hash too: see `RateLimit`.
            let end = password.len().min(PASSWORD_MAX_BYTES);
            let tried = password.as_bytes().get(..end).unwrap_or_default();
            let fits = PasswordHash::new(&hash)
                .is_ok_and(|hash| argon2.verify_password(tried, &hash).is_ok());
            fits && end == password.len()
        })
        .await?;
        Ok(fits && exists)
    }
}

async fn run<R: Send + 'static>(
    slot: Slot,
    hashing: impl FnOnce() -> R + Send + 'static,
) -> Result<R, ApiError> {
    let result = tokio::task::spawn_blocking(move || {
        let result = hashing();
        drop(slot);
        result
    })
    .await;
    result.map_err(|error| {
        tracing::error!(%error, "a hashing thread failed");
        ApiError::new(ErrorCode::Internal, "the server failed")
    })
}
