//! What the guest records.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::{
    desk::Desk,
    pcm::{Format, RATES, heard},
};

const LONG: Duration = Duration::from_secs(120);

/// Silence that a recording may have in between, of a second: the network of a busy computer is late at times.
fn bearable(format: Format) -> usize {
    format.rate as usize / 10
}

fn record(format: Format, seconds: u32) -> String {
    format!("arecord {} -d {seconds} /tmp/heard.raw", format.arguments())
}

/// Records so much of a second, of a file that is as the guest wants it, and compares.
async fn exact(desk: &mut Desk, format: Format, (tenths, more): (u32, &str)) -> Result<()> {
    let said = format.noise(format.rate / 10 * (tenths + 5), format.rate);
    desk.say_next(format, &said)?;
    let frames = format.rate / 10 * tenths;
    let arecord = format!("arecord {} -s {frames} {more} /tmp/heard.raw", format.arguments());
    desk.vm.run(&arecord).await?.success()?;
    let stopped = desk.remote.wait_for("recording_stopped").await?;
    ensure!(stopped["lost"] == 0, "{stopped}");
    let recorded = desk.vm.file("/tmp/heard.raw").await?;
    ensure!(recorded.len() == frames as usize * format.frame_bytes(), "{} bytes", recorded.len());
    let heard = heard(format, &recorded, &said)?;
    // It takes its time to begin.
    let enough = frames - format.rate * 4 / 10;
    ensure!(heard.first + heard.lost == 0 && heard.frames >= enough as usize, "{heard:?}");
    ensure!(heard.silence <= bearable(format), "{heard:?}");
    Ok(())
}

/// The microphone is a file in the format that the guest asks for, so that nothing is converted on its way.
#[tokio::test]
async fn every_rate_format_and_period_is_recorded_bit_by_bit() -> Result<()> {
    let mut desk = Desk::start("stereo", Some((Format::PLAIN, &[])), &["--keyboard"]).await?;
    for rate in RATES {
        for bits in [16, 32] {
            let format = Format { rate, bits, channels: 2 };
            exact(&mut desk, format, (7, "")).await.with_context(|| format!("{format:?}"))?;
        }
    }
    for (period, buffer) in [(480, 1_920), (1_000, 8_000), (6_000, 12_000), (24_000, 48_000)] {
        let more = format!("--period-size={period} --buffer-size={buffer}");
        exact(&mut desk, Format::PLAIN, (10, &more)).await.context(more)?;
    }
    for format in [Format::PLAIN, Format { rate: 96_000, bits: 32, channels: 2 }] {
        exact(&mut desk, format, (40, "")).await.with_context(|| format!("{format:?}, long"))?;
    }
    desk.expect_no_trouble().await?;
    paused(&mut desk).await.context("a pause")?;
    desk.expect_no_trouble().await
}

/// While a recording pauses nobody listens: the microphone is closed, and what it says when it is opened again follows
/// what there is.
async fn paused(desk: &mut Desk) -> Result<()> {
    let format = Format::PLAIN;
    let said = format.noise(8 * 48_000, 9);
    desk.say_next(format, &said)?;
    while !desk.remote.seen("recording_started").is_empty() {
        desk.remote.wait_for("recording_started").await?;
    }
    // arecord's own pause key, typed on the lent keyboard: the guest's first virtual terminal hears it.
    let arecord =
        format!("arecord -i {} -d 3 /tmp/heard.raw </dev/tty1 2>&1; echo DONE $?", format.arguments());
    let mut recording = desk.vm.spawn(&arecord).await?;
    desk.remote.wait_for("recording_started").await?;
    desk.remote.say("wait 800").await?;
    desk.remote.say("type  ").await?;
    desk.remote.wait_for("recording_stopped").await?;
    desk.remote.say("wait 300").await?;
    desk.remote.say("type  ").await?;
    desk.remote.wait_for("recording_started").await.context("it does not go on")?;
    let done = recording.expect("DONE", LONG).await?;
    ensure!(done.ends_with("DONE 0"), "{done}");
    let recorded = desk.vm.file("/tmp/heard.raw").await?;
    ensure!(recorded.len() == 3 * 48_000 * format.frame_bytes(), "{} bytes", recorded.len());
    let frames = recorded.as_chunks::<4>().0.iter().filter(|frame| **frame != [0; 4]);
    let frames: Vec<_> = frames.copied().collect();
    let said = said.as_chunks::<4>().0;
    let before = frames.iter().zip(said).take_while(|(heard, said)| heard == said).count();
    let after = &frames[before..];
    ensure!(said.starts_with(after), "after the first {before} of {} frames is something else", frames.len());
    // Of each half something, and together what was recorded but for the beginnings.
    let enough = before >= 4_800 && after.len() >= 48_000 && frames.len() >= 2 * 48_000;
    ensure!(enough, "{before} frames before the pause, {} after it", after.len());
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
    let messages = interrupts(&desk).await?;
    ensure!(messages.contains("PCI-MSI"), "no messages unless they are forbidden: {messages}");
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

/// Who serves the guest's interrupts of its sound card.
async fn interrupts(desk: &Desk) -> Result<String> {
    Ok(desk.vm.run("grep snd_hda_intel /proc/interrupts").await?.success()?.stdout)
}

/// An old driver, or one of Windows, that waits for the interrupt pin.
#[tokio::test]
async fn without_messages_the_interrupt_pin_does_it() -> Result<()> {
    let format = Format::PLAIN;
    let (said, played) = (format.noise(5 * 48_000, 7), format.noise(3 * 48_000, 8));
    let mut desk = Desk::without_messages((format, &said)).await?;
    let wired = interrupts(&desk).await?;
    ensure!(wired.contains("IO-APIC"), "no interrupt pin: {wired}");
    desk.vm.put(played.clone(), "/tmp/played.raw").await?;
    let script = format!("{} & aplay {} /tmp/played.raw && wait $!", record(format, 3), format.arguments());
    desk.vm.command(&script).timeout(LONG).run().await?.success()?;
    desk.expect_heard(&played).await?;
    let heard = heard(format, &desk.vm.file("/tmp/heard.raw").await?, &said)?;
    ensure!(heard.first + heard.lost == 0 && heard.frames >= 2 * 48_000, "{heard:?}");
    desk.expect_no_trouble().await
}
