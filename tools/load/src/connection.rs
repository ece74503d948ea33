//! One connection of the crowd: handshake, login, heartbeat.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
};

use mio::net::TcpStream;
use sluice_codec::{decode_packet, encode_packet};
use sluice_protocol::{
    WEBSOCKET_SUBPROTOCOL,
    limits::FRAME_MAX_BYTES,
    packet::{self, Packet, packet::Body},
};

use crate::{LoadError, Login, frame::LoadTransport};

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Waiting for the socket, then for the WebSocket handshake's answer.
    Opening,
    /// Waiting for `ConnectAck`.
    LoggingIn,
    /// Logged in.
    Held,
}

/// One connection. Keeps no buffer between two frames.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) stage: Stage,
    /// The socket has been writable: the first thing was said.
    pub(crate) greeted: bool,
    /// What the server asks for, once logged in.
    pub(crate) heartbeat_interval_ms: u32,
    transport: LoadTransport,
    partial: Vec<u8>,
}

/// The server's half of a frame: where its payload lies, and where it ends.
struct FrameSpan {
    payload: std::ops::Range<usize>,
    is_packet: bool,
}

// === impl Connection ===

impl Connection {
    pub(crate) fn open(address: SocketAddr, transport: LoadTransport) -> io::Result<Self> {
        Ok(Self {
            stream: TcpStream::connect(address)?,
            stage: Stage::Opening,
            greeted: false,
            heartbeat_interval_ms: 0,
            transport,
            partial: Vec::new(),
        })
    }

    /// The socket is connected: says the first thing.
    pub(crate) fn begin(&mut self, address: SocketAddr, login: &Login) -> Result<(), LoadError> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error.into());
        }
        self.stream.set_nodelay(true)?;
        match self.transport {
            LoadTransport::Tcp => self.log_in(login),
            LoadTransport::WebSocket => {
                let request = format!(
                    "GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                     Sec-WebSocket-Protocol: {WEBSOCKET_SUBPROTOCOL}\r\n\r\n"
                );
                self.write(request.as_bytes())
            }
        }
    }

    /// Takes what has come; true when it has just been logged in.
    pub(crate) fn read(&mut self, scratch: &mut [u8], login: &Login) -> Result<bool, LoadError> {
        let before = self.stage;
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Err(LoadError::Closed),
                Ok(count) => self.partial.extend_from_slice(&scratch[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
            if self.partial.len() > 4 * FRAME_MAX_BYTES {
                return Err(LoadError::Unexpected(
                    "more bytes than a frame may have".into(),
                ));
            }
            self.take_frames(login)?;
        }
        if self.partial.is_empty() {
            self.partial = Vec::new();
        }
        Ok(before != Stage::Held && self.stage == Stage::Held)
    }

    /// A sign of life.
    pub(crate) fn ping(&mut self) -> Result<(), LoadError> {
        self.send(&encoded(Body::Ping(packet::Ping {}))?)
    }

    fn take_frames(&mut self, login: &Login) -> Result<(), LoadError> {
        if self.stage == Stage::Opening && self.transport == LoadTransport::WebSocket {
            let Some(end) = self
                .partial
                .windows(4)
                .position(|bytes| bytes == b"\r\n\r\n")
            else {
                return Ok(());
            };
            if !self.partial.starts_with(b"HTTP/1.1 101") {
                let answer = String::from_utf8_lossy(&self.partial[..end]).into_owned();
                return Err(LoadError::Unexpected(answer));
            }
            self.partial.drain(..end + 4);
            self.log_in(login)?;
        }
        while let Some(span) = self.next_frame() {
            let end = span.payload.end;
            if span.is_packet {
                let packet = decode_packet(&self.partial[span.payload])
                    .map_err(|error| LoadError::Unexpected(error.to_string()))?;
                self.take_packet(packet)?;
            }
            self.partial.drain(..end);
        }
        Ok(())
    }

    fn next_frame(&self) -> Option<FrameSpan> {
        let bytes = self.partial.as_slice();
        let (start, length, is_packet): (usize, usize, bool) = match self.transport {
            LoadTransport::Tcp => {
                let head: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
                (4, u32::from_be_bytes(head) as usize, true)
            }
            LoadTransport::WebSocket => {
                let is_packet = bytes.first()? & 0x0f == 2;
                match usize::from(bytes.get(1)? & 0x7f) {
                    126 => {
                        let long: [u8; 2] = bytes.get(2..4)?.try_into().ok()?;
                        (4, usize::from(u16::from_be_bytes(long)), is_packet)
                    }
                    127 => {
                        let long: [u8; 8] = bytes.get(2..10)?.try_into().ok()?;
                        (
                            10,
                            usize::try_from(u64::from_be_bytes(long)).ok()?,
                            is_packet,
                        )
                    }
                    short => (2, short, is_packet),
                }
            }
        };
        let end = start.checked_add(length)?;
        (end <= bytes.len()).then_some(FrameSpan {
            payload: start..end,
            is_packet,
        })
    }

    fn take_packet(&mut self, packet: Packet) -> Result<(), LoadError> {
        match packet.body {
            Some(Body::ConnectAck(ack)) => {
                self.heartbeat_interval_ms = ack.heartbeat_interval_ms;
                self.stage = Stage::Held;
                Ok(())
            }
            Some(Body::Error(error)) => {
                let code = error.code();
                Err(LoadError::Refused {
                    code: code.as_str_name(),
                    reason: error.reason,
                })
            }
            Some(Body::Kick(kick)) => Err(LoadError::Unexpected(format!("kicked: {kick:?}"))),
            _ => Ok(()),
        }
    }

    fn log_in(&mut self, login: &Login) -> Result<(), LoadError> {
        self.stage = Stage::LoggingIn;
        self.send(&login.packet()?)
    }

    fn send(&mut self, packet: &[u8]) -> Result<(), LoadError> {
        let mut frame = Vec::with_capacity(packet.len() + 8);
        match self.transport {
            LoadTransport::Tcp => frame.extend((packet.len() as u32).to_be_bytes()),
            LoadTransport::WebSocket => {
                frame.push(0x82);
                match packet.len() {
                    short @ 0..126 => frame.push(0x80 | short as u8),
                    long => {
                        frame.push(0x80 | 126);
                        frame.extend((long as u16).to_be_bytes());
                    }
                }
                // A mask of zeros leaves the payload as it is.
                frame.extend([0; 4]);
            }
        }
        frame.extend_from_slice(packet);
        self.write(&frame)
    }

    /// Writes what fits any empty socket buffer.
    fn write(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        let written = self.stream.write(bytes)?;
        if written < bytes.len() {
            return Err(LoadError::Unexpected(
                "a socket took less than one small frame".into(),
            ));
        }
        Ok(())
    }
}

pub(crate) fn encoded(body: Body) -> Result<Vec<u8>, LoadError> {
    let packet = Packet {
        id: 1,
        body: Some(body),
    };
    let encoded = encode_packet(&packet, FRAME_MAX_BYTES);
    let encoded = encoded.map_err(|error| LoadError::Unexpected(error.to_string()))?;
    Ok(encoded.to_vec())
}
