//! The lab's end of the talk with the agent in the guest.
//!
//! ```text
//!             greeting                          reset, end of the agent
//! Listening ------------> Ready (frames) -----------------------------> Listening
//! ```
//! While `Listening`, bytes are skipped until the greeting: after a reset the guest's stream begins anew in the middle
//! of whatever frame was under way. Commands of an earlier life of the guest end without an exit code.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};

use crate::frame::{Frame, GREETING, HEADER_LEN, Kind, MAX_PAYLOAD};

/// How much output of one command may wait for its reader, in bytes. A command that exceeds it is given up.
const OUTPUT_LIMIT: usize = 256 << 20;

/// What a command tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes of its standard output.
    Stdout(Vec<u8>),
    /// Bytes of its standard error.
    Stderr(Vec<u8>),
    /// It is over, with this exit code; 128 + N if signal N killed it. Nothing follows.
    Exit(i32),
}

/// What the agent of one VM is doing.
#[derive(Debug)]
pub(super) struct Agent {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    shared: Arc<Shared>,
    next_command: AtomicU32,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Whether the greeting has come.
    ready: watch::Sender<bool>,
    /// How many lives of the guest were forgotten.
    lives: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// Received and not yet understood.
    received: Vec<u8>,
    commands: HashMap<u32, Listener>,
}

#[derive(Debug)]
struct Listener {
    events: mpsc::UnboundedSender<Event>,
    waiting: Arc<AtomicUsize>,
}

/// The events of one command, in order.
#[derive(Debug)]
pub(crate) struct Events {
    events: mpsc::UnboundedReceiver<Event>,
    waiting: Arc<AtomicUsize>,
}

impl Events {
    /// The next event; none when the guest was reset, or is gone, or the command printed too much.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        let event = self.events.recv().await?;
        if let Event::Stdout(bytes) | Event::Stderr(bytes) = &event {
            self.waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
        }
        Some(event)
    }
}

impl Agent {
    pub(super) fn new(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            ready: watch::Sender::new(false),
            lives: watch::Sender::new(0),
        });
        tokio::spawn(listen(reader, shared.clone()));
        Self { writer: writer.into(), shared, next_command: AtomicU32::new(1) }
    }

    /// Waits until the agent has greeted, in this life of the guest.
    pub(super) async fn ready(&self) -> Result<()> {
        let mut ready = self.shared.ready.subscribe();
        ready.wait_for(|ready| *ready).await.map(drop).context("the agent's channel is gone")
    }

    /// Changes when a life of the guest is forgotten.
    pub(super) fn lives(&self) -> watch::Receiver<u64> {
        self.shared.lives.subscribe()
    }

    /// Forgets the guest's life so far: it is being reset.
    pub(super) fn forget(&self) {
        self.shared.forget();
    }

    /// Has the agent run a shell script; the number identifies it from then on.
    pub(super) async fn start(&self, script: &str) -> Result<(u32, Events)> {
        if script.len() > MAX_PAYLOAD {
            bail!("a command is at most {MAX_PAYLOAD} bytes long: put a file into the guest and run that");
        }
        if !*self.shared.ready.borrow() {
            bail!("the guest's agent is not there");
        }
        let command = self.next_command.fetch_add(1, Ordering::Relaxed);
        let (events, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        self.shared.state().commands.insert(command, Listener { events, waiting: waiting.clone() });
        self.send(Kind::Run, command, script.as_bytes()).await?;
        Ok((command, Events { events: receiver, waiting }))
    }

    /// Feeds a command's standard input.
    pub(super) async fn input(&self, command: u32, bytes: &[u8]) -> Result<()> {
        for piece in bytes.chunks(MAX_PAYLOAD) {
            self.send(Kind::Stdin, command, piece).await?;
        }
        Ok(())
    }

    /// Ends a command's standard input.
    pub(super) async fn end_input(&self, command: u32) -> Result<()> {
        self.send(Kind::StdinEnd, command, &[]).await
    }

    /// Sends a signal to a command and all its children.
    pub(super) async fn signal(&self, command: u32, signal: i32) -> Result<()> {
        self.send(Kind::Signal, command, signal.to_string().as_bytes()).await
    }

    async fn send(&self, kind: Kind, command: u32, payload: &[u8]) -> Result<()> {
        let frame = Frame { kind, command, payload: payload.to_vec() };
        let mut writer = self.writer.lock().await;
        writer.write_all(&frame.encode()).await.context("writing to the guest's agent")
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self) {
        let mut state = self.state();
        self.ready.send_replace(false);
        *state = State::default();
        self.lives.send_modify(|lives| *lives += 1);
    }
}

async fn listen(mut reader: OwnedReadHalf, shared: Arc<Shared>) {
    let mut buffer = vec![0; MAX_PAYLOAD];
    while let Ok(length @ 1..) = reader.read(&mut buffer).await {
        let mut state = shared.state();
        state.received.extend(&buffer[..length]);
        if !*shared.ready.borrow() && state.greeted() {
            shared.ready.send_replace(true);
        }
        if *shared.ready.borrow() && state.take_frames().is_err() {
            // The agent was restarted: its greeting is among the bytes that were no frame.
            let received = std::mem::take(&mut state.received);
            *state = State { received, ..State::default() };
            shared.ready.send_replace(state.greeted());
        }
    }
    shared.forget();
}

impl State {
    /// Looks for the greeting and keeps what follows it, else as much as may be its beginning.
    fn greeted(&mut self) -> bool {
        let found = self.received.windows(GREETING.len()).position(|window| window == GREETING);
        let skipped = match found {
            Some(at) => at + GREETING.len(),
            None => self.received.len().saturating_sub(GREETING.len() - 1),
        };
        self.received.drain(..skipped);
        found.is_some()
    }

