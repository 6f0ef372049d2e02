//! A guest that sleeps with devices lent to it, and wakes up.

mod at_desk;

use anyhow::{Result, ensure};
use at_desk::Guest;
use lab::{Lab, farbus::Host};

/// A disk at the desk whose every sector says where it is.
const NUMBERED: &str =
    "i=0; while [ $i -lt 64 ]; do printf '%65536d' $i; i=$((i+1)); done | dd of=/dev/sda bs=65536 conv=fsync
    echo 3 > /proc/sys/vm/drop_caches; sha256sum /dev/sda";
const SUM: &str = "echo 3 > /proc/sys/vm/drop_caches; sha256sum /dev/sda";

/// The kernel's own test of drivers: all of them suspend, five seconds pass, all of them resume. No power is lost.
#[tokio::test]
async fn a_guest_that_suspends_and_resumes_goes_on_with_the_controller_it_left() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["vm"]).await?;
    let image = folder.path().join("stick.img");
    std::fs::File::create(&image)?.set_len(16 << 20)?;
    let drive = format!("if=none,id=stick,format=raw,cache=unsafe,file={}", image.display());
    let stick = ["-drive", &drive, "-device", "usb-storage,bus=xhci.0,drive=stick"];
    let desk = lab.desk("desk").gadget_ports(0).qemu_args(stick).boot().await?;
    let guest = Guest::start(&lab, &mut host, &desk, &["--usb", "class=storage"], &[]).await?;
    guest.has("[ -b /dev/sda ]").await?;
    let before = guest.run(NUMBERED).await?;
    guest
        .run("dmesg -c > /dev/null; echo devices > /sys/power/pm_test; echo freeze > /sys/power/state")
        .await?;
    let said = guest.run("dmesg").await?;
    ensure!(said.contains("suspend exit"), "it did not suspend:\n{said}");
    for word in ["USB disconnect", "USB device number", "Reinit"] {
        ensure!(!said.contains(word), "the controller was not as it was left: {word}\n{said}");
    }
    ensure!(guest.run(SUM).await? == before, "the disk reads as another");
    guest.kernel_is_content().await
}
