//! A client that does what a test tells it, and nothing by itself.

use std::{net::SocketAddr, time::Duration};

use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use sluice_codec::{
    PacketCodec,
    sealed_tcp::{SealedStream, StreamConnector},
};
use sluice_protocol::{
    ClientMsgId, PROTOCOL_VERSION, WEBSOCKET_SUBPROTOCOL,
    packet::{
        CloseReason, Connect, ConnectAck, Error, ErrorCode, Packet, Push, PushAck, Send,
        packet::Body, send::Target,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{self, client::IntoClientRequest},
};
use tokio_util::codec::Framed;

use crate::{
    rig::{datagram_key, now_ms, token},
    udp_client::UdpClient,
};

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) enum Client {
    Tcp(Framed<TcpStream, PacketCodec>),
    Ws(Box<WebSocketStream<MaybeTlsStream<TcpStream>>>),
    Udp(Box<UdpClient>),
}

pub(crate) fn packet(id: u64, body: Body) -> Packet {
    Packet {
        id,
        body: Some(body),
    }
}

/// A connect packet that is all right.
pub(crate) fn connect(user: &str, device: &str) -> Connect {
    Connect {
        protocol_version: PROTOCOL_VERSION,
        token: token(user),
        device_id: device.into(),
        nonce: rand::random::<[u8; 16]>().to_vec().into(),
        time_ms: now_ms(),
        user_id: user.into(),
        agent: "test".into(),
        ..Connect::default()
    }
}

/// A private text.
pub(crate) fn text(to: &str, body: &str) -> Send {
    let id = ClientMsgId::new(now_ms(), rand::random());
    Send {
        target: Some(Target::ToUser(to.into())),
        client_msg_id: id.as_bytes().to_vec().into(),
        body: body.to_owned().into(),
        ..Send::default()
    }
}

/// The handshake of an encrypted stream.
pub(crate) async fn open_sealed(socket: &mut TcpStream) -> SealedStream {
    let begun = StreamConnector::begin(datagram_key().pin(), rand::random());
    let (connector, opening) = begun.unwrap();
    socket.write_all(&opening).await.unwrap();
    let mut answer = [0; StreamConnector::ANSWER_BYTES];
    socket.read_exact(&mut answer).await.unwrap();
    connector.finish(&answer).unwrap()
}

