//! One connection: packets over TCP or WebSocket.
//!
//! Polled as a whole (writes what is queued, then reads), so that a peer who
//! doesn't read never keeps this side from reading. An idle TCP link owns no
//! buffer, a WebSocket one about 2 KiB.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    mem::MaybeUninit,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use futures_util::{Sink, Stream};
use sluice_codec::{FrameError, PacketCodec, PacketCodecError, decode_packet_bytes, encode_packet};
use sluice_protocol::{WEBSOCKET_SUBPROTOCOL, limits::FRAME_MAX_BYTES, packet::Packet};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, ClientRequestBuilder, Message, http::Uri, protocol::WebSocketConfig},
};
use tokio_util::codec::{Decoder, Encoder};

use crate::{LinkError, endpoint::Route};

/// Bytes that one read takes at most; they lie on the stack.
const READ_BYTES: usize = 16 * 1024;
/// tungstenite keeps a read buffer of this size for each connection.
const WEBSOCKET_READ_BYTES: usize = 2 * 1024;
/// A farewell that isn't written within this span isn't waited for.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// One connection.
pub(crate) enum Link {
    Tcp(TcpLink),
    WebSocket(Box<WebSocketLink>),
}

/// Length-framed packets.
pub(crate) struct TcpLink {
    stream: TcpStream,
    codec: PacketCodec,
    received: BytesMut,
    queued: BytesMut,
}

/// A packet a binary message.
pub(crate) struct WebSocketLink {
    stream: WebSocketStream<TcpStream>,
    queued: VecDeque<Message>,
    queued_bytes: usize,
    must_flush: bool,
}

// === impl Link ===

impl Link {
    /// Connects, within this span.
    pub(crate) async fn connect(route: Route<'_>, timeout: Duration) -> Result<Self, LinkError> {
        let connecting = async {
            match route {
                Route::Tcp(address) => TcpLink::connect(address).await.map(Self::Tcp),
                Route::WebSocket(url) => WebSocketLink::connect(url)
                    .await
                    .map(|link| Self::WebSocket(Box::new(link))),
            }
        };
        tokio::time::timeout(timeout, connecting)
            .await
            .map_err(|_| LinkError::Timeout)?
    }

    /// Queues a packet for the next [`Link::poll`].
    pub(crate) fn queue(&mut self, packet: &Packet) -> Result<(), LinkError> {
        match self {
            Self::Tcp(link) => Ok(link.codec.encode(packet, &mut link.queued)?),
            Self::WebSocket(link) => {
                let bytes = encode_packet(packet, FRAME_MAX_BYTES)
                    .map_err(|error| LinkError::BadFrame(error.to_string()))?;
                link.queued_bytes += bytes.len();
                link.queued.push_back(Message::Binary(bytes));
                Ok(())
            }
        }
    }

    /// What waits to be written, in bytes.
    pub(crate) fn queued_bytes(&self) -> usize {
        match self {
            Self::Tcp(link) => link.queued.len(),
            Self::WebSocket(link) => link.queued_bytes,
        }
    }

    /// Writes what it can, and gives the next packet. After an error it is over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Packet, LinkError>> {
        match self {
            Self::Tcp(link) => {
                let _ = link.poll_write(cx)?;
                link.poll_read(cx)
            }
            Self::WebSocket(link) => {
                let _ = link.poll_write(cx)?;
                link.poll_read(cx)
            }
        }
    }

    /// A packet that has been read already.
    pub(crate) fn next_received(&mut self) -> Option<Result<Packet, LinkError>> {
        match self {
            Self::Tcp(link) => link.decode().transpose(),
            Self::WebSocket(_) => None,
        }
    }

    /// Writes what is queued, and closes.
    pub(crate) async fn finish(mut self) {
        let finished = poll_fn(|cx| match &mut self {
            Self::Tcp(link) => {
                ready!(link.poll_write(cx))?;
                Pin::new(&mut link.stream)
                    .poll_shutdown(cx)
                    .map_err(LinkError::Io)
            }
            Self::WebSocket(link) => {
                ready!(link.poll_write(cx))?;
                Pin::new(&mut link.stream)
                    .poll_close(cx)
                    .map_err(websocket_error)
            }
        });
        // Nobody is left to be told that the farewell failed.
        let _ = tokio::time::timeout(FINISH_TIMEOUT, finished).await;
    }
}

