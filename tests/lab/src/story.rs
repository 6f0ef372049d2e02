//! The story that Farbus exists for, as steps that the demo and the tests share: a key pressed at a remote makes its
//! VM run a command, and the sound that the command makes is heard at that remote and at no other.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    Lab, Vm,
    farbus::{Host, PATIENCE, Program, monotonic_ns},
};

/// Frames per second of the story's sound.
pub const RATE: u32 = 48_000;
/// Bytes of a frame: 16 bits, two channels.
pub const FRAME_BYTES: usize = 4;
/// Bytes of a plain WAV file before its samples.
pub const WAV_HEADER: usize = 44;

/// Waits until the guest's drivers have found both functions: a guest is up before its sound card is.
const SETTLE: &str = r#"
until [ -e /proc/asound/card0/pcm0p ] && grep -q "Farbus Keyboard" /sys/class/input/event*/device/name; do
    usleep 10000
done
"#;

/// Finds the keyboard's event device and waits for one event on it; says so, then plays the sound.
const LISTENER: &str = r#"
set -e
for name in /sys/class/input/event*/device/name; do
    grep -q "Farbus Keyboard" "$name" || continue
    event=$(basename "$(dirname "$(dirname "$name")")")
    break
done
# Linux starts a codec muted; full volume is 0 dB, which leaves samples untouched.
amixer -q -c 0 sset Master 100% unmute
exec 3</dev/input/$event
echo READY
dd bs=24 count=1 <&3 >/dev/null 2>&1
echo KEY
aplay -q -D hw:0,0 /tmp/sequence.wav
echo PLAYED
"#;

/// A sound whose every frame differs from its neighbours, so that a lost, doubled or changed one shows.
#[derive(Debug, Clone)]
pub struct Sequence {
    pcm: Vec<u8>,
}

impl Sequence {
    /// So many frames; sequences of different seeds differ in every frame.
    #[must_use]
    pub fn new(frames: u32, seed: u16) -> Self {
        let pcm = (0..frames).flat_map(|n| {
            let low = (n as u16) ^ seed;
            let high = ((n >> 16) as u16).wrapping_mul(257) ^ seed.rotate_left(8) ^ 0x5a5a;
            [low.to_le_bytes(), high.to_le_bytes()].concat()
        });
        Self { pcm: pcm.collect() }
    }

    /// Its frames.
    #[must_use]
    pub fn frames(&self) -> u64 {
        (self.pcm.len() / FRAME_BYTES) as u64
    }

    /// How long it plays.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.frames() as f64 / f64::from(RATE))
    }

    /// The WAV file of it.
    #[must_use]
    pub fn wav(&self) -> Vec<u8> {
        let length = self.pcm.len() as u32;
        let mut wav = Vec::with_capacity(WAV_HEADER + self.pcm.len());
        wav.extend(b"RIFF");
        wav.extend((length + 36).to_le_bytes());
        wav.extend(b"WAVEfmt ");
        wav.extend(16u32.to_le_bytes());
        wav.extend(1u16.to_le_bytes());
        wav.extend(2u16.to_le_bytes());
        wav.extend(RATE.to_le_bytes());
        wav.extend((RATE * FRAME_BYTES as u32).to_le_bytes());
        wav.extend((FRAME_BYTES as u16).to_le_bytes());
        wav.extend(16u16.to_le_bytes());
        wav.extend(b"data");
        wav.extend(length.to_le_bytes());
        wav.extend(&self.pcm);
        wav
    }

    /// How far a received WAV file holds this sequence, every frame once and unchanged from the start, in frames.
    #[must_use]
    pub fn exact_frames_in(&self, wav: &[u8]) -> u64 {
        let received = wav.get(WAV_HEADER..).unwrap_or_default();
        let same = self.pcm.chunks_exact(FRAME_BYTES).zip(received.chunks_exact(FRAME_BYTES));
        same.take_while(|(sent, heard)| sent == heard).count() as u64
    }
}

/// A VM and its remote.
pub struct Pair {
    /// The VM's name, and the remote's.
    pub name: String,
    /// The VM.
    pub vm: Vm,
    /// The remote.
    pub remote: Program,
    /// What the remote heard.
    pub heard: PathBuf,
}

/// What became of one key.
#[derive(Debug, Clone)]
pub struct Heard {
    /// From the key at the remote to the guest's command, as seen from outside the guest.
    pub key_to_guest: Duration,
    /// From the key at the remote to the first frame of sound at the remote.
    pub key_to_sound: Duration,
    /// Frames of the sequence.
    pub sent: u64,
    /// Frames that arrived at the remote during the story.
    pub received: u64,
    /// Frames that arrived unchanged and in order, from the first on.
    pub exact: u64,
}

