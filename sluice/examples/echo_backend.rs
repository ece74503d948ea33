//! A backend behind the gateway: whatever a client asks of the service `echo`,
//! it hears again, with the name that the gateway vouches for before it.
//!
//! On one node the bus is inside the process, so the backend runs beside the
//! system that `sluice serve` would start. Flags are those of `serve`'s
//! addresses: none; it listens on free ports and prints them, then runs until
//! Ctrl-C.

use std::{io::Write, sync::Arc};

use bytes::Bytes;
use prost::Message;
use sluice::{
    config::Config,
    node::{Node, Role},
};
use sluice_bus::{Bus, NodeName, Stream};
use sluice_protocol::{
    Partition,
    envelope::{BackendRequest, BackendResponse, Delivery, Down, Target, delivery},
    limits::SHARED_PARTITIONS,
};

const SERVICE: &str = "echo";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let any_port = "127.0.0.1:0".parse()?;
    let mut config = Config {
        data_dir: folder.path().to_path_buf(),
        http_address: any_port,
        ..Config::default()
    };
    config.gateway.tcp_address = Some(any_port);
    config.gateway.ws_address = Some(any_port);
    config.gateway.admin_address = Some(any_port);
    // The allow-list: clients may ask these services and no others.
    config.gateway.requests.services = vec![SERVICE.to_owned()];
    let system = Node::start(Role::All, config, None).await?;

    for partition in (0..SHARED_PARTITIONS).map(Partition) {
        tokio::spawn(serve(system.bus(), partition));
    }
    writeln!(
        std::io::stdout(),
        "{}",
        serde_json::to_string(&system.addresses)?
    )?;
    tokio::signal::ctrl_c().await?;
    system.stop().await
}

/// Reads one partition of the service's stream and answers, in order of keys.
async fn serve(bus: Arc<dyn Bus>, partition: Partition) -> anyhow::Result<()> {
    let stream = Stream::Request {
        service: SERVICE.to_owned(),
        partition,
    };
    let mut reader = bus
        .own(&stream, &NodeName(format!("{SERVICE}-{partition}")))
        .await?;
    loop {
        for entry in reader.read(64).await?.entries {
            let request = BackendRequest::decode(entry.payload.clone())?;
            if let Some(answer) = answer(request) {
                let (down, payload) = answer;
                // A gateway that is gone has no client to answer.
                let _ = bus.append(&down, vec![payload]).await;
            }
            reader.ack(&[entry.id]).await?;
        }
    }
}

/// One answer, for the gateway that asked. It drops answers that nobody waits for.
fn answer(request: BackendRequest) -> Option<(Stream, Bytes)> {
    let origin = request.origin?;
    let down = Stream::parse_down(&origin.reply_to)?;
    let mut payload = format!("{}: ", origin.user_id).into_bytes();
    payload.extend_from_slice(&request.payload);
    let response = BackendResponse {
        request_id: origin.request_id,
        status: 0,
        payload: payload.into(),
    };
    let delivery = Delivery {
        targets: vec![Target {
            connection_id: origin.connection_id,
            user_id: origin.user_id,
            user_seq: 0,
        }],
        body: Some(delivery::Body::Response(response)),
    };
    // Producer 0 doesn't count its entries; a lost answer times out by itself.
    let entry = Down {
        producer: 0,
        counter: 0,
        deliveries: vec![delivery],
    };
    Some((down, entry.encode_to_vec().into()))
}