// === impl TcpLink ===

impl TcpLink {
    async fn connect(address: SocketAddr) -> Result<Self, LinkError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            codec: PacketCodec::new(FRAME_MAX_BYTES, FRAME_MAX_BYTES),
            received: BytesMut::new(),
            queued: BytesMut::new(),
        })
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        while !self.queued.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.queued))?;
            if written == 0 {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
            }
            self.queued.advance(written);
        }
        self.queued = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Packet, LinkError>> {
        loop {
            if let Some(packet) = self.decode()? {
                return Poll::Ready(Ok(packet));
            }
            let mut scratch = [MaybeUninit::uninit(); READ_BYTES];
            let mut read = ReadBuf::uninit(&mut scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Err(LinkError::Closed));
            }
            self.received.extend_from_slice(read.filled());
        }
    }

    fn decode(&mut self) -> Result<Option<Packet>, LinkError> {
        let packet = self.codec.decode(&mut self.received)?;
        if packet.is_none() && self.received.is_empty() {
            // Gives the buffer back.
            self.received = BytesMut::new();
        }
        Ok(packet)
    }
}

// === impl WebSocketLink ===

impl WebSocketLink {
    async fn connect(url: &str) -> Result<Self, LinkError> {
        let bad_url = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad_url("not a URL"))?;
        if uri.scheme_str() != Some("ws") {
            return Err(bad_url("only ws:// URLs are supported").into());
        }
        let host = uri.host().ok_or_else(|| bad_url("no host in the URL"))?;
        // An IPv6 host has brackets in a URL only.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
        stream.set_nodelay(true)?;
        let request = ClientRequestBuilder::new(uri).with_sub_protocol(WEBSOCKET_SUBPROTOCOL);
        let config = WebSocketConfig::default()
            .read_buffer_size(WEBSOCKET_READ_BYTES)
            .write_buffer_size(READ_BYTES)
            .max_write_buffer_size(16 * FRAME_MAX_BYTES)
            .max_message_size(Some(FRAME_MAX_BYTES))
            .max_frame_size(Some(FRAME_MAX_BYTES));
        let (stream, _response) = client_async_with_config(request, stream, Some(config))
            .await
            .map_err(websocket_error)?;
        Ok(Self {
            stream,
            queued: VecDeque::new(),
            queued_bytes: 0,
            must_flush: false,
        })
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let mut stream = Pin::new(&mut self.stream);
        while !self.queued.is_empty() {
            ready!(stream.as_mut().poll_ready(cx)).map_err(websocket_error)?;
            if let Some(message) = self.queued.pop_front() {
                self.queued_bytes -= message.len();
                stream
                    .as_mut()
                    .start_send(message)
                    .map_err(websocket_error)?;
                self.must_flush = true;
            }
        }
        if self.must_flush {
            ready!(stream.poll_flush(cx)).map_err(websocket_error)?;
            self.must_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Packet, LinkError>> {
        loop {
            let message = match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
                Some(message) => message.map_err(websocket_error)?,
                None => return Poll::Ready(Err(LinkError::Closed)),
            };
            match message {
                Message::Binary(bytes) => match decode_packet_bytes(bytes) {
                    Ok(packet) => return Poll::Ready(Ok(packet)),
                    Err(FrameError::UnknownPacket { .. }) => {}
                    Err(error) => return Poll::Ready(Err(LinkError::BadFrame(error.to_string()))),
                },
                Message::Text(_) => {
                    let error = LinkError::BadFrame("a text message".to_owned());
                    return Poll::Ready(Err(error));
                }
                Message::Close(_) => return Poll::Ready(Err(LinkError::Closed)),
                // tungstenite answers pings by itself, with the next flush.
                Message::Ping(_) => self.must_flush = true,
                Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }
}

// === impl LinkError ===

impl From<PacketCodecError> for LinkError {
    fn from(error: PacketCodecError) -> Self {
        match error {
            PacketCodecError::Io(error) => Self::Io(error),
            error => Self::BadFrame(error.to_string()),
        }
    }
}

fn websocket_error(error: tungstenite::Error) -> LinkError {
    match error {
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            LinkError::Closed
        }
        tungstenite::Error::Io(error) => LinkError::Io(error),
        error => LinkError::WebSocket(Box::new(error)),
    }
}
