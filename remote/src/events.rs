//! What happens, said on standard output: sentences, or one JSON object a line with a time that is comparable
//! between the processes of one machine.

use std::{
    io::{self, Write},
    time::Duration,
};

use serde::Serialize;

use crate::cli::Format;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// The VM is ours.
    Connected { vm: String },
    /// The host said no.
    Refused { text: String, again: bool },
    /// There is no link; another try follows after this time.
    Disconnected { reason: String, again_in_ms: u64 },
    /// A device is lent.
    Attached { name: String },
    /// A key was pressed; its report waits for the VM to ask.
    Key { key: String },
    /// The VM plays: the first frame of a run has left for the sink.
    SoundStarted { stream: u8, run: u32, rate: u32, bits: u8, channels: u8, file: Option<String> },
    /// The VM has stopped playing and every frame has left for the sink.
    SoundStopped { stream: u8, run: u32, frames: u64, gaps: u64, underruns: u64, file: Option<String> },
}

/// Writes events.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Events(pub(crate) Format);

#[derive(Serialize)]
struct Stamped<'a> {
    /// CLOCK_MONOTONIC, nanoseconds.
    at_ns: u64,
    #[serde(flatten)]
    event: &'a Event,
}

impl Events {
    /// Says it, now. A closed standard output is not an error: nobody listens.
    pub(crate) fn say(self, event: &Event) {
        let at_ns = u64::try_from(monotonic().as_nanos()).unwrap_or(u64::MAX);
        let line = match self.0 {
            Format::Json => serde_json::to_string(&Stamped { at_ns, event }).unwrap_or_default(),
            Format::Human => sentence(event),
        };
        if !line.is_empty() {
            // In raw mode, which the terminal keyboard needs, a line feed alone does not return the carriage.
            let _ = write!(io::stdout().lock(), "{line}\r\n");
        }
    }
}

fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The sentence for people; empty for what would only disturb.
fn sentence(event: &Event) -> String {
    match event {
        Event::Connected { vm } => format!("connected: the VM `{vm}` has what is lent"),
        Event::Refused { text, .. } => format!("the host refuses: {text}"),
        Event::Disconnected { reason, again_in_ms } => {
            format!("no link: {reason}; trying again in {again_in_ms} ms")
        }
        Event::Attached { name } => format!("lent: {name}"),
        Event::Key { .. } => String::new(),
        Event::SoundStarted { rate, bits, channels, .. } => {
            format!("the VM plays: {rate} Hz, {bits} bit, {channels} channels")
        }
        Event::SoundStopped { frames, gaps, underruns, .. } => {
            format!("the VM stopped playing: {frames} frames, {gaps} missing, {underruns} underruns")
        }
    }
}
