//! Sessions: opened, resumed, replaced, bounded, ended.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use sluice_bus::{
    Bind, BindOutcome, Bus, BusError, DevicePolicy, Directory, MemoryBus, MemoryBusConfig,
    MemoryDirectory, PresenceWatch, Route, Stream,
};
use sluice_protocol::{
    ConnectionId, DeviceId, Incarnation, UserId,
    envelope::{CloseSession, OpenSession, SessionOpened, delivery, up},
    packet::{CloseReason, ErrorCode, Platform},
};
use sluice_services::{Config, DeviceRule, Services};
use sluice_store::{SqliteStore, Store as _, UserStatus};

use crate::{
    outages::{Counting, Most},
    world::{World, ack, config, fresh_id, text_to, user},
};

fn opened(body: delivery::Body) -> SessionOpened {
    match body {
        delivery::Body::SessionOpened(opened) => opened,
        other => panic!("{other:?}"),
    }
}

fn refused(body: delivery::Body) -> ErrorCode {
    match body {
        delivery::Body::SessionRefused(refused) => refused.code(),
        other => panic!("{other:?}"),
    }
}

fn resume(token: &[u8]) -> OpenSession {
    OpenSession {
        resume_token: token.to_vec().into(),
        ..OpenSession::default()
    }
}

#[tokio::test]
async fn a_session_is_opened_resumed_once_and_bound() {
    let mut world = World::new().await;
    world.add_users(&["alice"]).await;
    let first = world.gateway.device("alice", "phone");
    let claims = world.claims("alice").await;
    let session = opened(world.open(&first, claims).await);
    assert_eq!(session.resume_token.len(), 32);
    assert!(session.login > 0);
    let epoch = world.claims("alice").await.claims.unwrap().token_epoch;
    assert_eq!(session.token_epoch, epoch);
    let routes = world.directory.lookup(&[user("alice")]).await.unwrap();
    assert_eq!(routes[0][0].connection, first.connection);

    // Resuming takes the old connection's place and spends the token.
    let second = world.gateway.device("alice", "phone");
    let again = opened(world.open(&second, resume(&session.resume_token)).await);
    assert!(again.login > session.login);
    assert_eq!(world.gateway.kick(&first).await, CloseReason::Replaced);
    let third = world.gateway.device("alice", "phone");
    let spent = world.open(&third, resume(&session.resume_token)).await;
    assert_eq!(refused(spent), ErrorCode::BadResumeToken);
    let other = world.gateway.device("alice", "laptop");
    let stolen = world.open(&other, resume(&again.resume_token)).await;
    assert_eq!(refused(stolen), ErrorCode::BadResumeToken);

    // A refresh prolongs the session where it is.
    let refresh = OpenSession {
        refresh: true,
        ..world.claims("alice").await
    };
    let refreshed = opened(world.open(&second, refresh).await);
    assert_eq!(refreshed.login, 0);
    let routes = world.directory.lookup(&[user("alice")]).await.unwrap();
    assert_eq!(routes[0][0].connection, second.connection);
    world.stop().await;
}

/// A directory whose answers to binds get lost, as often as that is set, and their
/// batches with them.
struct LosingBinds {
    directory: Arc<MemoryDirectory>,
    to_lose: AtomicU32,
    /// Lookups that are to fail.
    lookups_to_fail: AtomicU32,
    /// When the batch comes again, the tokens are revoked before it is looked at.
    revokes_in: Option<Arc<SqliteStore>>,
    comes_again: AtomicBool,
}

