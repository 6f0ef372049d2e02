//! Bulk-Only Transport ("BOT") from the host's side.

use functions::{Disk, Function};
use wire::{
    Lane,
    usb::{Failure, RequestId},
};

use crate::host::{Host, Memory, bulk_in, data};

pub(crate) const READ_1: [u8; 10] = [0x28, 0, 0, 0, 0, 2, 0, 0, 1, 0];
pub(crate) const WRITE_1: [u8; 10] = [0x2a, 0, 0, 0, 0, 2, 0, 0, 1, 0];
pub(crate) const TEST_UNIT_READY: [u8; 6] = [0; 6];

/// Endpoint addresses.
pub(crate) const IN: u16 = 0x81;
pub(crate) const OUT: u16 = 0x02;

/// What a control request without data gives that worked.
pub(crate) const DONE: Result<Vec<u8>, Failure> = Ok(Vec::new());

pub(crate) fn disk() -> Host<Disk<Memory>> {
    Host::new(Disk::new(Memory::new(64), "1"))
}

/// A command block wrapper. BOT §5.1.
pub(crate) fn cbw(length: u32, input: bool, block: &[u8]) -> Vec<u8> {
    let mut cbw = b"USBC\x01\x02\x03\x04".to_vec();
    cbw.extend(length.to_le_bytes());
    cbw.extend([if input { 0x80 } else { 0 }, 0, block.len() as u8]);
    cbw.extend(block);
    cbw.resize(31, 0);
    cbw
}

pub(crate) fn clear_halt(host: &mut Host<Disk<Memory>>, address: u16) {
    assert_eq!(host.control(0x02, 1, 0, address, 0), DONE);
}

pub(crate) fn stalled(host: &Host<Disk<Memory>>, id: RequestId) -> bool {
    host.end(id).is_some_and(|end| end.result == Err(Failure::Stall))
}

/// The status: residue and code. BOT §5.2.
pub(crate) fn status(host: &mut Host<Disk<Memory>>) -> (u32, u8) {
    let id = host.input(13);
    let csw = host.got(id);
    assert_eq!(&csw[..8], b"USBS\x01\x02\x03\x04");
    (u32::from_le_bytes(csw[8..12].try_into().unwrap()), csw[12])
}

/// A command with data for the host; what came, residue and code.
pub(crate) fn read(host: &mut Host<Disk<Memory>>, length: u32, block: &[u8]) -> (Vec<u8>, u32, u8) {
    let out = host.output(cbw(length, true, block));
    assert_eq!(host.end(out).map(|end| end.result), Some(Ok(())));
    let id = host.input(length);
    let end = host.end(id).expect("data or a stall").clone();
    if stalled(host, id) {
        clear_halt(host, IN);
    }
    let (residue, code) = status(host);
    (data(&end), residue, code)
}

/// A command with data of the host in one piece; residue and code.
pub(crate) fn write(host: &mut Host<Disk<Memory>>, block: &[u8], bytes: Vec<u8>) -> (u32, u8) {
    host.output(cbw(bytes.len() as u32, false, block));
    let id = host.output(bytes);
    if stalled(host, id) {
        clear_halt(host, OUT);
    }
    status(host)
}

#[test]
fn the_thirteen_cases_end_as_bot_6_7_says() {
    // What the host announces, which way, what the device wants; whether the data stalls, residue and code.
    type Case = (&'static str, u32, bool, &'static [u8], bool, u32, u8);
    const CASES: [Case; 13] = [
        ("(1) Hn = Dn", 0, false, &TEST_UNIT_READY, false, 0, 0),
        ("(2) Hn < Di", 0, true, &READ_1, false, 0, 2),
        ("(3) Hn < Do", 0, false, &WRITE_1, false, 0, 2),
        ("(4) Hi > Dn", 512, true, &TEST_UNIT_READY, true, 512, 0),
        ("(5) Hi > Di", 1024, true, &READ_1, false, 512, 0),
        ("(6) Hi = Di", 512, true, &READ_1, false, 0, 0),
        ("(7) Hi < Di", 100, true, &READ_1, false, 0, 2),
        ("(8) Hi <> Do", 512, true, &WRITE_1, true, 512, 2),
        ("(9) Ho > Dn", 512, false, &TEST_UNIT_READY, true, 512, 0),
        ("(10) Ho <> Di", 512, false, &READ_1, true, 512, 2),
        ("(11) Ho > Do", 1024, false, &WRITE_1, false, 512, 0),
        ("(12) Ho = Do", 512, false, &WRITE_1, false, 0, 0),
        ("(13) Ho < Do", 100, false, &WRITE_1, true, 100, 2),
    ];
    for (name, announced, input, block, stalls, residue, code) in CASES {
        let mut host = disk();
        host.output(cbw(announced, input, block));
        if announced > 0 {
            let id = if input { host.input(announced) } else { host.output(vec![7; announced as usize]) };
            assert!(host.end(id).is_some(), "{name}: the data phase ends");
            assert_eq!(stalled(&host, id), stalls, "{name}");
            if stalls {
                clear_halt(&mut host, if input { IN } else { OUT });
            }
        }
        assert_eq!(status(&mut host), (residue, code), "{name}");
        assert_eq!(read(&mut host, 512, &READ_1).0.len(), 512, "{name}: the next command works");
    }
}

