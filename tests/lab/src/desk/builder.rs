//! What a desk is made of, and its start.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use super::{Desk, INTERFACE, NETWORK};
use crate::lab::Lab;
use crate::machine::chain;
use crate::vm::VmBuilder;

/// Loaded before the desk counts as up: what it needs itself, and the drivers that a remote computer's own system has
/// for its devices. Not usbtest, which would take a gadget away from whoever is to be tested with it.
const MODULES: [&str; 12] = [
    "virtio_net",
    "libcomposite",
    "xhci_pci",
    "ehci_pci",
    "uhci_hcd",
    "usbhid",
    "hid_generic",
    "evdev",
    "usb_storage",
    "uas",
    "sd_mod",
    "sch_netem",
];

/// How many gadgets may be plugged in unless told otherwise.
const GADGET_PORTS: u32 = 4;
/// The kernel's limit (MAX_NUM_UDC in `drivers/usb/gadget/udc/dummy_hcd.c`).
const MOST_GADGET_PORTS: u32 = 32;

/// A USB controller of the desk's own, for QEMU's USB devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    /// USB 3, as `xhci.0`. Not honest about cancelled transfers.
    Xhci,
    /// USB 2, as `ehci.0`: high speed only.
    Ehci,
    /// USB 1.1, as `uhci.0`: full speed.
    Uhci,
}

impl Controller {
    fn device(self) -> &'static str {
        match self {
            Self::Xhci => "qemu-xhci,id=xhci,p2=8,p3=8",
            Self::Ehci => "usb-ehci,id=ehci",
            Self::Uhci => "piix3-usb-uhci,id=uhci",
        }
    }
}

/// A desk to be booted.
#[derive(Debug)]
#[must_use = "a desk does not exist before it is booted"]
pub struct DeskBuilder<'lab> {
    vm: VmBuilder<'lab>,
    controllers: Vec<Controller>,
    qemu_args: Vec<OsString>,
    disks: u32,
    modules: Vec<String>,
    gadget_ports: u32,
    super_speed: bool,
    netem: String,
}

impl<'lab> DeskBuilder<'lab> {
    pub(crate) fn new(lab: &'lab Lab, name: &str) -> Self {
        Self {
            vm: lab.vm(name).load_default_modules(false),
            controllers: vec![Controller::Xhci],
            qemu_args: Vec::new(),
            disks: 0,
            modules: Vec::new(),
            gadget_ports: GADGET_PORTS,
            super_speed: true,
            netem: String::new(),
        }
    }

    /// Its memory; 512 MiB unless told otherwise.
    pub fn memory_mib(self, memory_mib: u32) -> Self {
        Self { vm: self.vm.memory_mib(memory_mib), ..self }
    }

    /// How many processors it has; one unless told otherwise.
    pub fn cpus(self, cpus: u32) -> Self {
        Self { vm: self.vm.cpus(cpus), ..self }
    }

    /// The controllers that QEMU's USB devices hang on; one qemu-xhci unless told otherwise.
    pub fn controllers(self, controllers: impl IntoIterator<Item = Controller>) -> Self {
        Self { controllers: controllers.into_iter().collect(), ..self }
    }

    /// More arguments for QEMU: devices at the desk's [`Controller`]s, such as `-device usb-kbd,bus=xhci.0`.
    pub fn qemu_args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.qemu_args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Gives the desk a file of this computer as a disk: the first is `/dev/vda`, then `/dev/vdb`. What is written
    /// there is written to the file.
    pub fn disk(mut self, file: impl Into<PathBuf>) -> Self {
        let option = format!("if=none,id=disk{0},format=raw,cache=unsafe,file=", self.disks);
        let device = format!("virtio-blk-pci,drive=disk{}", self.disks);
        self.qemu_args.extend([
            "-drive".into(),
            chain(&option, &file.into()),
            "-device".into(),
            device.into(),
        ]);
        self.disks += 1;
        self
    }

    /// Kernel modules to be loaded beside those that every desk has: `snd_usb_audio`, `vhci_hcd`.
    pub fn modules<M: Into<String>>(mut self, modules: impl IntoIterator<Item = M>) -> Self {
        self.modules.extend(modules.into_iter().map(Into::into));
        self
    }

