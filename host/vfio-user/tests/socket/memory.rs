//! Guest memory: mapped, unmapped, refused, taken away.

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use crate::desk::{Desk, RESULT, memfd};

const PAGE: u64 = 4096;

#[test]
fn guest_memory_is_read_and_written() {
    let desk = Desk::new();
    let (mut client, ram) = (desk.qemu(), memfd(8));
    ram.write_all_at(&0xcafe_u32.to_le_bytes(), 0x3004).unwrap();
    assert_eq!(client.map(0x10_0000, 0x2000, 4 * PAGE, Some(ram.as_fd())), 0);
    assert_eq!(client.look(0x10_1004), Some(0xcafe));
    assert!(client.put(0x10_3ffc, 0x1234));
    let mut there = [0; 4];
    ram.read_exact_at(&mut there, 0x5ffc).unwrap();
    assert_eq!(there, 0x1234_u32.to_le_bytes());
    assert_eq!(client.look(0x10_4000), None);
    assert_eq!(desk.status.shared_memory(), (1, 4 * PAGE));
}

#[test]
fn mappings_do_not_overlap_and_are_unmapped_as_they_were_mapped() {
    let desk = Desk::new();
    let (mut client, ram) = (desk.qemu(), memfd(8));
    assert_eq!(client.map(0x10_0000, 0, 4 * PAGE, Some(ram.as_fd())), 0);
    for (address, size) in [(0x10_0000, 4 * PAGE), (0xf_f000, 2 * PAGE), (0x10_3000, PAGE), (0, 1 << 40)] {
        assert_eq!(client.map(address, 0, size, None), 17, "{address:#x}");
    }
    for (address, size) in [(0x10_0000, PAGE), (0x10_1000, PAGE), (0x10_0000, 5 * PAGE), (0x20_0000, PAGE)] {
        assert_eq!(client.unmap(0, address, size), 2, "{address:#x}");
    }
    assert_eq!(client.look(0x10_0000), Some(0));
    assert_eq!(client.unmap(0, 0x10_0000, 4 * PAGE), 0);
    assert_eq!(client.look(0x10_0000), None);
    for (address, offset, size) in
        [(0, 0, 0), (u64::MAX - 0xfff, 0, 2 * PAGE), (0, 0, u64::MAX), (1, 0, PAGE)]
    {
        assert_eq!(client.map(address, offset, size, Some(ram.as_fd())), 22, "{address:#x}");
    }
    assert_eq!(client.map(0, 0x8000, PAGE, Some(ram.as_fd())), 22, "behind the end of the file");
}

#[test]
fn all_memory_is_unmapped_at_once_and_mapped_again_many_times() {
    let desk = Desk::new();
    let (mut client, ram) = (desk.qemu(), memfd(64));
    for round in 0..200 {
        assert_eq!(client.map(0, 0, 32 * PAGE, Some(ram.as_fd())), 0);
        assert_eq!(client.map(0x10_0000, 32 * PAGE, 32 * PAGE, Some(ram.as_fd())), 0);
        assert!(client.put(4 * round, 5));
        assert_eq!(client.unmap(2, 0, 0), 0);
        assert_eq!(client.look(0x10_0000), None);
    }
    assert_eq!(desk.status.shared_memory(), (0, 0));
}

#[test]
fn memory_without_a_descriptor_is_accepted_and_out_of_reach() {
    let desk = Desk::new();
    let mut client = desk.qemu();
    assert_eq!(client.map(0xfffc_0000, 0, 64 * PAGE, None), 0);
    assert_eq!(client.look(0xfffc_0000), None);
    assert_eq!(desk.status.private_memory(), (1, 64 * PAGE));
    assert_eq!(client.unmap(0, 0xfffc_0000, 64 * PAGE), 0);
}

/// platform attack case 34.
#[test]
fn there_is_an_end_to_the_number_of_mappings() {
    let desk = Desk::new();
    let mut client = desk.qemu();
    for index in 0..65_535 {
        assert_eq!(client.map(index * PAGE, 0, PAGE, None), 0);
    }
    assert_eq!(client.map(1 << 40, 0, PAGE, None), 28);
    assert_eq!(client.unmap(0, 0, PAGE), 0);
    assert_eq!(client.map(1 << 40, 0, PAGE, None), 0);
}

/// platform attack case 34.
#[test]
fn truncated_memory_is_an_error_of_the_device_and_no_crash() {
    let desk = Desk::new();
    let (mut client, ram) = (desk.qemu(), memfd(4));
    assert_eq!(client.map(0, 0, 4 * PAGE, Some(ram.as_fd())), 0);
    assert_eq!(client.look(0x2000), Some(0));
    ram.set_len(PAGE).unwrap();
    assert_eq!(client.look(0x2000), None);
    assert!(desk.status.poisoned());
    assert_eq!(client.read(RESULT), u64::MAX);
}
