//! Strangers by the thousand at the host's door, and a paired remote that comes in all the same.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, Result, ensure};
use lab::farbus::{Cable, Host, Program};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Connections of a flood.
const FLOOD: usize = 10_000;
/// Connections that the flood has open at the same time.
const OPEN: usize = 400;
/// Where the remote comes from.
const DESK: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// An address from where no remote has ever come.
const NEW: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// Where a flood comes from.
#[derive(Clone, Copy)]
enum From {
    One(Ipv4Addr),
    /// Each connection comes from an address of its own.
    Everywhere,
}

impl From {
    const ELSEWHERE: Self = Self::One(Ipv4Addr::new(127, 0, 0, 3));

    fn address(self, connection: usize) -> Ipv4Addr {
        match self {
            Self::One(address) => address,
            Self::Everywhere => Ipv4Addr::new(127, 1, (connection >> 8) as u8, connection as u8),
        }
    }
}

/// What a stranger says.
#[derive(Clone, Copy)]
enum Says {
    /// Nothing at all.
    Nothing,
    /// Half of a first message.
    Half,
    /// A first message that has the form of one.
    Whole,
    /// The first message of a pairing.
    Asks,
}

impl Says {
    fn words(self) -> Vec<u8> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Half => [&[0, 200, 1][..], &[7; 90]].concat(),
            Self::Whole => [&[0, 200, 1][..], &[7; 199]].concat(),
            Self::Asks => [&[0, 34, b'P', 1][..], &[7; 32]].concat(),
        }
    }
}

/// A flood: it goes on until it is told to end, and has then made at least [`FLOOD`] connections.
struct Flood {
    made: watch::Receiver<usize>,
    enough: Arc<AtomicBool>,
    task: JoinHandle<Result<()>>,
}

impl Flood {
    fn start(host: SocketAddr, from: From, says: Says) -> Self {
        let (count, made) = watch::channel(0);
        let enough = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&enough);
        let task = tokio::spawn(async move {
            let words = says.words();
            let mut open: VecDeque<TcpStream> = VecDeque::with_capacity(OPEN);
            while !stop.load(Ordering::Relaxed) || *count.borrow() < FLOOD {
                let socket = TcpSocket::new_v4()?;
                // So many connections would use up the ports of this address otherwise.
                socket.set_zero_linger()?;
                let address = from.address(*count.borrow());
                socket.bind((address, 0).into())?;
                let mut stream = socket.connect(host).await.context("the host does not accept any more")?;
                // The host may have hung up already.
                let _ = stream.write_all(&words).await;
                if open.len() == OPEN {
                    open.pop_front();
                }
                open.push_back(stream);
                count.send_modify(|count| *count += 1);
            }
            Ok(())
        });
        Self { made, enough, task }
    }

    /// Waits until so many connections were made.
    async fn reaches(&mut self, count: usize) -> Result<()> {
        self.made.wait_for(|made| *made >= count).await.context("the flood has ended")?;
        Ok(())
    }

    async fn end(self) -> Result<usize> {
        self.enough.store(true, Ordering::Relaxed);
        self.task.await??;
        Ok(*self.made.borrow())
    }
}

/// What the host's process holds: resident memory in KiB, and descriptors.
fn usage(process: u32) -> Result<(u64, usize)> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let resident = line.trim().trim_end_matches(" kB").parse()?;
    Ok((resident, std::fs::read_dir(format!("/proc/{process}/fd"))?.count()))
}

/// This process's own connections need descriptors.
fn allow_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Pairs a remote; the key file with which it connects.
async fn paired(host: &Host, folder: &Path) -> Result<String> {
    let config = folder.join("host.toml").to_string_lossy().into_owned();
    let key = folder.join("paired.key").to_string_lossy().into_owned();
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let mut code =
        Program::start("code", "farbus-host", &words(&["pair", "a", "--json", "--config", &config]), folder)?;
    let shown = code.wait_for("code").await?["code"].as_str().context("a code")?.to_owned();
    let pair = words(&["pair", &host.address, &shown, "--key-file", &key, "--json"]);
    Program::start("pair", "farbus-remote", &pair, folder)?.wait_for("paired").await?;
    Ok(key)
}

fn connect(host: &Host, folder: &Path, key: &str) -> Result<Program> {
    let all = ["connect", &host.address, "--key-file", key, "--events", "json"].map(str::to_owned);
    Program::start("connect", "farbus-remote", &all, folder)
}

