//! What a guest reads of the codec, whole: the part of alsa-info that describes it.

use anyhow::{Result, ensure};

use crate::desk::Desk;

/// The kernel's own dump of every widget, with the driver awake, as alsa-info prints it.
const DUMP: &str = "echo 0 > /sys/module/snd_hda_intel/parameters/power_save
    until grep -q 'State of AFG node 0x01:' /proc/asound/card0/codec#0; do usleep 10000; done
    cat /proc/asound/card0/codec#0";

async fn is_as_reviewed(speakers: &str, golden: &str) -> Result<()> {
    let desk = Desk::start(speakers, None, &[]).await?;
    let dump = desk.vm.run(DUMP).await?.success()?.stdout;
    let differs = dump.lines().zip(golden.lines()).find(|(is, was)| is != was);
    ensure!(differs.is_none(), "{differs:?} in\n{dump}");
    ensure!(dump.lines().count() == golden.lines().count(), "more or less than was reviewed:\n{dump}");
    desk.expect_no_trouble().await
}

#[tokio::test]
async fn the_codec_of_a_stereo_card_is_the_one_that_was_reviewed() -> Result<()> {
    is_as_reviewed("stereo", include_str!("codec-stereo.txt")).await
}

#[tokio::test]
async fn the_codec_of_eight_speakers_is_the_one_that_was_reviewed() -> Result<()> {
    is_as_reviewed("surround71", include_str!("codec-surround71.txt")).await
}
