//! The HTTP side: accounts, tokens, blocks and groups.
//!
//! Everything else goes over the session. An [`HttpApi`] is cheap to clone and
//! shares its connections; many clients of one process should share one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use reqwest::{Method, RequestBuilder, Response, Url};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sluice_protocol::{ClientMsgId, ConversationId, UserId, packet::MemberRole};

use crate::{TokenError, TokenSource};

/// A call that takes longer than this fails.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A change that meets no server, or a busy one, is repeated under its key: for
/// the first time after this span at most, then after twice as long …
const RETRY_MIN_MS: u64 = 200;
/// … as long as the span is not above this.
const RETRY_MAX_MS: u64 = 800;

/// A server's HTTP API.
#[derive(Debug, Clone)]
pub struct HttpApi {
    http: reqwest::Client,
    base: Url,
    /// How far the server's clock is ahead of this one's, by its last answer.
    server_ahead_ms: Arc<AtomicI64>,
}

/// A login token and when it ends.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Login {
    /// A JWT, for [`crate::Builder::token`] and the calls here.
    pub token: String,
    /// In Unix milliseconds by the server's clock.
    pub expires_ms: u64,
}

/// A call that didn't succeed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The server's answer is no.
    #[error("{status} {code}: {reason}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Machine-readable: `unknown_user`, `bad_credentials`, …
        code: String,
        /// For people.
        reason: String,
        /// Trying again makes sense after this many seconds, if at all.
        retry_after_s: Option<u32>,
    },
    /// No answer, or none that is one.
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    /// Not the address of an HTTP server.
    #[error("{0:?} is no http:// address")]
    BadAddress(String),
    /// The answer is not what was asked for.
    #[error("the server's answer does not fit the question")]
    BadAnswer,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ErrorBody {
    code: String,
    reason: String,
}

#[derive(Serialize)]
struct Registration<'a> {
    user_id: &'a str,
    password: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
}

#[derive(Serialize)]
struct NewGroup<'a> {
    name: &'a str,
    members: Vec<&'a str>,
}

#[derive(Deserialize)]
struct Group {
    conversation_id: String,
}

#[derive(Serialize)]
struct Members<'a> {
    users: Vec<&'a str>,
}

#[derive(Serialize)]
struct NewName<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct NewRole {
    role: &'static str,
}

#[derive(Deserialize)]
struct GroupMembers {
    members: Vec<GroupMember>,
}

#[derive(Deserialize)]
struct GroupMember {
    user_id: String,
    role: String,
}

#[derive(Serialize)]
struct Nothing {}

// === impl HttpApi ===

impl HttpApi {
    /// The API at `http://host:port` (or just `host:port`).
    ///
    /// # Errors
    /// [`ApiError::BadAddress`]; the system gives no HTTP client.
    pub fn new(address: &str) -> Result<Self, ApiError> {
        let bad = || ApiError::BadAddress(address.to_owned());
        let url = if address.contains("://") {
            address.to_owned()
        } else {
            format!("http://{address}")
        };
        let base = Url::parse(&url).map_err(|_| bad())?;
        if base.cannot_be_a_base() || base.host().is_none() {
            return Err(bad());
        }
        Ok(Self {
            http: reqwest::Client::builder().timeout(TIMEOUT).build()?,
            base,
            server_ahead_ms: Arc::default(),
        })
    }

    /// Makes an account.
    ///
    /// # Errors
    /// Refused with `user_exists`, `bad_request`; see [`ApiError`].
    pub async fn register(
        &self,
        user: &UserId,
        password: &str,
        username: Option<&str>,
    ) -> Result<(), ApiError> {
        let body = Registration {
            user_id: user.as_str(),
            password,
            username,
        };
        let request = self.request(Method::POST, &["users", "register"]);
        self.done(request.json(&body)).await
    }

    /// Gets a token for a password.
    ///
    /// # Errors
    /// Refused with `bad_credentials`, `banned`, `rate_limited`; see [`ApiError`].
    pub async fn login(&self, user: &UserId, password: &str) -> Result<Login, ApiError> {
        let body = Registration {
            user_id: user.as_str(),
            password,
            username: None,
        };
        let request = self.request(Method::POST, &["users", "login"]);
        self.answer(request.json(&body)).await
    }

