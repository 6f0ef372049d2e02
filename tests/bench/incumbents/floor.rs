//! What nothing that lends over TCP can be faster than: the desk's own network, with nothing in it.

use std::{fmt, net::Ipv4Addr, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use lab::{Lab, desk::HOST_ADDRESS};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{report::MEBIBYTE, workload::numbers};

const RAW_TCP: &str = "/usr/bin/raw-tcp";
const ROUND_TRIPS: u32 = 1000;
const MEBIBYTES: usize = 64;
const CHUNK: usize = 1 << 16;
const PATIENCE: Duration = Duration::from_secs(120);

/// A TCP connection between the desk and this computer, without an added delay.
pub(crate) struct Floor {
    /// Of 64 bytes, there and back; seconds.
    ping: f64,
    /// One mebibyte from the desk, as when a disk is read; seconds.
    from_desk: f64,
    /// One mebibyte to the desk; seconds.
    to_desk: f64,
}

impl Floor {
    /// Boots a desk and measures; `raw_tcp` is the program that runs there.
    pub(crate) async fn measure(lab: &Lab, raw_tcp: &Path) -> Result<Self> {
        let desk = lab.desk("desk").gadget_ports(0).boot().await?;
        desk.put_file(raw_tcp, RAW_TCP).await?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let script = format!("exec {RAW_TCP} {HOST_ADDRESS} {port} {ROUND_TRIPS} {MEBIBYTES}");
        let answers = async { answer(listener.accept().await?.0).await.context("answering the desk") };
        let ran = async {
            let said = desk.command(&script).timeout(PATIENCE).run().await?.success()?.stdout;
            numbers(&said)
        };
        let ((), [ping, from_desk, to_desk]) = tokio::try_join!(answers, ran)?;
        Ok(Self { ping, from_desk, to_desk })
    }
}

async fn answer(mut desk: TcpStream) -> Result<()> {
    desk.set_nodelay(true)?;
    let mut ping = [0; 64];
    for _ in 0..ROUND_TRIPS {
        desk.read_exact(&mut ping).await?;
        desk.write_all(&ping).await?;
    }
    let mut chunk = vec![0; CHUNK];
    let chunks = (MEBIBYTES << 20) / CHUNK;
    for _ in 0..chunks {
        desk.read_exact(&mut chunk).await?;
    }
    desk.write_all(&[0]).await?;
    for _ in 0..chunks {
        desk.write_all(&chunk).await?;
    }
    Ok(())
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |seconds: f64| MEBIBYTE / seconds / 1e6;
        writeln!(f, "a bare TCP connection of the desk, no added delay: what no stack can be faster than")?;
        writeln!(f, "  64 bytes there and back           ms{:>10.2}", self.ping * 1e3)?;
        writeln!(f, "  1 MiB from the desk (a read)    MB/s{:>10.2}", rate(self.from_desk))?;
        writeln!(f, "  1 MiB to the desk (a write)     MB/s{:>10.2}", rate(self.to_desk))
    }
}
