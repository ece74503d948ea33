//! Sessions: proofs of identity against the store, binds in the directory,
//! kicks for whom a newer login replaces.
//!
//! A logout or ban that runs beside a login must not miss it. So a user's token
//! epoch is read before the session is opened and again after it is bound: who
//! revokes does so first and looks up routes then, and one of the two sees the
//! other.

use async_trait::async_trait;
use aws_lc_rs::hmac;
use futures_util::future::join_all;
use hashbrown::{HashMap, HashSet};
use sha2::{Digest, Sha256};
use sluice_bus::{Bind, BindOutcome, BusEntry, BusError, DevicePolicy, Route};
use sluice_protocol::{
    ConnectionId, DeviceId, Refusal, UserId,
    envelope::{self, CheckSessions, SessionOpened, SessionRefused, delivery::Body},
    packet::{self, CloseReason, ErrorCode},
};
use sluice_store::{
    SessionOpening, SessionOutcome, SessionProof, SessionRefusal, Store, StoreError, UserStatus,
};

use crate::{
    clock,
    consumer::{Work, count_poison},
    error::WorkError,
    node::Node,
    origin::{Origin, Unreadable, Uplink},
    outbox::Outbox,
};

const RESUME_TOKEN_BYTES: usize = 32;

/// The consumer of `up:session`.
pub(crate) struct Sessions {
    /// Resume tokens are drawn from it; all service processes have the same.
    secret: hmac::Key,
}

/// A device that wants in, or to stay.
struct Login {
    origin: Origin,
    device: DeviceId,
    connection: ConnectionId,
    platform: i32,
    proof: SessionProof,
    refresh: bool,
    /// By the device's clock.
    connect_time_ms: u64,
    /// Told to the device; the store gets its hash.
    resume_token: [u8; RESUME_TOKEN_BYTES],
}

/// How the directory stands to a login.
struct Place {
    /// There is room for the device.
    is_free: bool,
    /// Its route is there: the entry has come before.
    is_bound: bool,
}

/// A session that the store has opened.
struct Opened<'l> {
    login: &'l Login,
    inbox_seq: u64,
    expires_ms: u64,
    number: u64,
}

enum Entry {
    Login(Login),
    Logout { user: UserId, device: DeviceId },
    Check(CheckSessions),
    Nothing,
}

// === impl Sessions ===

#[async_trait]
impl Work for Sessions {
    const ROLE: &'static str = "session";

    async fn work(&self, node: &Node, entries: Vec<BusEntry>) -> Result<(), WorkError> {
        let mut logins = Vec::with_capacity(entries.len());
        let mut outbox = Outbox::default();
        for entry in entries {
            match self.parse(entry) {
                Ok(Entry::Login(login)) => logins.push(login),
                Ok(Entry::Logout { user, device }) => {
                    // The logins before it first: one may be this device's.
                    open(node, &logins, &mut outbox).await?;
                    logins.clear();
                    node.store.forget_device(&user, &device).await?;
                }
                Ok(Entry::Check(check)) => check_sessions(node, check, &mut outbox).await?,
                Ok(Entry::Nothing) => {}
                Err(error) => count_poison(Self::ROLE, &error),
            }
        }
        open(node, &logins, &mut outbox).await?;
        node.downlink.emit(outbox).await;
        Ok(())
    }
}

impl Sessions {
    pub(crate) fn new(secret: hmac::Key) -> Self {
        Self { secret }
    }

    /// A token that nobody can guess, and the same one for an entry that comes
    /// again, also to another process, which takes over the batch of a dead one: by
    /// its hash the store knows an opening that was done before. Were that refused,
    /// the session that it opened would lose its route. An entry names its
    /// connection, request and time, so no two have the same bytes.
    fn resume_token(&self, entry: &[u8]) -> [u8; RESUME_TOKEN_BYTES] {
        let mut token = [0; RESUME_TOKEN_BYTES];
        token.copy_from_slice(hmac::sign(&self.secret, entry).as_ref());
        token
    }