    /// Gets a fresh token for one that hasn't ended.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn refresh(&self, token: &str) -> Result<Login, ApiError> {
        let request = self.request(Method::POST, &["users", "refresh"]);
        self.answer(request.bearer_auth(token)).await
    }

    /// Ends all sessions and tokens of the user.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn logout(&self, token: &str, user: &UserId) -> Result<(), ApiError> {
        let request = self.request(Method::GET, &["users", "logout", user.as_str()]);
        self.done(request.bearer_auth(token)).await
    }

    /// Stops messages between the user and another.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn block(&self, token: &str, user: &UserId, other: &UserId) -> Result<(), ApiError> {
        let path = ["users", user.as_str(), "blocks", other.as_str()];
        self.done(self.request(Method::PUT, &path).bearer_auth(token))
            .await
    }

    /// The inverse of [`HttpApi::block`].
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn unblock(
        &self,
        token: &str,
        user: &UserId,
        other: &UserId,
    ) -> Result<(), ApiError> {
        let path = ["users", user.as_str(), "blocks", other.as_str()];
        self.done(self.request(Method::DELETE, &path).bearer_auth(token))
            .await
    }

    /// Founds a group of the token's user and these.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn create_group(
        &self,
        token: &str,
        name: &str,
        members: &[UserId],
    ) -> Result<ConversationId, ApiError> {
        let request = self.request(Method::POST, &["groups"]);
        let request = request.bearer_auth(token).json(&NewGroup {
            name,
            members: members.iter().map(UserId::as_str).collect(),
        });
        let group: Group = self.change(request).await?.json().await?;
        ConversationId::parse(&group.conversation_id).map_err(|_| ApiError::BadAnswer)
    }

    /// Takes users into a group.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn add_members(
        &self,
        token: &str,
        group: &ConversationId,
        users: &[UserId],
    ) -> Result<(), ApiError> {
        let request = self.request(Method::POST, &["groups", group.as_str(), "members"]);
        let users = users.iter().map(UserId::as_str).collect();
        let request = request.bearer_auth(token).json(&Members { users });
        self.change(request).await.map(drop)
    }

    /// Takes a user out of a group.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn remove_member(
        &self,
        token: &str,
        group: &ConversationId,
        user: &UserId,
    ) -> Result<(), ApiError> {
        let path = ["groups", group.as_str(), "members", user.as_str()];
        let request = self.request(Method::DELETE, &path).bearer_auth(token);
        self.change(request).await.map(drop)
    }

    /// Leaves a group.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn leave_group(&self, token: &str, group: &ConversationId) -> Result<(), ApiError> {
        let request = self.request(Method::POST, &["groups", group.as_str(), "leave"]);
        let request = request.bearer_auth(token).json(&Nothing {});
        self.change(request).await.map(drop)
    }

    /// Renames a group; its owner and admins may.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn rename_group(
        &self,
        token: &str,
        group: &ConversationId,
        name: &str,
    ) -> Result<(), ApiError> {
        let request = self.request(Method::PUT, &["groups", group.as_str()]);
        let request = request.bearer_auth(token).json(&NewName { name });
        self.change(request).await.map(drop)
    }

    /// Gives a member of a group another role; its owner may.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn set_role(
        &self,
        token: &str,
        group: &ConversationId,
        user: &UserId,
        role: MemberRole,
    ) -> Result<(), ApiError> {
        let path = ["groups", group.as_str(), "members", user.as_str(), "role"];
        let request = self.request(Method::PUT, &path).bearer_auth(token);
        let role = match role {
            MemberRole::Member => "member",
            MemberRole::Admin => "admin",
            MemberRole::Owner => "owner",
        };
        let request = request.json(&NewRole { role });
        self.change(request).await.map(drop)
    }

    /// Who is in a group.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn members(
        &self,
        token: &str,
        group: &ConversationId,
    ) -> Result<Vec<(UserId, MemberRole)>, ApiError> {
        let request = self.request(Method::GET, &["groups", group.as_str(), "members"]);
        let group: GroupMembers = self.answer(request.bearer_auth(token)).await?;
        let members = group.members.into_iter().map(|member| {
            let user = UserId::parse(&member.user_id).map_err(|_| ApiError::BadAnswer)?;
            let role = match member.role.as_str() {
                "admin" => MemberRole::Admin,
                "owner" => MemberRole::Owner,
                _ => MemberRole::Member,
            };
            Ok((user, role))
        });
        members.collect()
    }

    /// A source that logs in anew for each token.
    pub fn token_source(&self, user: UserId, password: String) -> TokenSource {
        let api = self.clone();
        TokenSource::from_fn(move || {
            let (api, user, password) = (api.clone(), user.clone(), password.clone());
            async move {
                let login = api.login(&user, &password).await;
                login
                    .map(|it| it.token)
                    .map_err(|error| TokenError(error.to_string()))
            }
        })
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        // Names may hold any character; each becomes one segment. The base was
        // checked to have a path.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        self.http.request(method, url)
    }

    async fn done(&self, request: RequestBuilder) -> Result<(), ApiError> {
        self.sent(request).await.map(drop)
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ApiError> {
        Ok(self.sent(request).await?.json().await?)
    }

    /// Sends a change under a key of its own, again while no answer comes: the
    /// server does it once, and gives every repeat the first answer.
    async fn change(&self, request: RequestBuilder) -> Result<Response, ApiError> {
        let request = request.header("idempotency-key", self.fresh_key().to_string());
        let mut wait_ms = RETRY_MIN_MS;
        loop {
            let Some(attempt) = request.try_clone() else {
                return self.sent(request).await;
            };
            match self.sent(attempt).await {
                Err(error) if error.is_passing() && wait_ms <= RETRY_MAX_MS => {
                    let wait = Duration::from_millis(rand::random_range(0..=wait_ms));
                    tokio::time::sleep(wait).await;
                    wait_ms *= 2;
                }
                answer => return answer,
            }
        }
    }

    async fn sent(&self, request: RequestBuilder) -> Result<Response, ApiError> {
        let response = request.send().await?;
        let date = response.headers().get(reqwest::header::DATE);
        let date = date.and_then(|it| httpdate::parse_http_date(it.to_str().ok()?).ok());
        if let Some(date) = date {
            let ahead_ms = unix_ms(date).saturating_sub(unix_ms(SystemTime::now()));
            self.server_ahead_ms.store(ahead_ms, Ordering::Relaxed);
        }
        checked(response).await
    }

    /// The time in a key is the server's, which refuses those that are far off.
    fn fresh_key(&self) -> ClientMsgId {
        let ahead_ms = self.server_ahead_ms.load(Ordering::Relaxed);
        let server_ms = unix_ms(SystemTime::now()).saturating_add(ahead_ms);
        ClientMsgId::new(u64::try_from(server_ms).unwrap_or(0), rand::random())
    }
}

// === impl ApiError ===

impl ApiError {
    /// The same call may well succeed in a moment.
    fn is_passing(&self) -> bool {
        match self {
            Self::Refused { status, .. } => matches!(status, 503 | 504),
            // A call that has taken its time already is not begun again.
            Self::Http(error) => (error.is_connect() || error.is_request()) && !error.is_timeout(),
            Self::BadAddress(_) | Self::BadAnswer => false,
        }
    }
}

fn unix_ms(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

async fn checked(response: Response) -> Result<Response, ApiError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = response.headers().get(reqwest::header::RETRY_AFTER);
    let retry_after_s = retry_after.and_then(|it| it.to_str().ok()?.parse().ok());
    // A proxy between may answer with anything; the status says enough then.
    let body: ErrorBody = response.json().await.unwrap_or_default();
    Err(ApiError::Refused {
        status: status.as_u16(),
        code: body.code,
        reason: body.reason,
        retry_after_s,
    })
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A token is a secret.
        f.debug_struct("Login")
            .field("expires_ms", &self.expires_ms)
            .finish_non_exhaustive()
    }
}
