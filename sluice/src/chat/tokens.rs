//! Login tokens of one user: first the one of an earlier run, if the server still
//! takes it, else one for the password; later a fresh one for the present one.
//! So a login is counted by the server once a day, not once a command.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use sluice_client::{ApiError, HttpApi, Login, TokenError, TokenSource, UserId};
use tokio::time::{Instant, sleep};

use super::{printable, token_file::TokenFile, trouble::reason};

/// Calls get a fresh token when the present one ends within this span.
const RESERVE: Duration = Duration::from_secs(60);
/// How long a command waits in all when the server says "too many logins".
const LIMITED_MAX: Duration = Duration::from_secs(60);

/// Login tokens of one user.
pub(crate) struct Tokens {
    api: HttpApi,
    user: UserId,
    password: String,
    current: Mutex<Login>,
    /// Where the newest is kept for the next run, if anywhere.
    file: Option<TokenFile>,
}

// === impl Tokens ===

impl Tokens {
    /// Gets the first token. Whoever logs in too often is told, and waits.
    pub(crate) async fn log_in(
        api: HttpApi,
        user: UserId,
        password: String,
        file: Option<TokenFile>,
    ) -> Result<Self, ApiError> {
        let kept = match file.as_ref().and_then(TokenFile::kept) {
            // Whatever is wrong with it, the password may do.
            Some(kept) => api.refresh(&kept.token).await.ok(),
            None => None,
        };
        let first = match kept {
            Some(login) => login,
            None => log_in_patiently(&api, &user, &password).await?,
        };
        let tokens = Self {
            api,
            user,
            password,
            current: Mutex::new(first.clone()),
            file,
        };
        tokens.take(first);
        Ok(tokens)
    }

    /// For the client: first the token that there is, then a fresh one each time.
    pub(crate) fn source(self: &Arc<Self>) -> TokenSource {
        let tokens = Arc::clone(self);
        let first = Mutex::new(Some(self.current().token));
        TokenSource::from_fn(move || {
            let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
            let tokens = Arc::clone(&tokens);
            async move {
                match first {
                    Some(token) => Ok(token),
                    None => tokens
                        .fresh()
                        .await
                        .map_err(|error| TokenError(reason(&error))),
                }
            }
        })
    }

    /// One that lasts for a call.
    pub(crate) async fn valid(&self) -> Result<String, ApiError> {
        let current = self.current();
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        match Duration::from_millis(current.expires_ms) < now + RESERVE {
            true => self.fresh().await,
            false => Ok(current.token),
        }
    }

    async fn fresh(&self) -> Result<String, ApiError> {
        let login = match self.api.refresh(&self.current().token).await {
            // It has ended, or was revoked: only the password proves anything.
            Err(ApiError::Refused { status: 401, .. }) => {
                self.api.login(&self.user, &self.password).await?
            }
            refreshed => refreshed?,
        };
        Ok(self.take(login))
    }

    fn take(&self, login: Login) -> String {
        if let Some(file) = &self.file {
            file.keep(&login);
        }
        let token = login.token.clone();
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = login;
        token
    }

    fn current(&self) -> Login {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn log_in_patiently(api: &HttpApi, user: &UserId, password: &str) -> Result<Login, ApiError> {
    let give_up = Instant::now() + LIMITED_MAX;
    loop {
        let refused = match api.login(user, password).await {
            Ok(login) => return Ok(login),
            Err(error) => error,
        };
        let wait = match &refused {
            ApiError::Refused {
                code,
                retry_after_s: Some(seconds),
                ..
            } if code == "rate_limited" => Duration::from_secs(u64::from(*seconds).max(1)),
            _ => return Err(refused),
        };
        if Instant::now() + wait > give_up {
            return Err(refused);
        }
        let user = printable::line(user.as_str());
        let seconds = wait.as_secs();
        eprintln!("too many logins of {user} within a minute; trying again in {seconds} s");
        sleep(wait).await;
    }
}
