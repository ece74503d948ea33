//! Logging in, in order and out of it.

use std::time::Duration;

use serde_json::json;
use sluice_protocol::{
    ConnectionId,
    envelope::{SessionRefused, delivery},
    packet::{CloseReason, Connect, Disconnect, ErrorCode, Kick, Ping, RefreshToken, packet::Body},
};

use crate::{
    client::{connect, text},
    rig::{Rig, config, eventually, now_ms, token, token_with},
};

async fn expect_unbound(rig: &Rig) {
    eventually("unbound", async || {
        rig.services.routes("alice").await.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_token_opens_a_session_and_leaving_unbinds_it() {
    let rig = Rig::start().await;
    let mut client = rig.connect().await;
    let ack = client.login("alice", "phone").await;
    assert_eq!((ack.user_id.as_str(), ack.send_window), ("alice", 64));
    assert_eq!((ack.packets_per_s, ack.packets_burst), (1_000, 4_000));
    assert_eq!(ack.connection_id.len(), 16);
    assert_eq!(ack.resume_token.as_ref(), b"resume");
    assert_eq!(rig.services.routes("alice").await.len(), 1);

    client.send(7, Body::Ping(Ping {})).await;
    let Body::Pong(pong) = client.answer(7).await else {
        panic!("no pong");
    };
    assert!(pong.server_time_ms.abs_diff(now_ms()) < 5_000);

    let logout = Disconnect { logout: true };
    client.send(0, Body::Disconnect(logout)).await;
    client.expect_end().await;
    expect_unbound(&rig).await;
    eventually("logout", async || rig.services.seen().await.logouts == 1).await;
}

#[tokio::test]
async fn a_broken_connection_is_unbound() {
    let rig = Rig::start().await;
    drop(rig.login("alice").await);
    expect_unbound(&rig).await;
}

#[tokio::test]
async fn a_close_during_login_leaves_no_route_behind() {
    let rig = Rig::start().await;
    rig.services.hold_sessions(true);
    let mut client = rig.connect().await;
    client
        .send(1, Body::Connect(connect("alice", "phone")))
        .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(client);
    tokio::time::sleep(Duration::from_millis(100)).await;
    // The service binds now, for a connection that is gone.
    rig.services.hold_sessions(false);
    tokio::time::sleep(Duration::from_millis(100)).await;
    expect_unbound(&rig).await;
}

async fn expect_refused(rig: &Rig, connect: Connect, code: ErrorCode) {
    let mut client = rig.connect().await;
    client.send(3, Body::Connect(connect)).await;
    let (id, error) = client.expect_error(code).await;
    assert_eq!(id, 3);
    assert!(error.server_time_ms.abs_diff(now_ms()) < 5_000);
    client.expect_end().await;
}

#[tokio::test]
async fn bad_logins_are_named_and_closed() {
    let mut config = config();
    config.limits.failed_logins_per_address_per_min = 0;
    let rig = Rig::start_with(config).await;
    let with = |change: &dyn Fn(&mut Connect)| {
        let mut connect = connect("alice", "phone");
        change(&mut connect);
        connect
    };
    let expired = json!({"iss": "sluice", "sub": "alice", "ep": 1, "exp": now_ms() / 1000 - 1});
    let issuer = json!({"iss": "me", "sub": "alice", "ep": 1, "exp": now_ms() / 1000 + 60});
    let cases = [
        (with(&|c| c.token = "nonsense".into()), ErrorCode::BadToken),
        (with(&|c| c.token.push('x')), ErrorCode::BadToken),
        (with(&|c| c.user_id = "bob".into()), ErrorCode::BadToken),
        (
            with(&|c| c.token = token_with(expired.clone())),
            ErrorCode::TokenExpired,
        ),
        (
            with(&|c| c.token = token_with(issuer.clone())),
            ErrorCode::BadToken,
        ),
        (
            with(&|c| c.protocol_version = 9),
            ErrorCode::UnsupportedVersion,
        ),
        (
            with(&|c| c.device_id = String::new()),
            ErrorCode::BadRequest,
        ),
        (
            with(&|c| c.nonce = vec![1; 15].into()),
            ErrorCode::BadRequest,
        ),
        (with(&|c| c.agent = "x".repeat(65)), ErrorCode::BadRequest),
        (with(&|c| c.time_ms -= 3_600_000), ErrorCode::ClockSkew),
        (connect("banned", "phone"), ErrorCode::Banned),
    ];
    for (connect, code) in cases {
        expect_refused(&rig, connect, code).await;
    }
    assert!(rig.services.routes("alice").await.is_empty());
}

#[tokio::test]
async fn a_recorded_connect_is_useless() {
    let rig = Rig::start().await;
    let recorded = connect("alice", "phone");
    let mut first = rig.connect().await;
    first.send(1, Body::Connect(recorded.clone())).await;
    assert!(matches!(first.answer(1).await, Body::ConnectAck(_)));
    expect_refused(&rig, recorded, ErrorCode::Replayed).await;
}

#[tokio::test]
async fn unproven_connects_take_no_room_among_the_nonces() {
    let mut config = config();
    config.limits.replay_entries_max = 1;
    let rig = Rig::start_with(config).await;
    for n in 0..5 {
        let resuming = Connect {
            token: String::new(),
            resume_token: vec![n; 32].into(),
            ..connect("mallory", "phone")
        };
        let mut client = rig.connect().await;
        client.send(1, Body::Connect(resuming)).await;
        client.answer(1).await;
    }
    rig.login("alice").await;
}

#[tokio::test]
async fn nothing_goes_before_login() {
    let rig = Rig::start().await;
    let bodies = [
        Body::Ping(Ping {}),
        Body::Send(text("bob", "hi")),
        Body::RefreshToken(RefreshToken::default()),
    ];
    for body in bodies {
        let mut client = rig.connect().await;
        client.send(5, body).await;
        assert_eq!(client.expect_error(ErrorCode::LoginRequired).await.0, 5);
        client.expect_end().await;
    }
    assert!(rig.services.seen().await.origins.is_empty());
}

#[tokio::test]
async fn one_connection_logs_in_once() {
    let rig = Rig::start().await;
    let mut client = rig.login("alice").await;
    client
        .send(2, Body::Connect(connect("alice", "phone")))
        .await;
    client.expect_error(ErrorCode::UnexpectedPacket).await;
    client.expect_end().await;
}

#[tokio::test]
async fn a_kick_is_said_and_final() {
    let rig = Rig::start().await;
    let mut client = rig.login("alice").await;
    let kick = Kick {
        reason: CloseReason::Replaced.into(),
        message: "newer login".into(),
    };
    rig.services.kick("alice", kick.clone()).await;
    assert_eq!(client.recv().await.unwrap().body, Some(Body::Kick(kick)));
    client.expect_end().await;
}

#[tokio::test]
async fn a_session_ends_with_its_token_unless_refreshed() {
    let rig = Rig::start().await;
    let mut client = rig.connect().await;
    client.login("brief", "phone").await;
    client.expect_go_away(CloseReason::TokenExpired).await;

    let mut client = rig.login("alice").await;
    let refresh = |user| Body::RefreshToken(RefreshToken { token: token(user) });
    client.send(4, refresh("alice")).await;
    let Body::TokenRefreshed(refreshed) = client.answer(4).await else {
        panic!("not refreshed");
    };
    assert!(refreshed.token_expires_ms > now_ms() + 3_000_000);
    // A token that ends sooner takes nothing away.
    let sooner = json!({"iss": "sluice", "sub": "alice", "ep": 1, "exp": now_ms() / 1000 + 60});
    let token = token_with(sooner);
    client
        .send(7, Body::RefreshToken(RefreshToken { token }))
        .await;
    let Body::TokenRefreshed(again) = client.answer(7).await else {
        panic!("not refreshed");
    };
    assert_eq!(again.token_expires_ms, refreshed.token_expires_ms);
    client.send(5, refresh("bob")).await;
    client.expect_error(ErrorCode::BadToken).await;
    client.send(6, Body::Ping(Ping {})).await;
    assert!(matches!(client.answer(6).await, Body::Pong(_)));
}

#[tokio::test]
async fn one_refresh_is_under_way_at_a_time() {
    let rig = Rig::start().await;
    let mut client = rig.connect().await;
    let connection = client.login("alice", "phone").await.connection_id;
    let connection = ConnectionId::parse(&connection).unwrap();
    let refresh = |token| Body::RefreshToken(RefreshToken { token });
    rig.services.hold_sessions(true);
    client.send(4, refresh(token("alice"))).await;
    // Busy comes before any look at the token.
    client.send(5, refresh("no token".into())).await;
    assert!(matches!(client.answer(5).await, Body::Busy(_)));
    rig.services.hold_sessions(false);
    assert!(matches!(client.answer(4).await, Body::TokenRefreshed(_)));
    // What never went up is not under way.
    for id in 6..9 {
        client.send(id, refresh("no token".into())).await;
        client.expect_error(ErrorCode::BadToken).await;
    }
    rig.services.hold_sessions(true);
    client.send(9, refresh(token("alice"))).await;
    client.send(10, refresh(token("alice"))).await;
    assert!(matches!(client.answer(10).await, Body::Busy(_)));
    // A refusal is an answer, too.
    let refused = delivery::Body::SessionRefused(SessionRefused {
        request_id: 9,
        code: ErrorCode::Internal.into(),
        reason: String::new(),
    });
    rig.services.deliver(connection, "alice", refused).await;
    assert!(matches!(client.answer(9).await, Body::Error(_)));
    client.send(11, refresh("no token".into())).await;
    client.expect_error(ErrorCode::BadToken).await;
    rig.services.hold_sessions(false);
}

#[tokio::test]
async fn a_silent_client_is_told_and_closed() {
    let mut config = config();
    config.timeouts.heartbeat_interval_ms = 200;
    let rig = Rig::start_with(config).await;
    let mut client = rig.login("alice").await;
    for id in 10..16 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.send(id, Body::Ping(Ping {})).await;
        assert!(matches!(client.answer(id).await, Body::Pong(_)));
    }
    client.expect_go_away(CloseReason::Idle).await;
}
