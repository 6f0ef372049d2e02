//! The cable between a remote and its host, as a TCP proxy on loopback that can be cut, and be slow.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream, tcp},
    sync::watch,
    task::JoinSet,
};

/// Bytes that the cable holds in each direction.
const BUFFER: usize = 64 << 10;

/// How the cable is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It is whole.
    Whole,
    /// Nothing passes, and nobody is told: what was sent waits. A network that has gone away.
    Silent,
    /// Every connection is reset, and so is every new one. A network that says so.
    Reset,
}

/// Where it leads.
#[derive(Debug, Clone, Copy)]
struct Way {
    source: Ipv4Addr,
    host: SocketAddr,
    delay: Duration,
}

/// A cable. Its connections end when it is dropped.
#[derive(Debug)]
pub struct Cable {
    address: SocketAddr,
    state: watch::Sender<Cut>,
    way: watch::Sender<Way>,
    _proxy: JoinSet<()>,
}

impl Cable {
    /// A cable to this address.
    ///
    /// # Errors
    /// There is no port left.
    pub async fn to(host: &str) -> Result<Self> {
        Self::from(Ipv4Addr::LOCALHOST, host).await
    }

    /// The same, and the host sees who uses it at this address of loopback.
    ///
    /// # Errors
    /// There is no port left, or the host's address is none.
    pub async fn from(source: Ipv4Addr, host: &str) -> Result<Self> {
        let host = host.parse().with_context(|| format!("{host} is no address"))?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for the cable")?;
        let address = listener.local_addr()?;
        let (state, cuts) = watch::channel(Cut::Whole);
        let (way, ways) = watch::channel(Way { source, host, delay: Duration::ZERO });
        let mut proxy = JoinSet::new();
        proxy.spawn(accept(listener, ways, cuts));
        Ok(Self { address, state, way, _proxy: proxy })
    }

    /// The end that the remote connects to.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Cuts it, or mends it.
    pub fn set(&self, cut: Cut) {
        self.state.send_replace(cut);
    }

    /// What passes from now on is so much later, in each direction: one piece after another, so that it is no cable for much.
    pub fn delay(&self, time: Duration) {
        self.way.send_modify(|way| way.delay = time);
    }

    /// The host sees whoever connects from now on at this address of loopback: the remote has gone to another network.
    pub fn move_to(&self, source: Ipv4Addr) {
        self.way.send_modify(|way| way.source = source);
    }
}

async fn accept(listener: TcpListener, ways: watch::Receiver<Way>, cuts: watch::Receiver<Cut>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let (cuts, ways) = (cuts.clone(), ways.clone());
        connections.spawn(async move {
            // A connection that comes to nothing is what a cable is for.
            let _ = connect(near, ways, cuts).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Carries a connection until one end hangs up, or the cable resets it.
async fn connect(near: TcpStream, ways: watch::Receiver<Way>, mut cuts: watch::Receiver<Cut>) -> Result<()> {
    near.set_zero_linger()?;
    cuts.wait_for(|cut| *cut != Cut::Silent).await?;
    if *cuts.borrow() == Cut::Reset {
        return Ok(());
    }
    let Way { source, host, .. } = *ways.borrow();
    let far = TcpSocket::new_v4()?;
    far.bind((source, 0).into())?;
    let far = far.connect(host).await?;
    far.set_zero_linger()?;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let there = carry(near_in, far_out, cuts.clone(), ways.clone());
    let back = carry(far_in, near_out, cuts.clone(), ways);
    tokio::select! {
        ended = async { tokio::try_join!(there, back) } => ended.map(|_| ()),
        reset = cuts.wait_for(|cut| *cut == Cut::Reset) => reset.map(|_| ()).map_err(Into::into),
    }
}

async fn carry(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    mut cuts: watch::Receiver<Cut>,
    ways: watch::Receiver<Way>,
) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        let delay = ways.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        cuts.wait_for(|cut| *cut != Cut::Silent).await?;
        if read == 0 {
            return Ok(to.shutdown().await?);
        }
        to.write_all(&buffer[..read]).await?;
    }
}