    /// How many gadgets may be plugged in; 4 unless told otherwise.
    pub fn gadget_ports(self, gadget_ports: u32) -> Self {
        Self { gadget_ports, ..self }
    }

    /// Whether gadgets have USB 3 ports, as they have unless told otherwise, or USB 2 ones.
    pub fn super_speed(self, super_speed: bool) -> Self {
        Self { super_speed, ..self }
    }

    /// Network faults from the start on; see [`Desk::netem`].
    pub fn netem(self, faults: &str) -> Self {
        Self { netem: faults.to_owned(), ..self }
    }

    /// Starts the desk and waits until its network is up and gadgets can be plugged in.
    ///
    /// # Errors
    /// If the VM does not boot, or the desk lacks something in it.
    pub async fn boot(self) -> Result<Desk> {
        ensure!(self.gadget_ports <= MOST_GADGET_PORTS, "at most {MOST_GADGET_PORTS} gadget ports");
        let script = self.script();
        let (network, card) = (format!("user,id={NETWORK}"), format!("virtio-net-pci,netdev={NETWORK}"));
        let mut vm = self.vm.extra_args(["-netdev", &network, "-device", &card]);
        for controller in &self.controllers {
            vm = vm.extra_args(["-device", controller.device()]);
        }
        let vm = vm.extra_args(self.qemu_args).boot().await?;
        vm.run(&script).await?.success().context("preparing the desk")?;
        Ok(Desk { vm, installed: Default::default(), ports: tokio::sync::Mutex::new(0..self.gadget_ports) })
    }

    /// Makes a desk of the VM, in the VM.
    fn script(&self) -> String {
        let mut modules = MODULES.join(" ");
        if self.disks > 0 {
            modules.push_str(" virtio_blk");
        }
        for module in &self.modules {
            let _ = write!(modules, " {module}");
        }
        let super_speed = u8::from(self.super_speed);
        let mut script = format!("set -e\nmodprobe -a {modules}\n");
        if self.gadget_ports > 0 {
            let _ =
                writeln!(script, "modprobe dummy_hcd is_super_speed={super_speed} num={}", self.gadget_ports);
        }
        // What QEMU's user network is by its documentation; a DHCP client would learn the same.
        let _ = writeln!(
            script,
            "mount -t configfs none /sys/kernel/config\n\
             ip link set lo up\n\
             ip link set {INTERFACE} up\n\
             ip addr add 10.0.2.15/24 dev {INTERFACE}\n\
             ip route add default via 10.0.2.2"
        );
        if !self.netem.is_empty() {
            script.push_str(&netem(&self.netem));
        }
        script
    }
}

/// The command that applies network faults.
pub(super) fn netem(faults: &str) -> String {
    match faults.trim() {
        "" => format!("tc qdisc del dev {INTERFACE} root 2>/dev/null; true\n"),
        faults => format!("tc qdisc replace dev {INTERFACE} root netem limit 100000 {faults}\n"),
    }
}

/// The command that applies network faults to what comes: it is led through a device of its own, where it goes out.
pub(super) fn netem_of_what_comes(faults: &str) -> String {
    format!(
        "modprobe -a ifb sch_ingress cls_matchall act_mirred; ip link set ifb0 up\n\
         tc qdisc replace dev ifb0 root netem limit 100000 {faults} || exit 1\n\
         tc qdisc add dev {INTERFACE} handle ffff: ingress 2>/dev/null\n\
         tc filter show dev {INTERFACE} parent ffff: | grep -q ifb0 || \
         tc filter add dev {INTERFACE} parent ffff: pref 1 matchall action mirred egress redirect dev ifb0\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_replace_what_was_there_and_none_take_it_away() {
        assert!(
            netem(" delay 20ms loss 1% ")
                .ends_with("replace dev eth0 root netem limit 100000 delay 20ms loss 1%\n")
        );
        assert!(netem("").starts_with("tc qdisc del dev eth0 root"));
    }
}
