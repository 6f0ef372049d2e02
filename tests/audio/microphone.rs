//! What the guest records.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::{
    desk::Desk,
    pcm::{Format, heard},
};

const LONG: Duration = Duration::from_secs(120);

/// Silence that a recording may have in between, of a second: the network of a busy computer is late at times.
fn bearable(format: Format) -> usize {
    format.rate as usize / 10
}

fn record(format: Format, seconds: u32) -> String {
    format!("arecord {} -d {seconds} /tmp/heard.raw", format.arguments())
}

#[tokio::test]
async fn what_the_remote_says_is_recorded_bit_by_bit() -> Result<()> {
    for format in [Format::PLAIN, Format { rate: 96_000, bits: 32, channels: 2 }] {
        let said = format.noise(6 * format.rate, 1);
        let mut desk = Desk::start("stereo", Some((format, &said)), &[]).await?;
        desk.vm.command(&record(format, 4)).timeout(LONG).run().await?.success()?;
        desk.remote.wait_for("recording_started").await?;
        let stopped = desk.remote.wait_for("recording_stopped").await?;
        ensure!(stopped["lost"] == 0, "{stopped}");
        let recorded = desk.vm.file("/tmp/heard.raw").await?;
        let heard = heard(format, &recorded, &said)?;
        ensure!(heard.first + heard.lost == 0 && heard.frames >= 3 * format.rate as usize, "{heard:?}");
        ensure!(heard.silence <= bearable(format), "{heard:?}");
        desk.expect_no_trouble().await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_guest_plays_and_records_at_once() -> Result<()> {
    let format = Format::PLAIN;
    let (said, played) = (format.noise(6 * 48_000, 2), format.noise(4 * 48_000, 3));
    let mut desk = Desk::start("stereo", Some((format, &said)), &[]).await?;
    desk.vm.put(played.clone(), "/tmp/played.raw").await?;
    let script = format!("{} & aplay {} /tmp/played.raw && wait $!", record(format, 4), format.arguments());
    desk.vm.command(&script).timeout(LONG).run().await?.success()?;
    desk.expect_heard(&played).await?;
    let heard = heard(format, &desk.vm.file("/tmp/heard.raw").await?, &said)?;
    ensure!(heard.first + heard.lost == 0 && heard.frames >= 3 * 48_000, "{heard:?}");
    ensure!(heard.silence <= bearable(format), "{heard:?}");
    desk.expect_no_trouble().await
}

#[tokio::test]
async fn a_muted_microphone_is_silence_and_is_heard_from_its_beginning_when_it_is_not() -> Result<()> {
    let format = Format::PLAIN;
    let said = format.noise(8 * 48_000, 4);
    let mut desk = Desk::start("stereo", Some((format, &said)), &[]).await?;
    desk.ask(&["mute"]).await?;
    desk.vm.command(&record(format, 1)).timeout(LONG).run().await?.success()?;
    let silence = desk.vm.file("/tmp/heard.raw").await?;
    ensure!(
        silence.len() == 48_000 * 4 && silence.iter().all(|byte| *byte == 0),
        "a muted microphone is heard"
    );
    desk.remote.wait_for("recording_stopped").await?;

    desk.remote.wait_for("recording_started").await?;
    let mut recording = desk.vm.spawn(&format!("{}; echo DONE $?", record(format, 4))).await?;
    desk.remote.wait_for("recording_started").await?;
    desk.ask(&["unmute"]).await?;
    recording.expect("DONE 0", LONG).await?;
    let heard = heard(format, &desk.vm.file("/tmp/heard.raw").await?, &said)?;
    ensure!(heard.first + heard.lost == 0 && heard.frames >= 48_000, "{heard:?}");
    desk.expect_no_trouble().await
}

#[tokio::test]
async fn a_microphone_that_is_unplugged_and_plugged_in_is_recorded_again() -> Result<()> {
    let format = Format::PLAIN;
    let said = format.noise(20 * 48_000, 5);
    let mut desk = Desk::start("stereo", Some((format, &said)), &[]).await?;
    let mut recording = desk.vm.spawn(&format!("{}; echo DONE $?", record(format, 8))).await?;
    desk.remote.wait_for("recording_started").await?;
    let away = desk.microphone().with_extension("away");
    std::fs::rename(desk.microphone(), &away)?;
    desk.remote.wait_where("jack", |event| event["present"] == false).await?;
    desk.remote.wait_for("recording_stopped").await.context("the guest goes on with an empty jack")?;
    std::fs::rename(&away, desk.microphone())?;
    desk.remote.wait_where("jack", |event| event["present"] == true).await?;
    desk.remote.wait_for("recording_started").await.context("the guest does not hear it again")?;
    recording.expect("DONE 0", LONG).await?;
    desk.expect_no_trouble().await
}

/// An old driver, or one of Windows, that waits for the interrupt pin.
#[tokio::test]
async fn without_messages_the_interrupt_pin_does_it() -> Result<()> {
    let format = Format::PLAIN;
    let (said, played) = (format.noise(5 * 48_000, 7), format.noise(3 * 48_000, 8));
    let mut desk = Desk::without_messages((format, &said)).await?;
    let interrupts = "grep snd_hda_intel /proc/interrupts";
    let wired = desk.vm.run(interrupts).await?.success()?.stdout;
    ensure!(wired.contains("IO-APIC"), "no interrupt pin: {wired}");
    desk.vm.put(played.clone(), "/tmp/played.raw").await?;
    let script = format!("{} & aplay {} /tmp/played.raw && wait $!", record(format, 3), format.arguments());
    desk.vm.command(&script).timeout(LONG).run().await?.success()?;
    desk.expect_heard(&played).await?;
    let heard = heard(format, &desk.vm.file("/tmp/heard.raw").await?, &said)?;
    ensure!(heard.first + heard.lost == 0 && heard.frames >= 2 * 48_000, "{heard:?}");
    desk.expect_no_trouble().await
}
