//! What a client may ask for, and what it gets.

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use vfio_user::Client;
use vfio_user::codec::{Command, Header, MAX_DATA, RegionAccess, SmallWrite};
use zerocopy::IntoBytes;

use crate::desk::{Desk, Lent, RAISE, RESETS, borrow, eventfd, memfd, signals};

const PAGE: u64 = 4096;

#[test]
fn a_client_introduces_itself_and_reads_and_writes() {
    let desk = Desk::new();
    let mut client = desk.qemu();
    client.write(8, 0x1122_3344_5566_7788);
    assert_eq!(client.read(8), 0x1122_3344_5566_7788);
    assert_eq!(desk.status.client(), Some(Client::Qemu));
    assert_eq!(client.read(RESETS), 1, "a new client is a new boot");
}

#[test]
fn every_shape_of_access_is_answered() {
    let desk = Desk::new();
    let mut client = desk.qemu();
    for (region, offset, count) in [
        (0, 0, 1),
        (0, 2, 2),
        (0, 4, 4),
        (0, 0, 0),
        (0, 3, 13),
        (0, 0xfff, 8),
        (7, 0, 4096),
        (0, 0, MAX_DATA),
    ] {
        let access = RegionAccess { offset, region, count };
        let payload = client.ok(Command::RegionRead, access.as_bytes());
        assert_eq!(payload.len(), 16 + count as usize);
        assert_eq!(payload[..16], *access.as_bytes());
        let write = [access.as_bytes(), &vec![0; count as usize]].concat();
        assert_eq!(client.ok(Command::RegionWrite, &write), access.as_bytes(), "the reply has no data");
    }
    for region in [8, 9, u32::MAX] {
        let access = RegionAccess { offset: 0, region, count: 4 };
        assert_eq!(client.ok(Command::RegionRead, access.as_bytes())[16..], [0xff; 4], "region {region}");
        let write = [access.as_bytes(), &[0; 4]].concat();
        assert_eq!(client.ok(Command::RegionWrite, &write), access.as_bytes());
    }
}

#[test]
fn many_small_writes_in_one_message() {
    let desk = Desk::new();
    let mut client = desk.qemu();
    let mut payload = 200u64.as_bytes().to_vec();
    for index in 0..200u64 {
        let at = RegionAccess { offset: 0x200 + 8 * index, region: 0, count: 8 };
        payload.extend(SmallWrite { at, data: (index + 1).to_le_bytes() }.as_bytes());
    }
    let bytes = client.message(Command::RegionWriteMulti as u16, Header::NO_REPLY, &payload);
    client.send(&bytes, &[]);
    assert_eq!(client.read(0x200 + 8 * 199), 200);
    assert_eq!(client.ok(Command::RegionWriteMulti, &payload), 200u64.as_bytes());
    let at = RegionAccess { offset: 0, region: 0, count: 9 };
    let too_wide = [1u64.as_bytes(), SmallWrite { at, data: [9; 8] }.as_bytes()].concat();
    client.ok(Command::RegionWriteMulti, &too_wide);
    assert_eq!(client.read(0), 0, "a write of more than 8 bytes writes nothing");
}

#[test]
fn a_read_sees_every_posted_write_before_it() {
    let desk = Desk::new();
    let mut client = desk.qemu();
    let mut burst = Vec::new();
    for value in 1..=10_000u64 {
        let access = RegionAccess { offset: 0x20, region: 0, count: 8 };
        let payload = [access.as_bytes(), &value.to_le_bytes()].concat();
        burst.extend(client.message(Command::RegionWrite as u16, Header::NO_REPLY, &payload));
    }
    client.send(&burst, &[]);
    assert_eq!(client.read(0x20), 10_000);
}

#[test]
fn the_stream_may_arrive_byte_by_byte() {
    let desk = Desk::new();
    let (mut client, ram) = (desk.qemu(), memfd(1));
    ram.write_all_at(&[7, 0, 0, 0], 0).unwrap();
    let map = vfio_user::codec::DmaMap { argsz: 32, flags: 3, offset: 0, address: 0x4000, size: PAGE };
    let message = client.message(Command::DmaMap as u16, 0, map.as_bytes());
    client.send(&message[..1], &[ram.as_fd()]);
    for byte in &message[1..] {
        client.send(&[*byte], &[]);
    }
    assert_eq!(client.reply().header.errno, 0);
    assert_eq!(client.look(0x4000), Some(7));
}

