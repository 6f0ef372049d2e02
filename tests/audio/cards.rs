//! Sound cards at the remote, by cpal and ALSA: the kernel's loopback, where what is played into the one end comes out of
//! the other, and QEMU's HD Audio, which plays into a file (it has nothing to record then: that backend is no source); each
//! is paced by a clock of its own. A desk that is a VM on a busy computer does not look after its card in time, always: then
//! frames are lost, as they are on a busy desk, but that is known, and no frame is heard twice.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, farbus::Host};
use serde_json::json;

use crate::{
    desk::READY,
    pcm::{Format, heard, mostly},
};

const LONG: Duration = Duration::from_secs(120);
/// The end of the card that the remote has; the tools in the desk have the other.
const CARD: &str = "cpal:hw:CARD=Loopback,DEV=0";
/// The remote has a root folder of its own in the desk, and ALSA's description of what devices are is not in it yet.
const ALSA: &str =
    "mkdir -p /opt/farbus-remote/usr/share && cp -r /usr/share/alsa /opt/farbus-remote/usr/share/";
/// The card's plug.
const DRIVER: &str = "/sys/bus/platform/drivers/snd_aloop";

/// Of a plain WAV file.
const HEADER: usize = 44;

#[tokio::test]
async fn a_real_card_is_heard_both_ways_and_again_after_it_was_unplugged() -> Result<()> {
    let format = Format::PLAIN;
    let (said, played) = (format.noise(30 * 48_000, 11), format.noise(4 * 48_000, 12));
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let host = Host::start(folder.path(), &["a"]).await?;
    let file = folder.path().join("card.wav");
    let backend = format!("wav,id=card,out.frequency=48000,path={}", file.display());
    let codec = "hda-duplex,audiodev=card,mixer=off";
    let card = ["-audiodev", &backend, "-device", "intel-hda", "-device", codec];
    let modules = ["snd_aloop", "snd_hda_codec_generic", "snd_hda_intel"];
    let desk = lab.desk("desk").cpus(2).modules(modules).qemu_args(card).boot().await?;
    desk.install("farbus-remote").await?;
    desk.run(ALSA).await?.success()?;
    let mut remote =
        desk.remote(&host, "remote", "a", &["--audio", CARD, "--mic", CARD, "--audio-codec", "pcm"]).await?;
    remote.wait_where("jack", |event| event["jack"] == "microphone").await?;
    let seat = host.seat("a");
    let vm = lab.vm("a").usb_socket(seat.usb_socket()).hda_socket(seat.hda_socket()).boot().await?;
    vm.run(READY).await?.success()?;

    // Somebody speaks into the card; the guest plays and records meanwhile.
    desk.put(said.clone(), "/tmp/said.raw").await?;
    vm.put(played.clone(), "/tmp/played.raw").await?;
    let other = "-q -D hw:Loopback,1 -t raw -f S16_LE -r 48000 -c 2";
    let speaking = desk.spawn(&format!("aplay {other} /tmp/said.raw")).await?;
    let mut listening = desk.spawn(&format!("arecord {other} -d 8 /tmp/heard.raw; echo DONE")).await?;
    let both =
        format!("arecord {0} -d 5 /tmp/heard.raw & aplay {0} /tmp/played.raw && wait $!", format.arguments());
    vm.command(&both).timeout(LONG).run().await?.success()?;
    let recorded = heard(format, &vm.file("/tmp/heard.raw").await?, &said).context("the microphone")?;
    ensure!(recorded.frames >= 2 * 48_000, "{recorded:?}");
    let status = desk.run("farbus-remote status --json").await?.success()?.stdout;
    let status: serde_json::Value = serde_json::from_str(&status)?;
    let xruns = &status["status"]["sound"]["microphone"]["xruns"];
    ensure!(recorded.lost == 0 || *xruns != 0, "{recorded:?}, and nobody has noticed: {status}");
    let stopped = remote.wait_for("sound_stopped").await?;
    ensure!(stopped["gaps"] == 0, "{stopped}");
    listening.expect("DONE", LONG).await?;
    // What is heard after an underrun is the card's: it plays its buffer again. Between underruns it is what was played.
    let sounded = desk.file("/tmp/heard.raw").await?;
    mostly(format, &sounded, &played).with_context(|| format!("{stopped}"))?;

    // The plug is pulled while the guest listens and plays, and put in again.
    let played = format.noise(14 * 48_000, 13);
    vm.put(played.clone(), "/tmp/played.raw").await?;
    let record = format!("arecord {} -d 8 /tmp/heard.raw; echo DONE $?", format.arguments());
    remote.wait_for("recording_stopped").await?;
    let mut recording = vm.spawn(&record).await?;
    remote.wait_for("recording_started").await?;
    remote.wait_for("recording_started").await?;
    let aplay = format!("aplay {} /tmp/played.raw; echo DONE $?", format.arguments());
    let mut playing = vm.spawn(&aplay).await?;
    remote.wait_for("sound_started").await?;
    remote.wait_for("sound_started").await?;
    // Ten milliseconds at once, which it was asked for, and not what ALSA likes.
    let at_once = "grep -x 'period_size: 480' /proc/asound/Loopback/pcm0p/sub0/hw_params";
    desk.run(&format!("{at_once} || {{ cat /proc/asound/Loopback/pcm0p/sub*/hw_params; exit 1; }}"))
        .await?
        .success()
        .context("the card takes something else at once")?;
    speaking.signal(nix::sys::signal::Signal::SIGKILL).await?;
    // The driver waits until everybody has let go of the card.
    let mut pulled = desk.spawn(&format!("echo snd_aloop.0 >{DRIVER}/unbind; echo PULLED")).await?;
    remote.wait_where("jack", |event| event["present"] == false).await.context("it is unplugged")?;
    pulled.expect("PULLED", LONG).await?;
    desk.run(&format!("echo snd_aloop.0 >{DRIVER}/bind")).await?.success()?;
    let hear_again = format!("arecord {other} -d 4 /tmp/heard.raw; echo DONE $?");
    let mut listening = desk.spawn(&hear_again).await?;
    remote.wait_where("jack", |event| event["present"] == true).await.context("it is plugged in")?;
    remote.wait_for("recording_started").await.context("the guest does not hear it again")?;
    listening.expect("DONE 0", LONG).await?;
    recording.expect("DONE 0", LONG).await?;
    playing.expect("DONE 0", LONG).await?;
    let sounded = desk.file("/tmp/heard.raw").await?;
    mostly(format, &sounded, &played).context("it is not heard again")?;
    remote.stop().await?;

    // A card of another kind, which QEMU plays into a file that is whole when it ends.
    let mut remote = desk.remote(&host, "another", "a", &["--audio", "cpal:hw:CARD=Intel,DEV=0"]).await?;
    remote.wait_for("connected").await?;
    vm.command(&format!("aplay {} -d 4 /tmp/played.raw", format.arguments()))
        .timeout(LONG)
        .run()
        .await?
        .success()?;
    let stopped = remote.wait_for("sound_stopped").await?;
    desk.qmp("quit", json!({})).await?;
    desk.ended(LONG).await?;
    let sounded = std::fs::read(file)?;
    mostly(format, &sounded[HEADER..], &played).with_context(|| format!("QEMU's card: {stopped}"))?;
    Ok(())
}
