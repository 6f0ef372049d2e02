use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;
use crate::codec::{MAX_FDS, MAX_MESSAGE, Version};

const LAYOUT: Layout = Layout { bars: [0x4000, 0, 0x1000, 0, 0, 0], msi: 4, msix: 0, intx: false };
const HEADER: usize = Header::BYTES;

fn message(command: u16, flags: u32, payload: &[u8]) -> Vec<u8> {
    let header = Header { id: 0x1234, command, size: (HEADER + payload.len()) as u32, flags, errno: 0 };
    [header.as_bytes(), payload].concat()
}

fn greeted(minor: u16) -> Protocol {
    let mut protocol = Protocol::new(LAYOUT, false);
    let hello = message(1, 0, Version { major: 0, minor }.as_bytes());
    assert_eq!(protocol.step(&hello, 0, &mut Vec::new()), Action::Greeted);
    protocol
}

fn header(reply: &[u8]) -> Header {
    let (header, rest) = Header::read_from_prefix(reply).unwrap();
    assert_eq!(header.size as usize, HEADER + rest.len());
    assert_eq!((header.id, header.flags & Header::TYPE), (0x1234, Header::REPLY));
    header
}

/// Sends one command from a client that has introduced itself; answers the error number, 0 for success or silence.
fn refusal(command: u16, payload: &[u8], fds: usize) -> u32 {
    let mut replies = Vec::new();
    let _ = greeted(0).step(&message(command, 0, payload), fds, &mut replies);
    if replies.is_empty() { 0 } else { header(&replies).errno }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.as_bytes().to_vec()
}

#[test]
fn whoever_does_not_begin_with_version_is_refused_and_closed() {
    for command in [0, 2, 4, 9, 13, 99] {
        let (mut protocol, mut replies) = (Protocol::new(LAYOUT, false), Vec::new());
        let bytes = message(command, 0, &[0; 32]);
        let action = protocol.step(&bytes, 0, &mut replies);
        assert!(matches!(action, Action::Close(_)), "command {command}");
        assert_eq!(header(&replies).errno, 22);
    }
    assert_eq!(refusal(1, Version { major: 0, minor: 0 }.as_bytes(), 0), 22, "a second VERSION");
}

#[test]
fn a_reply_where_a_command_belongs_is_dropped() {
    for kind in [1, 2, 15] {
        let mut replies = Vec::new();
        assert_eq!(greeted(0).step(&message(9, kind, &[0; 16]), 0, &mut replies), Action::Done);
        assert!(replies.is_empty());
    }
}

#[test]
fn unknown_commands_are_unsupported() {
    for command in [0, 6, 11, 12, 14, 16, 17, 18, u16::MAX] {
        assert_eq!(refusal(command, &[0; 64], 0), 95, "command {command}");
    }
}

#[test]
fn descriptors_are_refused_where_none_belong() {
    for (command, fds) in [(4, 1), (5, 1), (7, 1), (9, 1), (10, 1), (13, 1), (3, 1), (2, 2), (8, 17)] {
        assert_eq!(refusal(command, &[0; 64], fds), 22, "command {command}");
    }
}

#[test]
fn device_info_tells_of_a_resettable_pci_function() {
    let mut replies = Vec::new();
    // Cloud Hypervisor counts the header in.
    for argsz in [16, 32] {
        replies.clear();
        let _ = greeted(1).step(&message(4, 0, &words(&[argsz, 0, 0, 0])), 0, &mut replies);
        assert_eq!(replies[HEADER..], words(&[16, 3, 9, 5])[..]);
    }
    assert_eq!(refusal(4, &words(&[15, 0, 0, 0]), 0), 22);
    assert_eq!(refusal(4, &words(&[16, 0, 0]), 0), 22);
}

