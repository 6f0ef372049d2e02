//! What the guest plays.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::{
    desk::Desk,
    pcm::{Format, RATES, samples},
};

const LONG: Duration = Duration::from_secs(120);

/// Takes the guest's driver away and gives it back.
const REBIND: &str =
    "cd /sys/bus/pci/drivers/snd_hda_intel; device=$(ls -d 0000:*); echo $device >unbind; echo $device >bind";

/// Plays a second, some laps of the guest's buffer, and compares.
async fn exact(desk: &mut Desk, format: Format, more: &str) -> Result<()> {
    let pcm = format.noise(format.rate.max(48_000), format.rate);
    desk.play(format, &pcm, more).await?;
    desk.expect_heard(&pcm).await.with_context(|| format!("{format:?} {more}"))
}

#[tokio::test]
async fn every_rate_format_and_period_is_heard_bit_by_bit() -> Result<()> {
    let mut desk = Desk::start("stereo", None, &[]).await?;
    for rate in RATES {
        for bits in [16, 32] {
            exact(&mut desk, Format { rate, bits, channels: 2 }, "").await?;
        }
    }
    for (period, buffer) in [(480, 1_920), (1_000, 8_000), (6_000, 12_000), (24_000, 48_000)] {
        exact(&mut desk, Format::PLAIN, &format!("--period-size={period} --buffer-size={buffer}")).await?;
    }
    desk.expect_no_trouble().await
}

/// Linux takes an interrupt that it handles half a period late for a wrong one, and says so once: of the shorter of these
/// periods that is 1.3 ms. A timer that is too coarse is late again and again; a busy host only now and then.
#[tokio::test]
async fn the_shortest_periods_end_when_their_interrupts_say() -> Result<()> {
    let mut desk = Desk::start("stereo", None, &[]).await?;
    let pcm = Format::PLAIN.noise(48_000, 128);
    for (period, tries, enough) in [(128, 12, 3), (256, 8, 4), (480, 4, 3)] {
        let (mut in_time, mut late) = (0, Vec::new());
        while in_time < enough {
            // A driver that begins anew says it anew.
            desk.vm.run(&format!("{REBIND}; dmesg -c >/dev/null")).await?.success()?;
            desk.ready().await?;
            desk.play(Format::PLAIN, &pcm, &format!("--period-size={period} --buffer-size=4096")).await?;
            desk.expect_heard(&pcm).await?;
            match desk.expect_no_trouble().await {
                Ok(()) => in_time += 1,
                Err(trouble) if trouble.to_string().contains("IRQ timing workaround") => late.push(trouble),
                Err(other) => return Err(other),
            }
            ensure!(late.len() + enough <= tries, "periods of {period} frames: {late:?}");
        }
        println!("periods of {period} frames: {} sounds with late interrupts, {in_time} without", late.len());
    }
    Ok(())
}

#[tokio::test]
async fn up_to_eight_channels_are_heard_bit_by_bit() -> Result<()> {
    let mut desk = Desk::start("surround71", None, &[]).await?;
    for channels in [2, 4, 6, 8] {
        for (rate, bits) in [(44_100, 16), (48_000, 16), (48_000, 32), (96_000, 32)] {
            exact(&mut desk, Format { rate, bits, channels }, "").await?;
        }
    }
    desk.expect_no_trouble().await
}

#[tokio::test]
async fn speaker_test_is_heard_on_each_of_eight_speakers_alone() -> Result<()> {
    let mut desk = Desk::start("surround71", None, &[]).await?;
    let test = "speaker-test -D hw:0,0 -c 8 -r 48000 -F S16_LE -t sine -f 440 -l 1";
    let said = desk.vm.command(test).timeout(LONG).run().await?.success()?.stdout;
    let named = said.lines().filter_map(|line| line.trim_start().split_once(" - "));
    let named: Vec<usize> = named.filter_map(|(number, _)| number.parse().ok()).collect();
    // It plays each speaker by itself, with an end in between.
    let mut files: Vec<String> = Vec::new();
    for _ in &named {
        let stopped = desk.remote.wait_for("sound_stopped").await?;
        ensure!(stopped["gaps"] == 0, "frames are missing: {stopped}");
        files.push(stopped["file"].as_str().context("sound without its file")?.to_owned());
    }
    files.dedup();
    let mut heard: Vec<usize> = Vec::new();
    for file in files {
        for frame in samples(&std::fs::read(file)?)?.as_chunks::<16>().0 {
            let channels = frame.as_chunks::<2>().0.iter().enumerate();
            let sounds: Vec<_> = channels.filter(|(_, sample)| **sample != [0; 2]).collect();
            ensure!(sounds.len() <= 1, "two speakers at once: {frame:?}");
            heard.extend(sounds.iter().map(|(channel, _)| channel));
        }
    }
    heard.dedup();
    ensure!(heard == named && heard.len() == 8, "speaker-test named {named:?}, heard were {heard:?}");
    desk.expect_no_trouble().await
}

#[tokio::test]
async fn a_pause_loses_and_doubles_nothing() -> Result<()> {
    let mut desk = Desk::start("stereo", None, &["--keyboard"]).await?;
    let pcm = Format::PLAIN.noise(5 * 48_000, 7);
    desk.vm.put(pcm.clone(), "/tmp/played.raw").await?;
    // aplay's own pause key, typed on the lent keyboard: the guest's first virtual terminal hears it.
    let play =
        format!("aplay -i {} /tmp/played.raw </dev/tty1 2>&1; echo DONE $?", Format::PLAIN.arguments());
    let mut aplay = desk.vm.spawn(&play).await?;
    desk.remote.wait_for("sound_started").await?;
    for pause in 1..=2 {
        desk.remote.say("type  ").await?;
        let paused = desk.remote.wait_for("sound_stopped").await.with_context(|| format!("pause {pause}"))?;
        ensure!(paused["gaps"] == 0, "{paused}");
        desk.remote.say("type  ").await?;
        desk.remote.wait_for("sound_started").await.with_context(|| format!("after pause {pause}"))?;
    }
    let done = aplay.expect("DONE", LONG).await?;
    ensure!(done.ends_with("DONE 0"), "{done}");
    desk.expect_heard(&pcm).await?;
    desk.expect_no_trouble().await
}

#[tokio::test]
async fn a_driver_that_is_unbound_while_it_plays_and_bound_again_plays_again() -> Result<()> {
    let mut desk = Desk::start("stereo", None, &[]).await?;
    let pcm = Format::PLAIN.noise(48_000, 9);
    for round in 0..3 {
        let noise = "aplay -q -D hw:0,0 -f S16_LE -r 48000 -c 2 /dev/urandom >/dev/null 2>&1 &";
        desk.vm.run(&format!("({noise})")).await?.success()?;
        desk.remote.wait_for("sound_started").await.with_context(|| format!("round {round}"))?;
        desk.vm.run(REBIND).await?.success()?;
        desk.remote.wait_for("sound_stopped").await?;
        desk.ready().await?;
        desk.play(Format::PLAIN, &pcm, "").await?;
        desk.expect_heard(&pcm).await?;
        desk.remote.wait_for("sound_started").await?;
    }
    desk.expect_no_trouble().await
}
