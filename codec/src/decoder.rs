//! The decoder of one connection: bytes in, whole frames out.

use std::ops::Range;

use crate::{
    FRAME_MAX_BYTES_CEILING, FrameError, Input,
    datagram::ServerKeys,
    packed::{put_number, take_byte, take_number},
    sealed_tcp::{Opening, SealedState, Step, StreamSealer},
    tcp::TcpState,
    websocket::{Handshake, OpenState},
};

/// Turns the bytes of one connection into frames, whatever way they are cut up.
///
/// ```
/// use sluice_codec::{Decoder, Frame, Input};
///
/// let mut decoder = Decoder::tcp(4096);
/// let mut scratch = *b"\0\0\0\x02hi\0\0\0\x01";
/// let mut input = Input::new(&mut scratch);
/// while let Some(frame) = decoder.decode(&mut input)? {
///     assert_eq!(frame, Frame::Packet(b"hi"));
/// }
/// assert!(decoder.is_mid_frame());
/// # Ok::<(), sluice_codec::FrameError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    frame_max_bytes: u32,
    state: State,
}

/// What a connection's bytes amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// One encoded packet, for [`crate::decode_packet`].
    Packet(&'a [u8]),
    /// The handshake is done, of a WebSocket or of an encrypted stream
    /// ([`Decoder::sealer`]). Write this answer before all else.
    Handshake(Vec<u8>),
    /// WebSocket: answer with [`crate::websocket::append_pong`]. At most 125 bytes.
    Ping(&'a [u8]),
    /// WebSocket: a sign of life.
    Pong,
    /// WebSocket: the peer is done. Answer with
    /// [`crate::websocket::append_close`] and the same code (none: 1000), then
    /// close. Whatever follows it is ignored.
    Close(Option<u16>),
}

#[derive(Debug)]
enum State {
    Tcp(TcpState),
    /// Whether the stream is encrypted isn't known.
    Opening(Box<Opening>),
    SealedTcp(Box<SealedState>),
    Handshake(Handshake),
    WebSocket(OpenState),
    /// After an error or a close frame.
    Finished,
}

const PACKED_TCP: u8 = 1;
const PACKED_WEBSOCKET: u8 = 2;
const PACKED_SEALED_TCP: u8 = 3;

/// A frame that was found, before anything is borrowed for the caller.
#[derive(Debug)]
pub(crate) enum Found {
    Packet(Place),
    Handshake(Vec<u8>),
    Ping(Place),
    Pong,
    Close(Option<u16>),
}

/// Where a payload lies.
#[derive(Debug)]
pub(crate) enum Place {
    Input(Range<usize>),
    Held,
}

// === impl Decoder ===

impl Decoder {
    /// For a connection of 4-byte lengths and packets.
    pub fn tcp(frame_max_bytes: usize) -> Self {
        Self::new(frame_max_bytes, State::Tcp(TcpState::default()))
    }

    /// For the server's side of a TCP connection that may be encrypted, as its
    /// first byte will tell. `ephemeral` is 32 fresh random bytes.
    pub fn tcp_or_sealed(frame_max_bytes: usize, keys: ServerKeys, ephemeral: [u8; 32]) -> Self {
        let opening = Box::new(Opening::new(keys, ephemeral));
        Self::new(frame_max_bytes, State::Opening(opening))
    }

    /// For the server's side of a WebSocket, from the first byte of the handshake.
    pub fn websocket(frame_max_bytes: usize) -> Self {
        Self::new(frame_max_bytes, State::Handshake(Handshake::default()))
    }

    fn new(frame_max_bytes: usize, state: State) -> Self {
        let mut decoder = Self {
            frame_max_bytes: 0,
            state,
        };
        decoder.set_frame_max_bytes(frame_max_bytes);
        decoder
    }

    /// Caps the frames whose length is read from now on, in bytes of one encoded
    /// packet. At most [`FRAME_MAX_BYTES_CEILING`].
    pub fn set_frame_max_bytes(&mut self, frame_max_bytes: usize) {
        // The ceiling is far below 4 GiB.
        self.frame_max_bytes = frame_max_bytes.min(FRAME_MAX_BYTES_CEILING) as u32;
    }

    /// Finds the next frame. `Ok(None)`: all input is consumed, and what belongs
    /// to a frame still to come is kept here. Call it until then, since a kept
    /// frame is given back by the call after the one that lent it.
    ///
    /// # Errors
    /// The connection must be closed. The error comes once: later bytes are
    /// consumed and ignored, so that a closing socket can still be drained.
    pub fn decode<'a>(
        &'a mut self,
        input: &'a mut Input<'_>,
    ) -> Result<Option<Frame<'a>>, FrameError> {
        let found = match self.advance(input) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            Err(error) => {
                self.finish();
                return Err(error);
            }
        };
        let place = |place| match place {
            Place::Input(range) => input.slice(range),
            Place::Held => self.state.held_frame(),
        };
        Ok(Some(match found {
            Found::Packet(at) => Frame::Packet(place(at)),
            Found::Ping(at) => Frame::Ping(place(at)),
            Found::Pong => Frame::Pong,
            Found::Handshake(answer) => Frame::Handshake(answer),
            Found::Close(code) => Frame::Close(code),
        }))
    }

    /// After [`Frame::Handshake`]: what seals all that is sent from then on, if the
    /// stream is encrypted; last words after an error, too.
    pub fn sealer(&mut self) -> Option<&mut StreamSealer> {
        match &mut self.state {
            State::SealedTcp(sealed) => Some(sealed.sealer()),
            _ => None,
        }
    }

    /// Whether it is an encrypted TCP stream behind its opening.
    pub fn is_sealed(&self) -> bool {
        matches!(self.state, State::SealedTcp(_))
    }

    /// Heap memory of an encrypted stream's keys, as long as it lives.
    pub const SEALED_BYTES: usize = size_of::<SealedState>();

    /// Nothing more is taken from the peer.
    fn finish(&mut self) {
        match &mut self.state {
            State::SealedTcp(sealed) => sealed.end(),
            state => *state = State::Finished,
        }
    }

    /// Appends all that it is, and answers true; appends nothing and answers false
    /// unless it stands between two frames, behind its handshake. Keys of an
    /// encrypted stream are in it: whoever has it wipes it.
    pub fn pack(&self, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        put_number(out, self.frame_max_bytes.into());
        let is_packed = match &self.state {
            State::Tcp(tcp) if tcp.is_at_rest() => {
                out.push(PACKED_TCP);
                true
            }
            State::WebSocket(open) if open.is_at_rest() => {
                out.push(PACKED_WEBSOCKET);
                true
            }
            State::SealedTcp(sealed) => {
                out.push(PACKED_SEALED_TCP);
                sealed.pack(out)
            }
            _ => false,
        };
        if !is_packed {
            out.truncate(start);
        }
        is_packed
    }

    /// Takes what [`Decoder::pack`] appended off the front.
    pub fn unpack(input: &mut &[u8]) -> Option<Self> {
        // It was capped when it was set.
        let frame_max_bytes = usize::try_from(take_number(input)?).ok()?;
        let state = match take_byte(input)? {
            PACKED_TCP => State::Tcp(TcpState::default()),
            PACKED_WEBSOCKET => State::WebSocket(OpenState::default()),
            PACKED_SEALED_TCP => State::SealedTcp(Box::new(SealedState::unpack(input)?)),
            _ => return None,
        };
        Some(Self::new(frame_max_bytes, state))
    }

    /// True while a frame (or handshake, or fragmented message) has begun and is
    /// not whole: time for a deadline.
    pub fn is_mid_frame(&self) -> bool {
        match &self.state {
            State::Tcp(tcp) => tcp.is_mid_frame(),
            State::Opening(opening) => opening.is_begun(),
            State::SealedTcp(sealed) => sealed.is_mid_frame(),
            State::Handshake(handshake) => handshake.is_mid_frame(),
            State::WebSocket(open) => open.is_mid_frame(),
            State::Finished => false,
        }
    }

    /// Heap memory held for a frame that isn't whole, in bytes; 0 between frames.
    /// At most twice what arrived of that frame (and 256 bytes of bookkeeping
    /// for WebSocket).
    pub fn held_bytes(&self) -> usize {
        match &self.state {
            State::Tcp(tcp) => tcp.held_bytes(),
            State::Opening(_) => size_of::<Opening>(),
            State::SealedTcp(sealed) => sealed.held_bytes(),
            State::Handshake(handshake) => handshake.held_bytes(),
            State::WebSocket(open) => open.held_bytes(),
            State::Finished => 0,
        }
    }

    /// True after an error or a close frame: nothing more will come.
    pub fn is_finished(&self) -> bool {
        match &self.state {
            State::SealedTcp(sealed) => sealed.is_ended(),
            state => matches!(state, State::Finished),
        }
    }

    fn advance(&mut self, input: &mut Input<'_>) -> Result<Option<Found>, FrameError> {
        match &mut self.state {
            State::Tcp(tcp) => tcp.advance(input, self.frame_max_bytes),
            State::Opening(opening) => match opening.advance(input)? {
                Step::More => Ok(None),
                Step::Plain => {
                    self.state = State::Tcp(TcpState::default());
                    self.advance(input)
                }
                Step::Opened(answer, sealed) => {
                    self.state = State::SealedTcp(sealed);
                    Ok(Some(Found::Handshake(answer)))
                }
            },
            State::SealedTcp(sealed) => sealed.advance(input, self.frame_max_bytes),
            State::Handshake(handshake) => {
                let Some(answer) = handshake.advance(input)? else {
                    return Ok(None);
                };
                self.state = State::WebSocket(OpenState::default());
                Ok(Some(Found::Handshake(answer)))
            }
            State::WebSocket(open) => {
                let found = open.advance(input, self.frame_max_bytes)?;
                if let Some(Found::Close(_)) = found {
                    self.state = State::Finished;
                }
                Ok(found)
            }
            State::Finished => {
                input.consume(usize::MAX);
                Ok(None)
            }
        }
    }
}

// === impl State ===

impl State {
    fn held_frame(&self) -> &[u8] {
        match self {
            Self::Tcp(tcp) => tcp.held_frame(),
            Self::SealedTcp(sealed) => sealed.held_frame(),
            Self::WebSocket(open) => open.held_frame(),
            Self::Opening(_) | Self::Handshake(_) | Self::Finished => &[],
        }
    }
}