#[test]
fn region_info_tells_what_the_layout_says() {
    let sizes = [0x4000, 0, 0x1000, 0, 0, 0, 0, 4096, 0];
    for (index, size) in (0..).zip(sizes) {
        let mut replies = Vec::new();
        let asked = words(&[32, 0, index, 0, 0, 0, 0, 0]);
        let _ = greeted(0).step(&message(5, 0, &asked), 0, &mut replies);
        let flags = if size > 0 { 3 } else { 0 };
        assert_eq!(replies[HEADER..], words(&[32, flags, index, 0, size, 0, 0, 0])[..], "region {index}");
    }
    assert_eq!(refusal(5, &words(&[32, 0, 9, 0, 0, 0, 0, 0]), 0), 22);
    assert_eq!(refusal(5, &words(&[31, 0, 0, 0, 0, 0, 0, 0]), 0), 22);
    assert_eq!(refusal(5, &words(&[32, 0, 0, 0, 0, 0, 0]), 0), 22);
}

#[test]
fn irq_info_tells_what_the_layout_says() {
    for (index, count) in (0..).zip([0, 4, 0, 0, 0]) {
        let mut replies = Vec::new();
        let _ = greeted(0).step(&message(7, 0, &words(&[16, 0, index, 0])), 0, &mut replies);
        assert_eq!(replies[HEADER..], words(&[16, u32::from(count > 0), index, count])[..], "type {index}");
    }
    assert_eq!(refusal(7, &words(&[16, 0, 5, 0]), 0), 22);
    assert_eq!(refusal(7, &words(&[15, 0, 1, 0]), 0), 22);
}

#[test]
fn set_irqs_takes_the_forms_that_clients_send() {
    let mut protocol = greeted(0);
    let mut asked = |flags: u32, start: u32, count: u32, bools: &'static [u8], fds: usize| {
        let payload = [&words(&[20, flags, 1, start, count])[..], bools].concat();
        let mut replies = Vec::new();
        match protocol.step(&message(8, 0, &payload), fds, &mut replies) {
            Action::Wire(Irq::Msi, Signal::Fire { first, count, chosen }, _) => {
                Ok(format!("fire {first} {count} {chosen:?}"))
            }
            Action::Wire(Irq::Msi, signal, _) => Ok(format!("{signal:?}")),
            Action::Done => Err(header(&replies).errno),
            other => panic!("{other:?}"),
        }
    };
    let ok = |text: &str| Ok(text.to_owned());
    assert_eq!(asked(0x24, 0, 4, &[], 4), ok("Connect { first: 0 }"));
    assert_eq!(asked(0x24, 3, 1, &[], 1), ok("Connect { first: 3 }"));
    assert_eq!(asked(0x24, 0, 4, &[], 0), ok("Disconnect { first: 0, count: 4 }"));
    assert_eq!(asked(0x21, 0, 0, &[], 0), ok("DisconnectAll"));
    assert_eq!(asked(0x21, 1, 2, &[], 0), ok("fire 1 2 None"));
    assert_eq!(asked(0x22, 0, 2, &[0, 1], 0), ok("fire 0 2 Some([0, 1])"));

    for (flags, start, count, bools, fds, why) in [
        (0x22, 0, 3, &[0u8, 1][..], 0, "bools are missing"),
        (0x24, 0, 4, &[], 3, "an eventfd is missing"),
        (0x24, 0, 3, &[], 4, "an eventfd too many"),
        (0x21, 0, 1, &[], 1, "eventfds that the flags do not announce"),
        (0x24, 4, 1, &[], 1, "behind the last vector"),
        (0x24, 0, 5, &[], 5, "more than there are"),
        (0x21, u32::MAX, 2, &[], 0, "a sum that wraps"),
        (0x21, 5, 0, &[], 0, "a start behind the end"),
        (0x20, 0, 1, &[], 0, "no kind of data"),
        (0x23, 0, 1, &[0], 0, "two kinds of data"),
        (0x01, 0, 1, &[], 0, "no action"),
        (0x31, 0, 1, &[], 0, "two actions"),
        (0x09, 0, 1, &[], 0, "masking is not offered"),
        (0x11, 0, 1, &[], 0, "unmasking is not offered"),
    ] {
        assert_eq!(asked(flags, start, count, bools, fds), Err(22), "{why}");
    }
    for index in [0, 3, 4, 5, u32::MAX] {
        assert_eq!(refusal(8, &words(&[20, 0x24, index, 0, 1]), 1), 22, "type {index}");
    }
    assert_eq!(refusal(8, &words(&[19, 0x21, 1, 0, 0]), 0), 22);
}

