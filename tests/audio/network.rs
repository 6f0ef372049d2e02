//! What the network does to sound, and what is done about it.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Lab, Vm,
    desk::Desk,
    farbus::{Host, Program, Seat},
};
use serde_json::Value;

use crate::{
    desk::READY,
    pcm::{Format, samples},
};

const LONG: Duration = Duration::from_secs(120);
/// What may wait in the jitter buffer at most, and a period of the card more, frames.
const MOST: u64 = 48 * (150 + 20);

/// The stream that the guest plays, as the remote has it.
async fn playing(desk: &Desk) -> Result<Option<Value>> {
    let status = desk.run("farbus-remote status --json").await?.success()?.stdout;
    let status: Value = serde_json::from_str(&status)?;
    let stream = status["status"]["sound"]["playing"][0].clone();
    ensure!(stream["queued"].as_u64().is_none_or(|queued| queued <= MOST), "too late: {stream}");
    Ok(Some(stream).filter(Value::is_object))
}

async fn guest(lab: &Lab, host: &Host) -> Result<Vm> {
    let seat = host.seat("a");
    let vm = lab.vm("a").usb_socket(seat.usb_socket()).hda_socket(seat.hda_socket()).boot().await?;
    vm.run(READY).await?.success().context("the guest does not find its sound card")?;
    Ok(vm)
}

/// Plays noise in the guest until what the remote sees is as wanted, and to its end; what it came to.
async fn play(
    (vm, desk, remote): (&Vm, &Desk, &mut Program),
    seconds: u32,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Value> {
    vm.put(Format::PLAIN.noise(seconds * 48_000, seconds), "/tmp/played.raw").await?;
    let aplay = format!("aplay {} /tmp/played.raw; echo DONE $?", Format::PLAIN.arguments());
    let mut aplay = vm.spawn(&aplay).await?;
    remote.wait_for("sound_started").await?;
    let mut last = None;
    while !last.as_ref().is_some_and(&wanted) && remote.seen("sound_stopped").is_empty() {
        last = playing(desk).await?.or(last);
    }
    ensure!(last.as_ref().is_some_and(wanted), "at last it was {last:?}");
    aplay.expect("DONE 0", LONG).await?;
    remote.wait_for("sound_stopped").await
}

/// A link without loss of packets that is late and uneven: they are sent again beneath it.
#[tokio::test]
async fn over_a_bad_link_the_codec_is_chosen_little_is_made_up_and_nothing_waits_for_long() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let seat = Seat { name: "a".to_owned(), folder: folder.path().join("a"), extra: String::new() };
    let host = Host::start_with(folder.path(), vec![seat]).await?;
    let desk = lab.desk("desk").cpus(2).netem("delay 20ms 5ms loss 2%").boot().await?;
    desk.install("farbus-remote").await?;
    let mut remote = desk.remote(&host, "remote", "a", &["--audio", "test"]).await?;
    remote.wait_for("connected").await?;
    let vm = guest(&lab, &host).await?;

    let known =
        |stream: &Value| stream["latency_us"].is_u64() && stream["round_trip_us"].as_u64() > Some(15_000);
    let stopped = play((&vm, &desk, &mut remote), 10, known).await?;
    let count = |field: &str| stopped[field].as_u64().with_context(|| format!("no {field}: {stopped}"));
    ensure!(count("frames")? >= 9 * 48_000, "{stopped}");
    ensure!(count("gaps")? * 50 <= count("frames")? && count("concealed")? <= count("gaps")?, "{stopped}");

    // A link that is slow anyway gets Opus by itself.
    desk.netem("delay 60ms 5ms loss 2%").await?;
    let stopped = play((&vm, &desk, &mut remote), 20, |stream| stream["opus"] == true).await?;
    let count = |field: &str| stopped[field].as_u64().with_context(|| format!("no {field}: {stopped}"));
    ensure!(count("frames")? >= 18 * 48_000 && count("gaps")? * 50 <= count("frames")?, "{stopped}");
    Ok(())
}

/// A link by datagrams, of which some never come: what is lost on the way is repaired, or made up.
#[tokio::test]
async fn over_a_link_that_loses_packets_most_of_them_are_had_again_and_the_rest_is_made_up() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let seat = Seat { name: "a".to_owned(), folder: folder.path().join("a"), extra: String::new() };
    let host = Host::start_with(folder.path(), vec![seat]).await?;
    let desk = lab.desk("desk").cpus(2).boot().await?;
    desk.install("farbus-remote").await?;
    let all = ["--audio", "test", "--transport", "webrtc"];
    let mut remote = desk.remote(&host, "remote", "a", &all).await?;
    let connected = remote.wait_for("connected").await?;
    ensure!(connected["transport"] == "webrtc", "{connected}");
    let vm = guest(&lab, &host).await?;

    // The guest's sound goes towards the desk: it is lost there, and seen to be.
    desk.netem_of_what_comes("delay 20ms 5ms loss 2%").await?;
    let lossy = |stream: &Value| stream["loss_ppm"].as_u64() > Some(0) && stream["latency_us"].is_u64();
    let stopped = play((&vm, &desk, &mut remote), 20, lossy).await?;
    let count = |field: &str| stopped[field].as_u64().with_context(|| format!("no {field}: {stopped}"));
    let (frames, gaps, made_up) = (count("frames")?, count("gaps")?, count("concealed")?);
    println!("of {frames} frames {gaps} never came in time, {made_up} were made up: {stopped}");
    ensure!(frames >= 18 * 48_000 && made_up <= gaps, "{stopped}");
    // Of the 2 % that are lost, some are lost before anybody knows; of the others, few: they are sent twice, or again.
    ensure!(gaps * 200 <= frames * 3, "{stopped}");
    Ok(())
}

#[tokio::test]
async fn a_vm_whose_sound_is_to_be_pcm_is_heard_bit_by_bit() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let host = Host::start(folder.path(), &["a"]).await?;
    let heard = folder.path().join("heard.wav");
    let mut remote = host.remote("remote", "a", &["--audio", &format!("wav:{}", heard.display())])?;
    remote.wait_for("connected").await?;
    let vm = guest(&lab, &host).await?;
    let played = Format::PLAIN.noise(5 * 48_000, 21);
    vm.put(played.clone(), "/tmp/played.raw").await?;
    let aplay = format!("aplay {} /tmp/played.raw", Format::PLAIN.arguments());
    vm.command(&aplay).timeout(LONG).run().await?.success()?;
    let stopped = remote.wait_for("sound_stopped").await?;
    ensure!(stopped["gaps"] == 0 && stopped["concealed"] == 0, "{stopped}");
    let wav = fs::read(&heard)?;
    ensure!(samples(&wav)?.starts_with(&played), "another sound was heard: {stopped}");
    Ok(())
}
