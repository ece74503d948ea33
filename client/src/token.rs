//! Where the login token comes from.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

/// No token could be had; the session tries again later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no token: {0}")]
pub struct TokenError(pub String);

type TokenFuture = Pin<Box<dyn Future<Output = Result<String, TokenError>> + Send>>;

/// Where the login token comes from: one for good, or a closure that gets a
/// fresh one whenever it is asked.
#[derive(Clone)]
pub enum TokenSource {
    /// This one. When it has expired, the client ends with `LoginRefused`.
    Fixed(Arc<str>),
    /// Asked for each login without a resume token, and before a token ends.
    Asked(Arc<dyn Fn() -> TokenFuture + Send + Sync>),
}

// === impl TokenSource ===

impl TokenSource {
    /// Asks `source` for each token.
    pub fn from_fn<F, Fut>(source: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        Self::Asked(Arc::new(move || Box::pin(source())))
    }

    pub(crate) async fn token(&self) -> Result<String, TokenError> {
        match self {
            Self::Fixed(token) => Ok(token.to_string()),
            Self::Asked(source) => source().await,
        }
    }

    /// Whether asking again can give another token.
    pub(crate) fn is_renewable(&self) -> bool {
        matches!(self, Self::Asked(_))
    }
}

impl From<String> for TokenSource {
    fn from(token: String) -> Self {
        Self::Fixed(token.into())
    }
}

impl From<&str> for TokenSource {
    fn from(token: &str) -> Self {
        Self::Fixed(token.into())
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A token is a secret.
        f.write_str(match self {
            Self::Fixed(_) => "TokenSource::Fixed",
            Self::Asked(_) => "TokenSource::Asked",
        })
    }
}
