//! A TUN device: whole IP packets, read and written through a file descriptor.

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::ioctl::{Updater, ioctl, opcode};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// From `linux/if_tun.h`: `_IOW('T', 202, int)`, although it reads and writes an `ifreq`.
const TUNSETIFF: rustix::ioctl::Opcode = opcode::write::<i32>(b'T', 202);
const IFF_TUN: i16 = 0x0001;
/// No header before each packet.
const IFF_NO_PI: i16 = 0x1000;
const NAME_BYTES: usize = 16;

/// A TUN device, which is gone once this is dropped.
#[derive(Debug)]
pub(crate) struct Tun {
    fd: OwnedFd,
    name: String,
}

/// `struct ifreq` of `linux/if.h`, with the one variant of its union that TUNSETIFF reads.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; NAME_BYTES],
    flags: i16,
    rest_of_union: [u8; 22],
}

// The kernel copies this many bytes in and out.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<InterfaceRequest>() == 40);

// === impl Tun ===

impl Tun {
    /// Makes a device under a free name, in this process's namespace.
    pub(crate) fn create() -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = open("/dev/net/tun", flags, Mode::empty())?;
        let mut request = InterfaceRequest {
            name: [0; NAME_BYTES],
            flags: IFF_TUN | IFF_NO_PI,
            rest_of_union: [0; 22],
        };
        // The kernel puts the first free number there.
        request.name[..9].copy_from_slice(b"sluice%d\0");
        set_interface(&fd, &mut request)?;
        let name = request.name.iter().take_while(|byte| **byte != 0);
        Ok(Tun {
            name: name.map(|byte| char::from(*byte)).collect(),
            fd,
        })
    }

    /// What the kernel called the device.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The next packet that the device's side sent; `None` when there is none. Never waits.
    pub(crate) fn read(&self, packet: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::io::read(&self.fd, packet) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets the device's side receive a packet. Never waits.
    pub(crate) fn write(&self, packet: &[u8]) -> io::Result<()> {
        rustix::io::write(&self.fd, packet)?;
        Ok(())
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The one call of this package that the compiler can't check.
#[expect(unsafe_code, reason = "the kernel makes TUN devices by ioctl only")]
fn set_interface(fd: &OwnedFd, request: &mut InterfaceRequest) -> io::Result<()> {
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq` at the pointer and keeps nothing of it
    // (`__tun_chr_ioctl` in drivers/net/tun.c). `InterfaceRequest` has that struct's layout: it is
    // `repr(C)`, as large (asserted above), every bit pattern of it is valid, and it is borrowed
    // exclusively for the length of the call. On a descriptor of something else the call fails.
    unsafe {
        let update = Updater::<TUNSETIFF, InterfaceRequest>::new(request);
        ioctl(fd, update)?;
    }
    Ok(())
}
