//! The model behind real sockets.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use sluice_client::Endpoint;
use sluice_codec::{
    Decoder, Frame, Framing, Input,
    datagram::{ServerKey, ServerKeys},
    decode_packet, decode_packet_bytes, encode_packet,
};
use sluice_protocol::packet::{Packet, packet::Body};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    task::JoinSet,
};
use tokio_tungstenite::tungstenite::{
    Message,
    handshake::server::{Request, Response},
};

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
    /// TCP connections that logged in, in the clear and encrypted.
    pub(crate) plain: usize,
    pub(crate) sealed: usize,
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
        let key = ServerKey::from_secret(rand::random());
        let keys = ServerKeys::new(vec![key], "test").unwrap();
        tasks.spawn(listen(tcp, hub.clone(), Some(keys.clone())));
        tasks.spawn(listen(ws, hub.clone(), None));
        let udp = UdpPort::start(hub.clone(), keys, &mut tasks).await;
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

    /// TCP connections that logged in, in the clear and encrypted.
    pub(crate) fn streams(&self) -> (usize, usize) {
        let hub = self.hub.lock().unwrap();
        (hub.plain, hub.sealed)
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

/// With keys: of TCP; else of WebSocket.
async fn listen(listener: TcpListener, hub: Arc<Mutex<Hub>>, keys: Option<ServerKeys>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (conn, packets) = hub.lock().unwrap().open();
        let hub = hub.clone();
        match &keys {
            None => connections.spawn(serve_websocket(stream, conn, packets, hub)),
            Some(keys) => {
                let decoder = Decoder::tcp_or_sealed(65_536, keys.clone(), rand::random());
                connections.spawn(serve_tcp(stream, decoder, conn, packets, hub))
            }
        };
    }
}

/// Plain or encrypted, as the client begins.
async fn serve_tcp(
    mut stream: TcpStream,
    mut decoder: Decoder,
    conn: Conn,
    mut packets: mpsc::Receiver<Packet>,
    hub: Arc<Mutex<Hub>>,
) {
    let mut scratch = vec![0; 65_536];
    let mut out = BytesMut::new();
    loop {
        tokio::select! {
            read = stream.read(&mut scratch) => {
                let Ok(read @ 1..) = read else { break };
                let mut input = Input::new(&mut scratch[..read]);
                loop {
                    let is_sealed = decoder.is_sealed();
                    match decoder.decode(&mut input) {
                        Ok(Some(Frame::Handshake(answer))) => out.extend_from_slice(&answer),
                        Ok(Some(Frame::Packet(payload))) => {
                            let packet = decode_packet(payload).unwrap();
                            let mut hub = hub.lock().unwrap();
                            if let Some(Body::Connect(_)) = packet.body {
                                *(if is_sealed { &mut hub.sealed } else { &mut hub.plain }) += 1;
                            }
                            hub.handle(conn, packet);
                        }
                        Ok(Some(other)) => unreachable!("{other:?}"),
                        Ok(None) => break,
                        Err(_) => return leave(&hub, conn),
                    }
                }
            },
            packet = packets.recv() => match packet {
                Some(packet) => match decoder.sealer() {
                    Some(sealer) => sealer.append_packet(&packet, 65_536, &mut out).unwrap(),
                    None => Framing::Tcp.append_packet(&packet, 65_536, &mut out).unwrap(),
                },
                None => break,
            },
        }
        if stream.write_all(&out).await.is_err() {
            break;
        }
        out.clear();
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
