//! What happens, said on standard output: sentences, or one JSON object a line with a time that is comparable
//! between the processes of one machine.

use std::{
    io::{self, Write},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::cli::Format;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// The VM is ours.
    Connected { vm: String, transport: &'static str },
    /// The session goes on over another link: after so long without one, or moved from one to the other.
    Resumed { transport: &'static str, after_ms: Option<u64> },
    /// The host said no, or sent us away.
    Refused { reason: String, text: String, again: bool },
    /// There is no link; another try follows after this time.
    Disconnected { reason: String, again_in_ms: u64 },
    /// A device is lent.
    Attached {
        device: u32,
        vendor: u16,
        product: u16,
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        bus_port: Option<String>,
    },
    /// A device is not lent any more, perhaps only for a moment.
    Detached {
        device: u32,
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        bus_port: Option<String>,
        because: Gone,
        again: bool,
    },
    /// A device should be lent and cannot: why, and what to do.
    LendFailed { bus_port: String, vendor: u16, product: u16, name: String, reason: String, next: String },
    /// Devices are asked for, but there is no USB bus.
    NoUsb { reason: String },
    /// A key press was queued; its report waits for the VM to ask. Presses count from 1.
    Key { press: u64, modifiers: u8, usage: u8 },
    /// The VM has read so many presses.
    KeySent { press: u64 },
    /// The VM has set the keyboard's LEDs.
    Leds { leds: u8 },
    /// The VM plays: the first frame has come.
    SoundStarted {
        stream: u8,
        run: u32,
        position: u64,
        rate: u32,
        bits: u8,
        channels: u8,
        file: Option<String>,
    },
    /// The first of these frames has left for the sink.
    SoundHeard { stream: u8, run: u32 },
    /// The VM has stopped playing and every frame has left for the sink.
    SoundStopped {
        stream: u8,
        run: u32,
        #[serde(flatten)]
        counts: Counts,
        file: Option<String>,
    },
    /// The VM finds a jack full or empty from now on.
    Jack { jack: String, present: bool },
    /// The VM listens to the microphone.
    RecordingStarted { stream: u8, run: u32, rate: u32, bits: u8, channels: u8 },
    /// The VM listens no more.
    RecordingStopped { stream: u8, run: u32, frames: u64, lost: u64 },
    /// The remote ends.
    Ended(Totals),
}

/// Why a device is not lent any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Gone {
    /// It failed.
    Failed,
    /// The user pulled its plug.
    Unplugged,
    /// The user wants it back.
    Returned,
}

/// Frames of sound that were played without a stop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Frames played as they came.
    pub(crate) frames: u64,
    /// Frames that never came, or too late.
    pub(crate) gaps: u64,
    /// Frames that had no time of their own, because too many waited: a sound card never plays them, a file has them.
    pub(crate) skipped: u64,
    /// Times that the sink wanted a frame and there was none.
    pub(crate) underruns: u64,
    /// Frames made up for those that never came.
    pub(crate) concealed: u64,
    /// Frames for which the time line waited.
    pub(crate) waited: u64,
}

/// What it all came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Totals {
    /// Links that came about.
    pub(crate) sessions: u64,
    /// USB requests that ended.
    pub(crate) requests: u64,
    /// All sound together.
    #[serde(flatten)]
    pub(crate) sound: Counts,
}

impl Counts {
    /// Both together.
    pub(crate) fn with(mut self, more: Self) -> Self {
        self += more;
        self
    }

    /// What has come to these since then.
    pub(crate) fn since(self, before: Self) -> Self {
        self.each(before, u64::saturating_sub)
    }

    fn each(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            frames: of(self.frames, other.frames),
            gaps: of(self.gaps, other.gaps),
            skipped: of(self.skipped, other.skipped),
            underruns: of(self.underruns, other.underruns),
            concealed: of(self.concealed, other.concealed),
            waited: of(self.waited, other.waited),
        }
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        *self = self.each(more, u64::saturating_add);
    }
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
        let line = match self.0 {
            Format::Json => json(event),
            Format::Human => sentence(event),
        };
        if !line.is_empty() {
            // In raw mode, which the terminal keyboard needs, a line feed alone does not return the carriage.
            let _ = write!(io::stdout().lock(), "{line}\r\n");
        }
    }
}

