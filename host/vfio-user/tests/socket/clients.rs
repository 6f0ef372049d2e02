//! Clients that come, go, disturb, and are turned away.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

use vfio_user::codec::{Command, Header, MAX_DATA, RegionAccess, Version};
use vfio_user::{Options, Server};
use zerocopy::IntoBytes;

use crate::desk::{Desk, LAYOUT, Lent, RAISE, RESETS, eventfd, memfd, signals};

const PAGE: u64 = 4096;

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