#[test]
fn a_pin_is_masked_and_unmasked_and_masks_itself() {
    let mut protocol = Protocol::new(Layout { intx: true, ..LAYOUT }, false);
    let _ = protocol.step(&message(1, 0, Version { major: 0, minor: 0 }.as_bytes()), 0, &mut Vec::new());
    let mut replies = Vec::new();
    let _ = protocol.step(&message(7, 0, &words(&[16, 0, 0, 0])), 0, &mut replies);
    assert_eq!(replies[HEADER..], words(&[16, 7, 0, 1])[..]);
    let mut wire = |flags, start, count, fds| {
        let payload = words(&[20, flags, 0, start, count]);
        match protocol.step(&message(8, 0, &payload), fds, &mut Vec::new()) {
            Action::Wire(Irq::IntX, signal, _) => Some(format!("{signal:?}")),
            _ => None,
        }
    };
    for (flags, count, fds, signal) in [
        (0x24, 1, 1, Some("Connect { first: 0 }")),
        (0x09, 1, 0, Some("Mask")),
        (0x11, 1, 0, Some("Unmask")),
        (0x11, 0, 0, None),
        (0x11, 2, 0, None),
        (0x14, 1, 1, None), // unmasked by an eventfd
        (0x21, 0, 0, Some("DisconnectAll")),
    ] {
        assert_eq!(wire(flags, 0, count, fds).as_deref(), signal, "{flags:#x} {count}");
    }
}

#[test]
fn msix_is_wired_apart_from_msi() {
    let mut protocol = Protocol::new(Layout { msi: 0, msix: 2048, ..LAYOUT }, false);
    let _ = protocol.step(&message(1, 0, Version { major: 0, minor: 0 }.as_bytes()), 0, &mut Vec::new());
    let mut wire = |index, start, count, fds| {
        let payload = words(&[20, 0x24, index, start, count]);
        match protocol.step(&message(8, 0, &payload), fds, &mut Vec::new()) {
            Action::Wire(irq, Signal::Connect { first }, _) => Some((irq, first)),
            _ => None,
        }
    };
    assert_eq!(wire(2, 2032, 16, 16), Some((Irq::MsiX, 2032)));
    assert_eq!(wire(2, 2033, 16, 16), None);
    assert_eq!(wire(1, 0, 1, 1), None);
}

#[test]
fn dma_map_takes_whole_pages_that_do_not_wrap() {
    let asked = |flags, offset, address, size| {
        let map = DmaMap { argsz: 32, flags, offset, address, size };
        refusal(2, map.as_bytes(), 1)
    };
    assert_eq!(asked(3, 0x1000, 0x2000, 0x3000), 0);
    assert_eq!(asked(1, 0, u64::MAX - 0xfff, 0x1000), 0, "the last page");
    for (flags, offset, address, size) in [
        (3, 0, 0, 0),
        (0, 0, 0, 0x1000),
        (4, 0, 0, 0x1000),
        (3, 1, 0, 0x1000),
        (3, 0, 0x800, 0x1000),
        (3, 0, 0, 0xfff),
        (3, 0, u64::MAX - 0xfff, 0x2000),
        (3, u64::MAX - 0xfff, 0, 0x2000),
        (3, 0, 0, u64::MAX),
    ] {
        assert_eq!(asked(flags, offset, address, size), 22, "{flags} {offset:#x} {address:#x} {size:#x}");
    }
    assert_eq!(
        refusal(2, DmaMap { argsz: 31, flags: 3, offset: 0, address: 0, size: 4096 }.as_bytes(), 1),
        22
    );
    assert_eq!(refusal(2, &[0; 31], 1), 22);
}

#[test]
fn dma_unmap_takes_one_mapping_or_all() {
    let asked =
        |argsz, flags, address, size| refusal(3, DmaUnmap { argsz, flags, address, size }.as_bytes(), 0);
    assert_eq!(asked(24, 0, 0x1000, 0x1000), 0);
    assert_eq!(asked(24, 2, 0, 0), 0);
    assert_eq!(asked(24, 2, 0x1000, 0x1000), 22, "all, and a range");
    assert_eq!(asked(24, 1, 0x1000, 0x1000), 95, "dirty pages are not tracked");
    assert_eq!(asked(23, 0, 0x1000, 0x1000), 22);
}