impl Heard {
    /// Whether every frame arrived once, unchanged and in order.
    #[must_use]
    pub fn bit_exact(&self) -> bool {
        self.exact == self.sent
    }
}

impl Pair {
    /// Connects a remote with a keyboard and a WAV file for a sound card, then boots its VM.
    ///
    /// # Errors
    /// One of them does not come up.
    pub async fn start(lab: &Lab, host: &mut Host, name: &str, folder: &Path) -> Result<Self> {
        Self::start_by("noise-tcp", lab, host, name, folder).await
    }

    /// The same by a link of this kind.
    ///
    /// # Errors
    /// As [`Self::start`], or the link is of another kind.
    pub async fn start_by(
        transport: &str,
        lab: &Lab,
        host: &mut Host,
        name: &str,
        folder: &Path,
    ) -> Result<Self> {
        let heard = folder.join(format!("{name}.wav"));
        let audio = format!("wav:{}", heard.display());
        let mut remote = host.remote(
            &format!("remote-{name}"),
            name,
            &["--keyboard", "--audio", &audio, "--transport", transport],
        )?;
        let connected = remote.wait_for("connected").await?;
        ensure!(connected["transport"] == transport, "the link is of another kind: {connected}");
        host.program.wait_where("linked", |event| event["vm"] == name).await?;
        let vm = Self::boot(lab, host, name).await?;
        vm.run(SETTLE).await?.success().context("the guest does not find its keyboard and its sound card")?;
        Ok(Self { name: name.to_owned(), vm, remote, heard })
    }

    async fn boot(lab: &Lab, host: &Host, name: &str) -> Result<Vm> {
        let seat = host.seat(name);
        lab.vm(name).usb_socket(seat.usb_socket()).hda_socket(seat.hda_socket()).boot().await
    }

    /// One key at the remote, one sound in the guest, heard at the remote.
    ///
    /// # Errors
    /// A step of the story does not happen in time.
    pub async fn answer_key_with(&mut self, sequence: &Sequence) -> Result<Heard> {
        self.answer_key_meanwhile(sequence, || Ok(())).await
    }

    /// The same, with something that happens as soon as the first frame was heard.
    ///
    /// # Errors
    /// As [`Self::answer_key_with`], or what happens fails.
    pub async fn answer_key_meanwhile(
        &mut self,
        sequence: &Sequence,
        meanwhile: impl FnOnce() -> Result<()>,
    ) -> Result<Heard> {
        self.vm.put(sequence.wav(), "/tmp/sequence.wav").await?;
        let mut listener = self.vm.command(LISTENER).timeout(PATIENCE * 2).spawn().await?;
        listener.expect("READY", PATIENCE).await.context("the guest does not see the keyboard")?;

        self.remote.say("type f").await?;
        listener.expect("KEY", PATIENCE).await.context("the key does not reach the guest")?;
        let guest_ns = monotonic_ns();
        let key = self.remote.wait_for("key").await?;
        let started = self.remote.wait_for("sound_started").await?;
        meanwhile()?;
        listener.expect("PLAYED", PATIENCE + sequence.duration()).await.context("the guest does not play")?;
        let stopped = self.remote.wait_for("sound_stopped").await?;

        let at = |event: &serde_json::Value| event["at_ns"].as_u64().context("an event without its time");
        let key_ns = at(&key)?;
        ensure!(stopped["gaps"] == 0, "frames are missing at the remote: {stopped}");
        let file = started["file"].as_str().map_or_else(|| self.heard.clone(), PathBuf::from);
        let wav =
            std::fs::read(&file).with_context(|| format!("reading what was heard: {}", file.display()))?;
        Ok(Heard {
            key_to_guest: Duration::from_nanos(guest_ns.saturating_sub(key_ns)),
            key_to_sound: Duration::from_nanos(at(&started)?.saturating_sub(key_ns)),
            sent: sequence.frames(),
            received: stopped["frames"].as_u64().context("an event without its frames")?,
            exact: sequence.exact_frames_in(&wav),
        })
    }

    /// Frames of sound that this pair's remote has received so far.
    ///
    /// # Errors
    /// It says something that is not a number.
    pub fn frames_received(&mut self) -> Result<u64> {
        let mut frames = 0;
        for event in self.remote.seen("sound_stopped") {
            let Some(run) = event["frames"].as_u64() else { bail!("an event without its frames: {event}") };
            frames += run;
        }
        Ok(frames)
    }
}
