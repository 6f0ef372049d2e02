//! `farbus-host`'s configuration: TOML, every key checked, defaults said in one place.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result, bail};
use noise_tcp::PublicKey;
use serde::{Deserialize, Deserializer, de};
use vm_session::Wish;

mod hold;
pub(crate) mod rtc;
mod web;

pub(crate) use hold::Hold;
pub(crate) use rtc::Rtc;
pub(crate) use web::Web;

/// The longest path a Unix socket can have on Linux, bytes.
const MAX_SOCKET_PATH: usize = 107;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where remotes connect to.
    #[serde(default = "default_listen")]
    pub(crate) listen: String,
    /// The host's secret key; made if absent.
    #[serde(default = "default_key_file")]
    pub(crate) key_file: PathBuf,
    /// Where `farbus-host pair`, `status` and the like reach the running `serve`; if nothing is said, a socket in the
    /// user's runtime folder.
    #[serde(default)]
    pub(crate) control: Option<PathBuf>,
    /// Where metrics are served over HTTP for Prometheus, such as "127.0.0.1:9411"; nowhere if nothing is said. Whoever
    /// reaches it reads them.
    #[serde(default)]
    pub(crate) metrics: Option<SocketAddr>,
    /// How links over WebRTC come about.
    #[serde(default)]
    pub(crate) webrtc: Rtc,
    /// Where web pages ask for a link; nowhere if nothing is said.
    #[serde(default)]
    pub(crate) web: Option<Web>,
    /// The VMs by name.
    #[serde(default)]
    pub(crate) vm: BTreeMap<String, Vm>,
}

/// One VM.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Vm {
    /// The folder for `usb.sock` and `hda.sock`; made if absent.
    pub(crate) socket_dir: PathBuf,
    /// Which remotes may have it, beside those that are paired with it.
    #[serde(default)]
    pub(crate) remotes: Vec<Allowed>,
    /// Permissions of both sockets: who may be the VMM.
    #[serde(default = "default_socket_mode")]
    pub(crate) socket_mode: u32,
    /// What happens when a second remote comes.
    #[serde(default)]
    pub(crate) on_busy: OnBusy,
    /// How the controllers interrupt.
    #[serde(default)]
    pub(crate) interrupts: Interrupts,
    /// The speakers that the VM finds.
    #[serde(default)]
    pub(crate) speakers: Speakers,
    /// How the VM's sound is sent.
    #[serde(default)]
    pub(crate) audio_codec: AudioCodec,
    /// How long devices stay plugged in while their remote has no link.
    #[serde(default)]
    pub(crate) hold: Hold,
    /// The file that the VM's USB traffic is recorded into, for Wireshark; everything that is typed is in it.
    #[serde(default)]
    pub(crate) capture: Option<PathBuf>,
}

/// An entry of the list of allowed remotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// Any remote that knows the host's key.
    Any,
    /// The remote with this key.
    Key(PublicKey),
}

/// What happens when a remote comes for a VM that has one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnBusy {
    /// The first keeps it; the newcomer is told why.
    #[default]
    Refuse,
    /// The newcomer gets it.
    Takeover,
}

/// How the controllers interrupt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Interrupts {
    /// MSI: right for everything (the default).
    #[default]
    Msi,
    /// MSI-X: QEMU 11.1.3 aborts when such a device is unplugged.
    Msix,
}

/// The speakers that a VM finds. What a remote lacks of them is silent there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Speakers {
    /// Two (the default).
    #[default]
    Stereo,
    /// Eight: front, centre and bass, rear, side.
    Surround71,
}

/// How a VM's sound is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AudioCodec {
    /// As PCM, bit by bit, as long as the link is good, else as Opus (the default).
    #[default]
    Auto,
    /// As PCM, always.
    Pcm,
    /// As Opus, wherever it can be: one or two channels.
    Opus,
}

