//! Devices of many classes, lent from a desk to a guest with stock drivers.

mod at_desk;

use anyhow::{Result, ensure};
use at_desk::{Guest, ID, IDS, PATIENCE};
use lab::{
    Lab,
    desk::{Function, KeyReport, Speed},
    farbus::Host,
};
use serde_json::json;

/// Keys that are pressed and released: two events each.
const KEYS: usize = 1000;
/// Keys that are typed before they are heard: the guest's kernel keeps 64 events for a listener that is slow, a key makes
/// six of them, and it drops all when one more comes.
const AT_ONCE: usize = 8;

#[tokio::test]
async fn two_thousand_key_events_of_a_keyboard_at_the_desk_arrive_in_order() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["vm"]).await?;
    let desk = lab.desk("desk").super_speed(false).boot().await?;
    let keyboard = desk.gadget("keys").ids(IDS.0, IDS.1).speed(Speed::High);
    let keyboard = keyboard.function(Function::Keyboard).plug().await?;
    let guest = Guest::start(&lab, &mut host, &desk, &["--usb", ID], &[]).await?;
    guest.has("grep -q 'Farbus lab gadget' /sys/class/input/event*/device/name").await?;
    let mut listener = guest
        .spawn(
            "for name in /sys/class/input/event*/device/name; do
                 grep -q 'Farbus lab gadget' $name || continue
                 exec evtest /dev/input/$(basename $(dirname $(dirname $name)))
             done",
        )
        .await?;
    listener.expect("Testing ...", PATIENCE).await?;

    // Letters in an order that no loss, doubling or swap leaves the same. HID Usage Tables, page 7: 4 is A.
    let usages: Vec<u8> = (0..KEYS).map(|n| 4 + ((n * n + n / 7) % 26) as u8).collect();
    for (number, usages) in usages.chunks(AT_ONCE).enumerate() {
        let reports: Vec<KeyReport> =
            usages.iter().flat_map(|key| [[0, 0, *key, 0, 0, 0, 0, 0], [0; 8]]).collect();
        let hearing = async {
            for (key, usage) in usages.iter().enumerate() {
                let letter = format!("(KEY_{})", char::from(b'A' + usage - 4));
                for value in ["value 1", "value 0"] {
                    let line = listener.expect("EV_KEY", PATIENCE).await?;
                    let right = line.contains(&letter) && line.contains(value);
                    let number = number * AT_ONCE + key;
                    ensure!(right, "key {number}: {line} is not {letter}, {value}");
                }
            }
            Ok(())
        };
        tokio::try_join!(keyboard.press(&reports), hearing)?;
    }
    guest.kernel_is_content().await
}

#[tokio::test]
async fn a_tablet_at_the_desk_points_where_it_is_pointed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["vm"]).await?;
    let tablet = ["-device", "usb-tablet,bus=xhci.0"];
    let desk = lab.desk("desk").gadget_ports(0).qemu_args(tablet).boot().await?;
    let guest = Guest::start(&lab, &mut host, &desk, &["--usb", "0627:0001"], &[]).await?;
    guest.has("grep -q 'USB Tablet' /sys/class/input/event*/device/name").await?;
    let mut listener = guest
        .spawn("exec evtest /dev/input/$(basename $(dirname $(dirname $(grep -l 'USB Tablet' /sys/class/input/event*/device/name))))")
        .await?;
    listener.expect("Testing ...", PATIENCE).await?;
    for place in 1..=100 {
        let to = |axis: &str, value: u32| json!({ "type": "abs", "data": { "axis": axis, "value": value } });
        desk.qmp("input-send-event", json!({ "events": [to("x", 300 * place), to("y", 200 * place)] }))
            .await?;
        for (axis, value) in [("ABS_X", 300 * place), ("ABS_Y", 200 * place)] {
            let line = listener.expect(axis, PATIENCE).await?;
            ensure!(line.ends_with(&format!("value {value}")), "{line} is not {axis} {value}");
        }
    }
    guest.kernel_is_content().await
}

