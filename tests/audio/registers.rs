//! What Linux asks of the controller while it plays, access by access, as QEMU sees it.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result, ensure};

use crate::{desk::Desk, pcm::Format};

/// A register that stock Linux accesses for each period, and why (`azx_interrupt` and `azx_position_ok` of Linux 6.1,
/// sound/pci/hda/hda_controller.c and hda_intel.c; `snd_hdac_bus_handle_stream_irq`, sound/hda/hdac_controller.c).
struct Row {
    name: &'static str,
    write: bool,
    is: fn(u64) -> bool,
    times: usize,
    why: &'static str,
}

const ROWS: [Row; 5] = [
    Row {
        name: "INTSTS",
        write: false,
        is: |offset| offset == 0x24,
        times: 2,
        why: "whose interrupt it is; and once more after work was done, until there is none: its loop has no other end",
    },
    Row {
        name: "SDnSTS",
        write: false,
        is: is_status,
        times: 1,
        why: "whether the stream has ended a period",
    },
    Row { name: "SDnSTS", write: true, is: is_status, times: 1, why: "the acknowledgement" },
    Row {
        name: "WALCLK",
        write: false,
        is: |offset| offset == 0x30,
        times: 1,
        why: "whether the period can have ended yet, before the position buffer is believed",
    },
    Row {
        name: "RIRBSTS",
        write: false,
        is: |offset| offset == 0x5d,
        times: 1,
        why: "whether the codec has answered: asked in each round of the loop that has found something",
    },
];

fn is_status(offset: u64) -> bool {
    (0x80..0x180).contains(&offset) && offset % 0x20 == 3
}

/// HDA 1.0a §3.3.36: the position that the position buffer stands for.
fn is_position(offset: u64) -> bool {
    (0x80..0x180).contains(&offset) && offset % 0x20 == 4
}

/// The accesses of a line of QEMU's trace: whether it is a write, and the offset.
fn access(line: &str) -> Option<(bool, u64)> {
    let (event, rest) = line.trim_start().split_once(' ')?;
    let write = match event {
        "vfio_region_write" => true,
        "vfio_region_read" => false,
        _ => return None,
    };
    let (name, rest) = rest.split_once(":region0+0x")?;
    let offset = rest.split(&[',', ')'][..]).next()?;
    name.contains("hda").then(|| Some((write, u64::from_str_radix(offset, 16).ok()?)))?
}

/// The bar of three accesses for each period is below what the stock handler does, whatever a controller offers: none of
/// these depends on anything that it could say of itself. What can be had is that nothing is added to them, and that a
/// position costs none.
#[tokio::test]
async fn linux_accesses_no_register_for_a_position_and_few_for_a_period() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let trace = folder.path().join("trace");
    let trace = trace.to_str().context("a folder with a name")?;
    let mut desk = Desk::with_qemu(&["-trace", "enable=vfio_region_*", "-D", trace]).await?;
    let (period, periods): (u32, u32) = (960, 500);
    let pcm = Format::PLAIN.noise(period * periods, 5);
    let before = fs::read_to_string(trace)?.len();
    desk.play(Format::PLAIN, &pcm, &format!("--period-size={period} --buffer-size={}", 4 * period)).await?;
    desk.expect_heard(&pcm).await?;
    let said = fs::read_to_string(trace)?;
    let mut counts: BTreeMap<(bool, u64), usize> = BTreeMap::new();
    for access in said[before..].lines().filter_map(access) {
        *counts.entry(access).or_default() += 1;
    }
    ensure!(!counts.is_empty(), "QEMU has traced nothing");

    let sum = |is: &dyn Fn(bool, u64) -> bool| -> usize {
        counts.iter().filter(|((write, offset), _)| is(*write, *offset)).map(|(_, count)| *count).sum()
    };
    println!("of {periods} periods, for each:");
    for Row { name, write, is, times, why } in &ROWS {
        let count = sum(&|written, offset| written == *write && is(offset));
        let way = if *write { "write" } else { "read" };
        println!("  {:>5.2} {way:<5} {name:<8} {why}", count as f64 / f64::from(periods));
        let most = (*times * periods as usize) * 11 / 10 + 60;
        ensure!(count <= most, "{name}: {count} in {periods} periods");
    }
    let positions = sum(&|_, offset| is_position(offset));
    let all = sum(&|_, _| true);
    println!("  {:>5.2} in all, {positions} of them for a position", all as f64 / f64::from(periods));
    // What a driver that does not believe the position buffer reads, it reads for each period.
    ensure!(positions < 20, "{positions} positions were read from the controller: {counts:x?}");
    let known = sum(&|write, offset| ROWS.iter().any(|row| row.write == write && (row.is)(offset)));
    // Starting and stopping is some hundred accesses.
    ensure!(all - known < 600, "others than the known ones: {counts:x?}");
    desk.expect_no_trouble().await
}
