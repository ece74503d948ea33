//! A server that reads slowly.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt, StreamExt};
use sluice_client::{Client, ContentType, DeviceId, Endpoint, Transport};
use sluice_codec::PacketCodec;
use sluice_protocol::packet::{self, Packet, packet::Body};
use tokio::net::TcpSocket;
use tokio_util::codec::Framed;

use crate::messages::user;

/// With the size of a body more than all buffers on the way hold.
const SENDS: usize = 200;
const BODY_BYTES: usize = 60_000;
/// Less than any of the client's deadlines, which would wake it too.
const SOON: Duration = Duration::from_secs(6);

/// What waits in the session goes out when what waits on the link has: nothing
/// else happens meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_was_full_goes_on_when_it_has_drained() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let endpoint = Endpoint::tcp(listener.local_addr().unwrap());
    let (client, _events) = Client::builder(user("alice"), DeviceId::parse("phone").unwrap())
        .server(endpoint)
        .transport(Transport::Tcp)
        .token("alice")
        .start()
        .unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let mut server = Framed::new(stream, PacketCodec::new(65_536, 65_536));
    let connect = server.next().await.unwrap().unwrap();
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now_ms = unix.as_millis() as u64;
    let ack = packet::ConnectAck {
        server_time_ms: now_ms,
        token_expires_ms: now_ms + 3_600_000,
        heartbeat_interval_ms: 600_000,
        send_window: SENDS as u32,
        ..packet::ConnectAck::default()
    };
    let ack = Packet {
        id: connect.id,
        body: Some(Body::ConnectAck(ack)),
    };
    server.send(ack).await.unwrap();
    let body = "x".repeat(BODY_BYTES);
    let mut pending = Vec::new();
    for _ in 0..SENDS {
        let sent = client.send(user("bob"), ContentType::Text, body.clone());
        pending.push(sent.await.unwrap());
    }
    let arrived = async {
        let mut sends = 0;
        while sends < SENDS {
            let packet = server.next().await.unwrap().unwrap();
            sends += usize::from(matches!(packet.body, Some(Body::Send(_))));
        }
    };
    assert!(tokio::time::timeout(SOON, arrived).await.is_ok());
}
