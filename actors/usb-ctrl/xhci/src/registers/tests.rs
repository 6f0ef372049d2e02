use pci::{Model, Width};
use wire::usb::{DeviceId, Speed};

use super::{
    operational::Operational,
    port::PortRegister,
    runtime::{InterrupterRegister, Runtime},
    *,
};
use crate::{
    Config,
    driver::{Bare, Host},
};

fn bare() -> Bare {
    Bare::new(Config::default(), 0x1000)
}

fn read(bare: &mut Bare, offset: u64) -> u32 {
    bare.read(offset, Width::Dword) as u32
}

/// Every dword of BAR 0, by name.
fn rows() -> Vec<(u64, Register, Option<Row>)> {
    let shape = Bare::new(Config::default(), 0).xhci.shape;
    (0..BAR_BYTES / 4)
        .filter_map(|index| Register::at(index * 4, &shape).map(|register| (index * 4, register)))
        .map(|(offset, register)| {
            let row = match register {
                Register::Operational(register) => Some(register.row()),
                Register::Port(_, register) => Some(register.row()),
                Register::Runtime(Runtime::Interrupter(_, register)) => Some(register.row()),
                Register::Constant(_) | Register::Doorbell(_) | Register::Runtime(Runtime::MfIndex) => None,
            };
            (offset, register, row)
        })
        .collect()
}

#[test]
fn every_register_has_its_reset_value_after_a_reset() {
    let mut bare = bare();
    for (offset, register, row) in rows() {
        bare.write(offset, Width::Dword, 0xffff_ffff);
        bare.write(OPERATIONAL, Width::Dword, 2);
        if let Some(row) = row {
            assert_eq!(read(&mut bare, offset), row.reset, "{register:?}");
        }
    }
}

/// Bits with effects of their own are exempt: their tests are with their effects.
#[test]
fn all_ones_are_kept_where_a_row_says_so_and_nowhere_else() {
    for (offset, register, row) in rows() {
        let mut bare = bare();
        let before = read(&mut bare, offset);
        bare.write(offset, Width::Dword, 0xffff_ffff);
        let after = read(&mut bare, offset);
        let expected = match (register, row) {
            // Resets the controller at once.
            (Register::Operational(Operational::UsbCmd), _) => 0,
            // Reads 0 but for CRR; the pointer cannot be read. xHCI 1.2 §5.4.5.
            (Register::Operational(Operational::CrcrLow | Operational::CrcrHigh), _) => 0,
            // The counter counts down from what was written. xHCI 1.2 §5.5.2.2.
            (Register::Runtime(Runtime::Interrupter(_, InterrupterRegister::Imod)), _) => 0xffff_ffff,
            (_, Some(row)) => ((before & !row.rw) | row.rw) & !row.rw1c,
            (_, None) => before,
        };
        assert_eq!(after, expected, "{register:?} at {offset:#x}");
    }
}

#[test]
fn usbcmd_stores_what_it_may_and_its_actions_read_zero() {
    let mut bare = bare();
    bare.write(OPERATIONAL, Width::Dword, 0xffff_fffd);
    assert_eq!(read(&mut bare, OPERATIONAL), 0x040d, "RS, INTE, HSEE, EWE");
    assert_eq!(read(&mut bare, OPERATIONAL + 4), 0, "not halted; CSS and CRS are done");
}

/// xHCI 1.2 §4.23.2.
#[test]
fn a_restore_succeeds_once_after_a_save_and_else_reports_an_error_that_can_be_cleared() {
    const SAVE: u64 = 1 << 8;
    const RESTORE: u64 = 1 << 9;
    const RESET: u64 = 1 << 1;
    const FAILED: u32 = 1 << 10;
    let mut bare = bare();
    let mut status_after = |command| {
        bare.write(OPERATIONAL, Width::Dword, command);
        let status = read(&mut bare, OPERATIONAL + 4);
        bare.write(OPERATIONAL + 4, Width::Dword, FAILED.into());
        assert_eq!(read(&mut bare, OPERATIONAL + 4), 1, "halted, and the error is cleared");
        status
    };
    assert_eq!(status_after(SAVE), 1, "saving is done at once");
    assert_eq!(status_after(RESTORE), 1);
    assert_eq!(status_after(RESTORE), FAILED | 1, "what was saved is used up");
    status_after(SAVE);
    status_after(RESET);
    assert_eq!(status_after(RESTORE), FAILED | 1, "a reset has taken it away");
}

