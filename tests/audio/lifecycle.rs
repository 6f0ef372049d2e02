//! A sound card that sleeps, and a guest that begins anew.

use anyhow::{Context as _, Result};

use crate::{desk::Desk, pcm::Format};

/// Lets the codec sleep when nothing plays, and waits until it does. (Linux lets only controllers sleep that it knows.)
const SLEEP: &str = "echo 1 > /sys/module/snd_hda_intel/parameters/power_save
    until [ $(cat /sys/bus/hdaudio/devices/hdaudioC0D0/power/runtime_status) = suspended ]; do usleep 20000; done";

#[tokio::test]
async fn a_codec_that_sleeps_is_woken_by_sound_and_loses_none_of_it() -> Result<()> {
    let mut desk = Desk::start("stereo", None, &[]).await?;
    for round in 1..=3 {
        desk.vm.run(SLEEP).await?.success().with_context(|| format!("falling asleep, round {round}"))?;
        let pcm = Format::PLAIN.noise(24_000, round);
        desk.play(Format::PLAIN, &pcm, "").await?;
        desk.expect_heard(&pcm).await.with_context(|| format!("round {round}"))?;
    }
    desk.expect_no_trouble().await
}

#[tokio::test]
async fn a_guest_that_reboots_in_the_middle_of_a_sound_plays_again() -> Result<()> {
    let mut desk = Desk::start("stereo", None, &[]).await?;
    for round in 1..=3 {
        let noise = "aplay -q -D hw:0,0 -f S16_LE -r 48000 -c 2 /dev/urandom >/dev/null 2>&1 &";
        desk.vm.run(&format!("({noise})")).await?.success()?;
        desk.remote.wait_for("sound_started").await.with_context(|| format!("round {round}"))?;
        desk.vm.reboot().await?;
        desk.ready().await?;
        // Another rate than that of the noise, whose end may be told in pieces: the guest takes its driver away under it.
        let format = Format { rate: 44_100, ..Format::PLAIN };
        let pcm = format.noise(24_000, round);
        desk.play(format, &pcm, "").await?;
        let started = desk.remote.wait_where("sound_started", |event| event["rate"] == format.rate).await?;
        desk.expect_heard_in(&started["run"], &pcm).await.with_context(|| format!("round {round}"))?;
    }
    desk.expect_no_trouble().await
}