    /// Hands every whole frame to its command.
    fn take_frames(&mut self) -> Result<()> {
        let mut at = 0;
        let outcome = loop {
            let Some(header) = self.received[at..].first_chunk::<HEADER_LEN>() else { break Ok(()) };
            let (kind, command, length) = match Frame::decode_header(*header) {
                Ok(header) => header,
                Err(error) => break Err(error.into()),
            };
            let Some(payload) = self.received[at + HEADER_LEN..].get(..length) else { break Ok(()) };
            let payload = payload.to_vec();
            at += HEADER_LEN + length;
            self.deliver(kind, command, payload);
        };
        self.received.drain(..at);
        outcome
    }

    fn deliver(&mut self, kind: Kind, command: u32, payload: Vec<u8>) {
        let Some(listener) = self.commands.get(&command) else { return };
        let length = payload.len();
        let event = match kind {
            Kind::Stdout => Event::Stdout(payload),
            Kind::Stderr => Event::Stderr(payload),
            Kind::Exit => match payload.first_chunk() {
                Some(code) => Event::Exit(i32::from_le_bytes(*code)),
                None => return,
            },
            Kind::Run | Kind::Stdin | Kind::StdinEnd | Kind::Signal => return,
        };
        let over = matches!(event, Event::Exit(_));
        if !over {
            listener.waiting.fetch_add(length, Ordering::Relaxed);
        }
        let too_much = listener.waiting.load(Ordering::Relaxed) > OUTPUT_LIMIT;
        // Whoever started the command may have lost interest.
        let unheard = listener.events.send(event).is_err();
        if over || too_much || unheard {
            self.commands.remove(&command);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn within<T>(future: impl Future<Output = T>) -> T {
        timeout(Duration::from_secs(60), future).await.expect("in time")
    }

    fn frame(kind: Kind, command: u32, payload: &[u8]) -> Vec<u8> {
        Frame { kind, command, payload: payload.to_vec() }.encode()
    }

    async fn frame_of(guest: &mut UnixStream) -> Result<Frame> {
        let mut header = [0; HEADER_LEN];
        guest.read_exact(&mut header).await?;
        let (kind, command, length) = Frame::decode_header(header)?;
        let mut payload = vec![0; length];
        guest.read_exact(&mut payload).await?;
        Ok(Frame { kind, command, payload })
    }

    #[tokio::test]
    async fn frames_arrive_in_order_however_the_stream_is_cut() -> Result<()> {
        let (ours, mut guest) = UnixStream::pair()?;
        let agent = Agent::new(ours);
        guest.write_all(b"noise of firmware").await?;
        guest.write_all(GREETING).await?;
        within(agent.ready()).await?;
        let (command, mut events) = agent.start("script").await?;
        assert_eq!(
            within(frame_of(&mut guest)).await?,
            Frame { kind: Kind::Run, command, payload: b"script".into() }
        );
        let stream = [
            frame(Kind::Stdout, command, b"one"),
            frame(Kind::Stderr, command, b""),
            frame(Kind::Exit, command, &7_i32.to_le_bytes()),
        ];
        for byte in stream.concat() {
            guest.write_all(&[byte]).await?;
        }
        assert!(matches!(within(events.next()).await, Some(Event::Stdout(bytes)) if bytes == b"one"));
        assert!(matches!(within(events.next()).await, Some(Event::Stderr(_))));
        assert!(matches!(within(events.next()).await, Some(Event::Exit(7))));
        assert!(within(events.next()).await.is_none());
        Ok(())
    }

    #[tokio::test]
    async fn a_reset_in_the_middle_of_a_frame_ends_commands_and_the_next_life_is_understood() -> Result<()> {
        let (ours, mut guest) = UnixStream::pair()?;
        let agent = Agent::new(ours);
        guest.write_all(GREETING).await?;
        within(agent.ready()).await?;
        let (_, mut events) = agent.start("first").await?;
        guest.write_all(&frame(Kind::Stdout, 1, &[0; 100])[..50]).await?;
        agent.forget();
        assert!(within(events.next()).await.is_none());
        guest.write_all(GREETING).await?;
        within(agent.ready()).await?;
        let (second, mut events) = agent.start("second").await?;
        guest.write_all(&frame(Kind::Exit, second, &0_i32.to_le_bytes())).await?;
        assert!(matches!(within(events.next()).await, Some(Event::Exit(0))));
        Ok(())
    }

    #[tokio::test]
    async fn an_agent_that_was_restarted_ends_what_ran_under_the_old_one() -> Result<()> {
        let (ours, mut guest) = UnixStream::pair()?;
        let agent = Agent::new(ours);
        guest.write_all(GREETING).await?;
        within(agent.ready()).await?;
        let (_, mut events) = agent.start("command").await?;
        guest.write_all(GREETING).await?;
        assert!(within(events.next()).await.is_none());
        within(agent.ready()).await
    }

    #[tokio::test]
    async fn the_end_of_the_machine_ends_its_commands() -> Result<()> {
        let (ours, mut guest) = UnixStream::pair()?;
        let agent = Agent::new(ours);
        guest.write_all(GREETING).await?;
        within(agent.ready()).await?;
        let (_, mut events) = agent.start("command").await?;
        drop(guest);
        assert!(within(events.next()).await.is_none());
        assert!(agent.start("another").await.is_err());
        Ok(())
    }
}
