//! What a VM is made of, and its start.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use super::Vm;
use super::agent::Agent;
use crate::console::Console;
use crate::lab::Lab;
use crate::machine::{Preparation, chain, vfio_user};
use crate::provision::{DEFAULT_KERNEL, DEFAULT_MODULES};
use crate::qmp::wait_event;

/// Under TCG on a busy machine; on an idle one a guest is up in about 5 s.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
const DEFAULT_MEMORY_MIB: u32 = 512;
/// The kernel is quiet, forgets nothing that it has said, stays down after a panic so that its end can be read, and goes
/// without what only costs time.
const COMMAND_LINE: &str =
    "console=ttyS0 quiet log_buf_len=4M panic=0 mitigations=off nokaslr random.trust_cpu=on";

/// What a machine starts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Firmware {
    /// A classic PC BIOS, with drivers of its own for xHCI, keyboards and disks.
    #[default]
    SeaBios,
    /// UEFI, with drivers of its own for the same.
    Ovmf,
}

impl std::str::FromStr for Firmware {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "seabios" => Ok(Self::SeaBios),
            "ovmf" => Ok(Self::Ovmf),
            _ => bail!("the firmware is seabios or ovmf, not {name}"),
        }
    }
}

/// A VM to be booted.
#[derive(Debug)]
#[must_use = "a VM does not exist before it is booted"]
pub struct VmBuilder<'lab> {
    lab: &'lab Lab,
    name: String,
    memory_mib: u32,
    cpus: u32,
    devices: Vec<Value>,
    firmware: Firmware,
    kernel: Option<String>,
    modules: Vec<String>,
    default_modules: bool,
    command_line: String,
    extra_args: Vec<OsString>,
    boot_limit: Duration,
    console_file: Option<PathBuf>,
}

impl<'lab> VmBuilder<'lab> {
    pub(crate) fn new(lab: &'lab Lab, name: &str) -> Self {
        Self {
            lab,
            name: name.to_owned(),
            memory_mib: DEFAULT_MEMORY_MIB,
            cpus: 1,
            devices: Vec::new(),
            firmware: Firmware::default(),
            kernel: Some(DEFAULT_KERNEL.to_owned()),
            modules: Vec::new(),
            default_modules: true,
            command_line: COMMAND_LINE.to_owned(),
            extra_args: Vec::new(),
            boot_limit: BOOT_LIMIT,
            console_file: None,
        }
    }

    /// Its memory; 512 MiB unless told otherwise.
    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// How many processors it has; one unless told otherwise.
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// Gives it the PCI function served at a vfio-user socket, with the id `usb`.
    pub fn usb_socket(self, socket: impl Into<PathBuf>) -> Self {
        self.device(vfio_user("usb", &socket.into()))
    }

    /// Gives it the PCI function served at a vfio-user socket, with the id `hda`.
    pub fn hda_socket(self, socket: impl Into<PathBuf>) -> Self {
        self.device(vfio_user("hda", &socket.into()))
    }

    /// Gives it a device, as QEMU's `-device` takes it in JSON: `json!({"driver": "qemu-xhci", "id": "x"})`.
    pub fn device(mut self, device: Value) -> Self {
        self.devices.push(device);
        self
    }

    /// The firmware it starts with; SeaBIOS unless told otherwise.
    pub fn firmware(mut self, firmware: Firmware) -> Self {
        self.firmware = firmware;
        self
    }

    /// Whether it is given a kernel, which is so unless told otherwise. Without, the firmware boots from the machine's
    /// disks, [`VmBuilder::boot`] returns at once, and no commands can be run.
    pub fn kernel_boot(mut self, kernel_boot: bool) -> Self {
        self.kernel = kernel_boot.then(|| self.kernel.unwrap_or_else(|| DEFAULT_KERNEL.to_owned()));
        self
    }

    /// The Debian package its kernel comes from: `NAME`, or `NAME/SUITE` for another suite than the guest's.
    pub fn kernel_package(mut self, package: impl Into<String>) -> Self {
        self.kernel = Some(package.into());
        self
    }

    /// Kernel modules to be loaded after [`DEFAULT_MODULES`].
    pub fn modules<M: Into<String>>(mut self, modules: impl IntoIterator<Item = M>) -> Self {
        self.modules.extend(modules.into_iter().map(Into::into));
        self
    }

    /// Whether [`DEFAULT_MODULES`] are loaded before the guest counts as up. A test may want to be there when a driver
    /// first meets its device; all modules can be loaded with `modprobe` in any case.
    pub fn load_default_modules(mut self, load: bool) -> Self {
        self.default_modules = load;
        self
    }

    /// More words for the kernel's command line.
    pub fn kernel_arguments(mut self, words: &str) -> Self {
        self.command_line = format!("{} {words}", self.command_line);
        self
    }

