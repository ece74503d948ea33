//! What connections cost, each by itself and summed in the metrics.

use std::time::Duration;

use serde_json::Value;
use sluice_client::{Event, HttpApi};

use crate::{account::Account, outages::metric, server::Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_connections_cost_is_told_by_part_and_in_sum() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    let admin = &server.addresses.admin;
    let api = HttpApi::new(&server.addresses.http).unwrap();
    let mut clients = Vec::new();
    for name in ["tcp", "ws", "udp"] {
        let account = Account::register(&api, name).await;
        let mut endpoint = server.endpoint();
        endpoint.tcp.take_if(|_| name != "tcp");
        endpoint.ws.take_if(|_| name != "ws");
        endpoint.udp.take_if(|_| name != "udp");
        let (client, mut events) = account.device_among("phone", vec![endpoint]);
        while !matches!(events.next().await.unwrap(), Event::CaughtUp) {}
        clients.push((client, events));
    }
    // Once nothing is under way, nothing changes between two questions.
    let mut rows = Vec::new();
    for _ in 0..200 {
        let url = format!("http://{admin}/admin/connections");
        let page: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        rows = page["connections"].as_array().unwrap().clone();
        if rows.len() == 3 && rows.iter().all(|row| row["asleep"] == true) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        metric(admin, "sluice_connections_asleep").await,
        3.0,
        "{rows:?}"
    );
    let mut sum_bytes = 0.0;
    for part in [
        "channel",
        "timer",
        "session",
        "sleeper",
        "sealing",
        "buffers",
        "datagrams",
        "queue",
        "window",
        "requests",
    ] {
        let bytes = rows.iter().map(|row| row["memory"][part].as_f64().unwrap());
        let bytes: f64 = bytes.sum();
        let name = format!("sluice_connection_bytes{{part=\"{part}\"}}");
        assert_eq!(metric(admin, &name).await, bytes, "{part}");
        sum_bytes += bytes;
    }
    let told = rows.iter().map(|row| row["memory_bytes"].as_f64().unwrap());
    assert_eq!(told.sum::<f64>(), sum_bytes);
    assert!(metric(admin, "sluice_connection_bytes{part=\"sleeper\"}").await > 0.0);
    for row in &rows {
        let send_max_bytes = row["socket"]["send_max_bytes"].as_u64();
        assert_eq!(send_max_bytes.is_some(), row["transport"] != "udp", "{row}");
    }
    assert!(server.terminate());
}
