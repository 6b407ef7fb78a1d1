//! The sandbox's network: a loopback that every address leads to, and the sockets bound there.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::errno;
use crate::netlink::{Family, acknowledged, every_address_is_local, loopback_up};
use crate::policy::ListenAddress;

/// How many connections may wait for the supervisor to take them (`SOMAXCONN` of the kernels that have Landlock).
const BACKLOG: i32 = 4096;

pub(super) fn loopback() -> Result<(), Errno> {
    ask(&loopback_up())
}

pub(super) fn capture_routes(ipv6: bool) -> Result<(), Errno> {
    ask(&every_address_is_local(Family::V4))?;
    if ipv6 {
        ask(&every_address_is_local(Family::V6))?;
    }
    Ok(())
}

pub(super) fn listen(address: ListenAddress) -> Result<OwnedFd, Errno> {
    match address {
        ListenAddress::Tcp(address) => tcp(address),
        ListenAddress::Udp(address) => {
            let socket = UdpSocket::bind(address).map_err(|error| errno(&error))?;
            socket
                .set_nonblocking(true)
                .map_err(|error| errno(&error))?;
            Ok(socket.into())
        }
    }
}

fn tcp(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let socket = TcpListener::bind(address).map_err(|error| errno(&error))?;
    socket
        .set_nonblocking(true)
        .map_err(|error| errno(&error))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn ask(request: &[u8]) -> Result<(), Errno> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None, // NETLINK_ROUTE is 0, which `None` is
    )?;
    let kernel = SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(&socket, request, SendFlags::empty(), &kernel)?;
    let mut answer = [0; 512];
    let (length, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
    match acknowledged(answer.get(..length).unwrap_or_default()) {
        Some(0) => Ok(()),
        Some(code) => Err(Errno::from_raw_os_error(code)),
        None => Err(Errno::PROTO),
    }
}
