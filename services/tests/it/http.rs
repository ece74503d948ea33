//! The HTTP API, called as axum would call it.

use std::{future::Future, pin::Pin, task::Poll};

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use serde_json::{Value, json};
use sluice_bus::{
    MemoryBus, MemoryBusConfig,
    faulty_bus::{Fault, FaultPlan, FaultyBus},
};
use sluice_protocol::packet::CloseReason;
use sluice_services::{Config, Peer};
use tower::ServiceExt as _;

use crate::world::{World, config, fresh_id, pair, text};

/// A call that has begun and, until it is polled again, doesn't end.
type Begun = Pin<Box<dyn Future<Output = Answer>>>;

/// One answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    retry_after: bool,
    body: Value,
}

impl Answer {
    #[track_caller]
    pub fn is(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{:?}", self.body);
        self.body
    }

    #[track_caller]
    pub fn refused(self, status: u16, code: &str) {
        let body = self.is(status);
        assert_eq!(body["code"], code, "{body:?}");
        assert!(body["reason"].is_string());
    }
}

pub struct Api(pub Router);

impl Api {
    pub fn of(world: &World) -> Self {
        Self(world.services.as_ref().unwrap().router())
    }

    pub async fn call(&self, method: &str, path: &str, token: &str, body: Option<Value>) -> Answer {
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(path);
        if !token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = match body {
            Some(json) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(json.to_string())
            }
            None => Body::empty(),
        };
        self.ask(request.body(body).unwrap()).await
    }

    async fn ask(&self, request: Request<Body>) -> Answer {
        let response = self.0.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let retry_after = response.headers().contains_key(header::RETRY_AFTER);
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20)
            .await
            .unwrap();
        Answer {
            status,
            retry_after,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        }
    }

    /// Has a list waiting for the store.
    async fn begin_list(&self, token: &str) -> Begun {
        loop {
            let (api, token) = (Self(self.0.clone()), token.to_owned());
            let mut call: Begun =
                Box::pin(async move { api.call("GET", "/conversations", &token, None).await });
            let seen = std::future::poll_fn(|context| Poll::Ready(call.as_mut().poll(context)));
            if seen.await.is_pending() {
                return call;
            }
            // A store that was quicker than one look: once more.
        }
    }

    /// Registers and logs in; the token.
    pub async fn user(&self, name: &str) -> String {
        let account = json!({"user_id": name, "password": "correct horse"});
        self.call("POST", "/users/register", "", Some(account.clone()))
            .await
            .is(201);
        let token = self
            .call("POST", "/users/login", "", Some(account))
            .await
            .is(200);
        token["token"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn accounts_are_registered_and_logged_into() {
    let mut world = World::new().await;
    let api = Api::of(&world);
    let register = |id: &str, password: &str| json!({"user_id": id, "password": password});
    let alice = api.user("alice").await;
    for (body, status, code) in [
        (register("alice", "correct horse"), 409, "user_exists"),
        (register("", "correct horse"), 400, "bad_request"),
        (register("a\nb", "correct horse"), 400, "bad_request"),
        (register("bob", "short"), 400, "bad_request"),
        (json!({"user_id": "bob"}), 400, "bad_request"),
        (
            json!({"user_id": "bob", "password": "correct horse", "role": 1}),
            400,
            "bad_request",
        ),
    ] {
        api.call("POST", "/users/register", "", Some(body))
            .await
            .refused(status, code);
    }
    for who in ["alice", "nobody"] {
        api.call(
            "POST",
            "/users/login",
            "",
            Some(register(who, "wrong horse")),
        )
        .await
        .refused(401, "bad_credentials");
    }
    let fresh = api
        .call("POST", "/users/refresh", &alice, None)
        .await
        .is(200);
    assert_eq!(fresh["user_id"], "alice");
    assert!(fresh["expires_ms"].as_u64().unwrap() > crate::world::now_ms());

    // A new password voids the old tokens and ends the sessions.
    let phone = world.device_online("alice", "phone").await;
    let change = json!({"password": "correct horse", "new_password": "battery staple"});
    let token = api
        .call("POST", "/users/password", &alice, Some(change))
        .await
        .is(200);
    assert_eq!(world.gateway.kick(&phone).await, CloseReason::TokenRevoked);
    api.call("POST", "/users/refresh", &alice, None)
        .await
        .refused(401, "token_revoked");
    let token = token["token"].as_str().unwrap();
    api.call("POST", "/users/refresh", token, None)
        .await
        .is(200);
    api.call(
        "POST",
        "/users/login",
        "",
        Some(register("alice", "correct horse")),
    )
    .await
    .refused(401, "bad_credentials");

    // Logout: likewise, and only one's own.
    let bob = api.user("bob").await;
    let phone = world.device_online("bob", "phone").await;
    let presence = api
        .call("GET", "/users/bob/presence", token, None)
        .await
        .is(200);
    assert_eq!(
        presence,
        json!({"user_id": "bob", "online": true, "devices": 1})
    );
    api.call("GET", "/users/logout/alice", &bob, None)
        .await
        .refused(403, "forbidden");
    api.call("GET", "/users/logout/bob", &bob, None)
        .await
        .is(204);
    assert_eq!(world.gateway.kick(&phone).await, CloseReason::LoggedOut);
    api.call("POST", "/users/refresh", &bob, None)
        .await
        .refused(401, "token_revoked");
    world.stop().await;
}

#[tokio::test]
async fn tokens_that_are_not_good_are_named() {
    let world = World::new().await;
    let api = Api::of(&world);
    world.add_users(&["alice"]).await;
    let alice = crate::world::user("alice");
    let sign = |epoch, now_ms| world.signer.sign(&alice, epoch, now_ms, 60_000).unwrap().0;
    let now = crate::world::now_ms();
    for (token, code) in [
        (String::new(), "login_required"),
        ("garbage".into(), "bad_token"),
        (sign(0, now - 60_001), "token_expired"),
        (sign(7, now), "token_revoked"),
        (sign(0, now) + "x", "bad_token"),
    ] {
        api.call("GET", "/conversations", &token, None)
            .await
            .refused(401, code);
    }
    api.call("GET", "/conversations", &sign(0, now), None)
        .await
        .is(200);
    world.stop().await;
}

#[tokio::test]
async fn one_user_adds_a_bounded_number_of_people_an_hour() {
    let limited = Config {
        additions_per_user_per_hour: 3,
        ..config()
    };
    let bus = sluice_bus::MemoryBus::new(sluice_bus::MemoryBusConfig::default());
    let world = World::with(limited, bus).await;
    let api = Api::of(&world);
    let (alice, bob) = (api.user("alice").await, api.user("bob").await);
    api.user("carol").await;
    let found = |members: &[&str]| Some(json!({"name": "g", "members": members}));
    let both = found(&["bob", "carol"]);
    let group = api.call("POST", "/groups", &alice, both.clone()).await;
    let group = group.is(201)["conversation_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let answer = api.call("POST", "/groups", &alice, both.clone()).await;
    assert!(answer.retry_after);
    answer.refused(429, "rate_limited");
    // Nobody is added: as often as one likes.
    for _ in 0..5 {
        api.call("POST", "/groups", &alice, found(&[]))
            .await
            .is(201);
    }
    let path = format!("/groups/{}/members", group.replace(':', "%3A"));
    let add = |name: &str| Some(json!({"users": [name]}));
    // What is refused counts too.
    let answer = api.call("POST", &path, &alice, add("nobody")).await;
    answer.refused(404, "unknown_user");
    let answer = api.call("POST", &path, &alice, add("carol")).await;
    assert!(answer.retry_after);
    answer.refused(429, "rate_limited");
    api.call("POST", "/groups", &bob, found(&["alice", "carol"]))
        .await
        .is(201);
    world.stop().await;
}

#[tokio::test]
async fn a_logout_holds_for_calls_whose_body_still_comes() {
    let world = World::new().await;
    let api = Api::of(&world);
    let (ann, ben) = (api.user("ann").await, api.user("ben").await);
    // A call that has begun, and what lets its body come.
    let begin = async |path: &str, token: &str, body: Value| {
        let (whole, awaited) = tokio::sync::oneshot::channel::<String>();
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(Body::from_stream(futures_util::stream::once(awaited)))
            .unwrap();
        let call = Api(api.0.clone());
        let call = tokio::spawn(async move { call.ask(request).await });
        (whole, body.to_string(), call)
    };
    let text = |peer: &str| json!({"to_user": peer, "text": "late"});
    let calls = [
        begin("/messages", &ann, text("ben")).await,
        begin("/groups", &ann, json!({"name": "late"})).await,
        begin("/messages", &ben, text("ann")).await,
    ];
    // By now they wait for their bodies. Were they slower, they would be refused
    // as well.
    tokio::time::sleep(Duration::from_millis(300)).await;
    api.call("GET", "/users/logout/ann", &ann, None)
        .await
        .is(204);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let mut statuses = Vec::new();
    for (whole, body, call) in calls {
        whole.send(body).unwrap();
        let answer = call.await.unwrap();
        statuses.push(answer.status.as_u16());
        if answer.status == StatusCode::UNAUTHORIZED {
            answer.refused(401, "token_revoked");
        }
    }
    assert_eq!(statuses, [401, 401, 200], "ben may be slow");
    world.stop().await;
}

#[tokio::test]
async fn password_attempts_are_limited_by_user_and_at_once() {
    let limited = Config {
        logins_per_user_per_minute: 2,
        ..config()
    };
    let bus = sluice_bus::MemoryBus::new(sluice_bus::MemoryBusConfig::default());
    let world = World::with(limited, bus).await;
    let api = Api::of(&world);
    let guess = |name: &str| json!({"user_id": name, "password": "guess guess"});
    for _ in 0..2 {
        api.call("POST", "/users/login", "", Some(guess("alice")))
            .await
            .refused(401, "bad_credentials");
    }
    let answer = api
        .call("POST", "/users/login", "", Some(guess("alice")))
        .await;
    assert!(answer.retry_after);
    answer.refused(429, "rate_limited");
    api.call("POST", "/users/login", "", Some(guess("bob")))
        .await
        .refused(401, "bad_credentials");
    world.stop().await;

    let slow = Config {
        password_hashes_at_once_max: 1,
        password_waits_max: 0,
        argon2_memory_kib: 4096,
        argon2_iterations: 3,
        ..config()
    };
    let bus = sluice_bus::MemoryBus::new(sluice_bus::MemoryBusConfig::default());
    let world = World::with(slow, bus).await;
    let api = Api::of(&world);
    let call = |name| api.call("POST", "/users/login", "", Some(guess(name)));
    let (a, b, c) = tokio::join!(call("a"), call("b"), call("c"));
    let turned_away = [a, b, c]
        .into_iter()
        .filter(|answer| answer.status == StatusCode::SERVICE_UNAVAILABLE && answer.retry_after);
    assert_eq!(turned_away.count(), 2);
    world.stop().await;
}

/// As if an address had called that is counted.
fn login_from(last: u8, name: &str, password: &str) -> Request<Body> {
    let body = json!({"user_id": name, "password": password}).to_string();
    Request::builder()
        .method(Method::POST)
        .uri("/users/login")
        .header(header::CONTENT_TYPE, "application/json")
        .extension(Peer::new([192, 0, 2, last].into()))
        .body(Body::from(body))
        .unwrap()
}

#[tokio::test]
async fn strangers_who_log_in_nobody_keep_nobody_out() {
    let config = Config {
        password_hashes_at_once_max: 1,
        password_waits_max: 32,
        // The test is of turns, not of this machine's speed.
        password_wait_ms: 20_000,
        password_hashes_per_address_max: 4,
        logins_per_user_per_minute: 1000,
        argon2_memory_kib: 1024,
        ..config()
    };
    let world = World::with(config, MemoryBus::new(MemoryBusConfig::default())).await;
    let api = Api::of(&world);
    api.user("victim").await;
    let refused = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut strangers = tokio::task::JoinSet::new();
    for stranger in 0..12 {
        let (api, refused) = (Api(api.0.clone()), refused.clone());
        strangers.spawn(async move {
            for attempt in 0.. {
                let name = format!("nobody{stranger}-{attempt}");
                let answer = api.ask(login_from(1, &name, "guess guess")).await;
                if answer.status == StatusCode::TOO_MANY_REQUESTS {
                    assert!(answer.retry_after);
                    answer.refused(429, "too_many_pending");
                    refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                } else {
                    answer.refused(401, "bad_credentials");
                }
            }
        });
    }
    while refused.load(std::sync::atomic::Ordering::Relaxed) < 12 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // From elsewhere, and from an address that isn't counted.
    for _ in 0..10 {
        let login = login_from(2, "victim", "correct horse");
        api.ask(login).await.is(200);
        let account = json!({"user_id": "victim", "password": "correct horse"});
        let login = api.call("POST", "/users/login", "", Some(account));
        login.await.is(200);
    }
    assert_eq!(strangers.try_join_next().map(|ended| ended.is_ok()), None);
    strangers.shutdown().await;
    world.stop().await;
}

#[tokio::test]
async fn messages_are_sent_read_recalled_and_listed() {
    let mut world = World::new().await;
    let api = Api::of(&world);
    let alice = api.user("alice").await;
    let bob = api.user("bob").await;
    let phone = world.device_online("bob", "phone").await;
    let id = fresh_id().to_string();
    let hello = json!({"to_user": "bob", "client_msg_id": id, "text": "hello"});
    let ack = api
        .call("POST", "/messages", &alice, Some(hello.clone()))
        .await
        .is(200);
    assert_eq!(ack["seq"], 1);
    assert_eq!(ack["client_msg_id"], id);
    assert_eq!(text(&world.gateway.entry(&phone).await), "hello");
    let again = api
        .call("POST", "/messages", &alice, Some(hello))
        .await
        .is(200);
    assert_eq!(ack, again);

    let picture = json!({"conversation_id": pair("alice", "bob").as_str(),
        "content_type": "image", "body": "aGk=", "predecessor": id});
    api.call("POST", "/messages", &alice, Some(picture))
        .await
        .is(200);
    for (body, status, code) in [
        (json!({"to_user": "bob"}), 400, "bad_request"),
        (json!({"text": "x"}), 400, "bad_request"),
        (json!({"to_user": "alice", "text": "x"}), 400, "bad_request"),
        (
            json!({"to_user": "nobody", "text": "x"}),
            404,
            "unknown_user",
        ),
        (
            json!({"to_user": "bob", "text": "y", "client_msg_id": id}),
            409,
            "client_msg_id_reused",
        ),
        (
            json!({"to_user": "bob", "text": "y", "predecessor": fresh_id().to_string()}),
            409,
            "out_of_order",
        ),
        (
            json!({"to_user": "bob", "text": "y", "client_msg_id": "no"}),
            400,
            "bad_request",
        ),
        (
            json!({"to_user": "bob", "text": "x".repeat(61 * 1024)}),
            413,
            "too_large",
        ),
        (
            json!({"to_user": "bob", "text": "x".repeat(200 * 1024)}),
            413,
            "too_large",
        ),
        (
            json!({"conversation_id": "g:1", "text": "x"}),
            404,
            "unknown_conversation",
        ),
    ] {
        api.call("POST", "/messages", &alice, Some(body))
            .await
            .refused(status, code);
    }

    let log = "/conversations/p:5:alice:bob/entries";
    let page = api
        .call("GET", &format!("{log}?after=0"), &bob, None)
        .await
        .is(200);
    assert_eq!(page["entries"][0]["content"]["text"], "hello");
    assert_eq!(page["entries"][1]["content"]["body"], "aGk=");
    assert_eq!(page["last_seq"], 2);
    let newest = api
        .call("GET", &format!("{log}?limit=1"), &bob, None)
        .await
        .is(200);
    assert_eq!(newest["entries"][0]["seq"], 2);
    assert_eq!(newest["more"], true);
    api.call("GET", &format!("{log}?after=x"), &bob, None)
        .await
        .refused(400, "bad_request");
    let carol = api.user("carol").await;
    api.call("GET", log, &carol, None)
        .await
        .refused(403, "not_a_member");

    let conversation = "/conversations/p:5:alice:bob";
    api.call(
        "POST",
        &format!("{conversation}/recall"),
        &bob,
        Some(json!({"seq": 1})),
    )
    .await
    .refused(403, "forbidden");
    api.call(
        "POST",
        &format!("{conversation}/recall"),
        &alice,
        Some(json!({"seq": 1})),
    )
    .await
    .is(200);
    api.call(
        "POST",
        &format!("{conversation}/read"),
        &bob,
        Some(json!({"seq": 2})),
    )
    .await
    .is(202);
    // The mark takes effect soon: bob's phone hears of it.
    world.gateway.event(&phone).await;
    let list = api.call("GET", "/conversations", &bob, None).await.is(200);
    let line = &list["conversations"][0];
    assert_eq!(line["title"], "alice");
    assert_eq!((&line["read_seq"], &line["unread"]), (&json!(2), &json!(0)));
    assert_eq!(
        line["last_entry"]["content"],
        json!({"kind": "recall", "seq": 1})
    );
    assert!(list.get("next").is_none());
    world.stop().await;
}

#[tokio::test]
async fn groups_live_over_http() {
    let world = World::new().await;
    let api = Api::of(&world);
    let alice = api.user("alice").await;
    let bob = api.user("bob").await;
    let carol = api.user("carol").await;
    let key = fresh_id().to_string();
    let create = || {
        Request::builder()
            .method(Method::POST)
            .uri("/groups")
            .header(header::AUTHORIZATION, format!("Bearer {alice}"))
            .header(header::CONTENT_TYPE, "application/json")
            .header("Idempotency-Key", &key)
            .body(Body::from(
                json!({"name": "crew", "members": ["bob"]}).to_string(),
            ))
            .unwrap()
    };
    let ack = api.ask(create()).await.is(201);
    assert_eq!(api.ask(create()).await.is(201), ack, "founded once");
    let id = ack["conversation_id"].as_str().unwrap();
    let path = |rest: &str| format!("/groups/{id}{rest}");

    let group = api.call("GET", &path(""), &bob, None).await.is(200);
    assert_eq!(group["role"], "member");
    assert_eq!(
        (&group["name"], &group["members"]),
        (&json!("crew"), &json!(2))
    );
    api.call("GET", &path(""), &carol, None)
        .await
        .refused(403, "not_a_member");
    api.call("GET", "/groups/g:1", &carol, None)
        .await
        .refused(404, "unknown_conversation");
    api.call("GET", "/groups/p:1:a:b", &carol, None)
        .await
        .refused(400, "bad_request");

    let users = json!({"users": ["carol"]});
    api.call("POST", &path("/members"), &bob, Some(users.clone()))
        .await
        .refused(403, "forbidden");
    api.call("POST", &path("/members"), &alice, Some(users))
        .await
        .is(200);
    api.call(
        "PUT",
        &path("/members/bob/role"),
        &alice,
        Some(json!({"role": "admin"})),
    )
    .await
    .is(200);
    api.call("PUT", &path(""), &bob, Some(json!({"name": "gang"})))
        .await
        .is(200);
    api.call("DELETE", &path("/members/carol"), &bob, None)
        .await
        .is(200);
    api.call("POST", &path("/leave"), &alice, None)
        .await
        .is(200);
    let members = api.call("GET", &path("/members"), &bob, None).await.is(200);
    assert_eq!(
        members["members"],
        json!([{"user_id": "bob", "role": "owner", "first_seq": 1}])
    );
    world.stop().await;
}

#[tokio::test]
async fn blocks_mutes_and_bans_take_hold_at_once() {
    // Kept standings must be forgotten, not outlived.
    let keeping = Config {
        standing_ttl_ms: 3_600_000,
        ..config()
    };
    let bus = sluice_bus::MemoryBus::new(sluice_bus::MemoryBusConfig::default());
    let mut world = World::with(keeping, bus).await;
    let api = Api::of(&world);
    let alice = api.user("alice").await;
    let bob = api.user("bob").await;
    let hello = || Some(json!({"to_user": "bob", "text": "hello"}));
    api.call("POST", "/messages", &alice, hello()).await.is(200);
    api.call("PUT", "/users/bob/blocks/alice", &bob, None)
        .await
        .is(204);
    api.call("POST", "/messages", &alice, hello())
        .await
        .refused(403, "blocked");
    api.call("PUT", "/users/bob/blocks/alice", &alice, None)
        .await
        .refused(403, "forbidden");
    api.call("PUT", "/users/bob/blocks/bob", &bob, None)
        .await
        .refused(400, "bad_request");
    api.call("PUT", "/users/bob/blocks/nobody", &bob, None)
        .await
        .refused(404, "unknown_user");
    api.call("DELETE", "/users/bob/blocks/alice", &bob, None)
        .await
        .is(204);
    api.call("POST", "/messages", &alice, hello()).await.is(200);

    let status = |status: &str| Some(json!({"status": status}));
    let of_alice = "/admin/users/alice/status";
    api.call("PUT", of_alice, &bob, status("banned"))
        .await
        .refused(401, "bad_token");
    api.call(
        "PUT",
        "/admin/users/nobody/status",
        "let me in",
        status("muted"),
    )
    .await
    .refused(404, "unknown_user");
    api.call("PUT", of_alice, "let me in", status("muted"))
        .await
        .is(204);
    api.call("POST", "/messages", &alice, hello())
        .await
        .refused(403, "muted");
    let phone = world.device_online("alice", "phone").await;
    api.call("PUT", of_alice, "let me in", status("banned"))
        .await
        .is(204);
    assert_eq!(world.gateway.kick(&phone).await, CloseReason::Banned);
    api.call("POST", "/messages", &alice, hello())
        .await
        .refused(403, "banned");
    world.stop().await;
}

#[tokio::test]
async fn reads_run_few_at_once_of_one_user_and_of_all() {
    let config = Config {
        http_reads_per_user_max: 2,
        http_reads_max: 3,
        ..config()
    };
    let world = World::with(config, MemoryBus::new(MemoryBusConfig::default())).await;
    let api = Api::of(&world);
    let ann = api.user("ann").await;
    let (ben, cat) = (api.user("ben").await, api.user("cat").await);

    let first = api.begin_list(&ann).await;
    let second = api.begin_list(&ann).await;
    let over = api.call("GET", "/conversations", &ann, None).await;
    assert!(over.retry_after);
    over.refused(429, "too_many_pending");
    // What ann changes is not held up by what she reads.
    let hello = json!({"to_user": "ben", "text": "hello"});
    let sent = api.call("POST", "/messages", &ann, Some(hello)).await;
    sent.is(200);

    let third = api.begin_list(&ben).await;
    let over = api.call("GET", "/conversations", &cat, None).await;
    assert!(over.retry_after);
    over.refused(503, "unavailable");

    // Who goes away makes room, and so does who has the answer.
    drop(first);
    api.call("GET", "/conversations", &cat, None).await.is(200);
    second.await.is(200);
    third.await.is(200);
    api.call("GET", "/conversations", &ann, None).await.is(200);
    world.stop().await;
}

#[tokio::test]
async fn few_lists_of_a_user_are_read_at_once() {
    let world = World::new().await;
    let api = Api::of(&world);
    let ann = api.user("ann").await;
    let reads = world.config.http_reads_per_user_max;
    // Fewer reads than a user may have; should they never meet, once more.
    loop {
        let calls = (0..reads).map(|_| api.call("GET", "/conversations", &ann, None));
        let answers = futures_util::future::join_all(calls).await;
        let (taken, put_off): (Vec<_>, Vec<_>) =
            (answers.into_iter()).partition(|answer| answer.status == 200);
        assert!(taken.len() >= world.config.lists_per_user_max);
        let met = !put_off.is_empty();
        for over in put_off {
            assert!(over.retry_after);
            over.refused(429, "too_many_pending");
        }
        if met {
            break;
        }
    }
    api.call("GET", "/conversations", &ann, None).await.is(200);
    world.stop().await;
}

/// Path parameters are declared, each and no others; success and errors are listed.
fn describes_itself(path: &str, operation: &Value) -> Result<(), String> {
    let named = path.split('{').skip(1);
    let mut named: Vec<_> = named.filter_map(|rest| rest.split('}').next()).collect();
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let in_path = parameters.filter(|parameter| parameter["in"] == "path");
    let mut declared: Vec<_> = in_path.filter_map(|it| it["name"].as_str()).collect();
    named.sort_unstable();
    declared.sort_unstable();
    if named != declared {
        return Err(format!("{named:?} in the path, {declared:?} declared"));
    }
    let responses = operation["responses"].as_object().ok_or("no answers")?;
    if !responses.keys().any(|status| status.starts_with('2')) {
        return Err("no success".to_owned());
    }
    for status in ["4XX", "5XX"] {
        let schema = &responses.get(status).ok_or(status)?["content"]["application/json"]["schema"];
        if schema["$ref"] != "#/components/schemas/ErrorBody" {
            return Err(format!("{status} is {schema}"));
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_document_lists_every_route() {
    let world = World::new().await;
    let api = Api::of(&world);
    let document = api.call("GET", "/openapi.json", "", None).await.is(200);
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let list = &document["paths"]["/conversations"]["get"]["responses"];
    for status in ["429", "503"] {
        assert!(list[status]["headers"]["Retry-After"].is_object(), "{list}");
    }
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            describes_itself(path, operation)
                .unwrap_or_else(|why| panic!("{method} {path}: {why}"));
        }
    }
    let mut routes: Vec<_> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(move |method| format!("{method} {path}"))
        })
        .collect();
    routes.sort();
    let expected = [
        "delete /groups/{group_id}/members/{user_id}",
        "delete /users/{user_id}/blocks/{other}",
        "get /conversations",
        "get /conversations/{conversation_id}/entries",
        "get /groups/{group_id}",
        "get /groups/{group_id}/members",
        "get /users/logout/{user_id}",
        "get /users/{user_id}/presence",
        "post /conversations/{conversation_id}/read",
        "post /conversations/{conversation_id}/recall",
        "post /groups",
        "post /groups/{group_id}/leave",
        "post /groups/{group_id}/members",
        "post /messages",
        "post /users/login",
        "post /users/password",
        "post /users/refresh",
        "post /users/register",
        "put /admin/users/{user_id}/status",
        "put /groups/{group_id}",
        "put /groups/{group_id}/members/{user_id}/role",
        "put /users/{user_id}/blocks/{other}",
    ];
    assert_eq!(routes, expected);
    // Whatever is referred to is there.
    let references = document.to_string();
    for name in references.split("#/components/schemas/").skip(1) {
        let name = name.split('"').next().unwrap();
        assert!(
            document["components"]["schemas"][name].is_object(),
            "{name}"
        );
    }
    api.call("GET", "/nowhere", "", None)
        .await
        .refused(404, "not_found");
    api.call("PATCH", "/messages", "", None)
        .await
        .refused(405, "method_not_allowed");
    world.stop().await;
}

#[tokio::test]
async fn a_call_without_an_owner_ends_in_time() {
    let config = Config {
        roles: sluice_services::Roles {
            message: false,
            ..Default::default()
        },
        http_timeout_ms: 50,
        ..config()
    };
    let bus = sluice_bus::MemoryBus::new(sluice_bus::MemoryBusConfig::default());
    let world = World::with(config, bus).await;
    let api = Api::of(&world);
    let alice = api.user("alice").await;
    api.call("POST", "/groups", &alice, Some(json!({"name": "x"})))
        .await
        .refused(504, "timeout");
    api.call("GET", "/conversations", &alice, None)
        .await
        .refused(404, "not_found");
    world.stop().await;
}

/// Its reader kept the lease from itself: no call was answered again, and the
/// process didn't end.
#[tokio::test]
async fn calls_are_answered_again_after_the_bus_was_away() {
    let inner = MemoryBus::new(MemoryBusConfig::default());
    let mut world = World::idle(config(), inner.clone()).await;
    let always = FaultPlan {
        read_failure_per_1000: 1000,
        ..FaultPlan::default()
    };
    let bus = FaultyBus::new(inner, always);
    world.bus = bus.clone();
    world.start().await;
    let api = Api::of(&world);
    let alice = api.user("alice").await;
    api.user("bob").await;
    // More often than there are readers: each of them has failed.
    while bus.struck(Fault::ReadFailure) < 100 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bus.calm();
    let hello = json!({"to_user": "bob", "text": "hello", "client_msg_id": fresh_id().to_string()});
    api.call("POST", "/messages", &alice, Some(hello))
        .await
        .is(200);
    world.stop().await;
}

#[tokio::test]
async fn a_lost_kick_is_made_up_for_when_the_gateway_asks() {
    let inner = MemoryBus::new(MemoryBusConfig::default());
    let faulty = FaultyBus::new(inner, FaultPlan::default());
    let mut world = World::with(config(), faulty.clone()).await;
    let api = Api::of(&world);
    let alice_token = api.user("alice").await;
    let (mut devices, mut epochs) = (Vec::new(), Vec::new());
    for name in ["alice", "bob", "carol"] {
        if name != "alice" {
            api.user(name).await;
        }
        epochs.push(world.claims(name).await.claims.unwrap().token_epoch);
        devices.push(world.device_online(name, "phone").await);
    }
    // Alice logs out and bob is banned, and both kicks get lost.
    faulty.inject(Fault::DownLoss);
    let path = "/users/logout/alice";
    api.call("GET", path, &alice_token, None).await.is(204);
    faulty.inject(Fault::DownLoss);
    let (path, ban) = ("/admin/users/bob/status", json!({"status": "banned"}));
    api.call("PUT", path, "let me in", Some(ban)).await.is(204);
    assert_eq!(faulty.struck(Fault::DownLoss), 2);
    for device in &devices {
        assert_eq!(world.gateway.rest(device).await, []);
    }
    // And the one that the next check repeats, too.
    faulty.inject(Fault::DownLoss);
    world.gateway.check_session(&devices[0], epochs[0]).await;
    assert_eq!(world.gateway.rest(&devices[0]).await, []);
    assert_eq!(faulty.struck(Fault::DownLoss), 3);
    for (device, epoch) in devices.iter().zip(&epochs) {
        world.gateway.check_session(device, *epoch).await;
    }
    let why = world.gateway.kick(&devices[0]).await;
    assert_eq!(why, CloseReason::TokenRevoked);
    assert_eq!(world.gateway.kick(&devices[1]).await, CloseReason::Banned);
    assert_eq!(world.gateway.rest(&devices[2]).await, [], "carol may stay");
    world.stop().await;
}