fn json(event: &Event) -> String {
    let at_ns = u64::try_from(monotonic().as_nanos()).unwrap_or(u64::MAX);
    serde_json::to_string(&Stamped { at_ns, event }).unwrap_or_default()
}

fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The sentence for people; empty for what would only disturb.
fn sentence(event: &Event) -> String {
    match event {
        Event::Connected { vm, transport } => {
            format!("connected by {transport}: the VM `{vm}` has what is lent")
        }
        Event::Resumed { transport, after_ms: Some(ms) } => {
            format!("connected again by {transport} after {ms} ms: the VM has noticed nothing")
        }
        Event::Resumed { transport, after_ms: None } => format!("moved to {transport}"),
        Event::Refused { reason, text, .. } => format!("the host refuses ({reason}): {text}"),
        Event::Disconnected { reason, again_in_ms } => match again_in_ms {
            0 => format!("no link: {reason}; what is lent is held at the host; trying again at once"),
            ms => format!("no link: {reason}; trying again in {ms} ms"),
        },
        Event::Attached { name, bus_port, .. } => format!("lent: {name}{}", at(bus_port.as_deref())),
        Event::Detached { name, bus_port, because, again, .. } => {
            let what = match because {
                Gone::Failed if *again => "failed, and will be lent again",
                Gone::Failed => "failed too often",
                Gone::Unplugged => "unplugged",
                Gone::Returned => "returned",
            };
            format!("{what}: {name}{}", at(bus_port.as_deref()))
        }
        Event::LendFailed { name, bus_port, reason, next, .. } => {
            format!("cannot be lent: {name}{}: {reason}; {next}", at(Some(bus_port)))
        }
        Event::NoUsb { reason } => format!("no USB bus here: {reason}; waiting for one"),
        Event::Key { .. } | Event::KeySent { .. } | Event::Leds { .. } | Event::SoundHeard { .. } => {
            String::new()
        }
        Event::SoundStarted { rate, bits, channels, .. } => {
            format!("the VM plays: {rate} Hz, {bits} bit, {channels} channels")
        }
        Event::SoundStopped { counts, .. } => format!("the VM stopped playing: {counts}"),
        Event::Jack { jack, present } => {
            format!("the VM finds the {jack} jack {}", if *present { "plugged" } else { "empty" })
        }
        Event::RecordingStarted { rate, bits, channels, .. } => {
            format!("the VM listens to the microphone: {rate} Hz, {bits} bit, {channels} channels")
        }
        Event::RecordingStopped { frames, lost, .. } => {
            format!("the VM listens no more: {frames} frames sent, {lost} lost")
        }
        Event::Ended(Totals { sessions, requests, sound }) => {
            format!("ended after {sessions} sessions: {requests} USB requests; sound: {sound}")
        }
    }
}

fn at(bus_port: Option<&str>) -> String {
    bus_port.map(|bus_port| format!(" ({bus_port})")).unwrap_or_default()
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { frames, gaps, skipped, underruns, concealed, waited } = self;
        write!(
            f,
            "{frames} frames, {gaps} missing, {concealed} made up, {waited} waited for, {skipped} skipped, {underruns} underruns"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_flat_object_with_its_kind_and_time() {
        let counts = Counts { frames: 480, gaps: 1, underruns: 2, ..Counts::default() };
        let event = Event::SoundStopped { stream: 1, run: 3, counts, file: Some("a.wav".into()) };
        let line: serde_json::Value = serde_json::from_str(&json(&event)).unwrap();
        assert_eq!(line["event"], "sound_stopped");
        assert_eq!(
            (&line["frames"], &line["gaps"], &line["file"]),
            (&480.into(), &1.into(), &"a.wav".into())
        );
        assert!(line["at_ns"].as_u64().is_some_and(|at| at > 0));
        let ended = json(&Event::Ended(Totals { sessions: 2, requests: 7, sound: counts }));
        let ended: serde_json::Value = serde_json::from_str(&ended).unwrap();
        assert_eq!(
            (&ended["event"], &ended["sessions"], &ended["frames"]),
            (&"ended".into(), &2.into(), &480.into())
        );
    }
}
