//! The command line.

use std::{path::PathBuf, str::FromStr};

use ::sound::choice::Wish;
use clap::{Args, Parser, Subcommand, ValueEnum};
use noise_tcp::{PublicKey, pairing::Code};

use crate::{
    control::Target,
    ice::IceServer,
    sound::{Headphones, Pace},
    usb::which::Selector,
    ways::{Way, Wish as Transport},
};

/// Lends USB devices, the keyboard, disk files, the speakers and the microphone of this computer to a virtual machine, through a farbus-host.
///
/// Exit codes: 0 ended as asked, 1 something failed, 2 wrong arguments, 3 the host refuses this remote, or sent it away, for good.
#[derive(Debug, Parser)]
#[command(name = "farbus-remote", version, propagate_version = true)]
pub(crate) struct Cli {
    /// How to write logs (to standard error). The level comes from RUST_LOG, e.g. RUST_LOG=debug.
    #[arg(long, value_enum, default_value = "human", global = true)]
    pub(crate) log: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How something is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Lines for people.
    Human,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Connect to a host and lend what is asked for, until Ctrl-C or SIGTERM; comes back when the link is lost.
    Connect(Box<Connect>),
    /// Pair with a host, by the code that `farbus-host pair VM` shows there; then `connect` needs no --host-key.
    ///
    /// The host's key is remembered beside this remote's own, in the file known-hosts. A host that is known under this
    /// address must have the key that is known.
    Pair(Pair),
    /// Forget the key of a host, because it has a new one: then pair again.
    Forget(Forget),
    /// Print this remote's public key, which the host lists; the secret key file is made (mode 0600) if absent.
    Key(KeyFile),
    /// Lend more devices from the running `connect`, now and whenever they are plugged in.
    Lend(Ask<Selector>),
    /// Take devices back from the running `connect`; they stay here until they are lent again.
    Return(Ask<Target>),
    /// Tell what the running `connect` lends, to whom, and how much it has moved; and how its sound is.
    Status(Status),
    /// Close the microphone of the running `connect`: the VM hears silence.
    Mute(Status),
    /// Let the VM hear the microphone again when it listens.
    Unmute(Status),
    /// Tell the VM of the running `connect` that headphones are plugged in, or not.
    Headphones(Plug),
    /// Move the session of the running `connect` to a link of another kind, or to a new one of the same kind; the VM does
    /// not notice.
    Switch(Switch),
    /// List the USB and sound devices of this computer, whether each would be lent, and why not.
    Devices(Devices),
    /// Wait, and give devices back when the `connect` that took them is gone without having done so.
    #[command(hide = true)]
    GiveBack,
}

