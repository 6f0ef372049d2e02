//! How sound is, for people and programs.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use wire::audio::{self, Codec, Reception};

use crate::events::Counts;

/// Everything there is to tell of sound.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// What the VM plays, or has paused.
    pub(crate) playing: Vec<Playing>,
    pub(crate) microphone: Microphone,
    /// The VM is told that headphones are plugged in.
    pub(crate) headphones: bool,
}

/// A stream that the VM plays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Playing {
    pub(crate) stream: u8,
    #[serde(flatten)]
    pub(crate) format: Format,
    /// The sound card's rate, if what it plays is resampled: the card lacks the rate, or the VM's clock follows another card.
    /// None: it is exact, as far as the card has bits.
    pub(crate) resampled_to: Option<u32>,
    /// Frames that wait for the sound card.
    pub(crate) queued: u64,
    #[serde(flatten)]
    pub(crate) counts: Counts,
    #[serde(flatten)]
    pub(crate) way: Way,
    /// As the VM has set it, if it has said so.
    pub(crate) volume: Option<Volume>,
}

/// How the way from the sender to the receiver is, as the receiver sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Way {
    pub(crate) opus: bool,
    /// Microseconds that a frame takes: what waits, and half of the way there and back. None: nothing is reported yet.
    pub(crate) latency_us: Option<u64>,
    /// Microseconds of the way there and back.
    pub(crate) round_trip_us: Option<u64>,
    /// Microseconds by which the slowest packets are slower than the fastest.
    pub(crate) jitter_us: u64,
    /// Packets of a million that do not come, before repairs.
    pub(crate) loss_ppm: u32,
    /// Frames made up at the receiver.
    pub(crate) made_up: u32,
    /// Frames by which its time line has slipped.
    pub(crate) slipped: u32,
    /// How much faster than this computer's clock the card here runs, parts per million. None: not known yet.
    pub(crate) drift_ppm: Option<i32>,
}

impl Way {
    pub(super) fn new(
        codec: Codec,
        report: Option<Reception>,
        round_trip: Option<Duration>,
        drift_ppm: Option<i32>,
    ) -> Self {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (opus, round_trip_us) = (codec == Codec::Opus, round_trip.map(micros));
        let Some(report) = report else { return Self { opus, round_trip_us, drift_ppm, ..Self::default() } };
        Self {
            opus,
            latency_us: Some(micros(report.level + round_trip.unwrap_or_default() / 2)),
            round_trip_us,
            jitter_us: micros(report.jitter),
            loss_ppm: report.loss,
            made_up: report.concealed,
            slipped: report.slipped,
            drift_ppm,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |micros: u64| micros as f64 / 1e3;
        let Self { opus, latency_us, round_trip_us, jitter_us, loss_ppm, made_up, slipped, drift_ppm } =
            *self;
        write!(f, "{}", if opus { "Opus" } else { "PCM" })?;
        let Some(latency) = latency_us.map(millis) else { return Ok(()) };
        let (jitter, loss) = (millis(jitter_us), f64::from(loss_ppm) / 1e4);
        write!(
            f,
            ", {latency:.1} ms late, {jitter:.1} ms jitter, {loss:.2} % lost; {made_up} made up, {slipped} slipped"
        )?;
        round_trip_us.map_or(Ok(()), |trip| write!(f, "; round trip {:.1} ms", millis(trip)))?;
        drift_ppm.map_or(Ok(()), |drift| write!(f, "; drift {drift:+} ppm"))
    }
}

/// How loud the VM has a stream set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Volume {
    /// In 1/256 dB.
    pub(crate) gain: i16,
    pub(crate) mute: bool,
}

impl From<audio::Volume> for Volume {
    fn from(audio::Volume { stream: _, gain, mute }: audio::Volume) -> Self {
        Self { gain, mute }
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gain, mute } = *self;
        if mute { write!(f, "muted") } else { write!(f, "{:.0} dB", f64::from(gain) / 256.0) }
    }
}

/// The microphone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Microphone {
    /// The VM may hear it, if it is there.
    pub(crate) granted: bool,
    pub(crate) present: bool,
    pub(crate) muted: bool,
    /// As the device has it, while it is open.
    pub(crate) device: Option<Format>,
    pub(crate) recordings: Vec<Recording>,
    /// Times that the device was not looked after in time.
    pub(crate) xruns: u64,
}