#[test]
fn the_capability_registers_describe_the_controller() {
    struct Case {
        name: &'static str,
        offset: u64,
        width: Width,
        value: u64,
    }
    const CASES: &[Case] = &[
        Case { name: "CAPLENGTH", offset: 0, width: Width::Byte, value: 0x40 },
        Case { name: "HCIVERSION", offset: 2, width: Width::Word, value: 0x0110 },
        Case { name: "both", offset: 0, width: Width::Dword, value: 0x0110_0040 },
        Case { name: "HCSPARAMS1", offset: 4, width: Width::Dword, value: 0x10_00_08_40 },
        Case { name: "both in one", offset: 0, width: Width::Qword, value: 0x1000_0840_0110_0040 },
        Case { name: "MaxPorts", offset: 7, width: Width::Byte, value: 0x10 },
        Case { name: "HCSPARAMS2: no scratchpads", offset: 8, width: Width::Dword, value: 0x4f },
        Case { name: "HCSPARAMS3", offset: 0xc, width: Width::Dword, value: 0 },
        Case { name: "HCCPARAMS1: AC64, NSS, PSA", offset: 0x10, width: Width::Dword, value: 0x0200_4081 },
        Case { name: "DBOFF", offset: 0x14, width: Width::Dword, value: 0x2000 },
        Case { name: "RTSOFF", offset: 0x18, width: Width::Dword, value: 0x1000 },
        Case { name: "HCCPARAMS2", offset: 0x1c, width: Width::Dword, value: 0 },
        Case { name: "USB 2.0 protocol", offset: 0x800, width: Width::Qword, value: 0x2042_5355_0200_0402 },
        Case { name: "ports 1 to 8", offset: 0x808, width: Width::Qword, value: 0x0801 },
        Case { name: "USB 3.0 protocol", offset: 0x810, width: Width::Qword, value: 0x2042_5355_0300_0002 },
        Case { name: "ports 9 to 16", offset: 0x818, width: Width::Qword, value: 0x0809 },
        Case { name: "behind them", offset: 0x820, width: Width::Qword, value: 0 },
        Case { name: "PAGESIZE", offset: 0x48, width: Width::Dword, value: 1 },
        Case { name: "a doorbell", offset: 0x2004, width: Width::Dword, value: 0 },
        Case { name: "nothing", offset: 0x2200, width: Width::Qword, value: 0 },
        Case { name: "the end", offset: BAR_BYTES - 8, width: Width::Qword, value: 0 },
    ];
    let mut bare = bare();
    for Case { name, offset, width, value } in CASES {
        assert_eq!(bare.read(*offset, *width), *value, "{name}");
    }
    let long = Config { long_contexts: true, usb2_ports: 2, usb3_ports: 1, ..Config::default() };
    let mut bare = Bare::new(long, 0);
    assert_eq!(read(&mut bare, 0x10), 0x0200_4085, "CSZ");
    assert_eq!(read(&mut bare, 4) >> 24, 3);
    assert_eq!(bare.read(0x470, Width::Dword), 0, "no fourth port");
}

#[test]
fn narrow_writes_touch_only_their_bytes() {
    let mut bare = bare();
    let dcbaap = OPERATIONAL + 0x30;
    bare.write(dcbaap, Width::Qword, 0x1122_3344_5566_7780);
    bare.write(dcbaap + 1, Width::Byte, 0xaa);
    bare.write(dcbaap + 6, Width::Word, 0xbbcc);
    assert_eq!(bare.read(dcbaap, Width::Qword), 0xbbcc_3344_5566_aa80);
    assert_eq!(bare.read(dcbaap + 5, Width::Byte), 0x33);
    bare.write(OPERATIONAL + 0x14, Width::Byte, 0);
    assert_eq!(read(&mut bare, OPERATIONAL + 0x14), 0, "DNCTRL takes any value");
}

#[test]
fn a_narrow_write_of_portsc_clears_no_change_beside_it() {
    let mut bare = bare();
    bare.attach(DeviceId(1), Speed::High).unwrap();
    bare.write(PORTS + 3, Width::Byte, 0x0e);
    assert_eq!(read(&mut bare, PORTS), 0x0e02_0ee1, "wake bits stored, CSC stays, PP stays");
    bare.write(PORTS + 2, Width::Byte, 0x02);
    assert_eq!(read(&mut bare, PORTS), 0x0e00_0ee1);
    assert_eq!(PortRegister::at(1), None);
}

#[test]
fn the_microframe_index_runs_with_the_controller_and_wraps() {
    use core::time::Duration;
    let mut bare = bare();
    bare.wait(Duration::from_secs(1));
    assert_eq!(read(&mut bare, RUNTIME), 0, "halted");
    bare.write(OPERATIONAL, Width::Dword, 1);
    bare.wait(Duration::from_millis(10));
    assert_eq!(read(&mut bare, RUNTIME), 80);
    bare.wait(Duration::from_millis(2048));
    assert_eq!(read(&mut bare, RUNTIME), 80, "14 bits");
    bare.write(OPERATIONAL, Width::Dword, 0);
    bare.wait(Duration::from_secs(1));
    assert_eq!(read(&mut bare, RUNTIME), 80, "halted again");
}

#[test]
fn a_controller_without_a_model_says_that_it_has_failed() {
    use crate::Xhci;
    assert_eq!(Xhci::read_failed(0x44, Width::Dword), 0x1001, "HCE and HCHalted");
    assert_eq!(Xhci::read_failed(0x45, Width::Byte), 0x10);
    assert_eq!(Xhci::read_failed(0, Width::Byte), 0x40);
    assert_eq!(Xhci::read_failed(0x440, Width::Qword), 0);
}
