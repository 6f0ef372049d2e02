//! A VM and its remote, with WAV files for a loudspeaker and a microphone.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Lab, Vm,
    farbus::{Host, Program, Seat, binary},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::pcm::{Format, samples};

/// Waits until the guest's driver has found the sound card, then turns everything up: full volume is 0 dB, which leaves
/// samples untouched, and Linux starts a codec muted.
pub(crate) const READY: &str = r#"
until [ -e /proc/asound/card0/pcm0p ]; do usleep 10000; done
amixer -c 0 scontrols | sed "s/.*'\(.*\)',.*/\1/" | while read name; do
    amixer -q -c 0 sset "$name" 100% unmute cap 2>/dev/null || amixer -q -c 0 sset "$name" 100% unmute 2>/dev/null || true
done
"#;

/// What a guest's kernel says of a sound card that is not what it should be.
const TROUBLE: [&str; 6] = [
    "IRQ timing workaround",
    "Invalid position buffer",
    "CORB reset timeout",
    "azx_get_response timeout",
    "No response from codec",
    "spurious response",
];

pub(crate) struct Desk {
    pub(crate) vm: Vm,
    pub(crate) remote: Program,
    host: Host,
    folder: TempDir,
}

impl Desk {
    /// A VM whose guest wants no message-signalled interrupts: it has the pin.
    pub(crate) async fn without_messages(said: (Format, &[u8])) -> Result<Self> {
        Self::boot("stereo", Some(said), ("pcm", &[]), "pci=nomsi", &[]).await
    }

    /// A VM with more words for its QEMU.
    pub(crate) async fn with_qemu(words: &[&str]) -> Result<Self> {
        Self::boot("stereo", None, ("pcm", &[]), "", words).await
    }

    /// A VM with these speakers; its remote is started with these arguments, and has a microphone that says `said`.
    pub(crate) async fn start(
        speakers: &str,
        said: Option<(Format, &[u8])>,
        arguments: &[&str],
    ) -> Result<Self> {
        Self::boot(speakers, said, ("pcm", arguments), "", &[]).await
    }

    /// A VM whose sound is to be sent like this, both ways: in its host's words and its remote's.
    pub(crate) async fn with_codec(codec: &str, said: (Format, &[u8])) -> Result<Self> {
        Self::boot("stereo", Some(said), (codec, &[]), "", &[]).await
    }

