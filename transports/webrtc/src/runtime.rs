//! UDP sockets with room for a burst.
//!
//! The crate below leaves the buffers as the system makes them, 208 KiB on Linux. A burst of SCTP overflows that, and
//! what is lost costs a second each time.

use std::{io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration, time::Instant};

use async_rtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, Runtime,
};
use socket2::SockRef;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What is asked for of a UDP socket's buffers, bytes; the system may give less.
pub const UDP_BUFFER: usize = 4 << 20;
/// The SCTP receive window of a socket that has got what was asked for, bytes.
const WIDE_WINDOW: u32 = 1 << 20;
/// The same for one that has not: what fits the buffers of a stock Linux without a drop, bytes.
const NARROW_WINDOW: u32 = 128 << 10;

/// The receive buffer that the system gives to a UDP socket that asks for 4 MiB, as it counts it, bytes. Linux counts
/// double, and gives what `net.core.rmem_max` allows: below 4 MiB links are set up for a narrow window.
///
/// # Errors
/// No socket can be made on loopback.
pub fn udp_buffer() -> io::Result<usize> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
    enlarge(&socket);
    SockRef::from(&socket).recv_buffer_size()
}

/// The SCTP receive window that fits the sockets of this system, bytes.
pub(crate) fn receive_window() -> u32 {
    match udp_buffer() {
        Ok(size) if size >= UDP_BUFFER => WIDE_WINDOW,
        _ => NARROW_WINDOW,
    }
}

fn enlarge(socket: &std::net::UdpSocket) {
    let socket = SockRef::from(socket);
    for (option, result) in [
        ("SO_RCVBUF", socket.set_recv_buffer_size(UDP_BUFFER)),
        ("SO_SNDBUF", socket.set_send_buffer_size(UDP_BUFFER)),
    ] {
        if let Err(error) = result {
            tracing::warn!(option, %error, "cannot set a socket option");
        }
    }
}

/// A runtime whose UDP sockets have large buffers. Everything is passed on, defaulted methods as well: their defaults
/// would lose the reactor pool and the clock.
#[derive(Debug)]
pub(crate) struct Roomy(pub(crate) Arc<dyn Runtime>);

impl Runtime for Roomy {
    fn spawn(&self, future: BoxFuture<'static, ()>) -> Box<dyn JoinHandle> {
        self.0.spawn(future)
    }

    fn spawn_reactor(&self, pool_size: usize, future: BoxFuture<'static, ()>) -> Box<dyn JoinHandle> {
        self.0.spawn_reactor(pool_size, future)
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        enlarge(&socket);
        self.0.wrap_udp_socket(socket)
    }

    fn wrap_tcp_listener(&self, listener: std::net::TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        self.0.wrap_tcp_listener(listener)
    }

    fn connect_tcp<'a>(&'a self, addr: SocketAddr) -> BoxFuture<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        self.0.connect_tcp(addr)
    }

    fn resolve_host<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        self.0.resolve_host(host)
    }

    fn now(&self) -> Instant {
        self.0.now()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(duration)
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        self.0.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        self.0.block_on(future);
    }

    fn yield_now(&self) -> BoxFuture<'static, ()> {
        self.0.yield_now()
    }

    fn name(&self) -> &'static str {
        self.0.name()
    }
}