#[tokio::test]
async fn a_serial_line_carries_a_file_both_ways_unchanged() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["vm"]).await?;
    let desk = lab.desk("desk").super_speed(false).boot().await?;
    let line = desk.gadget("line").ids(IDS.0, IDS.1).speed(Speed::High).function(Function::Acm);
    let _line = line.plug().await?;
    let guest = Guest::start(&lab, &mut host, &desk, &["--usb", ID], &["cdc_acm"]).await?;
    guest.has("[ -c /dev/ttyACM0 ]").await?;
    const MAKE: &str = "head -c 300000 /dev/urandom > /tmp/sent; sha256sum < /tmp/sent";
    const RAW: &str = "raw -echo -echoe -echok; exec 3<> ";
    // Both ends are open before either says anything.
    let hear = |tty: &str| format!("stty -F {tty} {RAW} {tty}; echo OPEN; head -c 300000 <&3 | sha256sum");
    let say = |tty: &str| format!("cat /tmp/sent > {tty}");

    let (there, here) = (desk.run(MAKE).await?.success()?.stdout, guest.run(MAKE).await?);
    let mut at_guest = guest.spawn(&hear("/dev/ttyACM0")).await?;
    at_guest.expect("OPEN", PATIENCE).await?;
    let mut at_desk = desk.command(&hear("/dev/ttyGS0")).timeout(PATIENCE * 2).spawn().await?;
    at_desk.expect("OPEN", PATIENCE).await?;
    let (to_guest, to_desk) = (say("/dev/ttyGS0"), say("/dev/ttyACM0"));
    let from_desk = desk.command(&to_guest).timeout(PATIENCE).run();
    let (from_desk, from_guest) = tokio::join!(from_desk, guest.run(&to_desk));
    from_desk?.success()?;
    from_guest?;
    ensure!(at_guest.wait(PATIENCE).await?.stdout == there, "the guest read something else");
    ensure!(at_desk.wait(PATIENCE).await?.stdout == here, "the desk read something else");
    guest.kernel_is_content().await
}

#[tokio::test]
async fn a_network_adapter_at_the_desk_carries_the_guests_packets() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["vm"]).await?;
    let desk = lab.desk("desk").super_speed(false).boot().await?;
    let network = desk.gadget("net").ids(IDS.0, IDS.1).speed(Speed::High).function(Function::Ncm);
    let _network = network.plug().await?;
    let guest = Guest::start(&lab, &mut host, &desk, &["--usb", ID], &["cdc_ncm"]).await?;
    guest.has("ls /sys/class/net | grep -qv -e lo").await?;
    desk.run("ip addr add 192.168.7.1/24 dev usb0 && ip link set usb0 up").await?.success()?;
    guest
        .run("i=$(ls /sys/class/net | grep -v lo); ip addr add 192.168.7.2/24 dev $i && ip link set $i up")
        .await?;
    // Packets of every length up to the largest, then a file over TCP.
    guest.has("ping -c 1 -W 1 192.168.7.1 > /dev/null").await?;
    let lost = guest
        .run("for n in 1 63 64 500 511 512 513 1400; do ping -q -c 3 -i 0.1 -s $n 192.168.7.1; done")
        .await?;
    ensure!(lost.matches(" 0% packet loss").count() == 8, "packets were lost:\n{lost}");
    let serve = "head -c 3000000 /dev/urandom > /tmp/sent; httpd -p 7000 -h /tmp; sha256sum < /tmp/sent";
    let sum = desk.run(serve).await?.success()?.stdout;
    // Linux 6.1's f_ncm keeps packets to fill a block (16 KiB) and has a timer that sends it half full. The timer that finds
    // all requests under way gives up and is never set again, so a connection whose last packets wait there stands still
    // until more come: let them.
    let _fills_blocks = desk.spawn("exec ping -q -i 0.02 -s 1400 192.168.7.2").await?;
    let heard = guest.run("wget -q -O - http://192.168.7.1:7000/sent | sha256sum").await?;
    ensure!(heard == sum, "{heard} is not {sum}");
    guest.kernel_is_content().await
}
