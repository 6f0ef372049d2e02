//! A recording of a sound of which parts are missing.

use anyhow::{Result, ensure};
use lab::story::{FRAME_BYTES, Sequence, WAV_HEADER};

/// How far a recording holds a sound in its place.
#[derive(Debug, Default)]
pub(crate) struct InPlace {
    /// Frames that are where they belong.
    pub(crate) exact: u64,
    /// Frames that are something else, made up or silence.
    pub(crate) other: u64,
    /// How many runs of those there are.
    pub(crate) runs: u64,
}

/// Compares a recording with a sound, frame by frame in the sound's own time.
///
/// # Errors
/// It does not begin with the sound, or does not come back to its place at the end: time was lost or doubled.
pub(crate) fn in_place(recorded: &[u8], sequence: &Sequence) -> Result<InPlace> {
    let wav = sequence.wav();
    let said: Vec<_> = wav[WAV_HEADER..].chunks_exact(FRAME_BYTES).collect();
    let heard: Vec<_> = recorded[WAV_HEADER.min(recorded.len())..].chunks_exact(FRAME_BYTES).collect();
    let mut found = InPlace::default();
    let mut inside = true;
    for (said, heard) in said.iter().zip(&heard) {
        let same = said == heard;
        found.exact += u64::from(same);
        found.other += u64::from(!same);
        found.runs += u64::from(!same && inside);
        inside = same;
    }
    ensure!(heard.starts_with(&said[..8]), "it does not begin with the sound: {found:?}");
    let last = said.len() - 8;
    ensure!(
        heard.get(last..said.len()) == Some(&said[last..]),
        "the end of the sound is not in its place: {found:?}, {} of {} frames",
        heard.len(),
        said.len()
    );
    Ok(found)
}
