//! How loud the guest has its sound, by its own controls.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

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
    let frames = frames(&heard);
    // The controls were set before it began, so no frame is on its way from one level to another.
    let frame = *frames.first().context("nothing was heard")?;
    let steady = frames.iter().take(FRAMES).all(|other| *other == frame);
    ensure!(steady && frames.len() >= FRAMES, "{controls}: {} frames, not all {frame:?}", frames.len());
    Ok(frame)
}

/// The same of what is recorded, as far as it is not silence: the network of a busy computer is late at times.
async fn recorded(desk: &mut Desk, controls: &str) -> Result<[i16; 2]> {
    desk.vm.run(controls).await?.success()?;
    let arecord = format!("arecord {} -s {FRAMES} /tmp/heard.raw", Format::PLAIN.arguments());
    desk.vm.run(&arecord).await?.success()?;
    let all = frames(&desk.vm.file("/tmp/heard.raw").await?);
    let sound: Vec<_> = all.iter().filter(|frame| **frame != [0; 2]).collect();
    let Some(frame) = sound.first() else { return Ok([0; 2]) };
    let steady = sound.iter().all(|other| other == frame);
    ensure!(steady && sound.len() >= FRAMES / 4, "{controls}: {} frames, not all {frame:?}", sound.len());
    Ok(**frame)
}

fn frames(pcm: &[u8]) -> Vec<[i16; 2]> {
    let samples = |[a, b, c, d]: [u8; 4]| [i16::from_le_bytes([a, b]), i16::from_le_bytes([c, d])];
    pcm.as_chunks().0.iter().copied().map(samples).collect()
}

fn set(what: &str, volume: &str, switch: &str) -> String {
    format!(
        "amixer -q -c 0 cset name='{what} Volume' {volume}
         amixer -q -c 0 cset name='{what} Switch' {switch}"
    )
}

/// HDA 1.0a §7.3.4.10: the codec says that it has steps of 1 dB, and that step 74 is 0 dB.
#[tokio::test]
async fn volume_and_mute_are_what_the_codec_says_they_are() -> Result<()> {
    let mut desk = Desk::start("stereo", Some((Format::PLAIN, &steady().repeat(4))), &[]).await?;
    for (volume, switch, decibels) in [
        ("74,74", "on,on", [Some(0), Some(0)]),
        ("64,54", "on,on", [Some(-10), Some(-20)]),
        ("64,64", "on,on", [Some(-10), Some(-10)]),
        ("74,74", "on,off", [Some(0), None]),
        ("34,74", "off,on", [None, Some(0)]),
        ("74,74", "off,off", [None, None]),
        ("74,74", "on,on", [Some(0), Some(0)]),
    ] {
        let played = heard(&mut desk, &set("Speaker Playback", volume, switch)).await?;
        // The remote's user sees one volume, where there is one.
        let told = &desk.sound().await?["playing"][0]["volume"];
        match decibels {
            [Some(left), Some(right)] if left == right => {
                ensure!(told == &json!({ "gain": left * 256, "mute": false }), "{volume}: {told}");
            }
            [None, None] => ensure!(told["mute"] == true, "{volume} {switch}: {told}"),
            _ => ensure!(told["mute"] == false, "{volume} {switch}: {told}"),
        }
        let recorded = recorded(&mut desk, &set("Capture", volume, switch)).await?;
        for (way, levels) in [("played", played), ("recorded", recorded)] {
            for (level, decibels) in levels.into_iter().zip(decibels) {
                let factor = decibels.map_or(0.0, |decibels| 10_f64.powf(f64::from(decibels) / 20.0));
                let (right, off) = (f64::from(LOUD) * factor, if decibels == Some(0) { 0.0 } else { 1.0 });
                let so = (f64::from(level) - right).abs() <= off;
                ensure!(so, "{way} with {volume} {switch}: {level}, not {right}");
            }
        }
    }
    desk.expect_no_trouble().await
}
