//! Frames of both stream transports as a client writes and reads them.

use std::ops::Range;

use sluice_protocol::limits::FRAME_MAX_BYTES;

use crate::LoadError;

/// By what the load connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum LoadTransport {
    /// Length-framed packets over TCP.
    Tcp,
    /// One packet a binary WebSocket message.
    WebSocket,
    /// Datagram sessions: one packet a message. Between driver and session they are
    /// framed as over TCP.
    Udp,
}

/// A whole frame among the bytes that have come.
pub(crate) struct Frame {
    pub(crate) payload: Range<usize>,
    pub(crate) is_packet: bool,
}

const BINARY: u8 = 2;
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const MASK_BYTES: usize = 4;

// === impl LoadTransport ===

impl LoadTransport {
    /// `tcp`, `ws` or `udp`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::WebSocket => "ws",
            Self::Udp => "udp",
        }
    }

    /// Appends a frame whose payload `write` appends.
    pub(crate) fn frame(self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let start = out.len();
        match self {
            Self::Tcp | Self::Udp => {
                out.extend([0; 4]);
                write(out);
                let bytes = (out.len() - start - 4) as u32;
                out[start..start + 4].copy_from_slice(&bytes.to_be_bytes());
            }
            Self::WebSocket => {
                // A mask of zeros leaves the payload as it is.
                out.extend([FINAL | BINARY, MASKED, 0, 0, 0, 0]);
                write(out);
                let bytes = out.len() - start - 2 - MASK_BYTES;
                match bytes {
                    0..126 => out[start + 1] |= bytes as u8,
                    _ => {
                        let long = (bytes as u16).to_be_bytes();
                        out[start + 1] |= 126;
                        out.splice(start + 2..start + 2, long);
                    }
                }
            }
        }
    }

    /// The first frame of `bytes`, if all of it has come. Masks are taken for zeros:
    /// nobody but the generator's own echo sends any.
    ///
    /// # Errors
    /// It is longer than a frame may be.
    pub(crate) fn first_frame(self, bytes: &[u8]) -> Result<Option<Frame>, LoadError> {
        let Some((start, length, is_packet)) = self.head(bytes) else {
            return Ok(None);
        };
        if length > FRAME_MAX_BYTES as u64 {
            let error = "a frame longer than frames may be";
            return Err(LoadError::Unexpected(error.to_owned()));
        }
        let end = start + length as usize;
        Ok((end <= bytes.len()).then_some(Frame {
            payload: start..end,
            is_packet,
        }))
    }

    fn head(self, bytes: &[u8]) -> Option<(usize, u64, bool)> {
        if self != Self::WebSocket {
            let head: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
            return Some((4, u64::from(u32::from_be_bytes(head)), true));
        }
        let (first, second) = (bytes.first()?, bytes.get(1)?);
        let mask = match second & MASKED {
            0 => 0,
            _ => MASK_BYTES,
        };
        let (start, length) = match second & 0x7f {
            126 => {
                let long: [u8; 2] = bytes.get(2..4)?.try_into().ok()?;
                (4, u64::from(u16::from_be_bytes(long)))
            }
            127 => {
                let long: [u8; 8] = bytes.get(2..10)?.try_into().ok()?;
                (10, u64::from_be_bytes(long))
            }
            short => (2, u64::from(short)),
        };
        Some((start + mask, length, first & 0x0f == BINARY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_all_lengths_are_read_again() {
        for transport in [
            LoadTransport::Tcp,
            LoadTransport::WebSocket,
            LoadTransport::Udp,
        ] {
            for length in [0, 1, 125, 126, 4_000, FRAME_MAX_BYTES - 1] {
                let mut out = vec![7];
                transport.frame(&mut out, |out| out.extend(std::iter::repeat_n(9, length)));
                out.push(8);
                let frame = transport.first_frame(&out[1..]).unwrap().unwrap();
                assert!(frame.is_packet);
                assert_eq!(frame.payload.len(), length);
                assert!(out[1..][frame.payload.clone()].iter().all(|b| *b == 9));
                assert_eq!(out[1..][frame.payload.end..], [8]);
                let cut = transport.first_frame(&out[1..frame.payload.end]);
                assert!(cut.unwrap().is_none());
            }
        }
        let absurd = LoadTransport::Tcp.first_frame(&[0xff; 8]);
        assert!(absurd.is_err());
    }
}
