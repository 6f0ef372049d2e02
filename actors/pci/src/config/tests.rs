use proptest::prelude::*;

use super::*;

const XHCI: Identity = Identity {
    vendor: 0x1b36,
    device: 0x000d,
    revision: 1,
    class: 0x0c_03_30,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
};

fn space() -> ConfigSpace {
    ConfigSpace::builder(XHCI)
        .bar64(0, 0x4000)
        .bar32(2, 0x1000)
        .pm(0x50)
        .byte(0x60, 0x30, 0)
        .byte(0x61, 0x20, 0x3f)
        .msi(0x70, 4)
        .msix(0x90, MsixPlace { vectors: 65, bar: 0, table: 0x3000, pending: 0x3800 })
        .express(0xa0)
        .build()
}

fn read32(space: &ConfigSpace, at: u64) -> u32 {
    let mut data = [0; 4];
    space.read(at, &mut data);
    u32::from_le_bytes(data)
}

#[test]
fn the_header_says_who_the_function_is() {
    let space = space();
    assert_eq!(read32(&space, 0x00), 0x000d_1b36);
    assert_eq!(read32(&space, 0x08), 0x0c03_3001);
    assert_eq!(read32(&space, 0x2c), 0x1100_1af4);
    assert_eq!(space.layout(), Layout { bars: [0x4000, 0, 0x1000, 0, 0, 0], msi: 4, msix: 65, intx: false });
}

/// PCI 3.0 §6.2.5.1: all-ones written, the size is read back.
#[test]
fn a_bar_answers_the_sizing_probe() {
    let mut space = space();
    for (at, low) in [(0x10, 0xffff_c004), (0x14, 0xffff_ffff), (0x18, 0xffff_f000), (0x1c, 0)] {
        space.write(at, &[0xff; 4]);
        assert_eq!(read32(&space, at), low, "register {at:#x}");
    }
    space.write(0x10, &0xe000_1234_u32.to_le_bytes());
    assert_eq!(read32(&space, 0x10), 0xe000_0004);
}

#[test]
fn the_capabilities_are_chained_in_order() {
    let space = space();
    assert_ne!(read32(&space, 0x04) >> 16 & 0x10, 0);
    let mut found = Vec::new();
    let mut at = read32(&space, 0x34) as u8;
    while at != 0 {
        let [id, next, ..] = read32(&space, at.into()).to_le_bytes();
        found.push((at, id));
        at = next;
    }
    assert_eq!(found, [(0x50, 0x01), (0x70, 0x05), (0x90, 0x11), (0xa0, 0x10)]);
}

/// PCI 3.0 §6.2.2 and §6.2.3.
#[test]
fn command_keeps_only_its_own_bits_and_status_cannot_be_set() {
    let mut space = space();
    space.write(4, &[0xff; 4]);
    assert_eq!(read32(&space, 4), 0x0010_0546);
    assert!(space.bus_master());
    space.write(4, &[0x02, 0]);
    assert!(!space.bus_master());
    assert!(space.command().memory_space());
}

/// PCI 3.0 §6.8.1.3: a guest that grants more than was asked for gets what was asked for.
#[test]
fn msi_counts_the_granted_vectors() {
    let mut space = space();
    for (control, vectors) in [(0x00, 0), (0x01, 1), (0x11, 2), (0x21, 4), (0x31, 4), (0x71, 4), (0x70, 0)] {
        space.write(0x72, &[control]);
        assert_eq!(space.msi_vectors(), vectors, "control {control:#x}");
    }
    assert_eq!(read32(&space, 0x70) >> 16, 0x00f4, "capability bits are read-only");
}

#[test]
fn msix_is_enabled_unless_the_function_is_masked() {
    let mut space = space();
    assert_eq!(read32(&space, 0x90) >> 16, 64);
    assert_eq!((read32(&space, 0x94), read32(&space, 0x98)), (0x3000, 0x3800));
    for (control, enabled) in [(0x00, false), (0x80, true), (0xc0, false)] {
        space.write(0x93, &[control]);
        assert_eq!(space.msix_enabled(), enabled, "control {control:#x}");
    }
}

#[test]
fn reset_restores_the_defaults() {
    let mut space = space();
    space.write(0, &[0xff; CONFIG_BYTES]);
    space.reset();
    let mut after = [0; CONFIG_BYTES];
    space.read(0, &mut after);
    let mut fresh = [0; CONFIG_BYTES];
    self::space().read(0, &mut fresh);
    assert_eq!(after, fresh);
    assert_eq!(after[0x61], 0x20);
}

#[test]
fn a_set_status_bit_is_cleared_by_writing_1() {
    let mut space = space();
    space.bytes[7].value |= 0x20;
    space.write(7, &[0x00]);
    assert_eq!(space.bytes[7].value, 0x20);
    space.write(7, &[0x20]);
    assert_eq!(space.bytes[7].value, 0x00);
}

#[test]
#[should_panic(expected = "two things at 0x70")]
fn overlapping_capabilities_are_refused() {
    let _ = ConfigSpace::builder(XHCI).msi(0x68, 1).msi(0x70, 1);
}

#[test]
#[should_panic(expected = "BARs overlap")]
fn a_bar_in_the_upper_half_of_another_is_refused() {
    let _ = ConfigSpace::builder(XHCI).bar64(0, 0x1000).bar32(1, 0x1000);
}

proptest! {
    #[test]
    fn any_write_leaves_read_only_bits_alone(writes in proptest::collection::vec(
        (prop_oneof![0u64..4200, any::<u64>()], proptest::collection::vec(any::<u8>(), 0..64)), 0..64,
    )) {
        let mut space = space();
        for (at, data) in &writes {
            space.write(*at, data);
        }
        for byte in &space.bytes {
            prop_assert_eq!(byte.value & !byte.writable, byte.reset & !byte.writable);
        }
    }
}
