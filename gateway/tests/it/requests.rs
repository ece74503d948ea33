//! Requests for any backend.

use sluice_protocol::{
    envelope::{BackendResponse, delivery},
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
