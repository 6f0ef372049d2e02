//! What the machine's firmware does with lent devices, before any operating system.

use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::{Firmware, Lab, Vm, desk::Desk, farbus::Host};
use serde_json::json;

/// Firmware under TCG, with all its waiting for keys.
const FIRMWARE_LIMIT: Duration = Duration::from_secs(240);

#[tokio::test]
async fn ovmf_reaches_its_shell_and_obeys_what_is_typed_at_the_remote() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["a"]).await?;
    let mut remote = host.remote("remote", "a", &["--keyboard"])?;
    remote.wait_for("connected").await?;
    host.program.wait_for("attached").await?;
    let vm = lab
        .vm("a")
        .usb_socket(host.seat("a").usb_socket())
        .firmware(Firmware::Ovmf)
        .kernel_boot(false)
        .boot()
        .await?;
    let console = vm.console();
    console.wait_for("UEFI Interactive Shell", FIRMWARE_LIMIT).await.context("the shell does not start")?;
    remote.say("key ESC").await?;
    console.wait_for("Shell>", FIRMWARE_LIMIT).await.context("the shell does not prompt")?;
    // The answer is not what was typed: the shell has understood it.
    remote.say("type set -v answer forty-two").await?;
    remote.say("key ENTER").await?;
    remote.say("type echo it-is-%answer%").await?;
    remote.say("key ENTER").await?;
    console.wait_for("it-is-forty-two", FIRMWARE_LIMIT).await.context("the shell does not obey")?;
    Ok(())
}

#[tokio::test]
async fn ovmf_obeys_a_usb_keyboard_at_the_desk() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["a"]).await?;
    let desk = lab.desk("desk").gadget_ports(0).qemu_args(["-device", "usb-kbd,bus=xhci.0"]).boot().await?;
    let mut remote = desk.remote(&host, "remote", "a", &["--usb", "0627:0001"]).await?;
    remote.wait_for("connected").await?;
    host.program.wait_for("attached").await?;
    let vm = lab.vm("a").usb_socket(host.seat("a").usb_socket());
    let vm = vm.firmware(Firmware::Ovmf).kernel_boot(false).boot().await?;
    let console = vm.console();
    console.wait_for("UEFI Interactive Shell", FIRMWARE_LIMIT).await.context("the shell does not start")?;
    type_at(&desk, ["esc"]).await?;
    console.wait_for("Shell>", FIRMWARE_LIMIT).await.context("the shell does not prompt")?;
    // No more at once than QEMU's keyboard keeps; the answer has spaces that were not typed.
    type_at(&desk, ["s", "e", "t", "spc", "x", "spc", "7", "ret"]).await?;
    console.wait_for("07;01H", FIRMWARE_LIMIT).await.context("the shell does not take a line")?;
    type_at(&desk, ["s", "e", "t", "spc", "x", "ret"]).await?;
    console.wait_for("       x ", FIRMWARE_LIMIT).await.context("the shell does not obey")?;
    Ok(())
}

/// Presses keys of QEMU's keyboard at the desk, one by one, by the names that QEMU has for them.
async fn type_at(desk: &Desk, keys: impl IntoIterator<Item = &str>) -> Result<()> {
    for key in keys {
        let down = |down: bool| json!({ "type": "key", "data": { "down": down, "key": { "type": "qcode", "data": key } } });
        desk.qmp("input-send-event", json!({ "events": [down(true), down(false)] })).await?;
    }
    Ok(())
}

#[tokio::test]
async fn seabios_boots_from_a_file_at_the_remote() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("boot.img");
    std::fs::write(&image, boot_disk(GREETING))?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["a"]).await?;
    let mut remote = host.remote("remote", "a", &["--disk", &format!("{}:ro", image.display())])?;
    remote.wait_for("connected").await?;
    host.program.wait_for("attached").await?;
    greets(&seabios(&lab, &host).await?).await
}

#[tokio::test]
async fn seabios_boots_from_a_usb_disk_at_the_desk() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("boot.img");
    std::fs::write(&image, boot_disk(GREETING))?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["a"]).await?;
    let drive = format!("if=none,id=stick,format=raw,readonly=on,file={}", image.display());
    let desk = lab.desk("desk").gadget_ports(0).qemu_args([
        "-drive",
        &drive,
        "-device",
        "usb-storage,bus=xhci.0,drive=stick",
    ]);
    let desk = desk.boot().await?;
    let mut remote = desk.remote(&host, "remote", "a", &["--usb", "class=storage"]).await?;
    remote.wait_for("connected").await?;
    host.program.wait_for("attached").await?;
    greets(&seabios(&lab, &host).await?).await
}

/// A VM that has nothing to boot from but what is lent to it.
async fn seabios(lab: &Lab, host: &Host) -> Result<Vm> {
    let vm = lab.vm("a").usb_socket(host.seat("a").usb_socket());
    vm.firmware(Firmware::SeaBios).kernel_boot(false).boot().await
}

/// Waits until the boot sector runs.
async fn greets(vm: &Vm) -> Result<()> {
    let greeting = std::str::from_utf8(GREETING)?.trim_end();
    vm.console().wait_for(greeting, FIRMWARE_LIMIT).await.map(drop).context("the disk does not boot")
}

const GREETING: &[u8] = b"FARBUS BOOT SECTOR REACHED\r\n";
const MIB: usize = 1 << 20;

/// A disk whose boot sector writes a text to COM1 and halts.
fn boot_disk(text: &[u8]) -> Vec<u8> {
    let mut disk = vec![0; MIB];
    let code: &[u8] = &[
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0xbe, 0x20, 0x7c, // mov si, text
        0xac, // next: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x11, // jz halt
        0x88, 0xc4, // mov ah, al
        0xba, 0xfd, 0x03, // mov dx, 0x3fd
        0xec, // wait: in al, dx
        0xa8, 0x20, // test al, 0x20: the transmitter is empty
        0x74, 0xfb, // jz wait
        0x88, 0xe0, // mov al, ah
        0xb2, 0xf8, // mov dl, 0xf8
        0xee, // out dx, al
        0xeb, 0xea, // jmp next
        0xf4, // halt: hlt
        0xeb, 0xfd, // jmp halt
    ];
    disk[..code.len()].copy_from_slice(code);
    disk[code.len()..code.len() + text.len()].copy_from_slice(text);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}
