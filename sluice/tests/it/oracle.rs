//! The oracle over real sockets: each kind of harm, done below the SDK, is caught.

use std::time::Duration;

use sluice::demo::{self, DemoOptions, Report, Server as DemoServer};
use sluice_client::{Endpoint, Transport};

use crate::{
    hostile_link::{self, Harm},
    server::Server,
};

async fn run(harm: Option<Harm>) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    let tcp = match harm {
        Some(harm) => hostile_link::start(server.addresses.tcp, harm).await,
        None => server.addresses.tcp,
    };
    demo::run(DemoOptions {
        data: None,
        limit: 8,
        transports: vec![Transport::Tcp],
        groups: Some(0),
        faults: "".parse().unwrap(),
        seed: 1,
        server: DemoServer::Behind {
            http: server.addresses.http.clone(),
            endpoint: Endpoint::tcp(tcp),
        },
        patience: Duration::from_secs(3),
        progress: false,
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn without_harm_all_is_well() {
    let report = run(None).await;
    assert!(report.ok, "{}", report.table());
}

#[tokio::test]
async fn a_lost_message_is_caught() {
    let report = run(Some(Harm::Lose)).await;
    assert!(!report.ok && report.faults.lost >= 1, "{}", report.table());
}

#[tokio::test]
async fn a_doubled_message_is_caught() {
    let report = run(Some(Harm::Double)).await;
    assert!(
        !report.ok && report.faults.duplicated >= 1,
        "{}",
        report.table()
    );
}

#[tokio::test]
async fn swapped_messages_are_caught() {
    let report = run(Some(Harm::Swap)).await;
    assert!(
        !report.ok && report.faults.reordered >= 1,
        "{}",
        report.table()
    );
}

#[tokio::test]
async fn an_altered_message_is_caught() {
    let report = run(Some(Harm::Alter)).await;
    assert!(
        !report.ok && report.faults.corrupted >= 1,
        "{}",
        report.table()
    );
}

#[tokio::test]
async fn an_unacked_send_is_caught() {
    let report = run(Some(Harm::Unack)).await;
    assert!(
        !report.ok && report.acked < report.messages && report.faults.lost >= 1,
        "{}",
        report.table()
    );
}

#[tokio::test]
async fn users_who_disagree_on_a_seq_are_caught() {
    let report = run(Some(Harm::Disagree)).await;
    assert!(
        !report.ok && report.faults.reordered >= 1,
        "{}",
        report.table()
    );
}
