//! The disk as a host sees it: Bulk-Only Transport ("BOT") and the SCSI commands.

use crate::host::{Host, Memory, bulk_in, bulk_out};
use functions::{Disk, Function};
use proptest::prelude::*;
use wire::usb::{Failure, RequestId};

fn disk() -> Host<Disk<Memory>> {
    Host::new(Disk::new(Memory::new(64), "1"))
}

/// A command block wrapper. BOT §5.1.
fn cbw(length: u32, input: bool, block: &[u8]) -> Vec<u8> {
    let mut cbw = b"USBC\x01\x02\x03\x04".to_vec();
    cbw.extend(length.to_le_bytes());
    cbw.extend([if input { 0x80 } else { 0 }, 0, block.len() as u8]);
    cbw.extend(block);
    cbw.resize(31, 0);
    cbw
}

const READ_1: [u8; 10] = [0x28, 0, 0, 0, 0, 2, 0, 0, 1, 0];
const WRITE_1: [u8; 10] = [0x2a, 0, 0, 0, 0, 2, 0, 0, 1, 0];
const TEST_UNIT_READY: [u8; 6] = [0; 6];

/// The status: residue and code. BOT §5.2.
fn status(host: &mut Host<Disk<Memory>>) -> (u32, u8) {
    let id = host.input(13);
    let csw = host.got(id);
    assert_eq!(&csw[..8], b"USBS\x01\x02\x03\x04");
    (u32::from_le_bytes(csw[8..12].try_into().unwrap()), csw[12])
}

fn clear_halt(host: &mut Host<Disk<Memory>>, address: u16) {
    assert_eq!(host.control(0x02, 1, 0, address, 0), Ok(Vec::new()));
}

/// A command with data for the host; what came, residue and code.
fn read(host: &mut Host<Disk<Memory>>, length: u32, block: &[u8]) -> (Vec<u8>, u32, u8) {
    let out = host.output(cbw(length, true, block));
    assert_eq!(host.end(out).map(|end| end.result), Some(Ok(())));
    let id = host.input(length);
    let end = host.end(id).expect("data or a stall").clone();
    if end.result == Err(Failure::Stall) {
        clear_halt(host, 0x81);
    }
    let (residue, code) = status(host);
    (crate::host::data(&end), residue, code)
}

#[test]
fn the_thirteen_cases_end_as_bot_6_7_says() {
    struct Case {
        name: &'static str,
        announced: u32,
        input: bool,
        block: &'static [u8],
        stalls: bool,
        residue: u32,
        code: u8,
    }
    const CASES: &[Case] = &[
        Case {
            name: "(1) Hn = Dn",
            announced: 0,
            input: false,
            block: &TEST_UNIT_READY,
            stalls: false,
            residue: 0,
            code: 0,
        },
        Case {
            name: "(2) Hn < Di",
            announced: 0,
            input: true,
            block: &READ_1,
            stalls: false,
            residue: 0,
            code: 2,
        },
        Case {
            name: "(3) Hn < Do",
            announced: 0,
            input: false,
            block: &WRITE_1,
            stalls: false,
            residue: 0,
            code: 2,
        },
        Case {
            name: "(4) Hi > Dn",
            announced: 512,
            input: true,
            block: &TEST_UNIT_READY,
            stalls: true,
            residue: 512,
            code: 0,
        },
        Case {
            name: "(5) Hi > Di",
            announced: 1024,
            input: true,
            block: &READ_1,
            stalls: false,
            residue: 512,
            code: 0,
        },
        Case {
            name: "(6) Hi = Di",
            announced: 512,
            input: true,
            block: &READ_1,
            stalls: false,
            residue: 0,
            code: 0,
        },
        Case {
            name: "(7) Hi < Di",
            announced: 100,
            input: true,
            block: &READ_1,
            stalls: false,
            residue: 0,
            code: 2,
        },
        Case {
            name: "(8) Hi <> Do",
            announced: 512,
            input: true,
            block: &WRITE_1,
            stalls: true,
            residue: 512,
            code: 2,
        },
        Case {
            name: "(9) Ho > Dn",
            announced: 512,
            input: false,
            block: &TEST_UNIT_READY,
            stalls: true,
            residue: 512,
            code: 0,
        },
        Case {
            name: "(10) Ho <> Di",
            announced: 512,
            input: false,
            block: &READ_1,
            stalls: true,
            residue: 512,
            code: 2,
        },
        Case {
            name: "(11) Ho > Do",
            announced: 1024,
            input: false,
            block: &WRITE_1,
            stalls: false,
            residue: 512,
            code: 0,
        },
        Case {
            name: "(12) Ho = Do",
            announced: 512,
            input: false,
            block: &WRITE_1,
            stalls: false,
            residue: 0,
            code: 0,
        },
        Case {
            name: "(13) Ho < Do",
            announced: 100,
            input: false,
            block: &WRITE_1,
            stalls: true,
            residue: 100,
            code: 2,
        },
    ];
    for Case { name, announced, input, block, stalls, residue, code } in CASES {
        let mut host = disk();
        host.output(cbw(*announced, *input, block));
        if *announced > 0 {
            let id = if *input {
                host.input(*announced)
            } else {
                host.output(vec![7; 512.min(*announced as usize)])
            };
            let stalled = host.end(id).expect(name).result == Err(Failure::Stall);
            assert_eq!(stalled, *stalls, "{name}");
            if stalled {
                clear_halt(&mut host, if *input { 0x81 } else { 0x02 });
            }
        }
        assert_eq!(status(&mut host), (*residue, *code), "{name}");
        let (data, ..) = read(&mut host, 512, &READ_1);
        assert_eq!(data.len(), 512, "{name}: the next command works");
    }
}