    fn parse(&self, entry: BusEntry) -> Result<Entry, Unreadable> {
        let missing = |what: &str| Unreadable(format!("{what} is missing"));
        let payload = entry.payload.clone();
        let uplink = Uplink::decode(entry.payload)?;
        if let envelope::up::Body::CheckSessions(check) = uplink.body {
            return Ok(Entry::Check(check));
        }
        let origin = uplink.origin.ok_or_else(|| missing("origin"))?;
        let device = origin.device.clone().ok_or_else(|| missing("device_id"))?;
        match uplink.body {
            envelope::up::Body::OpenSession(open) => {
                let proof = match open.claims {
                    Some(claims) => SessionProof::Token {
                        token_epoch: claims.token_epoch,
                        expires_ms: claims.expires_ms,
                    },
                    None => SessionProof::Resume {
                        hash: Sha256::digest(&open.resume_token).into(),
                    },
                };
                let connection = origin.connection.ok_or_else(|| missing("connection_id"))?;
                Ok(Entry::Login(Login {
                    origin,
                    device,
                    connection,
                    platform: open.platform,
                    proof,
                    refresh: open.refresh,
                    connect_time_ms: open.connect_time_ms,
                    resume_token: self.resume_token(&payload),
                }))
            }
            envelope::up::Body::CloseSession(close) if close.forget_resume_token => {
                Ok(Entry::Logout {
                    user: origin.user,
                    device,
                })
            }
            // The gateway has unbound the device by itself.
            envelope::up::Body::CloseSession(_) => Ok(Entry::Nothing),
            _ => Err(Unreadable("an entry of another service".into())),
        }
    }
}

async fn open(node: &Node, logins: &[Login], outbox: &mut Outbox) -> Result<(), WorkError> {
    if logins.is_empty() {
        return Ok(());
    }
    let users: Vec<UserId> = logins
        .iter()
        .map(|login| login.origin.user.clone())
        .collect::<HashSet<_>>()
        .into_iter()
        .collect();
    let epochs_before = epochs(&*node.store, &users).await?;
    let now_ms = clock::now_ms();
    let places = places(node, logins, &users).await?;
    let openings = (logins.iter().zip(&places))
        .map(|(login, place)| login.opening(place.is_free, now_ms))
        .collect();
    let outcomes = node.store.open_sessions(openings).await?;

    let mut opened = Vec::with_capacity(logins.len());
    for ((login, place), outcome) in logins.iter().zip(places).zip(outcomes) {
        match outcome {
            SessionOutcome::Opened {
                inbox_seq,
                expires_ms,
                login: number,
            } => opened.push(Opened {
                login,
                inbox_seq: inbox_seq.0,
                expires_ms,
                number,
            }),
            SessionOutcome::Refused(refusal) => {
                // Opened the first time, and by now revoked, say.
                if place.is_bound {
                    unbind(node, login).await?;
                }
                refuse(outbox, login, &session_refusal(login.may_know(refusal)));
                if login.refresh {
                    shut_out(outbox, login, refusal);
                }
            }
        }
    }
    let bound = join_all(opened.iter().map(|session| bind(node, session))).await;
    let epochs_after = epochs(&*node.store, &users).await?;
    for (session, bound) in opened.iter().zip(bound) {
        let login = session.login;
        let user = &login.origin.user;
        if epochs_before.get(user) != epochs_after.get(user) {
            let refusal = match epochs_after.contains_key(user) {
                true => SessionRefusal::Revoked,
                false => SessionRefusal::Banned,
            };
            // What a refresh finds bound is for its gateway to unbind: whoever
            // revoked looks for it to end it.
            if !login.refresh {
                unbind(node, login).await?;
            }
            refuse(outbox, login, &session_refusal(refusal));
            // A login that came twice is open already, too.
            shut_out(outbox, login, refusal);
            continue;
        }
        match bound? {
            Ok(replaced) => {
                let reason = CloseReason::Replaced;
                outbox.kick(
                    user,
                    replaced.iter(),
                    reason,
                    "a newer login took this place",
                );
                let epoch = epochs_after.get(user).copied().unwrap_or_default();
                outbox.tell(&login.origin, session.answer(epoch));
                metrics::counter!("sluice_sessions_opened_total").increment(1);
            }
            Err(refusal) => refuse(outbox, login, &refusal),
        }
    }
    Ok(())
}

