//! The reference: the same frames through PulseAudio's way over a network, between two daemons of Debian's on loopback.
//!
//! ```text
//!   numbered frames, 5 ms every 5 ms ─► pacat ─► daemon ── module-tunnel-sink ── TCP ─► daemon ─► module-pipe-sink ─► here
//! ```
//! The clock starts when a frame is written to the player, and ends when it comes out of the last daemon. That one's end is
//! a pipe, paced by the system's clock: it does not have to wait for a card's period of 10 ms, as ours does. What runs keeps
//! to a folder of its own, and is ended by its number.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use lab::provision::{Cache, PulseAudio};

use crate::{FORMAT, desk::timer, latency::Times};

/// What is left out at the beginning, and how long a measurement takes.
const WARM_UP: Duration = Duration::from_secs(8);
const LENGTH: Duration = Duration::from_secs(15);
/// How much is written at once, and how often: 5 ms.
const EVERY: Duration = Duration::from_millis(5);
const FRAMES: u32 = FORMAT.rate / 200;
/// How long a daemon may take to start.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a process's times are counted in, per second.
const TICKS: f64 = 100.0;

/// Arguments of the tunnel and of the player.
struct Setting {
    name: &'static str,
    tunnel: &'static str,
    player: &'static [&'static str],
}

const SETTINGS: [Setting; 3] = [
    Setting { name: "all as it comes", tunnel: "", player: &[] },
    Setting { name: "a player that asks for 10 ms", tunnel: "", player: &["--latency-msec=10"] },
    Setting {
        name: "tunnel and player at 10 ms",
        tunnel: "latency_msec=10",
        player: &["--latency-msec=10", "--process-time-msec=5"],
    },
];

/// A line for each setting.
pub(crate) fn lines() -> Vec<String> {
    let programs = match Cache::open().and_then(|cache| PulseAudio::find(&cache)) {
        Ok(programs) => programs,
        Err(error) => return vec![format!("not measured: {error:#}")],
    };
    let line = |setting: &Setting| {
        let said = measure(&programs, setting).unwrap_or_else(|error| format!("not measured: {error:#}"));
        format!("{:<29} {said}", setting.name)
    };
    SETTINGS.iter().map(line).collect()
}

/// A process that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn start(mut command: Command, log: &Path) -> Result<Self> {
        command.stderr(File::create(log)?).stdout(Stdio::null());
        Ok(Self(command.spawn().with_context(|| format!("starting {}", log.display()))?))
    }

    /// Waits until it is ready.
    fn until(&mut self, log: &Path, ready: impl Fn() -> bool) -> Result<()> {
        let (since, timer) = (Instant::now(), timer(2 * EVERY)?);
        while !ready() {
            let ended = self.0.try_wait()?;
            if ended.is_some() || since.elapsed() > PATIENCE {
                let said = fs::read_to_string(log).unwrap_or_default();
                bail!("PulseAudio did not start: {}", said.lines().last().unwrap_or("it said nothing"));
            }
            rustix::io::read(&timer, &mut [0u8; 8])?;
        }
        Ok(())
    }

    /// The processor's time that it has used so far, in seconds.
    fn spent(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        let fields: Vec<&str> = stat.rsplit(") ").next().context("a stat")?.split(' ').collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
        // utime and stime, fields 14 and 15; what is left begins with field 3.
        Ok((ticks(11).context("utime")? + ticks(12).context("stime")?) / TICKS)
    }
}