/// Where the key is.
#[derive(Debug, Clone, Args)]
pub(crate) struct KeyFile {
    /// The file of this remote's secret key [default: farbus/remote.key in the user's configuration folder].
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Pair {
    /// The host.
    #[arg(value_name = "HOST:PORT")]
    pub(crate) host: String,
    /// The code; asked for if it is not given, which keeps it out of the list of processes.
    #[arg(value_name = "CODE")]
    pub(crate) code: Option<Code>,
    #[command(flatten)]
    pub(crate) key: KeyFile,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Forget {
    /// The host, as it was given to `pair`.
    #[arg(value_name = "HOST:PORT")]
    pub(crate) host: String,
    #[command(flatten)]
    pub(crate) key: KeyFile,
}

#[derive(Debug, Args)]
pub(crate) struct Switch {
    /// The kind of link to move to.
    #[arg(value_enum)]
    pub(crate) to: Way,
    #[command(flatten)]
    pub(crate) status: Status,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Connect {
    /// The host.
    #[arg(value_name = "HOST:PORT")]
    pub(crate) host: String,
    /// The host's public key, as `farbus-host key` prints it: who answers with another one is not the host [default: the
    /// one that `farbus-remote pair` has remembered for HOST:PORT].
    #[arg(long, value_name = "KEY")]
    pub(crate) host_key: Option<PublicKey>,
    #[command(flatten)]
    pub(crate) key: KeyFile,
    /// The VM; needed only if the host lets this remote have several.
    #[arg(long, value_name = "NAME")]
    pub(crate) vm: Option<String>,
    /// The kind of link: `auto` tries both and keeps the better one.
    #[arg(long, value_enum, default_value = "noise-tcp")]
    pub(crate) transport: Transport,
    /// A STUN or TURN server for WebRTC, where the host cannot be reached without: stun:HOST:PORT, or
    /// turn:USER:PASSWORD@HOST:PORT; over UDP. May be given several times.
    #[arg(
        long,
        value_name = "SERVER",
        env = "FARBUS_ICE_SERVER",
        value_delimiter = ' ',
        hide_env_values = true
    )]
    pub(crate) ice_server: Vec<IceServer>,
    /// Let WebRTC use TURN servers only, so that the host does not learn this computer's addresses.
    #[arg(long, requires = "ice_server")]
    pub(crate) relay_only: bool,
    /// Lend a keyboard: typed in this terminal, or scripted by lines on standard input if that is not a terminal:
    /// `type TEXT`, `key CTRL+ALT+DELETE`, `wait MILLISECONDS`, `# comment`.
    #[arg(long)]
    pub(crate) keyboard: bool,
    /// Lend a file as a disk; with `:ro` the VM cannot write to it. May be given several times.
    #[arg(long, value_name = "FILE[:ro]")]
    pub(crate) disk: Vec<Disk>,
    /// Lend a gadget zero, which the `usbtest` driver of a Linux guest tests this whole way with.
    #[arg(long, value_name = "SPEED", num_args = 0..=1, default_missing_value = "super")]
    pub(crate) gadget_zero: Option<UsbSpeed>,
    /// Lend real USB devices, those that are here and those that are plugged in later: VID:PID (046d:c52b), BUS-PORT
    /// (1-2.3, as `farbus-remote devices` shows it), class=storage|audio|video|hid|printer|serial|net|smartcard|vendor|0xNN,
    /// all-but-hid, or all. May be given several times. Hubs stay; what may be the keyboard or mouse in front of you, and
    /// a Bluetooth adapter, which may carry them, are lent only by VID:PID or BUS-PORT; a headset or sound card only by
    /// these or class=audio, whatever other interfaces it has. A camera with a microphone counts as a camera.
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) usb: Vec<Selector>,
    /// Where `farbus-remote lend`, `status` and the like reach this one [default: a socket in $XDG_RUNTIME_DIR/farbus].
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,
    /// Where the VM's sound goes: a sound card, a WAV file (paced like a sound card), or nowhere.
    /// `test[:speed=F,ppm=N,jitter=MS]` is a sound card that is a piece of software, with these faults.
    #[arg(long, value_name = "cpal[:DEVICE]|wav:FILE|test|none", default_value = "none")]
    pub(crate) audio: Audio,
    /// The microphone that the VM may hear: a sound card, a WAV file (from its beginning, then silence), or `test` as
    /// above (an inaudible ramp). None unless it is asked for: whoever has the VM hears the room. It is open only while
    /// the VM listens, and `farbus-remote mute` closes it.
    #[arg(long, value_name = "cpal[:DEVICE]|wav:FILE|test|none", default_value = "none")]
    pub(crate) mic: Audio,
    /// How the microphone is sent: `pcm`, bit by bit; `opus`, which bears a narrow or lossy link; or whichever the link
    /// bears. (How the VM's own sound is sent is the host's `audio_codec`.)
    #[arg(long, value_name = "auto|pcm|opus", default_value = "auto")]
    pub(crate) audio_codec: Wish,
    /// Whether the VM finds headphones plugged in. `auto`: if the card of --audio is named so by the sound system, which
    /// sees no plug of a built-in card; `farbus-remote headphones` tells it.
    #[arg(long, value_enum, value_name = "auto|yes|no", default_value = "auto")]
    pub(crate) headphones: Headphones,
    /// Record all USB traffic into this file, which Wireshark opens. Everything that is typed is in it.
    #[arg(long, value_name = "FILE.pcapng")]
    pub(crate) capture: Option<PathBuf>,
    /// What to write on standard output about everything that happens.
    #[arg(long, value_enum, default_value = "human")]
    pub(crate) events: Format,
}