/// Kicks those whose epoch is another by now: they have missed the first kick.
async fn check_sessions(
    node: &Node,
    check: CheckSessions,
    outbox: &mut Outbox,
) -> Result<(), WorkError> {
    let mut sessions = Vec::with_capacity(check.sessions.len());
    for session in check.sessions {
        let user = UserId::parse(&session.user_id);
        let connection = ConnectionId::parse(&session.connection_id);
        match (user, connection) {
            (Ok(user), Ok(connection)) => sessions.push((user, connection, session.token_epoch)),
            // One bad name must not cost the others of its batch.
            _ => count_poison(Sessions::ROLE, &Unreadable("a session's ids".into())),
        }
    }
    let users: HashSet<UserId> = sessions.iter().map(|(user, ..)| user.clone()).collect();
    let users: Vec<UserId> = users.into_iter().collect();
    let epochs = epochs(&*node.store, &users).await?;
    for (user, connection, epoch) in sessions {
        let refusal = match epochs.get(&user) {
            Some(current) if *current == epoch => continue,
            Some(_) => SessionRefusal::Revoked,
            None => SessionRefusal::Banned,
        };
        metrics::counter!("sluice_kicks_repeated_total").increment(1);
        if let Some(kick) = kick_for(refusal) {
            outbox.kick_one(&user, connection, kick);
        }
    }
    Ok(())
}

/// Whether each login would find a place among its user's devices, so that no
/// resume token is spent for nothing, and whether it has one already. The bind has the last word: of logins that
/// run beside each other one may still find the last place taken.
async fn places(node: &Node, logins: &[Login], users: &[UserId]) -> Result<Vec<Place>, BusError> {
    let policy: DevicePolicy = node.config.device_policy.into();
    let routes = node.directory.lookup(users).await?;
    let mut routes: HashMap<&UserId, Vec<Route>> = users.iter().zip(routes).collect();
    let places = logins.iter().map(|login| {
        if login.refresh {
            // What is bound there is its gateway's to unbind.
            return Place {
                is_free: true,
                is_bound: false,
            };
        }
        let new = login.route();
        let routes = routes.entry(&login.origin.user).or_default();
        let is_bound = routes.iter().any(|old| old.connection == login.connection);
        let stay = routes.iter().filter(|old| !policy.replaces(&new, old));
        let is_free = stay.count() < node.config.devices_max;
        if is_free {
            routes.retain(|old| !policy.replaces(&new, old));
            routes.push(new);
        }
        Place { is_free, is_bound }
    });
    Ok(places.collect())
}

/// Token epochs of those who exist and are not banned.
async fn epochs(store: &dyn Store, users: &[UserId]) -> Result<HashMap<UserId, u64>, StoreError> {
    let found = store.users(users).await?.into_iter().flatten();
    Ok(found
        .filter(|user| user.status != UserStatus::Banned)
        .map(|user| (user.id, user.token_epoch))
        .collect())
}

/// Returns the connections whose place this one has taken.
async fn bind(node: &Node, session: &Opened<'_>) -> Result<Result<Vec<Route>, Refusal>, BusError> {
    let login = session.login;
    if login.refresh {
        return Ok(Ok(Vec::new()));
    }
    let bind = Bind {
        user: login.origin.user.clone(),
        route: login.route(),
        login: session.number,
    };
    let policy = node.config.device_policy.into();
    let outcome = node
        .directory
        .bind(bind, policy, node.config.devices_max)
        .await?;
    Ok(match outcome {
        BindOutcome::Bound { mut replaced } => {
            // A repeated entry finds its own first bind.
            replaced.retain(|route| route.connection != login.connection);
            Ok(replaced)
        }
        BindOutcome::TooManyDevices => Err(session_refusal(SessionRefusal::TooManyDevices)),
        BindOutcome::Stale => Err(session_refusal(SessionRefusal::Overtaken)),
    })
}

