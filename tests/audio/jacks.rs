//! What the guest finds plugged in.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::farbus::{PATIENCE, monotonic_ns};

use crate::{desk::Desk, pcm::Format};

/// From the remote's knowledge to the guest's event, what is waited for a plug to settle included.
const SOON: Duration = Duration::from_millis(150);

#[tokio::test]
async fn headphones_are_an_event_in_the_guest_and_take_over_the_sound() -> Result<()> {
    let mut desk = Desk::start("stereo", None, &[]).await?;
    let watch = "for name in /sys/class/input/event*/device/name; do \
                 grep -q Headphone $name && exec evtest /dev/input/$(basename $(dirname $(dirname $name))); done";
    let mut watching = desk.vm.spawn(watch).await?;
    watching.expect("Testing", PATIENCE).await.context("the guest has no headphone jack")?;
    let mut fastest = PATIENCE;
    for (plugged, event) in
        [("yes", "value 1"), ("no", "value 0"), ("yes", "value 1"), ("no", "value 0"), ("yes", "value 1")]
    {
        let mut asked = desk.asking(&["headphones", plugged])?;
        let line = watching.expect("SW_HEADPHONE_INSERT", PATIENCE).await?;
        let seen = monotonic_ns();
        ensure!(line.contains(event), "headphones {plugged}: {line}");
        let told =
            desk.remote.wait_for("jack").await?["at_ns"].as_u64().context("an event without its time")?;
        fastest = fastest.min(Duration::from_nanos(seen.saturating_sub(told)));
        asked.ended().await?;
    }
    // The others were slow because the computer was busy, this one if the way is long.
    ensure!(fastest < SOON, "the fastest event took {fastest:?}");
    let controls = desk.vm.run("amixer -c 0 contents").await?.success()?.stdout;
    let on =
        controls.split("numid").any(|part| part.contains("Headphone Jack") && part.contains("values=on"));
    ensure!(on, "the guest's jack control does not say so: {controls}");
    let pcm = Format::PLAIN.noise(48_000, 6);
    desk.play(Format::PLAIN, &pcm, "").await?;
    desk.expect_heard(&pcm).await?;
    desk.expect_no_trouble().await
}
