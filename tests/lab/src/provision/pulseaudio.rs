//! PulseAudio, whose way of sound over a network is to be measured beside Farbus's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::apt::Archive;
use super::guest::RELEASE;
use super::{Cache, foreign, key};

const PACKAGES: [&str; 2] = ["pulseaudio", "pulseaudio-utils"];
/// Where its programs look for libraries of their own, below the root.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu/pulseaudio";

/// PulseAudio's programs, run on this computer.
#[derive(Debug, Clone)]
pub struct PulseAudio {
    root: PathBuf,
    modules: PathBuf,
}

impl PulseAudio {
    /// Fetches it, if it is not there yet. Blocks meanwhile.
    ///
    /// # Errors
    /// If it cannot be fetched.
    pub fn find(cache: &Cache) -> Result<Self> {
        let name = format!("pulseaudio-{}", key([RELEASE].into_iter().chain(PACKAGES)));
        let root = cache.tree(&name, "PulseAudio, to be measured", |root| {
            Archive::open(cache, RELEASE)?.unpack(RELEASE, &PACKAGES, root)?;
            lift(root)
        })?;
        let modules = modules(&root)?;
        Ok(Self { root, modules })
    }

    /// A daemon that keeps to this folder, and has the modules that it is given by `--load`.
    #[must_use]
    pub fn daemon(&self, folder: &Path) -> Command {
        let mut daemon = self.program("pulseaudio", folder);
        daemon.args(["-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1"]);
        daemon.args(["--disallow-exit", "--disable-shm", "--log-target=stderr"]);
        daemon.arg("--dl-search-path").arg(&self.modules);
        daemon
    }

    /// `pacat`, which knows nothing but this folder.
    #[must_use]
    pub fn pacat(&self, folder: &Path) -> Command {
        self.program("pacat", folder)
    }

    /// `pactl`, which tells a daemon what to do, and knows nothing but this folder.
    #[must_use]
    pub fn pactl(&self, folder: &Path) -> Command {
        self.program("pactl", folder)
    }

    fn program(&self, name: &str, folder: &Path) -> Command {
        let mut command = foreign(&self.root, &format!("usr/bin/{name}"), name);
        // Nothing of the user's own sound server, and nothing left behind outside of the folder.
        for variable in ["DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "PULSE_SERVER", "PULSE_SINK"] {
            command.env_remove(variable);
        }
        for variable in
            ["HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "PULSE_RUNTIME_PATH", "PULSE_STATE_PATH"]
        {
            command.env(variable, folder);
        }
        command
    }
}

/// Puts the libraries that only its programs and modules have where the loader of an unpacked root looks for them.
fn lift(root: &Path) -> Result<()> {
    for from in [root.join(LIBRARIES), modules(root)?] {
        for library in fs::read_dir(&from).with_context(|| format!("listing {}", from.display()))? {
            let name = library?.file_name();
            if name.to_string_lossy().starts_with("lib") {
                fs::rename(from.join(&name), root.join("usr/lib/x86_64-linux-gnu").join(&name))?;
            }
        }
    }
    Ok(())
}

/// The folder of its modules, which has its version in its name.
fn modules(root: &Path) -> Result<PathBuf> {
    let folders = fs::read_dir(root.join("usr/lib")).context("listing the libraries")?;
    let pulse = |name: &str| name.starts_with("pulse-");
    folders
        .filter_map(Result::ok)
        .find(|folder| folder.file_name().to_str().is_some_and(pulse))
        .map(|folder| folder.path().join("modules"))
        .context("PulseAudio has no modules")
}
