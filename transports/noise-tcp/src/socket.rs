//! Options of the TCP socket. Each is an improvement, none is needed: a failure is a warning.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::low_water;

/// A peer that acknowledges nothing for so long is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// Sets the options of a connection.
pub(crate) fn tune(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(2));
    warn("TCP_NODELAY", socket.set_tcp_nodelay(true));
    warn("SO_KEEPALIVE", socket.set_tcp_keepalive(&keepalive));
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        warn("TCP_USER_TIMEOUT", socket.set_tcp_user_timeout(Some(USER_TIMEOUT)));
    }
    low_water(stream, low_water::LEAST);
}

/// Sets how many unsent bytes in the kernel make the socket not writable.
pub(crate) fn low_water(stream: &TcpStream, mark: usize) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let mark = u32::try_from(mark).unwrap_or(u32::MAX);
        warn("TCP_NOTSENT_LOWAT", SockRef::from(stream).set_tcp_notsent_lowat(mark));
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (stream, mark);
}

fn warn(option: &str, result: io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(option, %error, "cannot set a socket option");
    }
}
