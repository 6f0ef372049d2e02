//! A sound card of the kernel's at the remote, by cpal and ALSA: what is played into its one end comes out of the other,
//! paced by a clock of its own. A desk that is a VM on a busy computer does not look after its card in time, always: then
//! frames are lost, as they are on a busy desk, but that is known, and no frame is heard twice.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, farbus::Host};

use crate::{
    desk::READY,
    pcm::{Format, heard, pieces},
};

const LONG: Duration = Duration::from_secs(120);
/// The end of the card that the remote has; the tools in the desk have the other.
const CARD: &str = "cpal:hw:CARD=Loopback,DEV=0";
/// The remote has a root folder of its own in the desk, and ALSA's description of what devices are is not in it yet.
const ALSA: &str =
    "mkdir -p /opt/farbus-remote/usr/share && cp -r /usr/share/alsa /opt/farbus-remote/usr/share/";
/// The card's plug.
const DRIVER: &str = "/sys/bus/platform/drivers/snd_aloop";

#[tokio::test]
async fn a_real_card_is_heard_both_ways_and_again_after_it_was_unplugged() -> Result<()> {
    let format = Format::PLAIN;
    let (said, played) = (format.noise(30 * 48_000, 11), format.noise(4 * 48_000, 12));
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let host = Host::start(folder.path(), &["a"]).await?;
    let desk = lab.desk("desk").cpus(2).modules(["snd_aloop"]).boot().await?;
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
    let (all, right) = pieces(format, &sounded, &played)?;
    let disturbed = ["waited", "concealed", "underruns"].iter().any(|count| stopped[*count] != 0);
    let enough = if disturbed { 1 } else { all * 3 / 4 };
    ensure!(right >= enough, "of {all} pieces of 10 ms {right} are what was played: {stopped}");

    // The plug is pulled while the guest listens, and put in again.
    let record = format!("arecord {} -d 8 /tmp/heard.raw; echo DONE $?", format.arguments());
    remote.wait_for("recording_stopped").await?;
    let mut recording = vm.spawn(&record).await?;
    remote.wait_for("recording_started").await?;
    remote.wait_for("recording_started").await?;
    speaking.signal(nix::sys::signal::Signal::SIGKILL).await?;
    // The driver waits until everybody has let go of the card.
    let mut pulled = desk.spawn(&format!("echo snd_aloop.0 >{DRIVER}/unbind; echo PULLED")).await?;
    remote.wait_where("jack", |event| event["present"] == false).await.context("it is unplugged")?;
    pulled.expect("PULLED", LONG).await?;
    desk.run(&format!("echo snd_aloop.0 >{DRIVER}/bind")).await?.success()?;
    remote.wait_where("jack", |event| event["present"] == true).await.context("it is plugged in")?;
    remote.wait_for("recording_started").await.context("the guest does not hear it again")?;
    recording.expect("DONE 0", LONG).await?;
    Ok(())
}
