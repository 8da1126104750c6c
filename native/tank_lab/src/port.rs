//! How are frames read from an interface and written to it?
//!
//! A raw packet socket. Each frame is preceded by the kernel's header about checksums and segmentation that are still
//! to be done (`PACKET_VNET_HDR`), and goes out with the same: virtual interfaces leave checksums to hardware that
//! does not exist, and a frame without that header would be dropped as damaged.

use std::{
    ffi::CString,
    io,
    mem::{size_of, size_of_val},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

/// `struct virtio_net_hdr`, at the start of each frame.
pub const HEADER_BYTES: usize = 10;

/// The largest frame: a virtual interface passes up to 64 KiB of TCP in one piece.
pub const FRAME_BYTES_MAX: usize = 128 * 1024;

// A pause of 60 ms of this thread at 1 Gbit/s, with the kernel's own overhead.
const BUFFER_BYTES: libc::c_int = 64 << 20;

/// A socket bound to one interface. Closed when it is dropped.
#[derive(Debug)]
pub struct Port {
    socket: OwnedFd,
    /// Frames that the interface did not take.
    pub refused: u64,
}

impl Port {
    /// Opens an interface. Needs `CAP_NET_RAW` and `CAP_NET_ADMIN`.
    pub fn open(interface: &str) -> io::Result<Self> {
        let name = CString::new(interface).map_err(io::Error::other)?;
        // SAFETY: `name` is a C string that lives through the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error());
        }
        // With protocol 0 nothing is received before the bind.
        // SAFETY: takes no pointers.
        let socket = check(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, 0) })?;
        // SAFETY: the descriptor was just made, and nobody else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let port = Self { socket, refused: 0 };
        port.set(libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
        port.set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        port.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER_BYTES)?;
        port.set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, BUFFER_BYTES)?;
        port.bind(index)?;
        Ok(port)
    }

    /// Reads one frame with its header into `buffer`; `None` if there is none.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        // SAFETY: the kernel writes at most as many bytes as `buffer` has.
        let read = unsafe { libc::recv(self.socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        match usize::try_from(read) {
            Ok(bytes) => Ok(buffer.get(..bytes)),
            Err(_negative) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                // The interface was taken down and may come up again.
                error if error.raw_os_error() == Some(libc::ENETDOWN) => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Writes one frame with its header. One that the interface does not take is counted, and lost as on a real one.
    pub fn send(&mut self, frame: &[u8]) {
        // SAFETY: the kernel reads as many bytes as `frame` has.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 {
            self.refused += 1;
        }
    }

    /// Frames that came in while the buffer was full, since the last call: this thread was too slow.
    pub fn overruns(&self) -> io::Result<u32> {
        let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut bytes = libc::socklen_t::try_from(size_of_val(&statistics)).map_err(io::Error::other)?;
        // SAFETY: `statistics` is what this option writes, of the size that is given.
        check(unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut bytes,
            )
        })?;
        Ok(statistics.tp_drops)
    }

    fn set(&self, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
        let bytes = libc::socklen_t::try_from(size_of_val(&value)).map_err(io::Error::other)?;
        // SAFETY: the option's value is an int, which lives through the call.
        check(unsafe { libc::setsockopt(self.socket.as_raw_fd(), level, option, (&raw const value).cast(), bytes) })?;
        Ok(())
    }

    fn bind(&self, index: libc::c_uint) -> io::Result<()> {
        // SAFETY: the struct is plain integers, for which zeros are valid.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
        address.sll_protocol = u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?.to_be();
        address.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
        let bytes = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
        // SAFETY: `address` is a socket address of that size.
        check(unsafe { libc::bind(self.socket.as_raw_fd(), (&raw const address).cast(), bytes) })?;
        Ok(())
    }
}

impl AsRawFd for Port {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Waits until one of the descriptors can be read, or that many nanoseconds; says which can.
pub fn wait(descriptors: &[RawFd], timeout_ns: Option<u64>) -> io::Result<Vec<bool>> {
    let mut polled: Vec<_> =
        descriptors.iter().map(|fd| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 }).collect();
    let timeout = timeout_ns.map(|ns| libc::timespec {
        tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(1),
        tv_nsec: i64::try_from(ns % 1_000_000_000).unwrap_or(0),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let count = libc::nfds_t::try_from(polled.len()).map_err(io::Error::other)?;
    // SAFETY: `polled` has `count` elements; `timeout` is null or points to a value that lives through the call.
    match check(unsafe { libc::ppoll(polled.as_mut_ptr(), count, timeout, std::ptr::null()) }) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ready => Ok(polled.iter().map(|polled| polled.revents != 0).collect()),
    }
}

/// Puts this process before the others on a busy machine: what it delays, it must delay by as much as it was told.
pub fn hurry() {
    // Without the right to do so it runs as it is.
    // SAFETY: takes no pointers.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
