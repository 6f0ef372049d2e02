use pci::Width;

use super::*;
use crate::driver::{Bare, Host};
use crate::{BAR_BYTES, Config};

/// Registers that answer a write with something else than the written bits: tested by name elsewhere.
const ACTIVE: &[Register] = &[
    Register::GlobalControl,
    Register::ImmediateStatus,
    Register::CorbReadPointer,
    Register::RirbWritePointer,
];

fn out_of_reset() -> Bare {
    let mut bare = Bare::new(Config::default(), 0x1000);
    bare.write(0x08, Width::Dword, 1);
    bare
}

fn width(bytes: u16) -> Width {
    // 3-byte registers are looked at together with their neighbour.
    Width::from_bytes(usize::from(bytes).next_power_of_two()).unwrap()
}

fn value_mask(bytes: u16) -> u64 {
    (1u64 << (8 * bytes)) - 1
}

/// Every row with its place in the register space.
fn rows() -> Vec<Row<Register>> {
    let streams = (0..8).flat_map(|number: u8| {
        let base = STREAMS + STREAM_BYTES * u16::from(number);
        stream::TABLE
            .iter()
            .map(move |row| row.map(|register| Register::Stream(number, register)).moved(base))
    });
    TABLE.iter().copied().chain(streams).collect()
}

#[test]
fn after_a_reset_every_register_has_the_value_of_its_row() {
    let mut bare = out_of_reset();
    for row in rows() {
        let expected = match row.register {
            Register::Capabilities => 0x4401,
            Register::GlobalControl => 1,
            Register::StateChange => 1,
            Register::InterruptStatus | Register::WallClock => 0,
            _ => row.reset,
        };
        let read = bare.read(row.offset.into(), width(row.bytes)) & value_mask(row.bytes);
        assert_eq!(read, u64::from(expected), "{:?}", row.register);
    }
}

#[test]
fn ones_stay_only_in_writable_bits() {
    for row in rows().into_iter().filter(|row| !ACTIVE.contains(&row.register)) {
        let mut bare = out_of_reset();
        let before = bare.read(row.offset.into(), width(row.bytes)) & value_mask(row.bytes);
        // A stream's control bits are tried without SRST and RUN, which have rules of their own.
        let quiet = matches!(row.register, Register::Stream(_, StreamRegister::Control));
        let (ones, writable) =
            if quiet { (0x00ff_fffc, row.writable & !3) } else { (u64::MAX, row.writable) };
        bare.write(row.offset.into(), width(row.bytes), ones & value_mask(row.bytes));
        let writable = match row.register {
            Register::InterruptControl => 0xc000_00ff,
            Register::StreamSync => 0xff,
            _ => writable,
        };
        let expected = (before & !u64::from(row.clears)) | u64::from(writable);
        let read = bare.read(row.offset.into(), width(row.bytes)) & value_mask(row.bytes);
        assert_eq!(read, expected, "{:?}", row.register);
    }
}

#[test]
fn bytes_and_words_of_a_register_can_be_written_alone() {
    let mut bare = out_of_reset();
    bare.write(0x42, Width::Word, 0x1234);
    bare.write(0x41, Width::Byte, 0xab);
    assert_eq!(bare.read(0x40, Width::Dword), 0x1234_ab00);
    assert_eq!(bare.read(0x43, Width::Byte), 0x12);
    bare.write(0x40, Width::Qword, 0x0123_4567_89ab_cdef);
    assert_eq!(bare.read(0x40, Width::Qword), 0x0123_4567_89ab_cd80);
    // CORBCTL, CORBSTS and CORBSIZE in one access, between what does not exist.
    bare.write(0x4c, Width::Dword, 0xffff_ff01);
    assert_eq!(bare.read(0x4c, Width::Dword), 0x0042_0001);
}

#[test]
fn stream_control_keeps_its_third_byte_when_the_first_is_written() {
    let mut bare = out_of_reset();
    bare.write(0x80, Width::Dword, 0x0050_0000);
    bare.write(0x80, Width::Byte, 0x1c);
    assert_eq!(bare.read(0x80, Width::Dword), 0x2050_001c);
}

#[test]
fn what_does_not_exist_reads_0_and_ignores_writes() {
    let mut bare = out_of_reset();
    let last_stream = u64::from(STREAMS + 8 * STREAM_BYTES);
    for offset in
        (last_stream..u64::from(ALIASES)).step_by(4).chain([0x14, 0x28, 0x2c, 0x3c, 0x6c, 0x78, 0x94])
    {
        bare.write(offset, Width::Dword, u64::MAX);
        assert_eq!(bare.read(offset, Width::Dword), 0, "{offset:#x}");
    }
}

#[test]
fn only_the_wall_clock_and_positions_have_aliases() {
    for offset in 0..u64::from(BAR_BYTES - u32::from(ALIASES)) {
        let alias = Register::at(offset + u64::from(ALIASES));
        let original = Register::at(offset).map(|row| row.register);
        let expected = original.filter(|register| {
            matches!(register, Register::WallClock | Register::Stream(_, StreamRegister::Position))
        });
        assert_eq!(alias.map(|row| row.register), expected.filter(|_| offset < 0x2000), "{offset:#x}");
    }
    let mut bare = out_of_reset();
    bare.now += core::time::Duration::from_secs(1);
    assert_eq!(bare.read(0x2030, Width::Dword), 24_000_000);
}

#[test]
fn rows_do_not_overlap() {
    let mut bytes: Vec<_> = rows().iter().flat_map(|row| row.offset..row.offset + row.bytes).collect();
    bytes.sort_unstable();
    assert!(bytes.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn in_reset_only_gctl_wakeen_and_statests_can_be_written() {
    let mut bare = Bare::new(Config::default(), 0x1000);
    for row in rows().into_iter().filter(|row| !row.register.lives_in_reset()) {
        let before = bare.read(row.offset.into(), width(row.bytes));
        bare.write(row.offset.into(), width(row.bytes), u64::MAX);
        assert_eq!(bare.read(row.offset.into(), width(row.bytes)), before, "{:?}", row.register);
    }
    bare.write(0x0c, Width::Word, 0x0001);
    assert_eq!(bare.read(0x0c, Width::Word), 1);
}
