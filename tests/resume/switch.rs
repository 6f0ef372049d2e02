//! Links of both kinds under one session, while the guest works.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Lab,
    farbus::{Cut, Host, binary},
    story::{RATE, Sequence},
};

use crate::{
    cable::{Desk, LONG, copies, copy, play, sha256, trouble},
    keys::{self, Keys},
    sound::in_place,
};

const TIMES: usize = 10;
/// Keys for each move, few enough to fit the guest's buffer.
const KEYS: &str = "qwertzui";

/// Says `farbus-remote switch` to the running remote; what it answers.
pub(crate) async fn switch(control: &str, to: &str) -> Result<String> {
    let mut command = tokio::process::Command::new(binary("farbus-remote")?);
    let output = command.args(["switch", to, "--control", control]).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Waits until the session of the running remote is on a link.
pub(crate) async fn until_linked(control: &str) -> Result<()> {
    let linked = async || {
        let mut command = tokio::process::Command::new(binary("farbus-remote")?);
        let output = command.args(["status", "--json", "--control", control]).output().await?;
        let said: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        anyhow::Ok(said["status"]["session"]["transport"].is_string())
    };
    tokio::time::timeout(LONG, async {
        while !linked().await? {}
        anyhow::Ok(())
    })
    .await
    .context("the session finds no link")?
}

#[tokio::test]
async fn ten_moves_between_both_kinds_of_links_while_the_guest_works_are_nothing_to_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let control = folder.path().join("remote.sock").display().to_string();
    let mut desk = Desk::new(folder.path(), &lab, &["--control", &control]).await?;
    let sum = sha256(&folder.path().join("known.img"))?;
    let sequence = Sequence::new(40 * RATE, 9);
    desk.vm.put(sequence.wav(), "/tmp/sequence.wav").await?;
    let mut events = desk.vm.command(keys::RECORD).timeout(LONG * 2).spawn().await?;
    events.expect("READY", LONG).await?;
    let mut copying = copy(&desk.vm, &desk.known).await?;
    let mut playing = play(&desk.vm).await?;
    desk.remote.wait_for("sound_started").await?;

    for (at, to) in ["webrtc", "noise-tcp"].into_iter().cycle().take(TIMES).enumerate() {
        desk.remote.say(&format!("type {KEYS}")).await?;
        let answer = switch(&control, to).await.with_context(|| format!("move {at} to {to}"))?;
        ensure!(answer.contains(&format!("on {to} now")), "{answer}");
        let resumed = desk.remote.wait_for("resumed").await?;
        ensure!(resumed["transport"] == to && resumed["after_ms"].is_null(), "there was a gap: {resumed}");
        for _ in KEYS.chars() {
            desk.remote.wait_for("key_sent").await?;
        }
        keys::until_read(&desk.vm, KEYS.len() * (at + 1)).await?;
    }
    let copied = copies(&desk.vm, &mut copying, &sum).await?;
    ensure!(playing.expect("PLAYED", LONG).await? == "PLAYED 0", "the guest could not play on");
    ensure!(trouble(&desk.vm).await?.is_none(), "the guest noticed: {:?}", trouble(&desk.vm).await?);
    let typed = Keys::read(&desk.vm.file("/tmp/events").await?);
    let expected: Vec<_> = KEYS.repeat(TIMES).chars().filter_map(keys::code).collect();
    ensure!(typed.dropped == 0 && typed.pressed == expected && typed.down == 0, "{typed:?}");
    desk.remote.wait_for("sound_stopped").await?;
    let heard = in_place(&fs::read(folder.path().join("heard.wav"))?, &sequence)?;
    // What is on its way over the old link when the session moves may be lost, and is made up.
    ensure!(heard.other <= TIMES as u64 * u64::from(RATE) / 10, "{heard:?}");
    ensure!(desk.host.program.seen("detached").is_empty(), "there was a moment without a link");
    println!("{copied} copies, {heard:?}");
    Ok(())
}

#[tokio::test]
async fn an_outage_that_is_too_long_is_a_clean_unplug_and_its_end_a_clean_plug() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut desk = Desk::new(folder.path(), &lab, &[]).await?;
    desk.vm.run("sync; cat /mnt/word").await?.success()?;
    desk.cable.set(Cut::Silent);
    // The keyboard goes after 10 s, the disks after 25.
    let gone = "n=0; until [ $(ls -d /sys/block/sd* 2>/dev/null | wc -l) = 0 ]; do n=$((n+1)); [ $n -lt 6000 ] || exit 1; usleep 10000; done; ls /sys/bus/usb/drivers/usbhid | grep -c : || true";
    let keyboards =
        desk.vm.command(gone).timeout(LONG).run().await?.success().context("the disks stay")?.stdout;
    ensure!(keyboards.trim() == "0", "a keyboard stays: {keyboards}");
    desk.host.program.wait_for("link_lost").await?;
    desk.cable.set(Cut::Whole);
    desk.remote.wait_for("connected").await.context("the remote does not come back")?;
    let back = "umount /mnt 2>/dev/null; n=0; \
                until grep -lxq 32768 /sys/block/sd*/size 2>/dev/null && ls /sys/bus/usb/drivers/usbhid | grep -q : && \
                mount /dev/$(basename $(dirname $(grep -lx 32768 /sys/block/sd*/size))) /mnt 2>/tmp/why; do \
                n=$((n+1)); [ $n -lt 6000 ] || { cat /tmp/why; ls /dev/sd* /sys/block; cat /proc/mounts; dmesg | tail -40; exit 2; }; \
                usleep 10000; done; cat /mnt/word";
    let back = desk.vm.command(back).timeout(LONG).run().await?;
    ensure!(back.status == 0, "after the outage: {}", back.stdout);
    let word = back.stdout;
    ensure!(word.trim() == "kept", "what was written before is not there: {word}");
    let log = desk.vm.run("dmesg").await?.stdout;
    ensure!(log.contains("USB disconnect"), "no disconnect in the guest's log:\n{log}");
    for trouble in ["HC died", "not responding", "WARN", "Call Trace"] {
        ensure!(!log.contains(trouble), "the controller itself looked broken ({trouble}):\n{log}");
    }
    Ok(())
}