/// Floods the host; a paired remote gets in during the flood, and the host's memory stays where it was.
async fn weather(from: From, says: Says) -> Result<()> {
    allow_descriptors();
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path(), &["a"]).await?;
    let process = host.program.id().context("the host runs")?;
    let key = paired(&host, folder.path()).await?;
    let mut remote = connect(&host, folder.path(), &key)?;
    remote.wait_for("connected").await.context("before the flood")?;
    ensure!(remote.stop().await?.success());
    let before = usage(process)?;

    let mut flood = Flood::start(host.address.parse()?, from, says);
    flood.reaches(1000).await?;
    let mut remote = connect(&host, folder.path(), &key)?;
    remote.wait_for("connected").await.context("during the flood")?;
    let during = usage(process)?;
    let made = flood.end().await?;
    let after = usage(process)?;

    ensure!(made >= FLOOD, "only {made} connections");
    for (resident, descriptors) in [during, after] {
        ensure!(resident < before.0 + 8192, "memory grows under a flood: {before:?} {during:?} {after:?}");
        // 32 half-open ones, those that are just going, and the remote's.
        ensure!(descriptors < before.1 + 64, "descriptors under a flood: {before:?} {during:?} {after:?}");
    }
    ensure!(remote.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn a_paired_remote_gets_in_during_a_flood_of_silent_connections_from_elsewhere() -> Result<()> {
    weather(From::ELSEWHERE, Says::Nothing).await
}

#[tokio::test]
async fn a_paired_remote_gets_in_during_a_flood_of_half_messages_from_elsewhere() -> Result<()> {
    weather(From::ELSEWHERE, Says::Half).await
}

#[tokio::test]
async fn a_paired_remote_gets_in_during_a_flood_of_whole_messages_from_elsewhere() -> Result<()> {
    weather(From::ELSEWHERE, Says::Whole).await
}

#[tokio::test]
async fn a_paired_remote_gets_in_during_a_flood_of_pairings_from_elsewhere() -> Result<()> {
    weather(From::ELSEWHERE, Says::Asks).await
}

#[tokio::test]
async fn a_paired_remote_gets_in_during_a_flood_of_silent_connections_from_everywhere() -> Result<()> {
    weather(From::Everywhere, Says::Nothing).await
}

#[tokio::test]
async fn a_remote_that_was_there_before_gets_in_during_a_flood_of_whole_messages_from_everywhere()
-> Result<()> {
    weather(From::Everywhere, Says::Whole).await
}

#[tokio::test]
async fn a_paired_remote_gets_in_during_a_flood_of_silent_connections_from_its_own_address() -> Result<()> {
    weather(From::One(DESK), Says::Nothing).await
}

/// A remote that has been paired at its desk comes from another address for the first time while a flood goes on; whether
/// it gets in before the flood is over.
async fn from_where_nobody_has_been(from: From, says: Says, surely: bool) -> Result<()> {
    allow_descriptors();
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path(), &["a"]).await?;
    let key = paired(&host, folder.path()).await?;
    let elsewhere = Cable::from(NEW, &host.address).await?;
    let mut flood = Flood::start(host.address.parse()?, from, says);
    flood.reaches(1000).await?;
    let (address, pin) = (elsewhere.address(), host.key.as_str());
    let all = ["connect", &address, "--host-key", pin, "--key-file", &key, "--events", "json"];
    let mut remote = Program::start("connect", "farbus-remote", &all.map(str::to_owned), folder.path())?;
    if surely {
        remote.wait_for("connected").await.context("during the flood")?;
        flood.end().await?;
    } else {
        flood.end().await?;
        remote.wait_for("connected").await.context("after the flood")?;
    }
    ensure!(remote.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn a_remote_from_where_nobody_has_been_gets_in_during_a_flood_of_whole_messages_from_elsewhere()
-> Result<()> {
    from_where_nobody_has_been(From::ELSEWHERE, Says::Whole, true).await
}

#[tokio::test]
async fn a_remote_from_where_nobody_has_been_gets_in_during_a_flood_of_silent_connections_from_everywhere()
-> Result<()> {
    from_where_nobody_has_been(From::Everywhere, Says::Nothing, true).await
}

#[tokio::test]
async fn a_remote_from_where_nobody_has_been_gets_in_when_a_flood_of_whole_messages_from_everywhere_is_over()
-> Result<()> {
    from_where_nobody_has_been(From::Everywhere, Says::Whole, false).await
}