#[test]
fn a_failed_unmap_is_an_error_only_to_whoever_understands_it() {
    for (minor, length, errno) in [(0, HEADER, 2), (1, HEADER + 24, 0)] {
        let (mut protocol, mut replies) = (greeted(minor), Vec::new());
        let unmap = message(3, 0, DmaUnmap { argsz: 24, flags: 0, address: 0x1000, size: 0x1000 }.as_bytes());
        let Action::Unmap(what, ticket) = protocol.step(&unmap, 0, &mut replies) else { panic!() };
        protocol.unmapped(what, Err(Refusal::NotFound), ticket, &mut replies);
        assert_eq!((replies.len(), header(&replies).errno), (length, errno), "minor {minor}");
    }
}

#[test]
fn region_accesses_are_exactly_as_long_as_they_say() {
    let access = |count| RegionAccess { offset: 0, region: 0, count }.as_bytes().to_vec();
    assert_eq!(refusal(9, &access(4096), 0), 0);
    assert_eq!(refusal(9, &access(MAX_DATA + 1), 0), 7);
    assert_eq!(refusal(9, &access(4)[..15], 0), 22);
    assert_eq!(refusal(9, &[access(4), vec![0]].concat(), 0), 22);
    assert_eq!(refusal(10, &[access(4), vec![0; 4]].concat(), 0), 0);
    assert_eq!(refusal(10, &[access(4), vec![0; 3]].concat(), 0), 22);
    assert_eq!(refusal(10, &[access(u32::MAX), vec![0; 5]].concat(), 0), 22);
    let many = |count: u64, bytes: usize| [count.as_bytes(), &vec![0; bytes]].concat();
    assert_eq!(refusal(15, &many(2, 48), 0), 0);
    assert_eq!(refusal(15, &many(0, 0), 0), 0);
    for (count, bytes) in [(2, 47), (2, 24), (1, 48), (u64::MAX, 24), (1 << 61, 24)] {
        assert_eq!(refusal(15, &many(count, bytes), 0), 22, "{count} in {bytes} bytes");
    }
}

proptest! {
    /// Any bytes at all: no panic, no reply that nobody asked for, and replies that are well-formed and never longer
    /// than anyone expects.
    #[test]
    fn any_message_is_survived(
        messages in proptest::collection::vec(
            (0u16..20, prop_oneof![Just(0u32), Just(0x10), any::<u32>()],
             proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(32), any::<u8>()], 0..80), 0usize..20),
            1..40,
        ),
        minor in 0u16..3,
    ) {
        let mut protocol = greeted(minor);
        for (command, flags, payload, fds) in messages {
            let (bytes, mut replies) = (message(command, flags, &payload), Vec::new());
            let action = protocol.step(&bytes, fds, &mut replies);
            prop_assert!(flags & 0x1f == 0 || replies.is_empty());
            if !replies.is_empty() {
                let reply = header(&replies);
                prop_assert_eq!(reply.command, command);
                let failed = reply.flags & Header::ERROR != 0;
                prop_assert_eq!(failed, reply.errno != 0);
                let room = if failed { HEADER } else { bytes.len() };
                prop_assert!(replies.len() <= room);
            }
            match action {
                Action::Read(access, _) => prop_assert!(access.count <= MAX_DATA),
                Action::Map(map, _) => prop_assert!(map.size > 0 && map.address.checked_add(map.size - 1).is_some()),
                Action::Wire(irq, _, _) => prop_assert_eq!(irq, Irq::Msi),
                _ => {}
            }
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200), fds in 0..=MAX_FDS) {
        prop_assume!(bytes.len() <= MAX_MESSAGE);
        for mut protocol in [Protocol::new(LAYOUT, true), greeted(0)] {
            let _ = protocol.step(&bytes, fds, &mut Vec::new());
        }
    }
}
