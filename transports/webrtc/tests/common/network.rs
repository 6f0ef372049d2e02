//! Networks that lose, delay, or are cut off: between the sockets and the driver.

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use async_rtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, RecvMeta, Runtime,
    TokioRuntime, Transmit,
};
use tokio::sync::mpsc;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What goes wrong with the datagrams that an end sends and receives.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Nothing comes and goes any more.
    pub(crate) cut: AtomicBool,
    /// So many of a thousand datagrams that are sent are lost.
    pub(crate) loss: AtomicU64,
    /// So many of the next datagrams of at least 500 bytes are lost.
    pub(crate) lose_next: AtomicUsize,
    /// Each datagram that is sent takes so long, microseconds.
    pub(crate) delay: AtomicU64,
    /// How often a driver was put on the pool, and the receive buffers of the sockets that were made.
    pub(crate) pooled: AtomicUsize,
    pub(crate) buffers: Mutex<Vec<usize>>,
    seed: AtomicU64,
}

impl Faults {
    fn loses(&self, len: usize) -> bool {
        let next = |left: usize| left.checked_sub(1);
        if len >= 500 && self.lose_next.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_ok() {
            return true;
        }
        let x = self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
        let z = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % 1000 < self.loss.load(Ordering::SeqCst)
    }
}

/// A runtime on such a network.
#[derive(Debug, Default)]
pub(crate) struct BadNetwork(pub(crate) Arc<Faults>);

impl Runtime for BadNetwork {
    fn spawn(&self, future: BoxFuture<'static, ()>) -> Box<dyn JoinHandle> {
        TokioRuntime.spawn(future)
    }

    fn spawn_reactor(&self, size: usize, future: BoxFuture<'static, ()>) -> Box<dyn JoinHandle> {
        self.0.pooled.fetch_add(1, Ordering::SeqCst);
        TokioRuntime.spawn_reactor(size, future)
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        self.0.buffers.lock().unwrap().push(socket2::SockRef::from(&socket).recv_buffer_size()?);
        let inner = TokioRuntime.wrap_udp_socket(socket)?;
        let (later, mut queue) = mpsc::unbounded_channel::<(Instant, SocketAddr, Vec<u8>)>();
        let out = inner.clone();
        tokio::spawn(async move {
            while let Some((due, to, datagram)) = queue.recv().await {
                tokio::time::sleep_until(due.into()).await;
                let _ = out.send_to(&datagram, to).await;
            }
        });
        Ok(Arc::new(BadSocket { inner, later, faults: self.0.clone() }))
    }

    fn wrap_tcp_listener(&self, listener: std::net::TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        TokioRuntime.wrap_tcp_listener(listener)
    }

    fn connect_tcp<'a>(&'a self, addr: SocketAddr) -> BoxFuture<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        Box::pin(async move { TokioRuntime.connect_tcp(addr).await })
    }

    fn resolve_host<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { TokioRuntime.resolve_host(host).await })
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        TokioRuntime.sleep(duration)
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        TokioRuntime.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        TokioRuntime.block_on(future);
    }
}

#[derive(Debug)]
struct BadSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    later: mpsc::UnboundedSender<(Instant, SocketAddr, Vec<u8>)>,
    faults: Arc<Faults>,
}

impl AsyncUdpSocket for BadSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let (len, faults) = (transmit.contents.len(), &self.faults);
        if faults.cut.load(Ordering::SeqCst) || faults.loses(len) {
            return Poll::Ready(Ok(len));
        }
        match faults.delay.load(Ordering::SeqCst) {
            0 => self.inner.poll_send(cx, transmit),
            delay => {
                let due = Instant::now() + Duration::from_micros(delay);
                let _ = self.later.send((due, transmit.destination, transmit.contents.to_vec()));
                Poll::Ready(Ok(len))
            }
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let received = std::task::ready!(self.inner.poll_recv(cx, bufs, meta))?;
            if !self.faults.cut.load(Ordering::SeqCst) {
                return Poll::Ready(Ok(received));
            }
        }
    }

    fn max_gro_segments(&self) -> usize {
        self.inner.max_gro_segments()
    }
}
