//! The host, and who connects to it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{Cable, Program};

/// One VM in a [`Host`]'s configuration.
#[derive(Debug, Clone)]
pub struct Seat {
    /// Its name.
    pub name: String,
    /// Its sockets' folder.
    pub folder: PathBuf,
    /// More lines of its table, such as `on_busy = "takeover"`.
    pub extra: String,
}

impl Seat {
    /// The USB controller's socket.
    #[must_use]
    pub fn usb_socket(&self) -> PathBuf {
        self.folder.join("usb.sock")
    }

    /// The HD Audio controller's socket.
    #[must_use]
    pub fn hda_socket(&self) -> PathBuf {
        self.folder.join("hda.sock")
    }
}

/// A running `farbus-host serve`.
pub struct Host {
    /// The process.
    pub program: Program,
    /// Where remotes connect to.
    pub address: String,
    /// The key that remotes pin.
    pub key: String,
    /// The VMs.
    pub seats: Vec<Seat>,
    /// The first worker process of each VM.
    pub workers: BTreeMap<String, u32>,
    folder: PathBuf,
}

impl Host {
    /// Serves VMs of these names to any remote, in `folder`, and waits until their sockets are there. Their sound is
    /// PCM however busy this computer is, so that it can be compared frame by frame.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn start(folder: &Path, vms: &[&str]) -> Result<Self> {
        let seats = vms.iter().map(|name| Seat {
            name: (*name).to_owned(),
            folder: folder.join(name),
            extra: "audio_codec = \"pcm\"\n".to_owned(),
        });
        Self::start_with(folder, seats.collect()).await
    }

    /// The same with more to say about each VM.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn start_with(folder: &Path, seats: Vec<Seat>) -> Result<Self> {
        Self::start_configured(folder, "", seats).await
    }

    /// The same with more lines in front of the VMs.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn start_configured(folder: &Path, more: &str, seats: Vec<Seat>) -> Result<Self> {
        let mut config = format!(
            "listen = \"127.0.0.1:0\"\nkey_file = {:?}\ncontrol = {:?}\n{more}",
            folder.join("host.key").to_string_lossy(),
            folder.join("control.sock").to_string_lossy()
        );
        for seat in &seats {
            let socket_dir = seat.folder.to_string_lossy();
            let remotes = if seat.extra.contains("remotes") { "" } else { "remotes = [\"any\"]\n" };
            let _ =
                writeln!(config, "[vm.{}]\nsocket_dir = {socket_dir:?}\n{remotes}{}", seat.name, seat.extra);
        }
        let file = folder.join("host.toml");
        std::fs::write(&file, config).with_context(|| format!("writing {}", file.display()))?;
        let arguments = ["serve", "--json", "--config", &file.to_string_lossy()].map(str::to_owned);
        let mut program = Program::start("host", "farbus-host", &arguments, folder)?;
        let listening = program.wait_for("listening").await?;
        let mut workers = BTreeMap::new();
        for _ in &seats {
            let ready = program.wait_for("vm_ready").await.context("a VM's worker did not come up")?;
            let worker = ready["worker"].as_u64().context("a worker without its process id")?;
            workers.insert(ready["vm"].as_str().unwrap_or_default().to_owned(), u32::try_from(worker)?);
        }
        let text = |field: &str| listening[field].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            program,
            address: text("address"),
            key: text("host_key"),
            seats,
            workers,
            folder: folder.to_owned(),
        })
    }

    /// Starts a remote for a VM, with its own key, and does not wait.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn remote(&self, name: &str, vm: &str, arguments: &[&str]) -> Result<Program> {
        self.remote_in(&[], name, vm, arguments)
    }

    /// The same with more in its environment.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn remote_in(
        &self,
        environment: &[(&str, &str)],
        name: &str,
        vm: &str,
        arguments: &[&str],
    ) -> Result<Program> {
        let all = self.connect_arguments(&self.address, &self.folder, name, vm, arguments);
        Program::start_in(name, "farbus-remote", &all, &self.folder, environment)
    }

    /// The same, through a cable.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn remote_by(&self, cable: &Cable, name: &str, vm: &str, arguments: &[&str]) -> Result<Program> {
        let all = self.connect_arguments(&cable.address(), &self.folder, name, vm, arguments);
        Program::start(name, "farbus-remote", &all, &self.folder)
    }

    /// The arguments of a remote for a VM, whose key is in the folder `keys`.
    pub(crate) fn connect_arguments(
        &self,
        address: &str,
        keys: &Path,
        name: &str,
        vm: &str,
        arguments: &[&str],
    ) -> Vec<String> {
        let mut all = ["connect", address, "--host-key", &self.key, "--vm", vm, "--events", "json"]
            .map(str::to_owned)
            .to_vec();
        let key_file = keys.join(format!("{name}.key"));
        all.extend(["--key-file".to_owned(), key_file.to_string_lossy().into_owned()]);
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        all
    }

    /// Where its configuration, its keys and its logs are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The seat of this name.
    ///
    /// # Panics
    /// There is none: a mistake of the test.
    #[must_use]
    pub fn seat(&self, name: &str) -> &Seat {
        self.seats.iter().find(|seat| seat.name == name).expect("a seat of this name")
    }
}
