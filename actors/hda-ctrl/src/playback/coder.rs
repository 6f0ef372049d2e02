//! Opus has a thread of its own: a packet of 10 ms takes longer to write than the guest may have to wait for a register,
//! and there may be four streams, with as much again if their rate is not Opus's own.
//!
//! ```text
//!   Playback ── jobs, 64 at most ──► thread: Runs ── Play ──► session
//! ```
//! Frames that find no room are lost, as if the network had lost them: what is late is not worth waiting for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use hda::Packet;
use sound::choice::Plan;
use wire::audio::{Missing, StreamId, ToRemote};

use super::{
    Stream,
    runs::{Run, Runs},
};

/// Jobs that wait at most: 80 ms of four streams whose packets are the shortest.
const JOBS: usize = 128;

/// Where finished messages go.
pub(crate) type Session = Arc<dyn Fn(Vec<ToRemote>) + Send + Sync>;

/// What there is to do, in order.
pub(super) enum Job {
    /// The stream is in your care from now on.
    Adopt(StreamId, Box<Run>),
    Play(Duration, Vec<Packet>, Plan),
    /// A message that has to come behind everything that was played: [`ToRemote::Pause`].
    Pause(Duration, StreamId, u32, ToRemote),
    Answer(Missing),
}

/// The thread, from its first job on.
pub(super) struct Coder {
    session: Session,
    worker: Option<Worker>,
}

struct Worker {
    jobs: SyncSender<Job>,
    /// Nobody waits for what it does any more.
    over: Arc<AtomicBool>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
    }
}

impl Coder {
    pub(super) fn new(session: Session) -> Self {
        Self { session, worker: None }
    }

    /// Has this done; not at all if too much waits, or there is no thread to be had.
    pub(super) fn take(&mut self, job: Job) {
        if self.worker.is_none() {
            self.worker = Worker::start(&self.session);
        }
        let Some(worker) = &self.worker else { return };
        if let Err(error) = worker.jobs.try_send(job) {
            metrics::counter!("farbus_play_dropped_jobs").increment(1);
            // The thread has ended, against all rules: another one, which knows of no run yet.
            self.worker.take_if(|_| matches!(error, TrySendError::Disconnected(_)));
        }
    }

    /// Has the frames played that are held for it.
    pub(super) fn play(&mut self, now: Duration, stream: &mut Stream) {
        stream.frames %= usize::from(stream.plan.frames.max(1));
        let packets = std::mem::take(&mut stream.held);
        if !packets.is_empty() {
            self.take(Job::Play(now, packets, stream.plan));
        }
    }

    /// What is under way is for nobody.
    pub(super) fn forget(&mut self) {
        self.worker = None;
    }
}

impl Worker {
    fn start(session: &Session) -> Option<Self> {
        let (jobs, waiting) = sync_channel(JOBS);
        let over = Arc::new(AtomicBool::new(false));
        let (session, ended) = (Arc::clone(session), Arc::clone(&over));
        let started = thread::Builder::new().name("opus".to_owned()).spawn(move || {
            work(&waiting, |messages| {
                if !ended.load(Relaxed) {
                    session(messages);
                }
            });
        });
        started.inspect_err(|error| tracing::error!(%error, "no thread for Opus")).ok()?;
        Some(Self { jobs, over })
    }
}

/// Until nobody has any more jobs.
fn work(jobs: &Receiver<Job>, say: impl Fn(Vec<ToRemote>)) {
    let mut runs = Runs::default();
    while let Ok(job) = jobs.recv() {
        let mut out = Vec::new();
        match job {
            Job::Adopt(stream, run) => runs.adopt(stream, *run),
            Job::Play(now, packets, plan) => {
                packets.iter().for_each(|packet| runs.play(now, packet, plan, &mut out));
            }
            Job::Pause(now, stream, run, pause) => {
                runs.flush(now, stream, run, &mut out);
                out.push(pause);
            }
            Job::Answer(missing) => runs.answer(&missing, &mut out),
        }
        if !out.is_empty() {
            say(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn pause(position: u64) -> Job {
        let (stream, run) = (StreamId(4), 1);
        Job::Pause(Duration::ZERO, stream, run, ToRemote::Pause { stream, run, position })
    }

    #[test]
    fn a_thread_that_is_stuck_holds_up_nobody_and_what_it_does_afterwards_is_for_nobody() {
        let (said, heard) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        let wait = std::sync::Mutex::new(wait);
        let session = move |messages| {
            said.send(messages).unwrap();
            let _ = wait.lock().unwrap().recv();
        };
        let mut coder = Coder::new(Arc::new(session));
        coder.take(pause(0));
        assert_eq!(heard.recv().unwrap().len(), 1);
        // It hangs in the session; these find room or do not, and nothing waits.
        (0..10 * JOBS as u64).for_each(|n| coder.take(pause(n)));
        drop(coder);
        drop(go);
        assert!(heard.recv().is_err(), "the thread has ended, and said nothing more");
    }
}