#[async_trait]
impl Directory for LosingBinds {
    async fn bind(
        &self,
        bind: Bind,
        policy: DevicePolicy,
        devices_max: usize,
    ) -> Result<BindOutcome, BusError> {
        let outcome = self.directory.bind(bind, policy, devices_max).await;
        let left = |left: u32| left.checked_sub(1);
        let (order, lose) = (Ordering::Relaxed, &self.to_lose);
        if lose.fetch_update(order, order, left).is_err() {
            return outcome;
        }
        self.comes_again.store(true, Ordering::Relaxed);
        Err(BusError::Unknown("a bind's answer is lost".into()))
    }
    async fn unbind(
        &self,
        user: &UserId,
        device: &DeviceId,
        connection: ConnectionId,
    ) -> Result<bool, BusError> {
        self.directory.unbind(user, device, connection).await
    }
    async fn reassert(&self, binds: Vec<Bind>) -> Result<Vec<Bind>, BusError> {
        self.directory.reassert(binds).await
    }
    async fn lookup(&self, users: &[UserId]) -> Result<Vec<Vec<Route>>, BusError> {
        let (order, left) = (Ordering::Relaxed, |left: u32| left.checked_sub(1));
        if (self.lookups_to_fail.fetch_update(order, order, left)).is_ok() {
            return Err(BusError::Unavailable("no lookups now".into()));
        }
        let comes_again = self.comes_again.swap(false, Ordering::Relaxed);
        if let (true, Some(store)) = (comes_again, &self.revokes_in) {
            for user in users {
                store.revoke_tokens(user, None).await.unwrap();
            }
        }
        self.directory.lookup(users).await
    }
    async fn watch(&self, users: &[UserId]) -> Result<PresenceWatch, BusError> {
        self.directory.watch(users).await
    }
    async fn lease(&self, gateway: Incarnation, ttl: Duration) -> Result<(), BusError> {
        self.directory.lease(gateway, ttl).await
    }
    async fn release(&self, gateway: Incarnation) -> Result<(), BusError> {
        self.directory.release(gateway).await
    }
    async fn gateways(&self) -> Result<Vec<Incarnation>, BusError> {
        self.directory.gateways().await
    }
}

async fn world_that_loses_binds(revoking: bool) -> (World, Arc<LosingBinds>, Most) {
    let inner: Arc<dyn Bus> = MemoryBus::new(MemoryBusConfig::default());
    let mut world = World::idle(config(), inner.clone()).await;
    let most = Most::default();
    let directory = Arc::new(LosingBinds {
        directory: world.directory.clone(),
        to_lose: AtomicU32::new(0),
        lookups_to_fail: AtomicU32::new(0),
        revokes_in: revoking.then(|| world.store.clone()),
        comes_again: AtomicBool::new(false),
    });
    let mut parts = world.parts().await;
    parts.directory = directory.clone();
    parts.bus = Arc::new(Counting {
        inner,
        most: most.clone(),
    });
    let services = Services::start(config(), parts, world.shutdown.clone());
    world.services = Some(services.await.unwrap());
    (world, directory, most)
}

