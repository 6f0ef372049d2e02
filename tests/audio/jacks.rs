//! What the guest finds plugged in.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Running, Vm,
    farbus::{PATIENCE, Program, monotonic_ns},
};

use crate::{desk::Desk, pcm::Format};

/// From the remote's knowledge to the guest's event, what is waited for a plug to settle included.
const SOON: Duration = Duration::from_millis(150);
/// What is plugged in and pulled out, often enough: while the computer is busy an event may be slow; if the way is long all
/// are.
const PLUGS: [bool; 6] = [true, false, true, false, true, false];

/// Whoever reads the guest's events of a jack.
async fn watch<'vm>(vm: &'vm Vm, jack: &str) -> Result<Running<'vm>> {
    let watch = format!(
        "for name in /sys/class/input/event*/device/name; do \
         grep -q {jack} $name && exec evtest /dev/input/$(basename $(dirname $(dirname $name))); done"
    );
    let mut watching = vm.spawn(&watch).await?;
    watching.expect("Testing", PATIENCE).await.with_context(|| format!("the guest has no jack {jack}"))?;
    Ok(watching)
}

/// Waits until the guest has its next event of a jack, and remembers how long the fastest of this kind took.
async fn follow(
    watching: &mut Running<'_>,
    (remote, jack): (&mut Program, &str),
    present: bool,
    fastest: &mut BTreeMap<bool, Duration>,
) -> Result<()> {
    let line = watching.expect("_INSERT), value", PATIENCE).await?;
    let seen = monotonic_ns();
    ensure!(line.ends_with(&format!("value {}", u8::from(present))), "{jack} {present}: {line}");
    let is_it = |event: &serde_json::Value| event["jack"] == jack && event["present"] == present;
    let told = remote.wait_where("jack", is_it).await?["at_ns"].as_u64().context("without its time")?;
    let took = Duration::from_nanos(seen.saturating_sub(told));
    fastest.entry(present).and_modify(|fastest| *fastest = took.min(*fastest)).or_insert(took);
    Ok(())
}

/// Plugging in as well as pulling out.
fn soon(fastest: &BTreeMap<bool, Duration>) -> Result<()> {
    ensure!(fastest.len() == 2 && fastest.values().all(|took| *took < SOON), "the fastest: {fastest:?}");
    Ok(())
}

#[tokio::test]
async fn plugs_are_events_in_the_guest_and_headphones_take_over_the_sound() -> Result<()> {
    let mut desk = Desk::start("stereo", Some((Format::PLAIN, &[])), &[]).await?;
    let (mut fastest, mut watching) = (BTreeMap::new(), watch(&desk.vm, "Mic").await?);
    // It was plugged in before the guest began, and was told again when there was a link.
    for _ in desk.remote.seen("jack") {
        desk.remote.wait_for("jack").await?;
    }
    let away = desk.microphone().with_extension("away");
    for present in PLUGS.map(|plugged| !plugged) {
        let (from, to) =
            if present { (away.clone(), desk.microphone()) } else { (desk.microphone(), away.clone()) };
        std::fs::rename(from, to)?;
        follow(&mut watching, (&mut desk.remote, "microphone"), present, &mut fastest).await?;
    }
    soon(&fastest).context("the microphone")?;

    let (mut fastest, mut watching) = (BTreeMap::new(), watch(&desk.vm, "Headphone").await?);
    for (present, word) in PLUGS.into_iter().chain([true]).map(|p| (p, if p { "yes" } else { "no" })) {
        let mut asked = desk.asking(&["headphones", word])?;
        follow(&mut watching, (&mut desk.remote, "headphone"), present, &mut fastest).await?;
        asked.ended().await?;
    }
    soon(&fastest).context("the headphones")?;
    let controls = desk.vm.run("amixer -c 0 contents").await?.success()?.stdout;
    let on =
        controls.split("numid").any(|part| part.contains("Headphone Jack") && part.contains("values=on"));
    ensure!(on, "the guest's jack control does not say so: {controls}");
    let pcm = Format::PLAIN.noise(48_000, 6);
    desk.play(Format::PLAIN, &pcm, "").await?;
    desk.expect_heard(&pcm).await?;
    desk.expect_no_trouble().await
}
