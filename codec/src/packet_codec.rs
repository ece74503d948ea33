//! The TCP framing for tokio: what the client SDK reads and writes with.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use sluice_protocol::packet::Packet;
use tokio_util::codec::{Decoder, Encoder};

use crate::{
    EncodeError, FRAME_MAX_BYTES_CEILING, FrameError, Framing, decode_packet_bytes,
    sealed_tcp::{SEALED_OVERHEAD_BYTES, SealedStream},
    tcp,
};

/// Packets over a byte stream, for `tokio_util::codec::Framed`.
///
/// Decodes without copying: `bytes` fields share the read buffer. Packets of an
/// unknown type are passed over (see [`FrameError::UnknownPacket`]).
#[derive(Debug)]
pub struct PacketCodec {
    decode_max_bytes: u32,
    encode_max_bytes: usize,
    /// For an encrypted stream.
    sealed: Option<Box<SealedStream>>,
}

/// Why a stream of packets ended.
#[derive(Debug, thiserror::Error)]
pub enum PacketCodecError {
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer sent what is no packet.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The packet to be sent cannot be; nothing of it was written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

// === impl PacketCodec ===

impl PacketCodec {
    /// Takes and sends frames of at most these many bytes of encoded packet.
    pub fn new(decode_max_bytes: usize, encode_max_bytes: usize) -> Self {
        Self {
            // The ceiling is far below 4 GiB.
            decode_max_bytes: decode_max_bytes.min(FRAME_MAX_BYTES_CEILING) as u32,
            encode_max_bytes,
            sealed: None,
        }
    }

    /// The same over an encrypted stream, behind its opening.
    pub fn sealed(decode_max_bytes: usize, encode_max_bytes: usize, stream: SealedStream) -> Self {
        Self {
            sealed: Some(Box::new(stream)),
            ..Self::new(decode_max_bytes, encode_max_bytes)
        }
    }

    /// Whether the stream is encrypted.
    pub fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    /// What the peer takes, in bytes of encoded packet; `ConnectAck` says so.
    pub fn set_encode_max_bytes(&mut self, encode_max_bytes: usize) {
        self.encode_max_bytes = encode_max_bytes;
    }
}

impl PacketCodec {
    /// The payload of the frame at the start of `src`, if it is all there.
    fn take_frame(&mut self, src: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        let max_bytes = self.decode_max_bytes;
        let (found, behind) = match &mut self.sealed {
            Some(stream) => (stream.opener.open(src, max_bytes)?, SEALED_OVERHEAD_BYTES),
            None => (tcp::payload_bytes(src, max_bytes)?, 0),
        };
        let Some(payload) = found.filter(|payload| src.len() >= tcp::HEADER_BYTES + payload) else {
            return Ok(None);
        };
        src.advance(tcp::HEADER_BYTES);
        let payload = src.split_to(payload).freeze();
        src.advance(behind);
        Ok(Some(payload))
    }
}

impl Decoder for PacketCodec {
    type Item = Packet;
    type Error = PacketCodecError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Packet>, PacketCodecError> {
        loop {
            let Some(payload) = self.take_frame(src)? else {
                return Ok(None);
            };
            match decode_packet_bytes(payload) {
                Ok(packet) => return Ok(Some(packet)),
                Err(FrameError::UnknownPacket { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Encoder<&Packet> for PacketCodec {
    type Error = PacketCodecError;

    fn encode(&mut self, packet: &Packet, dst: &mut BytesMut) -> Result<(), PacketCodecError> {
        let max_bytes = self.encode_max_bytes;
        match &mut self.sealed {
            Some(stream) => stream.sealer.append_packet(packet, max_bytes, dst)?,
            None => Framing::Tcp.append_packet(packet, max_bytes, dst)?,
        }
        Ok(())
    }
}

impl Encoder<Packet> for PacketCodec {
    type Error = PacketCodecError;

    fn encode(&mut self, packet: Packet, dst: &mut BytesMut) -> Result<(), PacketCodecError> {
        self.encode(&packet, dst)
    }
}
