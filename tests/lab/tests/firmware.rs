//! Machines without a kernel of ours: what the firmware boots and prints.

use std::time::Duration;

use anyhow::Result;
use lab::Lab;
use serde_json::json;

/// Prints what follows it by the BIOS's teletype service, then halts.
///
/// ```text
/// 7c00  xor ax, ax | mov ds, ax | mov si, 0x7c18
/// 7c07  lodsb | test al, al | jz 0x7c15 | mov ah, 0x0e | mov bx, 7 | int 0x10 | jmp 0x7c07
/// 7c15  hlt | jmp 0x7c15
/// ```
const PROGRAM: [u8; 24] = [
    0x31, 0xc0, 0x8e, 0xd8, 0xbe, 0x18, 0x7c, //
    0xac, 0x84, 0xc0, 0x74, 0x09, 0xb4, 0x0e, 0xbb, 0x07, 0x00, 0xcd, 0x10, 0xeb, 0xf2, //
    0xf4, 0xeb, 0xfd,
];

/// A disk of 1 MiB whose boot sector prints `text`.
fn disk(text: &str) -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    disk[..PROGRAM.len()].copy_from_slice(&PROGRAM);
    disk[PROGRAM.len()..][..text.len()].copy_from_slice(text.as_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

#[tokio::test]
async fn seabios_boots_a_usb_disk_and_what_the_boot_sector_prints_is_read() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("disk");
    std::fs::write(&image, disk("the boot sector speaks"))?;
    let lab = Lab::open().await?;
    let drive = format!("if=none,id=disk,format=raw,file={}", image.display());
    let vm = lab
        .vm("firmware")
        .kernel_boot(false)
        .extra_args(["-drive".to_owned(), drive])
        .device(json!({ "driver": "qemu-xhci", "id": "xhci" }))
        .device(json!({ "driver": "usb-storage", "bus": "xhci.0", "drive": "disk" }))
        .boot()
        .await?;
    let limit = Duration::from_secs(60);
    vm.firmware_log().wait_for("USB MSC", limit).await?;
    vm.console().wait_for("the boot sector speaks", limit).await?;
    assert!(vm.run("true").await.is_err(), "no agent is in it");
    Ok(())
}
