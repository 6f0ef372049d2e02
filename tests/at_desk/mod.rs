//! A guest whose USB devices are at a desk: what the tests of real devices share.
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses what it needs of this")]

pub(crate) mod cases;

use std::{fs::File, io::Read as _, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Lab, Running, Vm,
    desk::{Desk, Gadget, KeyReport},
    farbus::{Host, Program, Seat},
};

/// How long anything may take that a person would wait for: machines are slow, and a pass is quick.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Ids that no driver of the desk or the guest knows.
pub(crate) const IDS: (u16, u16) = (0x1209, 0xfab0);
/// The same, as `--usb` takes them.
pub(crate) const ID: &str = "1209:fab0";

/// Keys that are typed before they are heard: the kernel keeps 64 events for a listener that is slow, a key makes six of
/// them, and it drops all when one more comes.
const AT_ONCE: usize = 8;

/// What no guest's kernel may say of its controller, its devices or itself, however loudly.
const BAD_WORDS: [&str; 6] =
    ["WARN", "HC died", "not part of current TD", "Host System Error", "not responding", "Call Trace"];
/// From this level on nothing may be said of the controller (Linux, `include/linux/kern_levels.h`: a warning).
const WARNING: u32 = 4;

/// A host with a VM that keeps devices plugged in for a moment only when their remote is gone: for tests that kill
/// remotes, and wait for what the guest sees then. (How long devices are held is what `resume` is about.)
pub(crate) async fn impatient_host(folder: &Path) -> Result<Host> {
    let extra = "hold = { storage = 2.0, hid = 2.0, other = 2.0 }\n".to_owned();
    Host::start_with(folder, vec![Seat { name: "vm".to_owned(), folder: folder.join("vm"), extra }]).await
}

/// A guest, and the remote at a desk that lends to it.
pub(crate) struct Guest {
    pub(crate) vm: Vm,
    pub(crate) remote: Program,
}

impl Guest {
    /// Connects a remote at the desk that lends what `arguments` say, then boots the guest, with more `modules` loaded.
    pub(crate) async fn start(
        lab: &Lab,
        host: &mut Host,
        desk: &Desk,
        arguments: &[&str],
        modules: &[&str],
    ) -> Result<Self> {
        let mut remote = desk.remote(host, "remote", "vm", arguments).await?;
        remote.wait_for("connected").await?;
        host.program.wait_for("linked").await?;
        let seat = host.seat("vm");
        let vm = lab.vm("vm").usb_socket(seat.usb_socket()).hda_socket(seat.hda_socket());
        Ok(Self { vm: vm.modules(modules.iter().copied()).boot().await?, remote })
    }

    /// Waits until something is so in the guest.
    pub(crate) async fn has(&self, condition: &str) -> Result<()> {
        self.run(&format!("until {condition}; do usleep 20000; done")).await.map(drop)
    }

    /// Runs a script in the guest that must succeed; what it printed.
    pub(crate) async fn run(&self, script: &str) -> Result<String> {
        let run = self.vm.command(script).timeout(PATIENCE * 2).run().await?;
        Ok(run.success()?.stdout)
    }

    /// Starts a script in the guest.
    pub(crate) async fn spawn(&self, script: &str) -> Result<Running<'_>> {
        self.vm.command(script).timeout(PATIENCE * 4).spawn().await
    }

    /// Fails if the guest's kernel has complained, or has reset a device: so drivers recover, in silence, from what should
    /// not have happened.
    pub(crate) async fn kernel_is_content(&self) -> Result<()> {
        self.kernel_says_nothing_like(|line| complains(line) || recovers(line)).await
    }

    /// Fails if the guest's kernel has complained; it may have tried to recover.
    pub(crate) async fn kernel_does_not_complain(&self) -> Result<()> {
        self.kernel_says_nothing_like(complains).await
    }

    async fn kernel_says_nothing_like(&self, is_bad: impl Fn(&str) -> bool) -> Result<()> {
        let said = self.run("dmesg -r").await?;
        let bad: Vec<_> = said.lines().filter(|line| is_bad(line)).collect();
        ensure!(bad.is_empty(), "the guest's kernel says:\n{}\nof all:\n{said}", bad.join("\n"));
        Ok(())
    }
}