/// A stream that the VM records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recording {
    pub(crate) stream: u8,
    #[serde(flatten)]
    pub(crate) format: Format,
    /// Frames sent.
    pub(crate) frames: u64,
    /// Frames that were too late to be sent.
    pub(crate) lost: u64,
    #[serde(flatten)]
    pub(crate) way: Way,
}

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Format {
    pub(crate) rate: u32,
    pub(crate) bits: u8,
    pub(crate) channels: u8,
}

impl From<audio::Format> for Format {
    fn from(audio::Format { rate, encoding, channels }: audio::Format) -> Self {
        Self { rate, bits: encoding.significant_bits(), channels }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rate, bits, channels } = self;
        write!(f, "{rate} Hz, {bits} bit, {channels} channels")
    }
}

/// Lines for people.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { playing, microphone, headphones } = self;
        for Playing { stream, format, resampled_to, queued, counts, way, volume } in playing {
            write!(f, "the VM plays (stream {stream}): {format}")?;
            resampled_to.map_or(Ok(()), |rate| write!(f, ", resampled to {rate} Hz"))?;
            writeln!(f, "; {way}; {queued} frames wait; {counts}")?;
            if let Some(volume) = volume {
                writeln!(f, "the VM's volume (stream {stream}): {volume}")?;
            }
        }
        if *headphones {
            writeln!(f, "headphones: plugged in")?;
        }
        let Microphone { granted, present, muted, device, recordings, xruns } = microphone;
        if !granted {
            return Ok(());
        }
        let state = match (present, muted) {
            (false, _) => "not there",
            (true, true) => "muted",
            (true, false) if recordings.is_empty() => "the VM does not listen",
            (true, false) => "the VM listens",
        };
        write!(f, "microphone: {state}")?;
        if let Some(device) = device {
            write!(f, " ({device}; {xruns} overruns)")?;
        }
        writeln!(f)?;
        for Recording { stream, format, frames, lost, way } in recordings {
            writeln!(
                f,
                "the VM records (stream {stream}): {format}; {way}; {frames} frames sent, {lost} lost"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_says_whether_the_vm_listens() {
        let format = Format { rate: 48_000, bits: 16, channels: 2 };
        let recording = Recording { stream: 0, format, frames: 480, lost: 1, way: Way::default() };
        let microphone = Microphone { granted: true, present: true, ..Microphone::default() };
        let status = |microphone| Status { microphone, ..Status::default() }.to_string();
        assert_eq!(status(Microphone::default()), "");
        assert_eq!(status(microphone.clone()), "microphone: the VM does not listen\n");
        let listens = Microphone { recordings: vec![recording], device: Some(format), ..microphone };
        for part in ["the VM listens (48000 Hz, 16 bit, 2 channels; 0 overruns)", "480 frames sent, 1 lost"] {
            assert!(status(listens.clone()).contains(part), "{part}");
        }
        assert!(status(Microphone { muted: true, ..listens }).contains("muted"));
    }

    #[test]
    fn status_says_how_a_stream_fares_on_its_way() {
        let report = Reception {
            stream: audio::StreamId(4),
            run: 1,
            position: 0,
            at: Duration::ZERO,
            level: Duration::from_micros(20_500),
            target: Duration::ZERO,
            jitter: Duration::from_millis(3),
            loss: 12_500,
            burst: 100,
            concealed: 5,
            slipped: 7,
            late: 0,
            duplicate: 0,
            xruns: 0,
        };
        let way = Way::new(Codec::Opus, Some(report), Some(Duration::from_millis(9)), Some(-37));
        let shown = "Opus, 25.0 ms late, 3.0 ms jitter, 1.25 % lost; 5 made up, 7 slipped; round trip 9.0 ms; drift -37 ppm";
        assert_eq!(way.to_string(), shown);
        assert_eq!(Way::new(Codec::Pcm, None, None, None).to_string(), "PCM");
        let format = Format { rate: 48_000, bits: 16, channels: 2 };
        let volume = Some(Volume { gain: -6 * 256, mute: false });
        let (counts, resampled_to) = (Counts::default(), Some(44_100));
        let playing = Playing { stream: 4, format, resampled_to, queued: 1, counts, way, volume };
        let status = Status { playing: vec![playing], ..Status::default() };
        for part in ["volume (stream 4): -6 dB", "2 channels, resampled to 44100 Hz; Opus"] {
            assert!(status.to_string().contains(part), "{part}: {status}");
        }
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["playing"][0]["drift_ppm"], -37);
        assert_eq!(
            (&json["playing"][0]["latency_us"], &json["playing"][0]["opus"]),
            (&25_000.into(), &true.into())
        );
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status);
    }
}
