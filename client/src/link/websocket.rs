//! A packet a binary message of WebSocket. An idle link owns about 2 KiB.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::{Sink, Stream};
use sluice_codec::{FrameError, decode_packet_bytes, encode_packet};
use sluice_protocol::{WEBSOCKET_SUBPROTOCOL, limits::FRAME_MAX_BYTES, packet::Packet};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, ClientRequestBuilder, Message, http::Uri, protocol::WebSocketConfig},
};

use super::READ_BYTES;
use crate::LinkError;

/// tungstenite keeps a read buffer of this size for each connection.
const WEBSOCKET_READ_BYTES: usize = 2 * 1024;

/// A packet a binary message.
pub(crate) struct WebSocketLink {
    stream: WebSocketStream<TcpStream>,
    queued: VecDeque<Message>,
    queued_bytes: usize,
    must_flush: bool,
}

// === impl WebSocketLink ===

impl WebSocketLink {
    pub(super) async fn connect(url: &str) -> Result<Self, LinkError> {
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

    pub(super) fn queue(&mut self, packet: &Packet) -> Result<(), LinkError> {
        let bytes = encode_packet(packet, FRAME_MAX_BYTES)
            .map_err(|error| LinkError::BadFrame(error.to_string()))?;
        self.queued_bytes += bytes.len();
        self.queued.push_back(Message::Binary(bytes));
        Ok(())
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Packet, LinkError>> {
        let _ = self.poll_write(cx)?;
        self.poll_read(cx)
    }

    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        ready!(self.poll_write(cx))?;
        Pin::new(&mut self.stream)
            .poll_close(cx)
            .map_err(websocket_error)
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

fn websocket_error(error: tungstenite::Error) -> LinkError {
    match error {
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            LinkError::Closed
        }
        tungstenite::Error::Io(error) => LinkError::Io(error),
        error => LinkError::WebSocket(Box::new(error)),
    }
}
