//! A remote on a computer whose sound is PulseAudio's, by cpal, and without a sound card: what is played goes into a sink
//! that nobody hears, and what is said comes out of another one's monitor.

use std::{
    fs::{self, File},
    path::Path,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Lab,
    farbus::{Host, PATIENCE},
    provision::{Cache, PulseAudio},
};
use tokio::{
    process::{Child, Command},
    task::spawn_blocking,
    time::timeout,
};

use crate::{
    desk::READY,
    pcm::{Format, heard, mostly},
};

const LONG: Duration = Duration::from_secs(60);
const FORMAT: Format = Format::PLAIN;
/// What a sink takes, and that it takes 50 ms at once at most, not two seconds.
const SHAPE: &str = "rate=48000 channels=2 format=s16le norewinds=yes";

/// A daemon that keeps to a folder; it ends with this.
struct Server<'a> {
    programs: PulseAudio,
    folder: &'a Path,
    /// What its clients' environment needs.
    address: String,
    _daemon: Child,
}

impl<'a> Server<'a> {
    async fn start(folder: &'a Path) -> Result<Self> {
        let programs = spawn_blocking(|| PulseAudio::find(&Cache::open()?)).await??;
        let socket = folder.join("socket");
        let mut daemon = programs.daemon(folder);
        for module in [
            &format!("module-null-sink sink_name=speakers {SHAPE}"),
            &format!("module-null-sink sink_name=voice {SHAPE}"),
            "module-remap-source source_name=microphone master=voice.monitor",
            &format!("module-native-protocol-unix socket={} auth-anonymous=1", socket.display()),
        ] {
            daemon.arg(format!("--load={module}"));
        }
        let log = File::create(folder.join("pulseaudio.log"))?;
        let daemon = Command::from(daemon).stdout(Stdio::null()).stderr(log).kill_on_drop(true).spawn()?;
        let address = format!("unix:{}", socket.display());
        let server = Self { programs, folder, address, _daemon: daemon };
        let up = async {
            while !socket.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, up).await.context("PulseAudio does not start")?;
        Ok(server)
    }

    /// Has it do something.
    async fn tell(&self, words: &[&str]) -> Result<()> {
        let mut pactl = self.programs.pactl(self.folder);
        pactl.args(["--server", &self.address]).args(words);
        let told = Command::from(pactl).output().await?;
        ensure!(told.status.success(), "pactl {words:?}: {told:?}");
        Ok(())
    }

    /// Somebody who hears what a sink plays, and writes it down.
    fn listens(&self, sink: &str, ear: &Path) -> Result<Child> {
        let monitor = format!("--device={sink}.monitor");
        let mut pacat = self.pacat(&["--record", &monitor, "--latency-msec=20"])?;
        Ok(pacat.stdout(File::create(ear)?).spawn()?)
    }

    /// `pacat` with raw samples, from or to a file.
    fn pacat(&self, arguments: &[&str]) -> Result<Command> {
        let mut pacat = self.programs.pacat(self.folder);
        pacat.args(["--server", &self.address, "--raw", "--format=s16le", "--rate=48000", "--channels=2"]);
        pacat.args(arguments);
        let mut pacat = Command::from(pacat);
        pacat.kill_on_drop(true);
        Ok(pacat)
    }
}

#[tokio::test]
async fn where_pulseaudio_runs_it_is_what_plays_and_listens() -> Result<()> {
    let (said, played) = (FORMAT.noise(40 * 48_000, 21), FORMAT.noise(4 * 48_000, 22));
    let folder = tempfile::tempdir()?;
    let pulse = tempfile::tempdir()?;
    let server = Server::start(pulse.path()).await?;
    let (voice, ear) = (folder.path().join("said.raw"), folder.path().join("heard.raw"));
    server.tell(&["set-default-sink", "speakers"]).await?;
    let mut listens = server.listens("speakers", &ear)?;
    let lab = Lab::open().await?;
    let host = Host::start(folder.path(), &["a"]).await?;
    let arguments = ["--audio", "cpal", "--mic", "cpal", "--audio-codec", "pcm"];
    // Any will do, but there must be one.
    let cookie = pulse.path().join("cookie");
    fs::write(&cookie, [0; 256])?;
    let cookie = cookie.display().to_string();
    let environment = [("PULSE_SERVER", server.address.as_str()), ("PULSE_COOKIE", &cookie)];
    let mut remote = host.remote_in(&environment, "remote", "a", &arguments)?;
    remote.wait_where("jack", |event| event["jack"] == "microphone").await?;
    let seat = host.seat("a");
    let vm = lab.vm("a").usb_socket(seat.usb_socket()).hda_socket(seat.hda_socket()).boot().await?;
    vm.run(READY).await?.success()?;

    // Somebody speaks, and the guest plays and records meanwhile.
    tokio::fs::write(&voice, &said).await?;
    vm.put(played.clone(), "/tmp/played.raw").await?;
    let _speaks = server.pacat(&["--playback", "--device=voice"])?.stdin(File::open(&voice)?).spawn()?;
    let both =
        format!("arecord {0} -d 5 /tmp/heard.raw & aplay {0} /tmp/played.raw && wait $!", FORMAT.arguments());
    vm.command(&both).timeout(LONG).run().await?.success()?;
    let stopped = remote.wait_for("sound_stopped").await?;
    ensure!(stopped["gaps"] == 0, "{stopped}");
    let recorded = heard(FORMAT, &vm.file("/tmp/heard.raw").await?, &said).context("the microphone")?;
    ensure!(recorded.frames >= 2 * 48_000, "{recorded:?}");
    let recording = remote.wait_for("recording_stopped").await?;
    ensure!(
        recorded.lost == 0 || recording["lost"] != 0,
        "{recorded:?}, and nobody has noticed: {recording}"
    );

    listens.kill().await?;
    mostly(FORMAT, &tokio::fs::read(&ear).await?, &played).with_context(|| format!("{stopped}"))?;

    // In the middle of a sound the user chooses other speakers.
    let aplay = format!("aplay {} /tmp/played.raw; echo DONE $?", FORMAT.arguments());
    let mut playing = vm.spawn(&aplay).await?;
    remote.wait_for("sound_started").await?;
    remote.wait_for("sound_started").await?;
    let shape = SHAPE.split(' ');
    let load: Vec<_> =
        ["load-module", "module-null-sink", "sink_name=other"].into_iter().chain(shape).collect();
    server.tell(&load).await?;
    let mut listens = server.listens("other", &ear)?;
    server.tell(&["set-default-sink", "other"]).await?;
    playing.expect("DONE 0", LONG).await?;
    let stopped = remote.wait_for("sound_stopped").await?;
    ensure!(stopped["gaps"] == 0, "{stopped}");
    listens.kill().await?;
    let sounded = tokio::fs::read(&ear).await?;
    mostly(FORMAT, &sounded, &played).with_context(|| format!("by other speakers: {stopped}"))?;
    remote.stop().await?;
    Ok(())
}
