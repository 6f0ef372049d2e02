//! A file at the remote is a disk in the VM: read and written.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, farbus::Host};

const MIB: usize = 1 << 20;

/// Bytes without a pattern that a wrong offset or a doubled block could hide in.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The digest that the system's own sha256sum makes of a file.
fn sha256(file: &Path) -> Result<String> {
    let output = std::process::Command::new("sha256sum").arg(file).output().context("running sha256sum")?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split_whitespace().next().context("sha256sum says nothing")?.to_owned())
}

#[tokio::test]
async fn a_known_image_is_read_in_the_guest_with_the_same_sha256_and_writes_come_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (image, scratch) = (folder.path().join("known.img"), folder.path().join("scratch.img"));
    std::fs::write(&image, noise(16 * MIB))?;
    std::fs::write(&scratch, vec![0; 4 * MIB])?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["a"]).await?;
    let (read_only, writable) = (format!("{}:ro", image.display()), scratch.display().to_string());
    let mut remote = host.remote("remote", "a", &["--disk", &read_only, "--disk", &writable])?;
    remote.wait_for("connected").await?;
    for _ in 0..2 {
        host.program.wait_for("attached").await?;
    }
    let seat = host.seat("a");
    let vm = lab.vm("a").usb_socket(seat.usb_socket()).hda_socket(seat.hda_socket()).boot().await?;

    let wait =
        "for size in 32768 8192; do until grep -lx $size /sys/block/sd*/size; do usleep 10000; done; done";
    vm.run(wait).await?.success().context("the guest does not see both disks")?;
    let disk =
        |size: usize| format!("/dev/$(basename $(dirname $(grep -lx {} /sys/block/sd*/size)))", size / 512);
    let (known, spare) = (disk(16 * MIB), disk(4 * MIB));

    let sum = vm.command(&format!("sha256sum < {known}")).timeout(Duration::from_secs(180)).run().await?;
    let sum = sum.success()?.stdout;
    ensure!(sum.starts_with(&sha256(&image)?), "the guest read something else: {sum}");
    let write = format!("dd if={known} of={spare} bs=64k count=64 conv=fsync && sync");
    vm.command(&write).timeout(Duration::from_secs(180)).run().await?.success()?;
    ensure!(
        std::fs::read(&scratch)? == std::fs::read(&image)?[..4 * MIB],
        "what the guest wrote and flushed is not in the remote's file"
    );
    let refused = vm.run(&format!("dd if=/dev/zero of={known} bs=512 count=1 conv=fsync")).await?;
    ensure!(refused.status != 0, "a read-only disk let itself be written");
    Ok(())
}
