//! The three stacks: how each brings the desk's device to a guest, and takes it away again.

use std::{fmt, fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use lab::{
    Lab, Vm, VmBuilder,
    desk::{Desk, Function, HOST_ADDRESS, Speed},
    farbus::{Host, Program},
};
use serde_json::json;
use tempfile::TempDir;

/// What is lent.
#[derive(Clone, Copy)]
pub(crate) enum Device<'a> {
    /// QEMU's usb-storage with this image, at super speed.
    Disk(&'a Path),
    /// The kernel's source and sink gadget, at high speed.
    SourceSink,
}

/// QEMU's usb-storage, by vendor and product.
pub(crate) const DISK: &str = "46f4:0001";

impl Device<'_> {
    fn id(self) -> &'static str {
        match self {
            Self::Disk(_) => DISK,
            Self::SourceSink => "0525:a4a0",
        }
    }
}

/// Prints where a device is plugged in: `2-1`.
pub(crate) fn place_of(id: &str) -> String {
    format!(
        "for file in /sys/bus/usb/devices/*/idVendor; do
             at=$(dirname $file)
             if [ $(cat $file):$(cat $at/idProduct) = {id} ]; then basename $at; fi
         done"
    )
}

/// Where usbipd listens, here and as `/proc/net/tcp` has it.
const USBIPD: (u16, &str) = (3240, ":0CA8 ");
/// The guest's network: what QEMU's user network is by its documentation.
const NETWORK: &str = "set -e
    ip link set lo up; ip link set eth0 up
    ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2";
/// Takes away the one device that vhci_hcd has: its port is the one in use, VDEV_ST_USED.
const DETACH: &str =
    "usbip detach -p $(awk '$3 == \"006\" { print $2 }' /sys/devices/platform/vhci_hcd.0/status)";
/// How long a device may take to be free again after it was taken back.
const FREE_WITHIN: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stack {
    Farbus,
    UsbRedir,
    Usbip,
    /// No stack at all: the device is the guest's own QEMU's. No network can be faster than none.
    Local,
}

impl Stack {
    /// Those that lend over a network.
    pub(crate) const ALL: [Self; 3] = [Self::Farbus, Self::UsbRedir, Self::Usbip];
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Farbus => "Farbus",
            Self::UsbRedir => "usb-redir",
            Self::Usbip => "usbip",
            Self::Local => "no network",
        })
    }
}

/// A desk with the device, a guest without it yet, and a stack between them.
pub(crate) struct Pair {
    pub(crate) guest: Vm,
    pub(crate) lender: Lender,
}

/// The end that has the device.
pub(crate) struct Lender {
    pub(crate) desk: Desk,
    id: &'static str,
    means: Means,
    folder: TempDir,
}

#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
enum Means {
    /// A host with a remote that is connected and lends nothing yet.
    Farbus { host: Host, _remote: Program },
    /// The port at which the guest's QEMU listens, and the program that is connected to it.
    UsbRedir { port: u16, program: Option<Program> },
    /// The port of this computer that leads to usbipd, and where the device is.
    Usbip { port: u16, location: String },
    /// The desk is not used.
    Local,
}

/// Processor time, in seconds, of the desk's QEMU, the guest's QEMU, and Farbus's host if there is one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    pub(crate) desk: f64,
    pub(crate) guest: f64,
    pub(crate) host: f64,
}

impl Pair {
    pub(crate) async fn boot(lab: &Lab, stack: Stack, device: Device<'_>, incumbents: &[u8]) -> Result<Self> {
        let desk = lab.desk("desk").modules(["usbip_host"]);
        let desk = match device {
            Device::Disk(image) => {
                // The QEMU of the pair before may not have ended yet; it writes nothing any more.
                let medium = format!("file={},file.locking=off", image.display());
                let drive = format!("if=none,id=stick,format=raw,cache=unsafe,{medium}");
                let stick = ["-drive", &drive, "-device", "usb-storage,bus=xhci.0,drive=stick"];
                desk.gadget_ports(0).qemu_args(stick)
            }
            Device::SourceSink => desk.super_speed(false),
        };
        let (desk, guest) = match (stack, device) {
            (Stack::Local, Device::Disk(image)) => (lab.desk("desk"), own(lab.vm("guest"), image)),
            _ => (desk, lab.vm("guest")),
        };
        let folder = tempfile::tempdir()?;
        let (desk, guest, means) = match stack {
            Stack::Farbus => {
                let mut host = Host::start(folder.path(), &["vm"]).await?;
                let guest = guest.usb_socket(host.seat("vm").usb_socket());
                let (desk, guest) = tokio::try_join!(desk.boot(), guest.boot())?;
                let mut remote = desk.remote(&host, "remote", "vm", &[]).await?;
                remote.wait_for("connected").await?;
                host.program.wait_for("linked").await?;
                (desk, guest, Means::Farbus { host, _remote: remote })
            }
            Stack::UsbRedir => {
                let guest = guest.extra_args([
                    "-chardev",
                    "socket,id=redir,host=127.0.0.1,port=0,server=on,wait=off",
                    "-device",
                    "qemu-xhci,id=xhci",
                    "-device",
                    "usb-redir,chardev=redir,bus=xhci.0",
                ]);
                let (desk, guest) = tokio::try_join!(desk.boot(), guest.boot())?;
                desk.unpack(incumbents).await?;
                let port = listening(&guest).await?;
                (desk, guest, Means::UsbRedir { port, program: None })
            }
            Stack::Usbip => {
                let guest = guest.modules(["virtio_net", "vhci_hcd"]).extra_args([
                    "-netdev",
                    "user,id=net",
                    "-device",
                    "virtio-net-pci,netdev=net",
                ]);
                let (desk, guest) = tokio::try_join!(desk.boot(), guest.boot())?;
                desk.unpack(incumbents).await?;
                guest.unpack(incumbents).await?;
                guest.run(NETWORK).await?.success()?;
                let port = desk.forward(USBIPD.0).await?;
                (desk, guest, Means::Usbip { port, location: String::new() })
            }
            Stack::Local => {
                let (desk, guest) = tokio::try_join!(desk.boot(), guest.boot())?;
                (desk, guest, Means::Local)
            }
        };
        if let Device::SourceSink = device {
            desk.gadget("zero").speed(Speed::High).function(Function::SourceSink).plug().await?;
        }
        let mut lender = Lender { desk, id: device.id(), means, folder };
        lender.prepare().await?;
        Ok(Self { guest, lender })
    }

