//! The server, seen through its socket.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, PermissionsExt};

use crate::desk::{Desk, LAYOUT, Lent, RAISE, RESETS, RESULT, borrow, eventfd, memfd, signals};
use vfio_user::codec::{Command, Header, MAX_DATA, RegionAccess, SmallWrite, Version};
use vfio_user::{Client, Options, Server};
use zerocopy::IntoBytes;

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
fn bad_introductions_are_answered_and_end_the_connection() {
    let desk = Desk::new();
    for (major, text, errno) in
        [(1, &b"{}\0"[..], 95), (0, b"{}", 22), (0, b"{\"capabilities\":{\"max_msg_fds\":-1}}\0", 22)]
    {
        let mut client = desk.connect();
        let hello = [Version { major, minor: 0 }.as_bytes(), text].concat();
        assert_eq!(client.errno(1, &hello, &[]), errno);
        assert!(client.closed());
    }
    let mut client = desk.connect();
    assert_eq!(client.errno(Command::RegionRead as u16, &[0; 16], &[]), 22, "nothing goes before VERSION");
    assert!(client.closed());
    assert_eq!(desk.qemu().read(0), 0, "and the next one is served");
    assert_eq!(desk.status.broken(), 4);
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
fn a_message_of_impossible_size_ends_the_connection() {
    let desk = Desk::new();
    for size in [0u32, 15, MAX_DATA + 33, u32::MAX] {
        let mut client = desk.qemu();
        client.send(Header { id: 1, command: 9, size, flags: 0, errno: 0 }.as_bytes(), &[]);
        assert!(client.closed(), "size {size}");
    }
    assert_eq!(desk.qemu().read(0), 0);
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
fn when_the_client_goes_its_memory_and_interrupts_go_and_the_device_stays() {
    let desk = Desk::new();
    let ram = memfd(1);
    let (lent, wire) = (Lent::new(), eventfd());
    let mut first = desk.qemu();
    assert_eq!(first.map(0, 0, PAGE, Some(ram.as_fd())), 0);
    assert_eq!(first.set_irqs(0x24, 0, 1, &[wire.as_fd()]), 0);
    first.write(0x40, 99);
    // A message without an end, with a descriptor: it must not stay open.
    let (lent, descriptor) = lent;
    first.send(&[0; 5], &[descriptor.as_fd()]);
    drop(descriptor);
    drop(first);
    assert!(lent.is_closed());

    let mut second = desk.qemu();
    assert_eq!(second.look(0), None);
    second.write(RAISE, 0);
    assert_eq!(second.read(RESETS), 2, "reset by the new VERSION, not by the end of the first client");
    assert_eq!(second.read(0x40), 0);
    assert_eq!(signals(&wire), 0);
    assert_eq!((desk.status.clients(), desk.status.broken()), (2, 0));
}

#[test]
fn a_second_client_is_turned_away_while_the_first_goes_on() {
    let desk = Desk::new();
    let mut first = desk.qemu();
    for _ in 0..3 {
        assert!(desk.connect().closed());
    }
    first.write(0x10, 1);
    assert_eq!(first.read(0x10), 1);
    assert_eq!(desk.status.refused(), 3);
    drop(first);
    assert_eq!(desk.qemu().read(RESETS), 2);
}

#[test]
fn reset_is_the_functions() {
    let desk = Desk::new();
    let mut client = desk.qemu();
    client.write(0x10, 1);
    assert!(client.ok(Command::DeviceReset, &[]).is_empty());
    assert_eq!((client.read(0x10), client.read(RESETS)), (0, 2));
}

/// platform attack case 32: nothing is lost and nothing grows while a client does not read.
#[test]
fn a_client_that_does_not_read_its_replies_only_stops_itself() {
    let desk = Desk::new();
    let mut client = desk.qemu();
    let access = RegionAccess { offset: 0x10, region: 0, count: 256 * 1024 };
    let request = client.message(Command::RegionRead as u16, 0, access.as_bytes());
    client.send(&request.repeat(64), &[]);
    client.write(0x10, 5);
    for _ in 0..64 {
        let reply = client.reply();
        assert_eq!(reply.payload.len(), 16 + 256 * 1024);
        assert_eq!(reply.payload[16], 0, "answered before the write");
    }
    assert_eq!(client.read(0x10), 5);
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

#[test]
fn garbage_never_stops_the_server() {
    let desk = Desk::new();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for _ in 0..200 {
        let mut client = if random() & 1 == 0 { desk.connect() } else { desk.qemu() };
        let bytes: Vec<u8> = (0..random() % 2000).map(|_| (random() >> 32) as u8 & 0x1f).collect();
        let _ = client.socket.write_all(&bytes);
    }
    assert_eq!(desk.qemu().read(0), 0);
}

#[test]
fn the_socket_is_private_and_removed_in_the_end() {
    let desk = Desk::with(Options { mode: 0o660, ..Options::default() });
    let path = desk.path.clone();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let busy = Server::bind(&path, LAYOUT, Options::default()).map(drop).unwrap_err();
    assert_eq!(busy.kind(), std::io::ErrorKind::AddrInUse);
    assert_eq!(desk.qemu().read(0), 0, "the first server is untouched");

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = Server::bind(&path, LAYOUT, Options::default()).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(server);
    assert!(!path.exists());

    std::fs::write(&path, "precious").unwrap();
    let other = Server::bind(&path, LAYOUT, Options::default()).map(drop).unwrap_err();
    assert_eq!(other.kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}