#[test]
fn data_are_read_in_as_many_pieces_as_the_host_likes_and_end_with_a_stall_if_no_short_packet_can() {
    let mut host = disk();
    host.output(cbw(2048, true, &[0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0]));
    let (first, second) = (host.input(512), host.input(512));
    assert_eq!([host.got(first), host.got(second)].concat(), Memory::new(64).bytes[..1024]);
    let third = host.input(1024);
    assert_eq!(host.end(third).map(|end| end.result), Some(Err(Failure::Stall)));
    clear_halt(&mut host, 0x81);
    assert_eq!(status(&mut host), (1024, 0));
}

#[test]
fn what_was_written_is_read_back_and_flushed_on_request() {
    let mut host = disk();
    host.output(cbw(1024, false, &[0x2a, 0, 0, 0, 0, 9, 0, 0, 2, 0]));
    host.output(vec![0xab; 1024]);
    assert_eq!(status(&mut host), (0, 0));
    host.output(cbw(0, false, &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(status(&mut host), (0, 0));
    let (data, residue, code) = read(&mut host, 1024, &[0x28, 0, 0, 0, 0, 9, 0, 0, 2, 0]);
    assert_eq!((data, residue, code), (vec![0xab; 1024], 0, 0));
}

#[test]
fn a_command_that_fails_says_why_when_asked() {
    struct Case {
        name: &'static str,
        block: &'static [u8],
        sense: (u8, u8),
    }
    const CASES: &[Case] = &[
        Case { name: "unknown command", block: &[0xff; 6], sense: (5, 0x20) },
        Case { name: "beyond the end", block: &[0x28, 0, 0, 0, 0, 64, 0, 0, 1, 0], sense: (5, 0x21) },
        Case {
            name: "far beyond the end",
            block: &[0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
            sense: (5, 0x21),
        },
        Case { name: "a page that is not there", block: &[0x12, 1, 0xb0, 0, 64, 0], sense: (5, 0x24) },
        Case { name: "a broken sector", block: &[0x28, 0, 0, 0, 0, 5, 0, 0, 1, 0], sense: (3, 0x11) },
    ];
    for Case { name, block, sense } in CASES {
        let mut host = Host::new(Disk::new(Memory { broken_sector: Some(5), ..Memory::new(64) }, "1"));
        let (data, _, code) = read(&mut host, 512, block);
        assert_eq!((data.len(), code), (0, 1), "{name}");
        let (told, ..) = read(&mut host, 18, &[0x03, 0, 0, 0, 18, 0]);
        assert_eq!((told[2], told[12]), *sense, "{name}");
        let (told, ..) = read(&mut host, 18, &[0x03, 0, 0, 0, 18, 0]);
        assert_eq!(told[2], 0, "{name}: told once");
    }
}

#[test]
fn a_read_only_disk_says_so_and_refuses_writes() {
    let mut host = Host::new(Disk::new(Memory { read_only: true, ..Memory::new(64) }, "1"));
    let (mode, ..) = read(&mut host, 4, &[0x1a, 0, 0x3f, 0, 4, 0]);
    assert_eq!(mode[2], 0x80);
    host.output(cbw(512, false, &WRITE_1));
    let id = host.output(vec![0; 512]);
    assert_eq!(host.end(id).map(|end| end.result), Some(Err(Failure::Stall)));
    clear_halt(&mut host, 0x02);
    assert_eq!(status(&mut host), (512, 1));
}

#[test]
fn the_capacity_is_the_mediums_in_whole_sectors() {
    let mut memory = Memory::new(64);
    memory.bytes.extend([0; 100]);
    let mut host = Host::new(Disk::new(memory, "1"));
    let (ten, ..) = read(&mut host, 8, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(ten, [0, 0, 0, 63, 0, 0, 2, 0]);
    let (sixteen, ..) = read(&mut host, 32, &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0]);
    assert_eq!(sixteen[..12], [0, 0, 0, 0, 0, 0, 0, 63, 0, 0, 2, 0]);
}

#[test]
fn after_a_cbw_that_is_none_only_a_bulk_only_reset_helps() {
    let mut host = disk();
    let id = host.output(vec![0; 31]);
    assert_eq!(host.end(id).map(|end| end.result), Some(Err(Failure::Stall)));
    clear_halt(&mut host, 0x02);
    let id = host.output(cbw(0, false, &TEST_UNIT_READY));
    assert_eq!(
        host.end(id).map(|end| end.result),
        Some(Err(Failure::Stall)),
        "a clear-halt alone does not help"
    );
    assert_eq!(host.control(0x21, 0xff, 0, 0, 0), Ok(Vec::new()));
    clear_halt(&mut host, 0x81);
    clear_halt(&mut host, 0x02);
    assert_eq!(read(&mut host, 512, &READ_1).0.len(), 512);
}

#[test]
fn transfers_queued_ahead_wait_for_their_turn() {
    let mut host = disk();
    let (data, csw) = (host.input(512), host.input(13));
    assert!(host.end(data).is_none());
    host.output(cbw(512, true, &READ_1));
    assert_eq!((host.got(data).len(), host.got(csw).len()), (512, 13));
}

#[test]
fn a_cancelled_transfer_ends_once_and_one_that_comes_late_ends_at_once() {
    let mut host = disk();
    let (first, second) = (host.input(512), host.input(512));
    let mut out = Vec::new();
    let late = RequestId(second.0 + 1);
    host.function.cancel(Default::default(), bulk_in(), late, &mut out);
    assert_eq!(out.iter().map(|end| end.id).collect::<Vec<_>>(), [second, first], "newest first");
    host.keep(out);
    let late = host.input(512);
    assert_eq!(host.end(late).map(|end| end.result), Some(Err(Failure::Cancelled)));
    let next = host.input(512);
    assert!(host.end(next).is_none(), "the endpoint goes on");
}

proptest! {
    #[test]
    fn any_sequence_of_requests_ends_each_exactly_once(
        ops in proptest::collection::vec((0u8..6, any::<[u8; 16]>(), 0u32..3000), 1..60),
    ) {
        let mut host = disk();
        for (op, bytes, size) in ops {
            match op {
                0 => { host.output(cbw(size, bytes[0] & 1 == 0, &bytes)); }
                1 => { host.output(bytes[..usize::from(bytes[0] & 15)].to_vec()); }
                2 => { host.input(size); }
                3 => { host.output(vec![1; size as usize]); }
                4 => {
                    let index = u16::from(bytes[2]);
                    let _ = host.control(bytes[0], bytes[1], u16::from(bytes[3]), index, size as u16);
                }
                _ => {
                    let endpoint = if bytes[0] & 1 == 0 { bulk_in() } else { bulk_out() };
                    let mut out = Vec::new();
                    host.function.cancel(Default::default(), endpoint, RequestId(u64::from(bytes[1])), &mut out);
                    host.keep(out);
                }
            }
        }
        let mut out = Vec::new();
        host.function.reset(Default::default(), RequestId(u64::MAX), &mut out);
        host.keep(out);
        prop_assert_eq!(host.waiting(), 0);
    }
}