/// Something that is asked of the running `connect`.
#[derive(Debug, Args)]
pub(crate) struct Ask<T: Clone + Send + Sync + FromStr<Err = String> + 'static> {
    /// Devices: VID:PID, BUS-PORT, class=NAME, all-but-hid or all; to return one, also its number as `status` shows it.
    #[arg(value_name = "SELECTOR")]
    pub(crate) what: T,
    #[command(flatten)]
    pub(crate) status: Status,
}

/// Which `connect` is asked.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The socket of the `connect` that is meant, if several run.
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Whether headphones are plugged in.
#[derive(Debug, Args)]
pub(crate) struct Plug {
    #[arg(value_enum, value_name = "auto|yes|no")]
    pub(crate) headphones: Headphones,
    #[command(flatten)]
    pub(crate) status: Status,
}

#[derive(Debug, Args)]
pub(crate) struct Devices {
    /// What `connect --usb` would be given; see there. May be given several times.
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) usb: Vec<Selector>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The speed of a software device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum UsbSpeed {
    /// 480 Mb/s.
    High,
    /// 5 Gb/s.
    Super,
}

/// A file that is a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) file: PathBuf,
    pub(crate) read_only: bool,
}

impl FromStr for Disk {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (file, read_only) = text.strip_suffix(":ro").map_or((text, false), |file| (file, true));
        if file.is_empty() {
            return Err("a disk needs a file".into());
        }
        Ok(Self { file: file.into(), read_only })
    }
}

/// Where sound goes, or comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Audio {
    /// Nowhere; the VM's clock runs on.
    None,
    /// A WAV file.
    Wav(PathBuf),
    /// A sound card that is a piece of software, with a clock of its own.
    Test(Pace),
    /// A sound card: the default one, or the first whose name contains this text.
    Cpal(Option<String>),
}

impl FromStr for Audio {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            None if text == "cpal" => Ok(Self::Cpal(None)),
            None if text == "test" => Ok(Self::Test(Pace::default())),
            Some(("cpal", device)) if !device.is_empty() => Ok(Self::Cpal(Some(device.into()))),
            Some(("wav", file)) if !file.is_empty() => Ok(Self::Wav(file.into())),
            Some(("test", faults)) => faults.parse().map(Self::Test),
            _ => Err(format!("`{text}` is none of cpal, cpal:DEVICE, wav:FILE, test, none")),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_disk_is_a_file_and_perhaps_read_only() {
        let disk = |text: &str| text.parse::<Disk>();
        assert_eq!(disk("a.img:ro"), Ok(Disk { file: "a.img".into(), read_only: true }));
        assert_eq!(disk("a:b.img"), Ok(Disk { file: "a:b.img".into(), read_only: false }));
        assert!(disk(":ro").is_err());
    }

    #[test]
    fn sound_goes_to_one_of_four_places() {
        for (text, audio) in [
            ("none", Audio::None),
            ("wav:x.wav", Audio::Wav("x.wav".into())),
            ("test", Audio::Test(Pace::default())),
            ("cpal", Audio::Cpal(None)),
            ("cpal:USB Headset", Audio::Cpal(Some("USB Headset".into()))),
        ] {
            assert_eq!(text.parse(), Ok(audio), "{text}");
        }
        for text in ["wav:", "cpal:", "alsa", "test:", "test:x=1", ""] {
            assert!(text.parse::<Audio>().is_err(), "{text}");
        }
    }
}