    pub(crate) fn cpu(&self) -> Result<Cpu> {
        let mut cpu =
            Cpu { desk: seconds(self.lender.desk.id())?, guest: seconds(self.guest.id())?, host: 0.0 };
        if let Means::Farbus { host, .. } = &self.lender.means {
            for id in host.workers.values().copied().chain(host.program.id()) {
                cpu.host += seconds(i32::try_from(id)?)?;
            }
        }
        Ok(cpu)
    }
}

impl Lender {
    /// Brings the desk to where the device only has to be lent.
    async fn prepare(&mut self) -> Result<()> {
        if let Means::Local = self.means {
            return Ok(());
        }
        // The desk's own driver would look through the disk whenever it came back.
        let find = format!("until lsusb -d {}; do usleep 10000; done; modprobe -r uas usb_storage", self.id);
        self.desk.run(&find).await?.success()?;
        if let Means::Usbip { location, .. } = &mut self.means {
            *location = self.desk.run(&place_of(self.id)).await?.success()?.stdout.trim().to_owned();
            let listens = format!("until grep -q '{}' /proc/net/tcp*; do usleep 10000; done", USBIPD.1);
            let serve = format!("usbipd -D > /dev/null 2>&1; {listens}; usbip bind -b {location}");
            self.desk.run(&serve).await?.success()?;
        }
        Ok(())
    }

    /// Says that the device shall go to the guest, and does not wait until it is there.
    pub(crate) async fn attach(&mut self, guest: &Vm) -> Result<()> {
        match &mut self.means {
            Means::Farbus { .. } => {
                drop(self.desk.run(&format!("farbus-remote lend {}", self.id)).await?.success()?)
            }
            Means::UsbRedir { port, program } => {
                let arguments =
                    ["--device", self.id, "--to", &format!("{HOST_ADDRESS}:{port}")].map(str::to_owned);
                let folder = self.folder.path();
                *program = Some(self.desk.program("usbredirect", "usbredirect", &arguments, folder).await?);
            }
            Means::Usbip { port, location } => {
                let attach = format!("usbip --tcp-port {port} attach -r {HOST_ADDRESS} -b {location}");
                guest.run(&attach).await?.success()?;
            }
            Means::Local => {
                let stick =
                    json!({ "driver": "usb-storage", "id": "stick", "bus": "xhci.0", "drive": "image" });
                guest.qmp("device_add", stick).await?;
            }
        }
        Ok(())
    }

    /// Takes the device back, until it could be lent again.
    pub(crate) async fn detach(&mut self, guest: &Vm) -> Result<()> {
        match &mut self.means {
            Means::Farbus { .. } => {
                drop(self.desk.run(&format!("farbus-remote return {}", self.id)).await?.success()?)
            }
            Means::UsbRedir { program, .. } => {
                if let Some(mut program) = program.take() {
                    program.stop().await?;
                }
            }
            Means::Usbip { location, .. } => {
                guest.run(DETACH).await?.success()?;
                let status = format!("/sys/bus/usb/devices/{location}/usbip_status");
                let free = format!("until [ $(cat {status}) = 1 ]; do usleep 10000; done");
                self.desk.command(&free).timeout(FREE_WITHIN).run().await?.success()?;
            }
            Means::Local => drop(guest.qmp("device_del", json!({ "id": "stick" })).await?),
        }
        Ok(())
    }
}

/// A guest whose QEMU has a controller and a disk, not plugged in, of its own.
fn own<'lab>(guest: VmBuilder<'lab>, image: &Path) -> VmBuilder<'lab> {
    let options = "driver=file,node-name=image,cache.no-flush=on,locking=off";
    let medium = format!("{options},filename={}", image.display());
    guest.extra_args(["-blockdev", &medium, "-device", "qemu-xhci,id=xhci"])
}

/// The port at which a QEMU, told to choose one, waits for usbredirect.
async fn listening(guest: &Vm) -> Result<u16> {
    let channels = guest.qmp("query-chardev", json!({})).await?;
    let channel = channels.as_array().and_then(|all| all.iter().find(|one| one["label"] == "redir"));
    // It reads `disconnected:tcp:127.0.0.1:PORT,server=on`.
    let place = channel.and_then(|channel| channel["filename"].as_str()?.split(',').next());
    let port = place.and_then(|place| place.rsplit(':').next()?.parse().ok());
    port.filter(|port| *port != 0).with_context(|| format!("QEMU listens nowhere: {channels}"))
}

/// What a process has used of the processors (proc(5), `/proc/PID/stat`, utime and stime).
fn seconds(id: i32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The second field, a name, may hold anything, even spaces; the third follows the last parenthesis.
    let fields = stat.rsplit_once(')').context("a stat file without a name")?.1.split_whitespace();
    let ticks: Vec<u64> = fields.skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<u64>() as f64 / rustix::param::clock_ticks_per_second() as f64)
}