impl From<AudioCodec> for Wish {
    fn from(codec: AudioCodec) -> Self {
        match codec {
            AudioCodec::Auto => Self::Auto,
            AudioCodec::Pcm => Self::Pcm,
            AudioCodec::Opus => Self::Opus,
        }
    }
}

impl From<Speakers> for hda::Speakers {
    fn from(speakers: Speakers) -> Self {
        match speakers {
            Speakers::Stereo => Self::Stereo,
            Speakers::Surround71 => Self::Surround71,
        }
    }
}

impl<'de> Deserialize<'de> for Allowed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "any" {
            return Ok(Self::Any);
        }
        PublicKey::from_str(&text).map(Self::Key).map_err(|error| {
            de::Error::custom(format!(
                "`{text}` is neither \"any\" nor a public key as `farbus-remote key` prints it: {error}"
            ))
        })
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// It cannot be read, or says something impossible; the error names the place and what to do.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| {
            format!("reading the configuration {} (see the README for an example)", path.display())
        })?;
        Self::parse(&text).with_context(|| format!("in the configuration {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text)?;
        config.webrtc.check().context("[webrtc]")?;
        config.web.as_ref().map_or(Ok(()), Web::check).context("[web]")?;
        for (name, vm) in &config.vm {
            check_name(name)?;
            vm.check().with_context(|| format!("[vm.{name}]"))?;
        }
        for (name, vm) in &config.vm {
            let file = |vm: &Vm| vm.capture.clone();
            let same = config
                .vm
                .iter()
                .find(|(other, o)| *other != name && file(o).is_some() && file(o) == file(vm));
            if let Some((twin, _)) = same {
                bail!("[vm.{name}] and [vm.{twin}] have the same capture; each needs its own");
            }
            let twin = config.vm.iter().find(|(other, o)| *other != name && o.socket_dir == vm.socket_dir);
            if let Some((twin, _)) = twin {
                bail!("[vm.{name}] and [vm.{twin}] have the same socket_dir; each needs its own");
            }
        }
        Ok(config)
    }

    /// The VM of this name.
    ///
    /// # Errors
    /// There is none; the error lists those that exist.
    pub(crate) fn vm(&self, name: &str) -> Result<&Vm> {
        self.vm.get(name).with_context(|| {
            let names: Vec<_> = self.vm.keys().map(String::as_str).collect();
            format!("no [vm.{name}] in the configuration; it has: {}", names.join(", "))
        })
    }
}

impl Vm {
    fn check(&self) -> Result<()> {
        if self.socket_dir.as_os_str().len() + "/usb.sock".len() > MAX_SOCKET_PATH {
            bail!("socket_dir is too long: a Unix socket's path has at most {MAX_SOCKET_PATH} bytes");
        }
        if self.socket_mode > 0o777 || self.socket_mode & 0o600 != 0o600 {
            bail!("socket_mode = {:#o} makes no sense for a socket; write it as 0o660", self.socket_mode);
        }
        self.hold.check()
    }

    /// Whether the remote with this key may have this VM.
    pub(crate) fn allows(&self, key: &PublicKey) -> bool {
        self.remotes.iter().any(|allowed| match allowed {
            Allowed::Any => true,
            Allowed::Key(own) => own == key,
        })
    }

    /// One of these remotes only, and nothing else said.
    #[cfg(test)]
    pub(crate) fn for_tests(remotes: Vec<Allowed>) -> Self {
        Self {
            socket_dir: "/run/farbus/a".into(),
            remotes,
            socket_mode: default_socket_mode(),
            on_busy: OnBusy::default(),
            interrupts: Interrupts::default(),
            speakers: Speakers::default(),
            audio_codec: AudioCodec::default(),
            hold: Hold::default(),
            capture: None,
        }
    }

    /// The socket of the USB controller.
    pub(crate) fn usb_socket(&self) -> PathBuf {
        self.socket_dir.join("usb.sock")
    }

