//! A loop's UDP socket: batches of datagrams in (recvmmsg, GRO), runs of
//! datagrams to one peer out (GSO), as far as the kernel knows these.

use std::{
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    os::fd::{AsRawFd, RawFd},
};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

/// Asked of the kernel, which may give less: a burst waits there for the loop's turn.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Of one `recvmmsg` slot: a run of datagrams that the kernel has joined (GRO).
const SLOT_BYTES: usize = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct DatagramSocket {
    socket: UdpSocket,
    state: UdpSocketState,
}

/// What one call receives into.
pub(crate) struct ReceiveBuffers {
    bytes: Box<[u8]>,
    metas: [RecvMeta; BATCH_SIZE],
}

// === impl DatagramSocket ===

impl DatagramSocket {
    /// Opens `count` sockets on one address; with port 0 the first picks the
    /// port for all.
    pub(crate) fn bind_all(address: SocketAddr, count: u16) -> io::Result<(SocketAddr, Vec<Self>)> {
        // Sharing a port must be meant, as for TCP.
        drop(open(address, false)?);
        let mut bound = address;
        let mut sockets = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let socket = open(bound, true)?;
            bound = socket.local_addr()?;
            let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
            sockets.push(Self { socket, state });
        }
        Ok((bound, sockets))
    }

    /// Receives a batch; `WouldBlock` when there is none.
    pub(crate) fn receive(&self, buffers: &mut ReceiveBuffers) -> io::Result<usize> {
        let mut slots = buffers.bytes.chunks_mut(SLOT_BYTES);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
        let socket = UdpSockRef::from(&self.socket);
        self.state.recv(socket, &mut slices, &mut buffers.metas)
    }

    /// Sends datagrams of `segment_bytes` each (the last may be shorter) to one peer.
    pub(crate) fn send(
        &self,
        to: SocketAddr,
        contents: &[u8],
        segment_bytes: usize,
    ) -> io::Result<()> {
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents,
            segment_size: (segment_bytes < contents.len()).then_some(segment_bytes),
            src_ip: None,
        };
        self.state
            .try_send(UdpSockRef::from(&self.socket), &transmit)
    }

    /// Datagrams that one [`DatagramSocket::send`] may hold.
    pub(crate) fn segments_max(&self) -> usize {
        self.state.max_gso_segments()
    }
}

/// For the poll.
impl AsRawFd for DatagramSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

// === impl ReceiveBuffers ===

impl ReceiveBuffers {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; SLOT_BYTES * BATCH_SIZE].into_boxed_slice(),
            metas: [RecvMeta::default(); BATCH_SIZE],
        }
    }

    /// Each datagram of the last batch, of which there were `count` slots.
    pub(crate) fn for_each(&mut self, count: usize, mut take: impl FnMut(SocketAddr, &mut [u8])) {
        let slots = self.bytes.chunks_mut(SLOT_BYTES);
        for (slot, meta) in slots.zip(&self.metas).take(count) {
            let received = slot.get_mut(..meta.len).unwrap_or_default();
            for datagram in received.chunks_mut(meta.stride.max(1)) {
                take(meta.addr, datagram);
            }
        }
    }
}

fn open(address: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    // What the kernel doesn't give is lost in bursts only.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&address.into())?;
    Ok(socket.into())
}
