//! How loud the guest has its sound, by its own controls.

use anyhow::{Context as _, Result, ensure};

use crate::{desk::Desk, pcm::Format};

/// A sample that leaves room for rounding, on both sides, for half a second.
const LOUD: i16 = 16_000;
const FRAMES: usize = 24_000;

fn steady() -> Vec<u8> {
    LOUD.to_le_bytes().repeat(2 * FRAMES)
}

/// What is heard of [`steady`] with the controls like this: left and right.
async fn heard(desk: &mut Desk, controls: &str) -> Result<[i16; 2]> {
    desk.vm.run(controls).await?.success()?;
    desk.play(Format::PLAIN, &steady(), "").await?;
    let heard = desk.heard().await?;
    let frames: Vec<[i16; 2]> = heard
        .as_chunks::<4>()
        .0
        .iter()
        .map(|[a, b, c, d]| [i16::from_le_bytes([*a, *b]), i16::from_le_bytes([*c, *d])])
        .collect();
    // The controls were set before it began, so no frame is on its way from one level to another.
    let frame = *frames.first().context("nothing was heard")?;
    let steady = frames.iter().take(FRAMES).all(|other| *other == frame);
    ensure!(steady && frames.len() >= FRAMES, "{controls}: {} frames, not all {frame:?}", frames.len());
    Ok(frame)
}

fn set(volume: &str, switch: &str) -> String {
    format!(
        "amixer -q -c 0 cset name='Speaker Playback Volume' {volume}
         amixer -q -c 0 cset name='Speaker Playback Switch' {switch}"
    )
}

/// HDA 1.0a §7.3.4.10: the codec says that it has steps of 1 dB, and that step 74 is 0 dB.
#[tokio::test]
async fn volume_and_mute_are_what_the_codec_says_they_are() -> Result<()> {
    let mut desk = Desk::start("stereo", None, &[]).await?;
    for (volume, switch, decibels) in [
        ("74,74", "on,on", [Some(0), Some(0)]),
        ("64,54", "on,on", [Some(-10), Some(-20)]),
        ("74,74", "on,off", [Some(0), None]),
        ("34,74", "off,on", [None, Some(0)]),
        ("74,74", "on,on", [Some(0), Some(0)]),
    ] {
        let heard = heard(&mut desk, &set(volume, switch)).await?;
        for (heard, decibels) in heard.into_iter().zip(decibels) {
            let factor = decibels.map_or(0.0, |decibels| 10_f64.powf(f64::from(decibels) / 20.0));
            let right = f64::from(LOUD) * factor;
            ensure!((f64::from(heard) - right).abs() <= 1.0, "{volume} {switch}: {heard}, not {right}");
        }
    }
    desk.expect_no_trouble().await
}