#[tokio::test]
async fn an_outage_of_the_directory_costs_no_delivery() {
    let (mut world, directory, most) = world_that_loses_binds(false).await;
    let alice = world.user_online("alice").await;
    let bob = world.user_online("bob").await;
    for round in 1..=3 {
        directory.lookups_to_fail.store(round, Ordering::Relaxed);
        ack(world
            .send(&alice, text_to("bob", fresh_id(), "hello"))
            .await);
        assert_eq!(world.gateway.push(&bob).await.1.seq, u64::from(round));
        directory.lookups_to_fail.store(round, Ordering::Relaxed);
        world.device_online("bob", &format!("tablet {round}")).await;
    }
    // Handed out again and again they would be taken for poison.
    let most = most.lock().clone();
    assert!(most.values().all(|most| *most == 1), "{most:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_resume_whose_batch_comes_again_is_the_same_opening() {
    let (mut world, directory, _) = world_that_loses_binds(false).await;
    world.add_users(&["alice"]).await;
    let first = world.gateway.device("alice", "phone");
    let claims = world.claims("alice").await;
    let mut token = opened(world.open(&first, claims).await).resume_token;
    for lost in 1..=3 {
        directory.to_lose.store(lost, Ordering::Relaxed);
        let device = world.gateway.device("alice", "phone");
        let resumed = opened(world.open(&device, resume(&token)).await);
        assert_eq!(directory.to_lose.load(Ordering::Relaxed), 0);
        assert_ne!(resumed.resume_token, token);
        let routes = world.directory.lookup(&[user("alice")]).await.unwrap();
        assert_eq!(routes[0].len(), 1);
        assert_eq!(routes[0][0].connection, device.connection);
        token = resumed.resume_token;
    }
    world.stop().await;
}

#[tokio::test]
async fn a_login_refused_at_its_second_coming_leaves_no_route() {
    let (mut world, directory, _) = world_that_loses_binds(true).await;
    world.add_users(&["alice"]).await;
    for (name, code) in [
        ("laptop", ErrorCode::TokenRevoked),
        ("phone", ErrorCode::BadResumeToken),
    ] {
        let phone = world.gateway.device("alice", "phone");
        let claims = world.claims("alice").await;
        let session = opened(world.open(&phone, claims.clone()).await);
        let login = match name {
            "phone" => resume(&session.resume_token),
            _ => claims,
        };
        directory.to_lose.store(1, Ordering::Relaxed);
        let device = world.gateway.device("alice", name);
        assert_eq!(refused(world.open(&device, login).await), code);
        assert_eq!(directory.to_lose.load(Ordering::Relaxed), 0);
        let routes = world.directory.lookup(&[user("alice")]).await.unwrap();
        let left = routes[0]
            .iter()
            .filter(|it| it.connection == device.connection);
        assert_eq!(left.count(), 0);
    }
    world.stop().await;
}

#[tokio::test]
async fn revoked_banned_and_unknown_users_stay_out() {
    let mut world = World::new().await;
    world.add_users(&["alice", "bob"]).await;
    let alice = world.gateway.device("alice", "phone");
    let old = world.claims("alice").await;
    let session = opened(world.open(&alice, old.clone()).await);
    world
        .store
        .revoke_tokens(&user("alice"), None)
        .await
        .unwrap();
    assert_eq!(
        refused(world.open(&alice, old).await),
        ErrorCode::TokenRevoked
    );
    assert_eq!(
        refused(world.open(&alice, resume(&session.resume_token)).await),
        ErrorCode::BadResumeToken
    );
    let bob = world.gateway.device("bob", "phone");
    world
        .store
        .set_status(&user("bob"), UserStatus::Banned)
        .await
        .unwrap();
    let claims = world.claims("bob").await;
    assert_eq!(refused(world.open(&bob, claims).await), ErrorCode::Banned);
    let ghost = world.gateway.device("ghost", "phone");
    let claims = world.claims("ghost").await;
    assert_eq!(
        refused(world.open(&ghost, claims).await),
        ErrorCode::UnknownUser
    );
    // Who shows no token learns of neither.
    for who in ["bob", "ghost"] {
        let stranger = world.gateway.device(who, "phone");
        let guessed = world.open(&stranger, resume(&[7; 32])).await;
        assert_eq!(refused(guessed), ErrorCode::BadResumeToken);
    }
    world.stop().await;
}

#[tokio::test]
async fn a_refused_refresh_ends_its_connection_and_unbinds_nothing() {
    let mut world = World::new().await;
    let mut alice = world.user_online("alice").await;
    for round in 0..30 {
        let refresh = OpenSession {
            refresh: true,
            ..world.claims("alice").await
        };
        // The refresh is refused before or after it is looked at, or not at all.
        let (store, name) = (world.store.clone(), user("alice"));
        let revoking = tokio::spawn(async move {
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            store.revoke_tokens(&name, None).await.unwrap();
        });
        let answer = world.open(&alice, refresh).await;
        revoking.await.unwrap();
        // Whoever revoked must find it.
        let routes = world.directory.lookup(&[user("alice")]).await.unwrap();
        assert_eq!(routes[0][0].connection, alice.connection);
        if let delivery::Body::SessionRefused(_) = &answer {
            assert_eq!(refused(answer), ErrorCode::TokenRevoked);
            let why = world.gateway.kick(&alice).await;
            assert_eq!(why, CloseReason::TokenRevoked);
            alice = world.device_online("alice", "phone").await;
        }
    }
    let stale = OpenSession {
        refresh: true,
        ..world.claims("alice").await
    };
    let banned = UserStatus::Banned;
    world
        .store
        .set_status(&user("alice"), banned)
        .await
        .unwrap();
    assert_eq!(refused(world.open(&alice, stale).await), ErrorCode::Banned);
    assert_eq!(world.gateway.kick(&alice).await, CloseReason::Banned);
    let routes = world.directory.lookup(&[user("alice")]).await.unwrap();
    assert_eq!(routes[0][0].connection, alice.connection);
    world.stop().await;
}

#[tokio::test]
async fn logging_a_device_out_kills_its_resume_token() {
    let mut world = World::new().await;
    world.add_users(&["alice"]).await;
    let alice = world.gateway.device("alice", "phone");
    let claims = world.claims("alice").await;
    let session = opened(world.open(&alice, claims).await);
    let close = up::Body::CloseSession(CloseSession {
        forget_resume_token: true,
    });
    world.gateway.append(Stream::Session, &alice, close).await;
    assert_eq!(
        refused(world.open(&alice, resume(&session.resume_token)).await),
        ErrorCode::BadResumeToken
    );
    world.stop().await;
}

#[tokio::test]
async fn devices_are_bounded_and_the_policy_holds() {
    let bus = || MemoryBus::new(MemoryBusConfig::default());
    let two = Config {
        devices_max: 2,
        ..config()
    };
    let mut world = World::with(two, bus()).await;
    world.add_users(&["alice"]).await;
    // A watch that left, with a resume token.
    let watch = world.gateway.device("alice", "watch");
    let claims = world.claims("alice").await;
    let left = opened(world.open(&watch, claims).await);
    let gone = (
        user("alice"),
        DeviceId::parse("watch").unwrap(),
        watch.connection,
    );
    world
        .directory
        .unbind(&gone.0, &gone.1, gone.2)
        .await
        .unwrap();
    let phone = world.device_online("alice", "phone").await;
    world.device_online("alice", "tablet").await;
    let third = world.gateway.device("alice", "laptop");
    let claims = world.claims("alice").await;
    assert_eq!(
        refused(world.open(&third, claims).await),
        ErrorCode::TooManyDevices
    );
    // The watch finds no place, and its token unspent when there is one again.
    let watch = world.gateway.device("alice", "watch");
    let again = || resume(&left.resume_token);
    assert_eq!(
        refused(world.open(&watch, again()).await),
        ErrorCode::TooManyDevices
    );
    world
        .directory
        .unbind(
            &gone.0,
            &DeviceId::parse("phone").unwrap(),
            phone.connection,
        )
        .await
        .unwrap();
    opened(world.open(&watch, again()).await);
    world.stop().await;

    let by_platform = Config {
        device_policy: DeviceRule::EachPlatform,
        ..config()
    };
    let mut world = World::with(by_platform, bus()).await;
    world.add_users(&["alice"]).await;
    let open = OpenSession {
        platform: Platform::Web.into(),
        ..world.claims("alice").await
    };
    let one = world.gateway.device("alice", "one");
    opened(world.open(&one, open.clone()).await);
    let other = world.gateway.device("alice", "other");
    opened(world.open(&other, open).await);
    assert_eq!(world.gateway.kick(&one).await, CloseReason::Replaced);
    world.stop().await;
}

#[tokio::test]
async fn a_login_given_up_does_not_replace_the_one_made_after_it() {
    let mut world = World::new().await;
    world.add_users(&["alice"]).await;
    let claims = world.claims("alice").await;
    let asked = |connect_time_ms| OpenSession {
        connect_time_ms,
        ..claims.clone()
    };
    // The device waited for its first gateway in vain and went to another.
    let given_up = world.gateway.device("alice", "phone");
    let stands = world.gateway.device("alice", "phone");
    let session = opened(world.open(&stands, asked(2_000)).await);
    let code = refused(world.open(&given_up, asked(1_000)).await);
    assert_eq!(code, ErrorCode::Replayed);
    let routes = world.directory.lookup(&[user("alice")]).await.unwrap();
    assert_eq!(routes[0].len(), 1);
    assert_eq!(routes[0][0].connection, stands.connection);
    assert!(world.gateway.rest(&stands).await.is_empty());
    let next = world.gateway.device("alice", "phone");
    let mut resumed = resume(&session.resume_token);
    resumed.connect_time_ms = 3_000;
    opened(world.open(&next, resumed).await);
    assert_eq!(world.gateway.kick(&stands).await, CloseReason::Replaced);
    world.stop().await;
}
