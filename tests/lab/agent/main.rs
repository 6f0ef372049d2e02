//! The lab's agent: runs in the guest, started by its init, and carries out what the lab asks over a virtio-console
//! port: commands with their input, output and exit code, many at a time.
//!
//! One thread reads the port; each command has a thread for each of its three pipes. A command is over when its
//! process is gone *and* nothing holds its output any more, so no byte arrives after [`Kind::Exit`].
//! If the port fails the agent ends, and init starts it again.

#![forbid(unsafe_code)]

mod frame;

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use frame::{Frame, GREETING, HEADER_LEN, Kind, MAX_PAYLOAD};

/// The name QEMU gives the agent's port.
const PORT: &str = "lab.agent";
/// How long the port may take to appear.
const PORT_WITHIN: Duration = Duration::from_secs(30);
/// Exit code of a command that could not be started, as shells have it.
const CANNOT_RUN: i32 = 127;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let path = port()?;
    let mut reader = OpenOptions::new().read(true).write(true).open(&path)?;
    let port = Port(Arc::new(Mutex::new(reader.try_clone()?)));
    port.with(|stream| stream.write_all(GREETING))?;

    let mut running: HashMap<u32, Running> = HashMap::new();
    loop {
        let Frame { kind, command, payload } = read(&mut reader)?;
        match kind {
            Kind::Run => {
                running.retain(|_, run| !run.over());
                match start(&port, command, &payload) {
                    Ok(run) => drop(running.insert(command, run)),
                    Err(error) => {
                        port.send(Kind::Stderr, command, format!("lab agent: {error}\n").as_bytes())?;
                        port.exit(command, CANNOT_RUN)?;
                    }
                }
            }
            Kind::Stdin => {
                if let Some(stdin) = running.get(&command).and_then(|run| run.stdin.as_ref()) {
                    // A command that does not read its input to the end is no fault of ours.
                    let _ = stdin.send(payload);
                }
            }
            Kind::StdinEnd => {
                if let Some(run) = running.get_mut(&command) {
                    run.stdin = None;
                }
            }
            Kind::Signal => {
                if let Some(run) = running.get(&command) {
                    signal(run.group, &payload)?;
                }
            }
            Kind::Stdout | Kind::Stderr | Kind::Exit => return Err(io::Error::other("the lab sent a guest's frame")),
        }
    }
}

fn read(port: &mut File) -> io::Result<Frame> {
    let mut header = [0; HEADER_LEN];
    port.read_exact(&mut header)?;
    let (kind, command, length) = Frame::decode_header(header)?;
    let mut payload = vec![0; length];
    port.read_exact(&mut payload)?;
    Ok(Frame { kind, command, payload })
}

/// The device of the port named [`PORT`]. It gets its name some time after its driver was loaded; nothing tells us
/// when, as no udev runs here.
fn port() -> io::Result<PathBuf> {
    let started = Instant::now();
    loop {
        for entry in fs::read_dir("/sys/class/virtio-ports")? {
            let entry = entry?;
            if fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim() == PORT) {
                return Ok(PathBuf::from("/dev").join(entry.file_name()));
            }
        }
        if started.elapsed() > PORT_WITHIN {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("no virtio port is named {PORT}")));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A command under way.
struct Running {
    /// Its process group, which is its process id.
    group: u32,
    /// Feeds its standard input, until that is closed.
    stdin: Option<Sender<Vec<u8>>>,
    /// Dead when the command is over.
    alive: std::sync::Weak<()>,
}

impl Running {
    fn over(&self) -> bool {
        self.alive.strong_count() == 0
    }
}

fn start(port: &Port, command: u32, script: &[u8]) -> io::Result<Running> {
    let script = std::str::from_utf8(script).map_err(io::Error::other)?;
    let mut child = Command::new("/bin/sh")
        .args(["-c", script])
        .current_dir("/root")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let group = child.id();
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(io::Error::other("a pipe is missing"));
    };

    let (feed, food) = mpsc::channel::<Vec<u8>>();
    thread::spawn(move || {
        // Ends when the feeder is dropped, or when the command closes its end.
        food.into_iter().try_for_each(|bytes| stdin.write_all(&bytes))
    });
    let alive = Arc::new(());
    let watched = Arc::downgrade(&alive);
    let outputs = [
        thread::spawn(port.pump(Kind::Stdout, command, stdout)),
        thread::spawn(port.pump(Kind::Stderr, command, stderr)),
    ];
    let port = port.clone();
    thread::spawn(move || {
        let code = wait(&mut child);
        for output in outputs {
            let _ = output.join();
        }
        drop(alive);
        // A port that fails is noticed by the thread that reads it.
        let _ = port.exit(command, code);
    });
    Ok(Running { group, stdin: Some(feed), alive: watched })
}

fn wait(child: &mut Child) -> i32 {
    let of = |status: ExitStatus| status.code().or(status.signal().map(|signal| 128 + signal));
    child.wait().ok().and_then(of).unwrap_or(CANNOT_RUN)
}

/// Sends a signal to a process group. Only a program can: the standard library has no `kill`.
fn signal(group: u32, number: &[u8]) -> io::Result<()> {
    let number = String::from_utf8_lossy(number);
    let mut kill = Command::new("/bin/busybox");
    kill.args(["kill", "-s", &number, "--", &format!("-{group}")]).stdin(Stdio::null()).stderr(Stdio::null());
    kill.status().map(drop)
}

/// The way to the lab, shared by all commands.
#[derive(Clone)]
struct Port(Arc<Mutex<File>>);

impl Port {
    fn with(&self, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        write(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn send(&self, kind: Kind, command: u32, payload: &[u8]) -> io::Result<()> {
        let frame = Frame { kind, command, payload: payload.to_vec() };
        self.with(|stream| stream.write_all(&frame.encode()))
    }

    fn exit(&self, command: u32, code: i32) -> io::Result<()> {
        self.send(Kind::Exit, command, &code.to_le_bytes())
    }

    /// Forwards a pipe until it ends.
    fn pump(&self, kind: Kind, command: u32, mut pipe: impl Read + Send + 'static) -> impl FnOnce() + Send + 'static {
        let port = self.clone();
        move || {
            let mut buffer = vec![0; MAX_PAYLOAD];
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                if port.send(kind, command, &buffer[..length]).is_err() {
                    return;
                }
            }
        }
    }
}