    async fn boot(
        speakers: &str,
        said: Option<(Format, &[u8])>,
        (codec, arguments): (&str, &[&str]),
        kernel: &str,
        qemu: &[&str],
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name).display().to_string();
        let lab = Lab::open().await?;
        let (name, extra) = ("a".to_owned(), format!("speakers = {speakers:?}\naudio_codec = {codec:?}\n"));
        let seat = Seat { name, folder: folder.path().join("a"), extra };
        let host = Host::start_with(folder.path(), vec![seat]).await?;
        let (audio, control) = (format!("wav:{}", path("heard.wav")), path("control"));
        let mut all = vec!["--audio", &audio, "--audio-codec", codec, "--control", &control];
        let mic = format!("wav:{}", path("mic.wav"));
        if let Some((format, pcm)) = said {
            fs::write(path("mic.wav"), format.wav(pcm))?;
            all.extend(["--mic", &mic]);
        }
        all.extend(arguments);
        let mut remote = host.remote("remote", "a", &all)?;
        remote.wait_for("connected").await?;
        if said.is_some() {
            remote.wait_where("jack", |event| event["jack"] == "microphone").await?;
        }
        let seat = host.seat("a");
        let vm = lab.vm("a").usb_socket(seat.usb_socket()).hda_socket(seat.hda_socket());
        let vm = vm.kernel_arguments(kernel).extra_args(qemu.iter().copied()).boot().await?;
        let desk = Self { vm, remote, host, folder };
        desk.ready().await?;
        Ok(desk)
    }

    /// Waits until the guest has a sound card, and turns it up.
    pub(crate) async fn ready(&self) -> Result<()> {
        self.vm.run(READY).await?.success().context("the guest does not find its sound card")?;
        Ok(())
    }

    /// Asks the running remote, and does not wait for the answer.
    pub(crate) fn asking(&self, words: &[&str]) -> Result<Program> {
        let control = self.folder.path().join("control").display().to_string();
        let all: Vec<_> =
            words.iter().chain(&["--control", &control]).map(|word| (*word).to_owned()).collect();
        Program::start("ask", "farbus-remote", &all, self.folder.path())
    }

    /// Asks the running remote.
    pub(crate) async fn ask(&self, words: &[&str]) -> Result<()> {
        let mut asked = self.asking(words)?;
        ensure!(asked.ended().await?.success(), "{words:?} failed:\n{}", asked.last_words());
        Ok(())
    }

    /// How the sound of the running remote is.
    pub(crate) async fn sound(&self) -> Result<Value> {
        let mut command = tokio::process::Command::new(binary("farbus-remote")?);
        command.args(["status", "--json", "--control"]).arg(self.folder.path().join("control"));
        let said = command.output().await?;
        ensure!(said.status.success(), "{said:?}");
        let mut status: Value = serde_json::from_slice(&said.stdout)?;
        Ok(status["status"]["sound"].take())
    }

    /// Another remote, with these speakers, takes the place of the one that was there.
    pub(crate) async fn change_speakers(&mut self, audio: &str) -> Result<()> {
        self.remote.stop().await?;
        let control = self.folder.path().join("control").display().to_string();
        let all = ["--audio", audio, "--control", &control];
        self.remote = self.host.remote("another", "a", &all)?;
        self.remote.wait_for("connected").await.map(drop)
    }

    /// The microphone's file, to be taken away and put back.
    pub(crate) fn microphone(&self) -> PathBuf {
        self.folder.path().join("mic.wav")
    }

    /// What the microphone says when it is opened next.
    pub(crate) fn say_next(&self, format: Format, pcm: &[u8]) -> Result<()> {
        // It is never away: that would be a plug that is pulled.
        let next = self.folder.path().join("next.wav");
        fs::write(&next, format.wav(pcm))?;
        Ok(fs::rename(next, self.microphone())?)
    }

    /// Plays a sound in the guest with more arguments for aplay.
    pub(crate) async fn play(&self, format: Format, pcm: &[u8], more: &str) -> Result<()> {
        self.vm.put(pcm, "/tmp/played.raw").await?;
        let play = format!("aplay {} {more} /tmp/played.raw", format.arguments());
        self.vm.run(&play).await?.success().with_context(|| format!("{format:?} {more}"))?;
        Ok(())
    }

    /// The samples that the remote heard of the next run that ends, none of which may be missing.
    pub(crate) async fn heard(&mut self) -> Result<Vec<u8>> {
        let stopped = self.remote.wait_for("sound_stopped").await?;
        heard_of(&stopped)
    }

    /// What the remote heard of the next run, which must begin with this. (A ring goes on until the guest stops it.)
    pub(crate) async fn expect_heard(&mut self, pcm: &[u8]) -> Result<()> {
        let heard = self.heard().await?;
        begins_with(&heard, pcm)
    }

    /// The same of this run, whatever ends before it.
    pub(crate) async fn expect_heard_in(&mut self, run: &Value, pcm: &[u8]) -> Result<()> {
        let stopped = self.remote.wait_where("sound_stopped", |event| event["run"] == *run).await?;
        begins_with(&heard_of(&stopped)?, pcm)
    }

    /// Nothing in the guest's log says that its sound card is odd.
    pub(crate) async fn expect_no_trouble(&self) -> Result<()> {
        let log = self.vm.run("dmesg").await?.success()?.stdout;
        for trouble in TROUBLE {
            let line = log.lines().find(|line| line.contains(trouble));
            ensure!(line.is_none(), "{}", line.unwrap_or_default());
        }
        Ok(())
    }
}

/// The samples of a run that has ended.
fn heard_of(stopped: &Value) -> Result<Vec<u8>> {
    let file = stopped["file"].as_str().context("sound without its file")?;
    let wav = fs::read(file).with_context(|| format!("reading {file}"))?;
    ensure!(stopped["gaps"] == 0, "frames are missing: {stopped}");
    samples(&wav).map(<[u8]>::to_vec)
}

fn begins_with(heard: &[u8], pcm: &[u8]) -> Result<()> {
    let same = heard.iter().zip(pcm).take_while(|(heard, played)| heard == played).count();
    ensure!(same == pcm.len(), "of {} bytes {} were heard, byte {same} differs", pcm.len(), heard.len());
    Ok(())
}