    /// The socket of the HD Audio controller.
    pub(crate) fn hda_socket(&self) -> PathBuf {
        self.socket_dir.join("hda.sock")
    }
}

fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        bail!("`{name}` cannot be the name of a VM: use 1 to 64 letters, digits, `-`, `_`, `.`");
    }
    Ok(())
}

/// Only the host's own user.
fn default_socket_mode() -> u32 {
    0o600
}

fn default_listen() -> String {
    "0.0.0.0:7411".to_owned()
}

/// Where the host keeps its key unless told otherwise.
pub(crate) fn default_key_file() -> PathBuf {
    let base = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).unwrap_or_else(|| {
        let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
        home.join(".config")
    });
    base.join("farbus/host.key")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        listen = "127.0.0.1:0"
        [vm.a]
        socket_dir = "/run/farbus/a"
        remotes = ["any"]
        on_busy = "takeover"
        speakers = "surround71"
        audio_codec = "pcm"
        capture = "/tmp/a.pcapng"
    "#;

    #[test]
    fn a_plain_file_is_read_and_defaults_fill_the_rest() {
        let config = Config::parse(GOOD).unwrap();
        let vm = config.vm("a").unwrap();
        assert_eq!(vm.on_busy, OnBusy::Takeover);
        assert_eq!((vm.interrupts, vm.speakers), (Interrupts::Msi, Speakers::Surround71));
        assert_eq!(Wish::from(vm.audio_codec), Wish::Pcm);
        assert_eq!(vm.usb_socket(), Path::new("/run/farbus/a/usb.sock"));
        assert_eq!(vm.capture.as_deref(), Some(Path::new("/tmp/a.pcapng")));
        let paired_only = Config::parse("[vm.a]\nsocket_dir = \"/x\"").unwrap();
        assert!(paired_only.vm("a").unwrap().remotes.is_empty());
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_key_that_is_wrong() {
        struct Case {
            name: &'static str,
            text: &'static str,
            says: &'static str,
        }
        const CASES: &[Case] = &[
            Case { name: "unknown key", text: "lissen = \"x\"", says: "lissen" },
            Case {
                name: "bad key",
                text: "[vm.a]\nsocket_dir = \"/x\"\nremotes = [\"zz\"]",
                says: "neither \"any\" nor a public key",
            },
            Case {
                name: "shared folder",
                text: "[vm.a]\nsocket_dir = \"/x\"\nremotes = [\"any\"]\n[vm.b]\nsocket_dir = \"/x\"\nremotes = [\"any\"]",
                says: "same socket_dir",
            },
            Case {
                name: "shared capture",
                text: "[vm.a]\nsocket_dir = \"/x\"\nremotes = [\"any\"]\ncapture = \"/c\"\n[vm.b]\nsocket_dir = \"/y\"\nremotes = [\"any\"]\ncapture = \"/c\"",
                says: "same capture",
            },
            Case {
                name: "a hold time of another class",
                text: "[vm.a]\nsocket_dir = \"/x\"\nremotes = [\"any\"]\nhold.disk = 3",
                says: "disk",
            },
            Case {
                name: "a hold time that is no time",
                text: "[vm.a]\nsocket_dir = \"/x\"\nremotes = [\"any\"]\nhold.hid = -1.0",
                says: "hold.hid = -1 makes no sense",
            },
            Case {
                name: "name with a slash",
                text: "[vm.\"a/b\"]\nsocket_dir = \"/x\"\nremotes = [\"any\"]",
                says: "cannot be the name",
            },
        ];
        for Case { name, text, says } in CASES {
            let error = format!("{:#}", Config::parse(text).unwrap_err());
            assert!(error.contains(says), "{name}: {error}");
        }
    }

    #[test]
    fn an_unknown_vm_is_answered_with_the_known_ones() {
        let error = Config::parse(GOOD).unwrap().vm("b").unwrap_err();
        assert!(error.to_string().contains("it has: a"), "{error}");
    }
}
