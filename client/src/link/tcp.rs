//! Length-framed packets over TCP, in the clear or encrypted. An idle link owns no buffer.

use std::{
    io,
    mem::MaybeUninit,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use sluice_codec::{
    PacketCodec, PacketCodecError,
    datagram::{ServerPin, ServerPins},
    sealed_tcp::StreamConnector,
};
use sluice_protocol::{
    limits::FRAME_MAX_BYTES,
    packet::{Packet, packet::Body},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
};
use tokio_util::codec::{Decoder, Encoder};

use super::READ_BYTES;
use crate::LinkError;

/// Of a packet that a server refuses encryption with.
const PLAIN_REFUSAL_MAX_BYTES: usize = 1024;

/// Length-framed packets.
pub(crate) struct TcpLink {
    stream: TcpStream,
    codec: PacketCodec,
    received: BytesMut,
    queued: BytesMut,
}

// === impl TcpLink ===

impl TcpLink {
    pub(super) async fn connect(address: SocketAddr) -> Result<Self, LinkError> {
        let codec = PacketCodec::new(FRAME_MAX_BYTES, FRAME_MAX_BYTES);
        Ok(Self::new(open(address).await?, codec))
    }

    /// With a server that has one of these keys. One that hasn't closes without an
    /// answer; then the next key is tried, on another connection.
    pub(super) async fn connect_sealed(
        address: SocketAddr,
        pins: &ServerPins,
    ) -> Result<Self, LinkError> {
        for pin in pins.iter() {
            match seal(open(address).await?, pin).await {
                Err(LinkError::WrongKey) => {}
                sealed => return sealed,
            }
        }
        Err(LinkError::WrongKey)
    }

    fn new(stream: TcpStream, codec: PacketCodec) -> Self {
        Self {
            stream,
            codec,
            received: BytesMut::new(),
            queued: BytesMut::new(),
        }
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.codec.is_sealed()
    }

    pub(super) fn queue(&mut self, packet: &Packet) -> Result<(), LinkError> {
        Ok(self.codec.encode(packet, &mut self.queued)?)
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queued.len()
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Packet, LinkError>> {
        let _ = self.poll_write(cx)?;
        self.poll_read(cx)
    }

    pub(super) fn next_received(&mut self) -> Option<Result<Packet, LinkError>> {
        self.decode().transpose()
    }

    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        ready!(self.poll_write(cx))?;
        Pin::new(&mut self.stream)
            .poll_shutdown(cx)
            .map_err(LinkError::Io)
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

async fn open(address: SocketAddr) -> Result<TcpStream, LinkError> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The handshake (SPEC, 17).
async fn seal(mut stream: TcpStream, pin: ServerPin) -> Result<TcpLink, LinkError> {
    let begun = StreamConnector::begin(pin, rand::random());
    let (connector, opening) = begun.map_err(|_| LinkError::WrongKey)?;
    stream.write_all(&opening).await?;
    let mut answer = [0; StreamConnector::ANSWER_BYTES];
    let mut filled = 0;
    while let Some(rest) = answer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest).await? {
            0 => break,
            read => filled += read,
        }
    }
    if filled == answer.len()
        && let Ok(sealed) = connector.finish(&answer)
    {
        let codec = PacketCodec::sealed(FRAME_MAX_BYTES, FRAME_MAX_BYTES, sealed);
        return Ok(TcpLink::new(stream, codec));
    }
    Err(refused(stream, answer.get(..filled).unwrap_or_default()).await)
}

/// Why there is no answer that opens. A server without room, or without encryption,
/// says so in a plain packet. Anybody on the way may have written that, so it is told
/// and nothing is done for it. One without the key closes without a word.
async fn refused(mut stream: TcpStream, began: &[u8]) -> LinkError {
    let mut codec = PacketCodec::new(PLAIN_REFUSAL_MAX_BYTES, PLAIN_REFUSAL_MAX_BYTES);
    let mut received = BytesMut::from(began);
    loop {
        match codec.decode(&mut received) {
            Ok(Some(packet)) => {
                return match packet.body {
                    Some(Body::GoAway(go_away)) => LinkError::ClosedFor(go_away.reason()),
                    _ => LinkError::NotEncrypted,
                };
            }
            Ok(None) => {}
            Err(_) => return LinkError::WrongKey,
        }
        match stream.read_buf(&mut received).await {
            Ok(0) | Err(_) => return LinkError::WrongKey,
            Ok(_) => {}
        }
    }
}

impl From<PacketCodecError> for LinkError {
    fn from(error: PacketCodecError) -> Self {
        match error {
            PacketCodecError::Io(error) => Self::Io(error),
            error => Self::BadFrame(error.to_string()),
        }
    }
}
