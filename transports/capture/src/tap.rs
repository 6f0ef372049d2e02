//! Recording beside a data path: it never waits, and what it holds is bounded.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use wire::usb::{Completion, Request, RequestId};

use crate::{Asked, Capture, SNAP};

/// Records that may wait for the file, and their bytes.
const RECORDS: usize = 4096;
const BYTES: usize = 16 << 20;
/// Requests whose end is to come: far more than a host has credit for.
const PENDING: usize = 1 << 16;

/// Where a data path says what happens on it. Clones record into the same file; each pairs the ends that it hears with
/// the requests that it has heard.
#[derive(Debug, Clone)]
pub struct Tap {
    queue: SyncSender<Item>,
    load: Arc<Load>,
    pending: BTreeMap<RequestId, Asked>,
}

/// The thread that writes the file.
#[derive(Debug)]
pub struct Writer {
    queue: SyncSender<Item>,
    thread: JoinHandle<io::Result<Totals>>,
}

/// What has become of everything that was to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Records in the file.
    pub records: u64,
    /// Records that found no room on their way.
    pub dropped: u64,
}

/// What waits, and what did not find room to.
#[derive(Debug, Default)]
struct Load {
    bytes: AtomicUsize,
    dropped: AtomicU64,
}

#[derive(Debug)]
enum Item {
    Submitted(Duration, Request),
    Ended(Duration, Asked, Completion),
    Finish,
}

/// Begins to record into `out`; `name` says where that is.
///
/// # Errors
/// The file's beginning cannot be written, or there is no thread for it.
pub fn record(out: impl Write + Send + 'static, name: &str) -> io::Result<(Tap, Writer)> {
    let capture = Capture::new(io::BufWriter::new(out), name, SNAP)?;
    let (queue, items) = sync_channel(RECORDS);
    let load = Arc::new(Load::default());
    let shared = Arc::clone(&load);
    let thread = thread::Builder::new().name("farbus-capture".to_owned());
    let thread = thread.spawn(move || write(capture, &items, &shared))?;
    Ok((Tap { queue: queue.clone(), load, pending: BTreeMap::new() }, Writer { queue, thread }))
}

/// Begins to record into a file; what was there before stays beside it, as `FILE.old`. Only the user may read it: keys
/// that are typed are in it.
///
/// # Errors
/// The file cannot be made, or its beginning cannot be written.
pub fn record_into(file: &Path, name: &str) -> io::Result<(Tap, Writer)> {
    match fs::rename(file, file.with_added_extension("old")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    record(options.open(file)?, name)
}

impl Tap {
    /// A request goes out.
    pub fn submitted(&mut self, request: &Request) {
        if self.pending.len() >= PENDING {
            self.pending.pop_first();
        }
        self.pending.insert(request.id, Asked::of(request));
        self.give(Item::Submitted(now(), request.clone()));
    }

    /// A request has ended. The end of one that nobody has heard of is no transfer, and not recorded.
    pub fn ended(&mut self, end: &Completion) {
        if let Some(asked) = self.pending.remove(&end.id) {
            self.give(Item::Ended(now(), asked, end.clone()));
        }
    }

    /// A new session begins: what was asked in the one before never ends, and ids start over.
    pub fn renew(&mut self) {
        self.pending.clear();
    }

    fn give(&self, item: Item) {
        let bytes = item.bytes();
        let before = self.load.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > BYTES || self.queue.try_send(item).is_err() {
            self.load.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.load.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Writer {
    /// Writes what waits, and ends the file; taps that are left record nothing more.
    ///
    /// # Errors
    /// The file cannot be written: it ends where that began.
    pub fn finish(self) -> io::Result<Totals> {
        // A thread that has failed already says why.
        let _ = self.queue.send(Item::Finish);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the capture's thread panicked")))
    }
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Submitted(_, request) => match &request.payload {
                wire::usb::Payload::Out(data) => data.len(),
                wire::usb::Payload::In { .. } => 0,
            },
            Self::Ended(_, _, end) => match &end.moved {
                wire::usb::Moved::In(data) => data.len(),
                wire::usb::Moved::Out(_) => 0,
            },
            Self::Finish => 0,
        }
    }
}

fn write<W: Write>(mut capture: Capture<W>, items: &Receiver<Item>, load: &Load) -> io::Result<Totals> {
    while let Some(item) = next(&mut capture, items)? {
        let bytes = item.bytes();
        match item {
            Item::Submitted(at, request) => capture.submitted(at, &request)?,
            Item::Ended(at, asked, end) => capture.ended(at, asked, &end)?,
            Item::Finish => break,
        }
        load.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
    let dropped = load.dropped.load(Ordering::Relaxed);
    Ok(Totals { records: capture.finish(now(), dropped)?, dropped })
}

/// The next item. Before it waits for one, everything so far reaches the file: who looks while nothing happens sees all.
fn next<W: Write>(capture: &mut Capture<W>, items: &Receiver<Item>) -> io::Result<Option<Item>> {
    match items.try_recv() {
        Ok(item) => Ok(Some(item)),
        Err(TryRecvError::Disconnected) => Ok(None),
        Err(TryRecvError::Empty) => {
            capture.flush()?;
            Ok(items.recv().ok())
        }
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