#[test]
fn data_that_no_command_wants_are_swallowed_however_they_are_cut() {
    let mut host = Host::new(Disk::high_speed(Memory::new(64), "1"));
    host.output(cbw(2048, false, &WRITE_1));
    for _ in 0..4 {
        let id = host.output(vec![9; 512]);
        assert_eq!(host.end(id).map(|end| end.result), Some(Ok(())));
    }
    assert_eq!(status(&mut host), (1536, 0));
    assert_eq!(read(&mut host, 512, &[0x28, 0, 0, 0, 0, 3, 0, 0, 1, 0]).0, Memory::new(64).bytes[1536..2048]);
}

#[test]
fn a_zero_length_packet_ends_the_data_early() {
    let mut host = Host::new(Disk::high_speed(Memory::new(64), "1"));
    host.output(cbw(1024, false, &[0x2a, 0, 0, 0, 0, 2, 0, 0, 2, 0]));
    host.output(vec![9; 512]);
    host.output(vec![]);
    assert_eq!(status(&mut host), (512, 0));
}

#[test]
fn data_are_read_in_as_many_pieces_as_the_host_likes_and_end_with_a_stall_if_no_short_packet_can() {
    let mut host = disk();
    host.output(cbw(2048, true, &[0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0]));
    let (first, second) = (host.input(512), host.input(512));
    assert_eq!([host.got(first), host.got(second)].concat(), Memory::new(64).bytes[..1024]);
    let third = host.input(1024);
    assert!(stalled(&host, third));
    clear_halt(&mut host, IN);
    assert_eq!(status(&mut host), (1024, 0));
}

#[test]
fn after_a_cbw_that_is_none_only_a_bulk_only_reset_helps() {
    for nonsense in [vec![0; 31], cbw(0, false, &TEST_UNIT_READY)[..30].to_vec(), vec![]] {
        let mut host = disk();
        let id = host.output(nonsense);
        assert!(stalled(&host, id));
        clear_halt(&mut host, OUT);
        let id = host.output(cbw(0, false, &TEST_UNIT_READY));
        assert!(stalled(&host, id), "a clear-halt alone does not help");
        assert_eq!(host.control(0x21, 0xff, 0, 0, 0), DONE);
        clear_halt(&mut host, IN);
        clear_halt(&mut host, OUT);
        assert_eq!(read(&mut host, 512, &READ_1).0.len(), 512);
    }
}

#[test]
fn a_bulk_only_reset_in_the_middle_of_a_command_ends_it() {
    let mut host = disk();
    host.output(cbw(1024, true, &[0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0]));
    let id = host.input(512);
    assert_eq!(host.got(id).len(), 512);
    assert_eq!(host.control(0x21, 0xff, 0, 0, 0), DONE);
    assert_eq!(read(&mut host, 512, &READ_1), (Memory::new(64).bytes[1024..1536].to_vec(), 0, 0));
}

#[test]
fn the_only_unit_is_number_0() {
    let mut host = disk();
    assert_eq!(host.control(0xa1, 0xfe, 0, 0, 1), Ok(vec![0]), "GET MAX LUN");
    let mut command = cbw(0, false, &TEST_UNIT_READY);
    command[13] = 1;
    host.output(command);
    assert_eq!(status(&mut host), (0, 1));
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
fn what_waits_is_carried_out_only_when_its_end_is_asked_for() {
    let medium = Memory::new(64);
    let reads = medium.reads.clone();
    let mut host = Host::new(Disk::new(medium, "1"));
    host.output(cbw(0x8000, true, &[0x28, 0, 0, 0, 0, 0, 0, 0, 64, 0]));
    for _ in 0..8 {
        host.submit_unasked(4096);
    }
    assert_eq!(reads.get(), 0);
    assert!(host.function.poll(host.now, Lane::Int).is_none(), "another lane's room is not this one's");
    assert!(host.function.poll(host.now, Lane::Bulk).is_some());
    assert_eq!(reads.get(), 1);
}

#[test]
fn a_cancelled_transfer_ends_once_and_one_that_comes_late_ends_at_once() {
    let mut host = disk();
    let (first, second) = (host.input(512), host.input(512));
    let late = RequestId(second.0 + 1);
    host.function.cancel(bulk_in(), late);
    assert_eq!(host.poll(), [second, first], "newest first");
    let late = host.input(512);
    assert_eq!(host.end(late).map(|end| end.result), Some(Err(Failure::Cancelled)));
    let next = host.input(512);
    assert!(host.end(next).is_none(), "the endpoint goes on");
}
