//! What both ends record of the USB traffic, laid side by side and read by Wireshark.

mod at_desk;

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, ensure};
use at_desk::{Guest, random_file, sha256};
use lab::{
    Lab,
    farbus::{Host, Seat},
};

const MIB: u64 = 1 << 20;
/// What is read.
const READ: u64 = 8 * MIB;

/// What Wireshark reads of a record: where it belongs, and what it says.
const PLACE: [&str; 3] = ["usb.bus_id", "usb.device_address", "usb.endpoint_address"];
const SAYS: [&str; 7] = [
    "usb.urb_type",
    "usb.urb_id",
    "usb.transfer_type",
    "usb.urb_status",
    "usb.urb_len",
    "usb.data_len",
    "usb.setup.wLength",
];

/// The records of each endpoint, those of submissions apart from those of ends, in their order.
type Records = BTreeMap<(String, char), Vec<String>>;

/// Reads a capture, which must have no malformed packet.
async fn read(lab: &Lab, capture: &Path) -> Result<Records> {
    let tshark = async |arguments: &[&str]| {
        let output = lab.tshark().await?.arg("-r").arg(capture).args(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "tshark does not read {}: {said}", capture.display());
        Ok(String::from_utf8(output.stdout)?)
    };
    let bad = tshark(&["-Y", "_ws.malformed || _ws.expert.severity == error"]).await?;
    ensure!(bad.is_empty(), "malformed in {}:\n{bad}", capture.display());
    let fields = PLACE.iter().chain(&SAYS).flat_map(|field| ["-e", *field]);
    let rows = tshark(&["-T", "fields"].into_iter().chain(fields).collect::<Vec<_>>()).await?;
    let mut records = Records::new();
    for row in rows.lines() {
        let (place, says) = row
            .match_indices('\t')
            .nth(PLACE.len() - 1)
            .map(|(at, _)| row.split_at(at))
            .context("a short row")?;
        let kind = says.trim_start_matches(['\t', '\'']).chars().next().context("a record of no type")?;
        records.entry((place.to_owned(), kind)).or_default().push(says.to_owned());
    }
    Ok(records)
}

#[tokio::test]
async fn both_ends_record_the_same_requests_in_the_same_order_and_wireshark_reads_them() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("image");
    random_file(&image, READ)?;
    let [at_host, at_desk] = ["host.pcapng", "desk.pcapng"].map(|name| folder.path().join(name));
    let lab = Lab::open().await?;
    let extra = format!("capture = {:?}\n", at_host.display().to_string());
    let seat = Seat { name: "vm".to_owned(), folder: folder.path().join("vm"), extra };
    let mut host = Host::start_with(folder.path(), vec![seat]).await?;
    let drive = format!("if=none,id=stick,format=raw,cache=unsafe,file={}", image.display());
    let stick = ["-drive", &drive, "-device", "usb-storage,bus=xhci.0,drive=stick"];
    let desk = lab.desk("desk").gadget_ports(0).qemu_args(stick).boot().await?;
    let lent = ["--usb", "class=storage", "--capture", "/root/desk.pcapng"];
    let mut guest = Guest::start(&lab, &mut host, &desk, &lent, &[]).await?;
    guest.has("[ -b /dev/sda ]").await?;
    let sum = guest.run("sha256sum /dev/sda").await?;
    ensure!(sum.starts_with(&sha256(&image)?), "the guest read something else: {sum}");
    guest.run("dd if=/dev/zero of=/dev/sda bs=64k count=16 oflag=direct").await?;
    guest.kernel_is_content().await?;

    ensure!(guest.remote.stop().await?.success(), "{}", guest.remote.last_words());
    std::fs::write(&at_desk, desk.file("/root/desk.pcapng").await?)?;
    drop(guest);
    host.program.stop().await?;
    let (ours, theirs) = (read(&lab, &at_host).await?, read(&lab, &at_desk).await?);
    for (place, records) in &ours {
        let others = theirs.get(place).map(Vec::as_slice).unwrap_or_default();
        let differ = records.iter().zip(others).position(|(a, b)| a != b);
        let shown = differ.map(|at| (&records[at], &others[at]));
        let (here, there) = (records.len(), others.len());
        ensure!(here == there && differ.is_none(), "{place:?}: {here} and {there} records, {shown:?}");
    }
    ensure!(ours.len() == theirs.len(), "an endpoint is recorded only at the desk");
    // The disk's own way in has all that was read, and its way out what was written.
    for (endpoint, kind, least) in [("0x81", 'C', READ), ("0x02", 'S', MIB)] {
        let place = ours.iter().find(|((place, k), _)| place.ends_with(endpoint) && *k == kind);
        let (_, records) = place.with_context(|| format!("nothing of endpoint {endpoint}"))?;
        let length = |record: &String| record.split('\t').nth(5)?.parse::<u64>().ok();
        let bytes: u64 = records.iter().filter_map(length).sum();
        ensure!(bytes >= least, "only {bytes} bytes of endpoint {endpoint} are recorded");
    }
    Ok(())
}
