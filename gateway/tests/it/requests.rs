//! Requests for any backend.

use std::time::Duration;

use sluice_protocol::{
    envelope::{BackendResponse, delivery},
    limits::BODY_MAX_BYTES,
    packet::{ErrorCode, Request, packet::Body},
};

use crate::rig::{Rig, config, eventually};

fn request(service: &str, timeout_ms: u32) -> Body {
    Body::Request(Request {
        service: service.into(),
        key: b"k".to_vec().into(),
        payload: b"payload".to_vec().into(),
        timeout_ms,
    })
}

async fn respond_unasked(rig: &Rig, request_id: u64) {
    let connection = rig.services.routes("alice").await[0].connection;
    let body = delivery::Body::Response(BackendResponse {
        request_id,
        ..BackendResponse::default()
    });
    rig.services.deliver(connection, "alice", body).await;
}

#[tokio::test]
async fn a_backend_answers_what_is_pending_and_nothing_else() {
    let rig = Rig::start().await;
    let mut alice = rig.login("alice").await;
    alice.send(5, request("echo", 0)).await;
    let Body::Response(response) = alice.answer(5).await else {
        panic!("no response");
    };
    assert_eq!(response.payload.as_ref(), b"payload");
    let seen = rig.services.seen().await.requests.remove(0);
    assert_eq!(seen.origin.unwrap().user_id, "alice");
    assert_eq!(seen.service, "echo");

    // Answered already, and never asked.
    respond_unasked(&rig, 5).await;
    respond_unasked(&rig, 6).await;
    alice.send(7, request("echo", 0)).await;
    assert_eq!(alice.recv().await.unwrap().id, 7);
}

#[tokio::test]
async fn unknown_services_and_silent_ones_are_named() {
    let mut config = config();
    config.requests.pending_max = 2;
    let rig = Rig::start_with(config).await;
    let mut alice = rig.login("alice").await;
    alice.send(2, request("root", 0)).await;
    alice.expect_error(ErrorCode::UnknownService).await;
    alice.send(0, request("echo", 0)).await;
    alice.expect_error(ErrorCode::BadRequest).await;

    alice.send(3, request("silent", 300)).await;
    alice.send(4, request("silent", 60_000)).await;
    alice.send(4, request("silent", 300)).await;
    alice.expect_error(ErrorCode::BadRequest).await;
    alice.send(5, request("silent", 300)).await;
    assert_eq!(alice.expect_error(ErrorCode::TooManyPending).await.0, 5);
    assert_eq!(alice.expect_error(ErrorCode::Timeout).await.0, 3);

    eventually("asked", async || {
        rig.services.seen().await.requests.len() == 2
    })
    .await;
    respond_unasked(&rig, 3).await;
    alice.send(6, request("echo", 0)).await;
    assert_eq!(alice.recv().await.unwrap().id, 6);
}

#[tokio::test]
async fn nobody_answers_in_the_place_of_another() {
    let rig = Rig::start().await;
    let mut alice = rig.login("alice").await;
    let mut bob = rig.login("bob").await;
    let of_alice = rig.services.routes("alice").await[0].connection;
    let of_bob = rig.services.routes("bob").await[0].connection;
    alice.send(5, request("silent", 0)).await;
    bob.send(6, request("silent", 0)).await;
    eventually("asked", async || {
        rig.services.seen().await.requests.len() == 2
    })
    .await;
    let response = |request_id: u64, size: usize| {
        delivery::Body::Response(BackendResponse {
            request_id,
            payload: vec![b'x'; size].into(),
            ..BackendResponse::default()
        })
    };
    // Another's request, another's connection, another's name.
    rig.services.deliver(of_bob, "bob", response(5, 1)).await;
    rig.services
        .deliver(of_alice, "alice", response(6, 1))
        .await;
    rig.services.deliver(of_bob, "alice", response(6, 1)).await;
    rig.services.deliver(of_alice, "bob", response(5, 1)).await;
    alice.expect_silence(Duration::from_millis(200)).await;
    bob.expect_silence(Duration::from_millis(50)).await;

    rig.services
        .deliver(of_alice, "alice", response(5, 1))
        .await;
    rig.services
        .deliver(of_alice, "alice", response(5, 1))
        .await;
    assert!(matches!(alice.answer(5).await, Body::Response(_)));
    alice.expect_silence(Duration::from_millis(200)).await;
    let too_much = response(6, BODY_MAX_BYTES + 1);
    rig.services.deliver(of_bob, "bob", too_much).await;
    bob.expect_error(ErrorCode::Internal).await;
}

#[tokio::test]
async fn the_gateway_writes_who_asks_and_how_long_it_waits() {
    let mut config = config();
    config.requests.timeout_default_ms = 300;
    config.requests.timeout_max_ms = 600;
    let rig = Rig::start_with(config).await;
    let mut alice = rig.login("alice").await;
    alice.send(8, request("silent", 0)).await;
    alice.send(9, request("silent", 3_600_000)).await;
    assert_eq!(alice.expect_error(ErrorCode::Timeout).await.0, 8);
    assert_eq!(alice.expect_error(ErrorCode::Timeout).await.0, 9);

    let connection = rig.services.routes("alice").await[0].connection;
    let seen = rig.services.seen().await.requests;
    let waits: Vec<u64> = seen
        .iter()
        .map(|r| r.deadline_ms - r.received_at_ms)
        .collect();
    assert_eq!(waits, [300, 600]);
    for (request, id) in seen.into_iter().zip([8, 9]) {
        let origin = request.origin.unwrap();
        assert_eq!(
            (origin.user_id.as_str(), origin.device_id.as_str()),
            ("alice", "phone")
        );
        assert_eq!(origin.connection_id.as_ref(), connection.to_bytes());
        assert_eq!(origin.request_id, id);
        assert_eq!(origin.reply_to, format!("down:{{{}}}", rig.incarnation));
    }
}

#[test]
fn a_service_with_an_odd_name_is_not_offered() {
    for odd in ["", "a b", "a:{1}", "ü", &"x".repeat(65)] {
        let mut config = config();
        config.requests.services = vec![odd.to_owned()];
        assert!(config.check().is_err(), "{odd:?}");
    }
    assert!(config().check().is_ok());
}