/// What the bad network does to what the desk sends.
const BAD: &str = "delay 40ms 5ms loss 1%";
/// For how long it carries nothing at all, and nobody is told: more than a silent peer is given.
const DEAD: Duration = Duration::from_secs(4);

/// The network is dead for a while, both ways.
async fn dies(desk: &lab::desk::Desk, time: Duration) -> Result<()> {
    desk.netem("loss 100%").await?;
    desk.netem_of_what_comes("loss 100%").await?;
    tokio::time::sleep(time).await;
    desk.netem(BAD).await?;
    desk.netem_of_what_comes("").await
}

#[tokio::test]
async fn over_a_bad_network_both_kinds_of_links_carry_keys_disks_and_sound() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("disk.img");
    fs::write(&image, vec![b'Z'; 2 << 20])?;
    let sum = sha256(&image)?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["vm"]).await?;
    let desk = lab.desk("desk").cpus(2).netem(BAD).boot().await?;
    desk.install("farbus-remote").await?;
    let seat = host.seat("vm");
    let vm = lab.vm("vm").usb_socket(seat.usb_socket()).hda_socket(seat.hda_socket()).boot().await?;
    desk.run("head -c 2097152 /dev/zero | tr '\\0' 'Z' > /tmp/disk.img").await?.success()?;
    for transport in ["noise-tcp", "webrtc"] {
        let lent = ["--keyboard", "--disk", "/tmp/disk.img", "--audio", "test", "--transport", transport];
        let mut remote = desk.remote(&host, transport, "vm", &lent).await?;
        let connected = remote.wait_for("connected").await?;
        ensure!(connected["transport"] == transport, "{connected}");
        host.program.wait_for("linked").await?;
        let see = "n=0; until [ -b /dev/sda ] && [ -e /proc/asound/card0/pcm0p ] && \
                   grep -q 'Farbus Keyboard' /sys/class/input/event*/device/name; do n=$((n+1)); [ $n -lt 6000 ] || exit 1; usleep 10000; done; \
                   dd if=/dev/sda bs=64k count=16 iflag=direct 2>/dev/null | tr -d Z | wc -c";
        let read = vm
            .command(see)
            .timeout(LONG)
            .run()
            .await?
            .success()
            .with_context(|| format!("by {transport}"))?;
        ensure!(read.stdout.trim() == "0", "by {transport} the guest read something else: {}", read.stdout);
        // What went with the remote before.
        vm.run("dmesg -c > /dev/null").await?.success()?;
        let mut events = vm.command(keys::RECORD).timeout(LONG).spawn().await?;
        events.expect("READY", LONG).await?;
        let all = "dd if=/dev/sda bs=64k iflag=direct 2>/dev/null | sha256sum";
        let mut reading = vm.command(all).timeout(LONG).spawn().await?;
        remote.say(&format!("type {KEYS}")).await?;
        dies(&desk, DEAD).await?;
        let read = reading.line().await?.context("the read ended early")?;
        ensure!(read.starts_with(&sum), "by {transport}, after a while without a network: {read}");
        for _ in KEYS.chars() {
            remote.wait_for("key_sent").await?;
        }
        keys::until_read(&vm, KEYS.len()).await?;
        let resumed = remote.seen("resumed");
        let dead = resumed.iter().any(|resumed| resumed["after_ms"].is_u64());
        ensure!(dead, "by {transport} nobody noticed that the network was dead: {resumed:?}");
        ensure!(remote.seen("connected").is_empty(), "by {transport} the session did not go on");
        ensure!(trouble(&vm).await?.is_none(), "by {transport}: {:?}", trouble(&vm).await?);
        vm.put(Sequence::new(4 * RATE, 3).wav(), "/tmp/sequence.wav").await?;
        let mut play =
            vm.command("aplay -q -D hw:0,0 /tmp/sequence.wav; echo PLAYED $?").timeout(LONG).spawn().await?;
        remote.say(&format!("type {KEYS}")).await?;
        for _ in KEYS.chars() {
            remote.wait_for("key_sent").await?;
        }
        ensure!(play.expect("PLAYED", LONG).await? == "PLAYED 0", "by {transport} the guest could not play");
        let stopped = remote.wait_for("sound_stopped").await?;
        let count = |field: &str| stopped[field].as_u64().with_context(|| format!("no {field}: {stopped}"));
        ensure!(count("gaps")? * 10 <= 4 * u64::from(RATE), "by {transport}: {stopped}");
        let typed = Keys::read(&vm.file("/tmp/events").await?);
        let expected: Vec<_> = KEYS.repeat(2).chars().filter_map(keys::code).collect();
        ensure!(typed.dropped == 0 && typed.pressed == expected, "by {transport}: {typed:?}");
        remote.stop().await?;
        host.program.wait_for("link_lost").await?;
        tokio::time::timeout(
            Duration::from_secs(60),
            vm.run("until [ ! -b /dev/sda ]; do usleep 10000; done"),
        )
        .await??;
    }
    Ok(())
}