fn measure(programs: &PulseAudio, setting: &Setting) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let place = |name: &str| folder.path().join(name);
    let (near, far) = (place("near"), place("far"));
    [&near, &far].iter().try_for_each(fs::create_dir)?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let shape = "rate=48000 channels=2 format=s16le";

    let (pipe, log) = (far.join("pipe"), place("far.log"));
    let mut command = programs.daemon(&far);
    command.arg(format!(
        "--load=module-pipe-sink file={} {shape} use_system_clock_for_timing=yes",
        pipe.display()
    ));
    command.arg(format!("--load=module-native-protocol-tcp port={port} listen=127.0.0.1 auth-anonymous=1"));
    let mut far = Running::start(command, &log)?;
    far.until(&log, || pipe.exists() && TcpStream::connect(("127.0.0.1", port)).is_ok())?;

    let (socket, log) = (near.join("socket"), place("near.log"));
    let mut command = programs.daemon(&near);
    let tunnel = setting.tunnel;
    command.arg(format!("--load=module-tunnel-sink server=tcp:127.0.0.1:{port} {shape} {tunnel}"));
    command.arg(format!("--load=module-native-protocol-unix socket={} auth-anonymous=1", socket.display()));
    let mut daemon = Running::start(command, &log)?;
    daemon.until(&log, || socket.exists())?;

    let mut command = programs.pacat(&near);
    command.arg(format!("--server=unix:{}", socket.display())).args(setting.player);
    command.args(["--playback", "--raw", "--rate=48000", "--channels=2", "--format=s16le"]);
    let mut player = Running::start(
        {
            command.stdin(Stdio::piped());
            command
        },
        &place("player.log"),
    )?;
    let into = player.0.stdin.take().context("the player's input")?;
    // A page: what waits there is not the server's doing.
    rustix::pipe::fcntl_setpipe_size(&into, 4096)?;

    let listener = thread::spawn(move || listen(&pipe));
    let spent = || anyhow::Ok((daemon.spent()? + player.spent()?, far.spent()?));
    let (written, before) = play(into, spent)?;
    let after = spent()?;
    // The pipe ends with the last daemon.
    drop((player, daemon, far));
    let heard = listener.join().ok().context("the listener")??;
    let part = |before: f64, after: f64| (after - before) * 100.0 / LENGTH.as_secs_f64();
    Ok(format!(
        "{}; player's end {:.1} %, far end {:.1} % of a core",
        judge(&written, &heard)?,
        part(before.0, after.0),
        part(before.1, after.1)
    ))
}

/// Writes numbered frames for as long as it takes: when each 5 ms of them were written, and what had been `spent` when the
/// measurement began.
fn play<T>(mut into: ChildStdin, spent: impl Fn() -> Result<T>) -> Result<(Vec<Instant>, T)> {
    let timer = timer(EVERY)?;
    let (start, mut written, mut before) = (Instant::now(), Vec::new(), None);
    while start.elapsed() < WARM_UP + LENGTH {
        let mut periods = [0; 8];
        rustix::io::read(&timer, &mut periods)?;
        for _ in 0..u64::from_ne_bytes(periods) {
            let first = written.len() as u32 * FRAMES + 1;
            let frames: Vec<u8> = (first..first + FRAMES).flat_map(u32::to_le_bytes).collect();
            written.push(Instant::now());
            into.write_all(&frames).context("the player has ended")?;
        }
        if before.is_none() && start.elapsed() >= WARM_UP {
            before = Some(spent()?);
        }
    }
    Ok((written, before.context("too short")?))
}

/// What comes out of the pipe, and when, until it ends.
fn listen(pipe: &Path) -> Result<Vec<(Instant, u32)>> {
    let (mut pipe, mut heard, mut rest) = (File::open(pipe)?, Vec::new(), Vec::new());
    let mut buffer = [0; 1 << 16];
    loop {
        let count = pipe.read(&mut buffer)?;
        if count == 0 {
            return Ok(heard);
        }
        let now = Instant::now();
        rest.extend_from_slice(&buffer[..count]);
        let (frames, _) = rest.as_chunks::<4>();
        heard.extend(frames.iter().map(|frame| (now, u32::from_le_bytes(*frame))));
        rest.drain(..rest.len() / 4 * 4);
    }
}

/// How long frames took, and whether each came once, in order and as it was.
fn judge(written: &[Instant], heard: &[(Instant, u32)]) -> Result<String> {
    let begin = *written.first().context("nothing was written")? + WARM_UP;
    let mut heard = heard.iter().filter(|(at, number)| *at > begin && *number > 0).peekable();
    let mut next = heard.peek().context("nothing was heard")?.1;
    let (mut times, mut lost, mut wrong) = (Vec::new(), 0u64, 0u64);
    for (at, number) in heard {
        match written.get((number - 1) as usize / FRAMES as usize) {
            Some(then) if *number >= next => {
                lost += u64::from(number - next);
                next = number + 1;
                times.push(at.saturating_duration_since(*then).as_secs_f64() * 1e3);
            }
            _ => wrong += 1,
        }
    }
    ensure!(!times.is_empty(), "nothing was heard as it was written");
    Ok(format!("{}, {lost} lost, {wrong} doubled or altered", Times::of(times)))
}
