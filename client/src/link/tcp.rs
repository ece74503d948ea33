//! Length-framed packets over TCP. An idle link owns no buffer.

use std::{
    io,
    mem::MaybeUninit,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use sluice_codec::{PacketCodec, PacketCodecError};
use sluice_protocol::{limits::FRAME_MAX_BYTES, packet::Packet};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_util::codec::{Decoder, Encoder};

use super::READ_BYTES;
use crate::LinkError;

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
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            codec: PacketCodec::new(FRAME_MAX_BYTES, FRAME_MAX_BYTES),
            received: BytesMut::new(),
            queued: BytesMut::new(),
        })
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

impl From<PacketCodecError> for LinkError {
    fn from(error: PacketCodecError) -> Self {
        match error {
            PacketCodecError::Io(error) => Self::Io(error),
            error => Self::BadFrame(error.to_string()),
        }
    }
}