    /// More arguments for QEMU.
    pub fn extra_args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.extra_args.extend(args.into_iter().map(Into::into));
        self
    }

    /// How long the guest may take to come up; 180 s unless told otherwise.
    pub fn boot_timeout(mut self, limit: Duration) -> Self {
        self.boot_limit = limit;
        self
    }

    /// Where its console is kept; in the VM's own folder, which ends with it, unless told otherwise.
    pub fn console_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.console_file = Some(path.into());
        self
    }

    /// Starts the machine and, if it has a kernel, waits until commands can be run.
    ///
    /// # Errors
    /// If something it needs cannot be provided, QEMU refuses to start, or the guest does not come up; then with
    /// QEMU's words and the end of the guest's console.
    pub async fn boot(self) -> Result<Vm> {
        let name = self.name.clone();
        self.boot_up().await.with_context(|| format!("booting the VM {name}"))
    }

    async fn boot_up(self) -> Result<Vm> {
        let qemu = self.lab.qemu();
        let mut machine = Preparation::new(&self.name, self.memory_mib)?;
        machine.args(["-machine", "q35,memory-backend=mem,graphics=off", "-accel", "tcg,thread=multi"]);
        // A processor of today has instructions for ciphers, and so has this one.
        machine.args(["-smp", &self.cpus.to_string(), "-cpu", "max"]);
        machine.chardev("console")?.args(["-serial", "chardev:console"]);
        machine.chardev("firmware")?.args(["-device", "isa-debugcon,iobase=0x402,chardev=firmware"]);
        if self.firmware == Firmware::Ovmf {
            let (code, variables) = qemu.ovmf()?;
            let own = machine.file("variables.fd");
            fs::copy(&variables, &own).with_context(|| format!("copying {}", variables.display()))?;
            machine.args(["-drive".into(), chain("if=pflash,format=raw,readonly=on,file=", &code)]);
            machine.args(["-drive".into(), chain("if=pflash,format=raw,file=", &own)]);
        }
        if let Some(package) = &self.kernel {
            self.add_kernel(&mut machine, package).await?;
        }
        for device in &self.devices {
            machine.args(["-device", &device.to_string()]);
        }
        let console_file = self.console_file.unwrap_or_else(|| machine.file("console.log"));
        let firmware_file = machine.file("firmware.log");
        machine.args(self.extra_args);

        let (machine, streams) = machine.start(qemu).await?;
        let mut streams = streams.into_iter();
        let mut stream = || streams.next().ok_or_else(|| anyhow!("QEMU connects to every channel"));
        let console = Console::record("console", &console_file, stream()?)?;
        let firmware_log = Console::record("firmware's log", &firmware_file, stream()?)?;
        let agent = match self.kernel {
            Some(_) => Some(Arc::new(Agent::new(stream()?))),
            None => None,
        };
        let vm = Vm { machine, agent, console, firmware_log, boot_limit: self.boot_limit };
        if let Some(agent) = &vm.agent {
            // The guest may reset itself: then its agent starts anew.
            let (agent, mut events) = (Arc::downgrade(agent), vm.events());
            tokio::spawn(async move {
                while wait_event(&mut events, "RESET").await.is_ok() {
                    let Some(agent) = agent.upgrade() else { return };
                    agent.forget();
                }
            });
            vm.up().await?;
        }
        Ok(vm)
    }

    /// Adds kernel, initramfs and the agent's port.
    async fn add_kernel(&self, machine: &mut Preparation, package: &str) -> Result<()> {
        let (kernel, initramfs) = self.lab.kernel(package, &self.modules).await?;
        let loaded = DEFAULT_MODULES.into_iter().filter(|_| self.default_modules);
        let loaded: Vec<&str> = loaded.chain(self.modules.iter().map(String::as_str)).collect();
        let mut seen = BTreeSet::new();
        let loaded: Vec<_> = loaded.into_iter().filter(|module| seen.insert(*module)).collect();
        let line = format!("{} lab.name={} lab.modules={}", self.command_line, self.name, loaded.join(","));
        // UEFI starts only the image that is a program of its own.
        let unpacked = kernel.unpacked_image().filter(|_| self.firmware == Firmware::SeaBios);
        machine.args(["-kernel".into(), unpacked.unwrap_or_else(|| kernel.image()).into_os_string()]);
        machine.args(["-initrd".into(), initramfs.path().as_os_str().to_owned()]);
        machine.args(["-append", &line]);
        machine.args(["-device", "virtio-serial-pci"]);
        machine.chardev("agent")?.args(["-device", "virtserialport,chardev=agent,name=lab.agent"]);
        Ok(())
    }
}