async fn unbind(node: &Node, login: &Login) -> Result<(), BusError> {
    let user = &login.origin.user;
    node.directory
        .unbind(user, &login.device, login.connection)
        .await?;
    Ok(())
}

fn refuse(outbox: &mut Outbox, login: &Login, refusal: &Refusal) {
    metrics::counter!("sluice_refusals_total", "code" => refusal.label()).increment(1);
    let refused = SessionRefused {
        request_id: login.origin.request_id,
        code: refusal.code.into(),
        reason: refusal.reason.to_string(),
    };
    outbox.tell(&login.origin, Body::SessionRefused(refused));
}

/// Ends a connection that is open although its user may not be here.
fn shut_out(outbox: &mut Outbox, login: &Login, refusal: SessionRefusal) {
    if let Some(kick) = kick_for(refusal) {
        outbox.tell(&login.origin, Body::Kick(kick));
    }
}

/// `None` for a refusal that says nothing of sessions that are open.
fn kick_for(refusal: SessionRefusal) -> Option<packet::Kick> {
    let reason = match refusal {
        SessionRefusal::Revoked => CloseReason::TokenRevoked,
        SessionRefusal::Banned => CloseReason::Banned,
        SessionRefusal::UnknownUser
        | SessionRefusal::BadResumeToken
        | SessionRefusal::TooManyDevices
        | SessionRefusal::Overtaken => return None,
    };
    Some(packet::Kick {
        reason: reason.into(),
        message: session_refusal(refusal).reason.to_string(),
    })
}

fn session_refusal(refusal: SessionRefusal) -> Refusal {
    match refusal {
        SessionRefusal::UnknownUser => {
            Refusal::new(ErrorCode::UnknownUser, "there is no such user")
        }
        SessionRefusal::Revoked => Refusal::new(
            ErrorCode::TokenRevoked,
            "the token was revoked; log in again",
        ),
        SessionRefusal::TooManyDevices => Refusal::new(
            ErrorCode::TooManyDevices,
            "as many devices as may be are connected already; log one of them out",
        ),
        SessionRefusal::Overtaken => Refusal::new(
            ErrorCode::Replayed,
            "a later login of this device is in place",
        ),
        SessionRefusal::Banned => Refusal::new(ErrorCode::Banned, "you are banned"),
        SessionRefusal::BadResumeToken => Refusal::new(
            ErrorCode::BadResumeToken,
            "the resume token is unknown, spent, expired or another device's; log in with a token",
        ),
    }
}

// === impl Login ===

impl Login {
    /// Who has proven nothing learns of no user whether they exist or are banned;
    /// a resume token proves something when it is good only.
    fn may_know(&self, refusal: SessionRefusal) -> SessionRefusal {
        match (&self.proof, refusal) {
            (SessionProof::Token { .. }, _) => refusal,
            // Said of a token that is good, and stays so.
            (
                SessionProof::Resume { .. },
                SessionRefusal::TooManyDevices | SessionRefusal::Overtaken,
            ) => refusal,
            (SessionProof::Resume { .. }, _) => SessionRefusal::BadResumeToken,
        }
    }

    fn route(&self) -> Route {
        Route {
            device: self.device.clone(),
            platform: self.platform,
            connection: self.connection,
        }
    }

    fn opening(&self, has_place: bool, now_ms: u64) -> SessionOpening {
        SessionOpening {
            user: self.origin.user.clone(),
            device: self.device.clone(),
            platform: self.platform,
            proof: self.proof.clone(),
            new_resume_hash: Sha256::digest(self.resume_token).into(),
            connect_time_ms: (!self.refresh).then_some(self.connect_time_ms),
            has_place,
            now_ms,
        }
    }
}

// === impl Opened ===

impl Opened<'_> {
    fn answer(&self, token_epoch: u64) -> Body {
        Body::SessionOpened(SessionOpened {
            request_id: self.login.origin.request_id,
            resume_token: self.login.resume_token.to_vec().into(),
            resume_token_expires_ms: self.expires_ms,
            session_expires_ms: self.expires_ms,
            inbox_seq: self.inbox_seq,
            login: match self.login.refresh {
                true => 0,
                false => self.number,
            },
            token_epoch,
        })
    }
}