// === impl Client ===

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self::Tcp(Framed::new(socket, PacketCodec::new(1 << 20, 1 << 20)))
    }

    /// With a small receive buffer: the kernel would take tens of megabytes for
    /// a client that does not read.
    pub(crate) async fn connect_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(32 * 1024).unwrap();
        let socket = socket.connect(address).await.unwrap();
        Self::Tcp(Framed::new(socket, PacketCodec::new(1 << 20, 1 << 20)))
    }

    /// Encrypted TCP.
    pub(crate) async fn connect_sealed(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self::seal(socket).await
    }

    /// The same, as [`Client::connect_narrow`].
    pub(crate) async fn connect_sealed_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(32 * 1024).unwrap();
        Self::seal(socket.connect(address).await.unwrap()).await
    }

    async fn seal(mut socket: TcpStream) -> Self {
        let stream = open_sealed(&mut socket).await;
        let codec = PacketCodec::sealed(1 << 20, 1 << 20, stream);
        Self::Tcp(Framed::new(socket, codec))
    }

    pub(crate) async fn connect_ws(address: SocketAddr) -> Self {
        let mut request = format!("ws://{address}/").into_client_request().unwrap();
        let protocol = WEBSOCKET_SUBPROTOCOL.parse().unwrap();
        let headers = request.headers_mut();
        headers.insert("Sec-WebSocket-Protocol", protocol);
        let (socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        Self::Ws(Box::new(socket))
    }

    pub(crate) async fn connect_udp(address: SocketAddr) -> Self {
        Self::Udp(Box::new(UdpClient::connect(address).await))
    }

    /// The UDP client, for what only that can do.
    pub(crate) fn udp(&mut self) -> &mut UdpClient {
        match self {
            Self::Udp(client) => client,
            _ => panic!("not a UDP client"),
        }
    }

    /// Logs in and expects it to work.
    pub(crate) async fn login(&mut self, user: &str, device: &str) -> ConnectAck {
        self.send(1, Body::Connect(connect(user, device))).await;
        match self.recv().await.unwrap() {
            Packet {
                id: 1,
                body: Some(Body::ConnectAck(ack)),
            } => ack,
            other => panic!("no ConnectAck but {other:?}"),
        }
    }

    pub(crate) async fn send(&mut self, id: u64, body: Body) {
        self.try_send(id, body).await.unwrap();
    }

    pub(crate) async fn try_send(&mut self, id: u64, body: Body) -> Result<(), String> {
        let packet = packet(id, body);
        match self {
            Self::Tcp(framed) => framed.send(packet).await.map_err(|e| e.to_string()),
            Self::Ws(socket) => {
                let message = tungstenite::Message::Binary(packet.encode_to_vec().into());
                socket.send(message).await.map_err(|e| e.to_string())
            }
            Self::Udp(client) => client.send(&packet).await,
        }
    }

    /// The next packet; `None` at the end of the connection.
    pub(crate) async fn recv(&mut self) -> Option<Packet> {
        let next = async {
            match self {
                Self::Tcp(framed) => framed.next().await.and_then(Result::ok),
                Self::Ws(socket) => loop {
                    match socket.next().await {
                        Some(Ok(tungstenite::Message::Binary(bytes))) => {
                            return Some(Packet::decode(bytes).unwrap());
                        }
                        Some(Ok(tungstenite::Message::Close(_)) | Err(_)) | None => return None,
                        Some(Ok(_)) => {}
                    }
                },
                Self::Udp(client) => client.recv().await,
            }
        };
        let next = tokio::time::timeout(PATIENCE, next).await;
        next.expect("neither a packet nor the end came")
    }

    /// The next packet that is answered with this id, others passed over.
    pub(crate) async fn answer(&mut self, id: u64) -> Body {
        loop {
            let packet = self.recv().await.expect("the connection ended");
            if packet.id == id {
                return packet.body.unwrap();
            }
        }
    }

    /// The next push, others passed over.
    pub(crate) async fn push(&mut self) -> Push {
        loop {
            if let Some(Body::Push(push)) = self.recv().await.expect("the connection ended").body {
                return push;
            }
        }
    }

    /// Expects an error with this code as the next packet.
    pub(crate) async fn expect_error(&mut self, code: ErrorCode) -> (u64, Error) {
        match self.recv().await {
            Some(Packet {
                id,
                body: Some(Body::Error(error)),
            }) => {
                assert_eq!(error.code(), code, "{}", error.reason);
                (id, error)
            }
            other => panic!("{code:?} was expected, not {other:?}"),
        }
    }

    /// Expects a GoAway with this reason, then the end.
    pub(crate) async fn expect_go_away(&mut self, reason: CloseReason) {
        match self.recv().await.and_then(|packet| packet.body) {
            Some(Body::GoAway(go_away)) => assert_eq!(go_away.reason(), reason),
            other => panic!("GoAway {reason:?} was expected, not {other:?}"),
        }
        self.expect_end().await;
    }

    /// Expects the connection to be closed by the server.
    pub(crate) async fn expect_end(&mut self) {
        assert_eq!(self.recv().await, None);
    }

    /// Expects silence for a while.
    pub(crate) async fn expect_silence(&mut self, span: Duration) {
        if let Ok(packet) = tokio::time::timeout(span, self.recv()).await {
            panic!("nothing was expected, not {packet:?}");
        }
    }

    pub(crate) async fn ack_pushes(&mut self, cumulative: u64) {
        let ack = PushAck {
            cumulative,
            ..PushAck::default()
        };
        self.send(0, Body::PushAck(ack)).await;
    }
}