#[test]
fn refused_commands_leave_the_stream_in_step() {
    let desk = Desk::new();
    let mut client = desk.qemu();
    for (command, length, errno) in [
        (6, 16, 95),
        (11, 16, 95),
        (12, 500, 95),
        (16, 100_000, 95),
        (999, 0, 95),
        (1, 4, 22),
        (4, 3, 22),
        (8, 19, 22),
    ] {
        assert_eq!(client.errno(command, &vec![0; length], &[]), errno, "command {command}");
        assert_eq!(client.read(0), 0);
    }
}

#[test]
fn what_wants_no_reply_gets_none_and_replies_get_none_either() {
    let desk = Desk::new();
    let mut client = desk.qemu();
    for (command, flags) in
        [(6, 0x10), (4, 0x10), (9, 0x10), (3, 0x10), (13, 0x10), (9, 1), (2, 0x21), (4, 5)]
    {
        let bytes = client.message(command, flags, &[0; 16]);
        client.send(&bytes, &[]);
    }
    assert_eq!(client.read(RESETS), 2, "the very next reply is to the read; the reset was carried out");
}

/// platform attack case 33.
#[test]
fn descriptors_that_nobody_asked_for_are_closed() {
    let desk = Desk::new();
    let mut client = desk.qemu();
    for command in [3, 4, 5, 7, 9, 10, 13, 15, 6, 999] {
        let (lent, descriptor) = Lent::new();
        assert_ne!(client.errno(command, &[0; 64], &[descriptor.as_fd()]), 0, "command {command}");
        drop(descriptor);
        assert!(lent.is_closed(), "command {command}");
    }
    let (lent, descriptor) = Lent::new();
    assert_eq!(client.set_irqs(0x24, 0, 1, &[descriptor.as_fd()]), 22, "a pipe is no interrupt");
    drop(descriptor);
    assert!(lent.is_closed());

    let (lent, descriptor) = Lent::new();
    let bytes = client.message(9, 1, &[0; 16]);
    client.send(&bytes, &[descriptor.as_fd()]);
    drop(descriptor);
    assert!(lent.is_closed(), "with a reply");
}

/// platform attack case 33.
#[test]
fn more_descriptors_than_anyone_may_send_are_refused_or_end_the_connection() {
    let desk = Desk::new();
    let mut client = desk.qemu();
    let fds: Vec<_> = (0..40).map(|_| eventfd()).collect();
    assert_eq!(client.set_irqs(0x24, 0, 4, &borrow(&fds[..17])), 22);
    assert_eq!(client.map(0, 0, PAGE, None), 0);
    let (lent, descriptor) = Lent::new();
    let mut all = borrow(&fds);
    all.insert(0, descriptor.as_fd());
    let bytes = client.message(Command::SetIrqs as u16, 0, &[0; 20]);
    client.send(&bytes, &all);
    assert!(client.closed(), "some were lost in the kernel, and nobody knows which");
    drop(all);
    drop(descriptor);
    assert!(lent.is_closed());
}

#[test]
fn interrupts_arrive_where_the_client_wants_them() {
    let desk = Desk::new();
    let mut client = desk.qemu();
    let wires: Vec<_> = (0..4).map(|_| eventfd()).collect();
    let seen = || wires.iter().map(signals).collect::<Vec<_>>();
    assert_eq!(client.set_irqs(0x24, 0, 4, &[]), 0, "a placeholder");
    assert_eq!(client.set_irqs(0x24, 0, 2, &borrow(&wires[..2])), 0);
    assert_eq!(client.set_irqs(0x24, 3, 1, &borrow(&wires[3..])), 0);
    assert_eq!(desk.status.msi_vectors(), 3);
    for vector in [0, 1, 1, 2, 3, 4, 0xffff] {
        client.write(RAISE, vector);
    }
    client.read(0);
    assert_eq!(seen(), [1, 2, 0, 1]);
    assert_eq!(client.set_irqs(0x21, 0, 2, &[]), 0, "the client fires them itself");
    assert_eq!(seen(), [1, 1, 0, 0]);
    assert_eq!(client.set_irqs(0x24, 1, 1, &[]), 0);
    client.write(RAISE, 1);
    client.write(RAISE, 3);
    client.read(0);
    assert_eq!(seen(), [0, 0, 0, 1]);
    assert_eq!(client.set_irqs(0x21, 0, 0, &[]), 0, "all off");
    client.write(RAISE, 0);
    client.read(0);
    assert_eq!(seen(), [0; 4]);
}

#[test]
fn reset_is_the_functions() {
    let desk = Desk::new();
    let mut client = desk.qemu();
    client.write(0x10, 1);
    assert!(client.ok(Command::DeviceReset, &[]).is_empty());
    assert_eq!((client.read(0x10), client.read(RESETS)), (0, 2));
}
