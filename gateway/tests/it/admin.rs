//! Admin HTTP.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::rig::{Rig, config};

/// Status and body of a GET.
pub(crate) async fn get(address: SocketAddr, path: &str, bearer: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n{}\r\n",
        if bearer.is_empty() {
            String::new()
        } else {
            format!("Authorization: Bearer {bearer}\r\n")
        }
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// `/admin/connections` with this query.
pub(crate) async fn connections(address: SocketAddr, query: &str) -> serde_json::Value {
    let (status, body) = get(address, &format!("/admin/connections{query}"), "").await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Errors have the form of the other APIs.
async fn refused(address: SocketAddr, path: &str, status: u16, code: &str) {
    let (given, body) = get(address, path, "").await;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((given, body["code"].as_str()), (status, Some(code)));
    assert!(body["reason"].is_string(), "{body}");
}

#[tokio::test]
async fn health_metrics_and_connections() {
    let rig = Rig::start().await;
    let _clients = (rig.login("alice").await, rig.login("bob").await);
    assert_eq!(get(rig.admin, "/healthz", "").await.0, 200);
    assert_eq!(get(rig.admin, "/readyz", "").await.0, 200);
    let (status, metrics) = get(rig.admin, "/metrics", "").await;
    assert_eq!(status, 200);
    for name in [
        "sluice_gateway_connections",
        "sluice_gateway_packets_in_total",
        "sluice_gateway_lane_append_seconds_bucket",
    ] {
        assert!(metrics.contains(name), "{name} is missing");
    }
    let all = connections(rig.admin, "?sort=age").await;
    assert_eq!(all["total"], 2);
    let rows = all["connections"].as_array().unwrap();
    let mut users: Vec<_> = rows
        .iter()
        .map(|row| row["user"].as_str().unwrap())
        .collect();
    users.sort_unstable();
    assert_eq!(users, ["alice", "bob"]);
    for row in rows {
        assert_eq!(
            (&row["phase"], &row["transport"]),
            (&"open".into(), &"tcp".into())
        );
        let memory = row["memory_bytes"].as_u64().unwrap();
        assert!(
            (100..1_000).contains(&memory),
            "{memory} bytes for an idle channel"
        );
    }
    let page = connections(rig.admin, "?sort=memory&offset=1&limit=1").await;
    assert_eq!(page["connections"].as_array().unwrap().len(), 1);
    refused(rig.admin, "/admin/connections?sort=x", 400, "bad_request").await;
    refused(rig.admin, "/admin/none", 404, "not_found").await;
}

#[tokio::test]
async fn a_token_guards_what_is_not_health() {
    let mut config = config();
    config.admin_token = "secret".into();
    let rig = Rig::start_with(config).await;
    assert_eq!(get(rig.admin, "/healthz", "").await.0, 200);
    for path in ["/metrics", "/admin/connections"] {
        refused(rig.admin, path, 401, "bad_token").await;
        assert_eq!(get(rig.admin, path, "secres").await.0, 401);
        assert_eq!(get(rig.admin, path, "secret").await.0, 200);
    }
}
