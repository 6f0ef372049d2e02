//! Sounds that tell every frame from its neighbours, and the files that they are in.

use anyhow::{Context as _, Result, ensure};

/// Every rate of HD Audio that the codec has.
pub(crate) const RATES: [u32; 11] =
    [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 88_200, 96_000, 176_400, 192_000];

/// A format as the guest's tools are told it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    pub(crate) rate: u32,
    /// 16 or 32: what Linux has of HD Audio's containers.
    pub(crate) bits: u16,
    pub(crate) channels: u16,
}

impl Format {
    pub(crate) const PLAIN: Self = Self { rate: 48_000, bits: 16, channels: 2 };

    pub(crate) fn frame_bytes(self) -> usize {
        usize::from(self.bits / 8 * self.channels)
    }

    /// What aplay and arecord are told.
    pub(crate) fn arguments(self) -> String {
        let Self { rate, bits, channels } = self;
        format!("-q -D hw:0,0 -t raw -f S{bits}_LE -r {rate} -c {channels}")
    }

    /// So many frames; no sample is silence, and no two frames in a row are alike.
    pub(crate) fn noise(self, frames: u32, seed: u32) -> Vec<u8> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        let mut sample = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state | 0x0001_0000).to_le_bytes()
        };
        let samples = frames as usize * usize::from(self.channels);
        let skip = if self.bits == 16 { 2 } else { 0 };
        (0..samples).flat_map(|_| sample().into_iter().skip(skip)).collect()
    }

    /// So many frames of a tone, of 16 bits and the same for each channel.
    pub(crate) fn tone(self, hertz: f64, frames: u32) -> Vec<u8> {
        let turn = |frame: u32| f64::from(frame) * hertz / f64::from(self.rate) * std::f64::consts::TAU;
        let sample = |frame: u32| (turn(frame).sin() * f64::from(TONE)) as i16;
        (0..frames).flat_map(|frame| sample(frame).to_le_bytes().repeat(self.channels.into())).collect()
    }

    /// The plain WAV file of it.
    pub(crate) fn wav(self, pcm: &[u8]) -> Vec<u8> {
        let length = pcm.len() as u32;
        let frame = self.frame_bytes() as u32;
        let mut wav =
            [&b"RIFF"[..], &(length + 36).to_le_bytes(), b"WAVEfmt ", &16u32.to_le_bytes()].concat();
        wav.extend([1, self.channels].map(u16::to_le_bytes).concat());
        wav.extend([self.rate, self.rate * frame].map(u32::to_le_bytes).concat());
        wav.extend([frame as u16, self.bits].map(u16::to_le_bytes).concat());
        wav.extend([&b"data"[..], &length.to_le_bytes(), pcm].concat());
        wav
    }
}

/// The samples of a WAV file of any kind.
pub(crate) fn samples(wav: &[u8]) -> Result<&[u8]> {
    let mut rest = wav.get(12..).context("no WAV file")?;
    loop {
        let (name, after) = rest.split_first_chunk::<4>().context("a WAV file without samples")?;
        let (length, after) = after.split_first_chunk().context("half a chunk")?;
        let length = u32::from_le_bytes(*length) as usize;
        if name == b"data" {
            return after.get(..length).context("samples are missing");
        }
        rest = after.get(length + length % 2..).context("half a chunk")?;
    }
}

/// The peaks of a [`Format::tone`].
pub(crate) const TONE: i16 = 12_000;

/// How often a second the left channel of [`Format::PLAIN`] swings, from its first sound to its last, and its peaks, as its
/// mean power says.
pub(crate) fn pitch(pcm: &[u8]) -> Result<(f64, f64)> {
    let left = |frame: &[u8; 4]| f64::from(i16::from_le_bytes([frame[0], frame[1]]));
    let left: Vec<_> = pcm.as_chunks().0.iter().map(left).collect();
    let loud = |sample: &f64| sample.abs() > f64::from(TONE) / 2.0;
    let (first, last) = (left.iter().position(loud), left.iter().rposition(loud));
    let left = &left[first.context("nothing was heard")?..last.unwrap_or_default()];
    let upwards = left.windows(2).filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0).count();
    let power = left.iter().map(|sample| sample * sample).sum::<f64>() / left.len() as f64;
    let seconds = left.len() as f64 / f64::from(Format::PLAIN.rate);
    Ok((upwards as f64 / seconds, (2.0 * power).sqrt()))
}

/// What of a sound is in a recording, in frames.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard {
    /// The first that was heard.
    pub(crate) first: usize,
    /// How many were heard, each once, in order and unchanged.
    pub(crate) frames: usize,
    /// How many between them were not.
    pub(crate) lost: usize,
    /// Silence between them, where the network or a card was late.
    pub(crate) silence: usize,
}

/// A recording against what was said.
///
/// # Errors
/// Nothing of it was heard, or a frame was doubled or changed.
pub(crate) fn heard(format: Format, recorded: &[u8], said: &[u8]) -> Result<Heard> {
    /// So many frames are somewhere else in a sound by no chance.
    const PLACE: usize = 4;
    let frame = format.frame_bytes();
    let silent = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    let recorded: Vec<_> = recorded.chunks_exact(frame).skip_while(|bytes| silent(bytes)).collect();
    let sound: Vec<_> = recorded.iter().copied().filter(|bytes| !silent(bytes)).collect();
    let last = recorded.iter().rposition(|bytes| !silent(bytes)).context("nothing was heard")?;
    let said: Vec<_> = said.chunks_exact(frame).collect();
    let next = |from: usize, at: usize| {
        let place = &sound[at..(at + PLACE).min(sound.len())];
        (from..said.len()).find(|from| said[*from..].starts_with(place))
    };
    let first = next(0, 0).context("what was heard is something else")?;
    let (mut expected, mut lost) = (first, 0);
    for (at, heard) in sound.iter().enumerate() {
        if said.get(expected) != Some(heard) {
            let found = next(expected, at);
            let found =
                found.with_context(|| format!("frame {at} of {} was doubled or changed", sound.len()))?;
            lost += found - expected;
            expected = found;
        }
        expected += 1;
    }
    Ok(Heard { first, frames: sound.len(), lost, silence: last + 1 - sound.len() })
}

/// Of what a card was heard to play, from its first sound on, the first pieces of 10 ms: at least half of them must be what
/// was played. On a busy computer a card runs dry at times, and what is heard of it then is the card's own.
pub(crate) fn mostly(format: Format, sounded: &[u8], played: &[u8]) -> Result<()> {
    const MOST: usize = 200;
    let begin = sounded.iter().position(|byte| *byte != 0).context("the speakers are silent")?;
    let begin = begin - begin % format.frame_bytes();
    let all = sounded[begin..].chunks_exact(format.rate as usize / 100 * format.frame_bytes()).take(MOST);
    let right = |piece: &[u8]| heard(format, piece, played).is_ok_and(|it| it.lost == 0 && it.frames >= 400);
    let (count, right) = (all.len(), all.filter(|piece| right(piece)).count());
    println!("of {count} pieces of 10 ms {right} are what was played");
    ensure!(count >= MOST / 2, "only {count} pieces of 10 ms were heard");
    ensure!(2 * right >= count, "of {count} pieces of 10 ms only {right} are what was played");
    Ok(())
}