/// Whether the kernel complains in this line: `<LEVEL>[TIME] TEXT`, the facility in the bits above the level.
fn complains(line: &str) -> bool {
    let level = line.strip_prefix('<').and_then(|rest| rest.split('>').next()?.parse::<u32>().ok());
    let warns = level.is_some_and(|level| level & 7 <= WARNING) && line.contains("xhci");
    warns || BAD_WORDS.iter().any(|word| line.contains(word))
}

fn recovers(line: &str) -> bool {
    line.contains(": reset ") && line.contains(" USB device ")
}

/// Waits until something is so at the desk.
pub(crate) async fn desk_has(desk: &Desk, condition: &str) -> Result<()> {
    let wait = format!("until {condition}; do usleep 20000; done");
    desk.command(&wait).timeout(PATIENCE).run().await?.success().map(drop)
}

/// The condition that a USB driver, of the desk or of the guest, has so many interfaces.
pub(crate) fn bound(driver: &str, interfaces: usize) -> String {
    format!("[ $(ls -d /sys/bus/usb/drivers/{driver}/*:* 2> /dev/null | wc -l) = {interfaces} ]")
}

/// Listens to an input device whose name contains this, of the desk or of the guest.
pub(crate) async fn listen<'vm>(vm: &'vm Vm, name: &str) -> Result<Running<'vm>> {
    let find = format!("name=$(grep -l '{name}' /sys/class/input/event*/device/name)");
    let listen = "exec evtest /dev/input/$(basename $(dirname $(dirname $name)))";
    let mut listener = vm.spawn(&format!("until {find}; do usleep 20000; done; {listen}")).await?;
    listener.expect("Testing ...", PATIENCE).await?;
    Ok(listener)
}

/// Types letters (0 is A) at a gadget keyboard, and fails unless whoever listens hears each go down and up, in order.
pub(crate) async fn types(
    keyboard: &Gadget<'_>,
    listener: &mut Running<'_>,
    letters: impl IntoIterator<Item = u8>,
) -> Result<()> {
    let letters: Vec<u8> = letters.into_iter().collect();
    for letters in letters.chunks(AT_ONCE) {
        // HID Usage Tables, page 7: 4 is A.
        let reports = letters.iter().flat_map(|letter| [[0, 0, 4 + letter, 0, 0, 0, 0, 0], [0; 8]]);
        let reports: Vec<KeyReport> = reports.collect();
        let hearing = async {
            for letter in letters {
                let letter = format!("(KEY_{})", char::from(b'A' + letter));
                for value in ["value 1", "value 0"] {
                    let line = listener.expect("EV_KEY", PATIENCE).await?;
                    ensure!(
                        line.contains(&letter) && line.contains(value),
                        "{line} is not {letter}, {value}"
                    );
                }
            }
            Ok(())
        };
        tokio::try_join!(keyboard.press(&reports), hearing)?;
    }
    Ok(())
}

/// Fills a file with so many bytes that do not repeat.
pub(crate) fn random_file(path: &Path, bytes: u64) -> Result<()> {
    let mut random = File::open("/dev/urandom")?.take(bytes);
    std::io::copy(&mut random, &mut File::create(path)?)?;
    Ok(())
}

/// The SHA-256 of a file, as the guest's `sha256sum` prints it.
pub(crate) fn sha256(file: &Path) -> Result<String> {
    let output = std::process::Command::new("sha256sum").arg(file).output().context("running sha256sum")?;
    let line = String::from_utf8(output.stdout)?;
    Ok(line.split_whitespace().next().context("sha256sum is silent")?.to_owned())
}
