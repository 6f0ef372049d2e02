//! Options of the TCP socket. Each is an improvement, none is needed: a failure is a warning.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Unsent bytes in the kernel above which the socket is not writable. What lies there cannot be overtaken, so it is the
/// delay of an urgent frame on a slow line; on a fast one it has to be enough to keep the line busy.
const NOT_SENT_LOW_WATER: u32 = 16 * 1024;
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
        warn("TCP_NOTSENT_LOWAT", socket.set_tcp_notsent_lowat(NOT_SENT_LOW_WATER));
    }
}

fn warn(option: &str, result: io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(option, %error, "cannot set a socket option");
    }
}
