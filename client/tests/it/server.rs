//! The model behind real sockets.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use futures_util::{SinkExt, StreamExt};
use sluice_client::Endpoint;
use sluice_codec::{PacketCodec, decode_packet_bytes, encode_packet};
use sluice_protocol::packet::Packet;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    task::JoinSet,
};
use tokio_tungstenite::tungstenite::{
    Message,
    handshake::server::{Request, Response},
};
use tokio_util::codec::Framed;

use crate::{
    model::{Conn, ModelServer},
    udp_port::UdpPort,
};

/// Packets that wait for one connection of the server.
const OUT_MAX: usize = 10_000;

#[derive(Default)]
pub(crate) struct Hub {
    model: Option<ModelServer>,
    outs: HashMap<Conn, mpsc::Sender<Packet>>,
    next_conn: Conn,
    /// Told when something was put into one of the `outs`.
    pub(crate) sent: Arc<Notify>,
}

/// The model behind a port of each transport. Stops when dropped.
pub(crate) struct Server {
    hub: Arc<Mutex<Hub>>,
    tcp: SocketAddr,
    ws: SocketAddr,
    pub(crate) udp: UdpPort,
    _tasks: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let hub = Arc::new(Mutex::new(Hub {
            model: Some(ModelServer::new()),
            ..Hub::default()
        }));
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ws = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (tcp_address, ws_address) = (tcp.local_addr().unwrap(), ws.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(tcp, hub.clone(), false));
        tasks.spawn(listen(ws, hub.clone(), true));
        let udp = UdpPort::start(hub.clone(), &mut tasks).await;
        Self {
            hub,
            tcp: tcp_address,
            ws: ws_address,
            udp,
            _tasks: tasks,
        }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint {
            tcp: Some(self.tcp),
            ws: Some(format!("ws://{}/", self.ws)),
            udp: Some(self.udp.address),
            pins: Some(self.udp.pins.clone()),
        }
    }

    /// Does something to the model, and sends what comes of it.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut ModelServer) -> T) -> T {
        let mut hub = self.hub.lock().unwrap();
        hub.set_time();
        let done = act(hub.model.as_mut().unwrap());
        hub.send_out();
        done
    }

    /// Drops all connections.
    pub(crate) fn drop_connections(&self) {
        let mut hub = self.hub.lock().unwrap();
        hub.outs.clear();
        hub.sent.notify_one();
        hub.model.as_mut().unwrap().conns.clear();
    }
}

impl Hub {
    fn set_time(&mut self) {
        let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        self.model.as_mut().unwrap().now_ms = unix.unwrap().as_millis() as u64;
    }

    fn send_out(&mut self) {
        while let Some((conn, packet)) = self.model.as_mut().unwrap().out.pop_front() {
            if let Some(out) = self.outs.get(&conn) {
                let _ = out.try_send(packet);
            }
        }
        self.sent.notify_one();
    }

    /// A new connection, and the packets for it.
    pub(crate) fn open(&mut self) -> (Conn, mpsc::Receiver<Packet>) {
        let (out, packets) = mpsc::channel(OUT_MAX);
        self.next_conn += 1;
        self.outs.insert(self.next_conn, out);
        (self.next_conn, packets)
    }

    pub(crate) fn handle(&mut self, conn: Conn, packet: Packet) {
        self.set_time();
        self.model.as_mut().unwrap().handle(conn, packet);
        self.send_out();
    }
}

async fn listen(listener: TcpListener, hub: Arc<Mutex<Hub>>, is_websocket: bool) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (conn, packets) = hub.lock().unwrap().open();
        let hub = hub.clone();
        if is_websocket {
            connections.spawn(serve_websocket(stream, conn, packets, hub));
        } else {
            connections.spawn(serve_tcp(stream, conn, packets, hub));
        }
    }
}

async fn serve_tcp(
    stream: TcpStream,
    conn: Conn,
    mut packets: mpsc::Receiver<Packet>,
    hub: Arc<Mutex<Hub>>,
) {
    let mut framed = Framed::new(stream, PacketCodec::new(65_536, 65_536));
    loop {
        tokio::select! {
            packet = framed.next() => match packet {
                Some(Ok(packet)) => hub.lock().unwrap().handle(conn, packet),
                _ => break,
            },
            packet = packets.recv() => match packet {
                Some(packet) => if framed.send(packet).await.is_err() { break },
                None => break,
            },
        }
    }
    leave(&hub, conn);
}

async fn serve_websocket(
    stream: TcpStream,
    conn: Conn,
    mut packets: mpsc::Receiver<Packet>,
    hub: Arc<Mutex<Hub>>,
) {
    #[allow(clippy::result_large_err)]
    let handshake = |request: &Request, mut response: Response| {
        let protocol = request.headers()["sec-websocket-protocol"].clone();
        assert_eq!(protocol, "sluice.v1");
        let headers = response.headers_mut();
        headers.insert("sec-websocket-protocol", protocol);
        Ok(response)
    };
    let accepted = tokio_tungstenite::accept_hdr_async(stream, handshake).await;
    let Ok(mut stream) = accepted else { return };
    loop {
        tokio::select! {
            message = stream.next() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    let packet = decode_packet_bytes(bytes).unwrap();
                    hub.lock().unwrap().handle(conn, packet);
                }
                Some(Ok(_)) => {}
                _ => break,
            },
            packet = packets.recv() => match packet {
                Some(packet) => {
                    let bytes = encode_packet(&packet, 65_536).unwrap();
                    if stream.send(Message::Binary(bytes)).await.is_err() { break }
                }
                None => break,
            },
        }
    }
    leave(&hub, conn);
}

pub(crate) fn leave(hub: &Mutex<Hub>, conn: Conn) {
    let mut hub = hub.lock().unwrap();
    hub.outs.remove(&conn);
    hub.model.as_mut().unwrap().close(conn);
}
