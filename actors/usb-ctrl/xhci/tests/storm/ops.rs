//! What a guest and a remote can do, in whatever order.

use pci::Width;
use proptest::prelude::*;
use wire::usb::{Failure, PacketEnd, Speed};

use crate::world::streamed::{LINEAR, PRIMARY};

/// Anything a guest or a remote can do.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Write { offset: u64, width: Width, value: u64 },
    Read { offset: u64, width: Width },
    Store { at: u64, data: Vec<u8> },
    Trb { at: u64, parameter: u64, status: u32, control: u32 },
    Attach { device: u32, speed: Speed },
    Detach { device: u32 },
    Queue { endpoint: u8, length: u32 },
    Command { length: u32, inward: bool },
    Answer { pick: usize, result: Result<(), Failure>, moved: usize, as_out: bool, packets: Vec<PacketEnd> },
    Again { pick: usize, moved: usize },
    Invent { id: u64 },
    Endpoint { kind: u8, endpoint: u8, stream: u32, place: u64 },
    Configure { drop: u32, add: u32, first: u32 },
    Slot { kind: u8 },
    Abort { bits: u64 },
    Wait { micros: u64 },
    Reset,
}

/// Offsets that mean something, and some that do not.
fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0x40_u64..0x80,
        4 => 0x440_u64..0x540,
        4 => 0x1000_u64..0x1060,
        6 => (0_u64..6).prop_map(|slot| 0x2000 + 4 * slot),
        1 => 0_u64..0x1_0000,
    ]
}

fn width() -> impl Strategy<Value = Width> {
    prop_oneof![
        1 => Just(Width::Byte),
        1 => Just(Width::Word),
        6 => Just(Width::Dword),
        2 => Just(Width::Qword)
    ]
}

/// Values that mean something, mostly: addresses of the driver's memory, doorbell targets, port bits.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        (0_u64..0x20).prop_map(|page| page << 12 | 1),
        0_u64..34,
        (0_u32..32).prop_map(|bit| 1 << bit),
        Just(0x0fe0_0210),
        any::<u64>(),
    ]
}

fn failure() -> impl Strategy<Value = Result<(), Failure>> {
    prop_oneof![
        4 => Just(Ok(())),
        2 => Just(Err(Failure::Cancelled)),
        1 => Just(Err(Failure::Stall)),
        1 => Just(Err(Failure::Fault)),
        1 => Just(Err(Failure::Overflow)),
        1 => Just(Err(Failure::Disconnected)),
    ]
}

/// How packets ended: as many as there were, or not.
fn packets() -> impl Strategy<Value = Vec<PacketEnd>> {
    let packet = (0_u16..1100, failure()).prop_map(|(moved, result)| PacketEnd { moved, result });
    prop_oneof![Just(Vec::new()), proptest::collection::vec(packet, 1..10)]
}

fn speed() -> impl Strategy<Value = Speed> {
    prop_oneof![Just(Speed::Low), Just(Speed::Full), Just(Speed::High), Just(Speed::Super)]
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let align = |(offset, width, value): (u64, Width, u64)| {
        let bytes = width.bytes() as u64;
        (offset / bytes * bytes, width, value & width.mask())
    };
    prop_oneof![
        8 => (offset(), width(), value()).prop_map(align)
            .prop_map(|(offset, width, value)| Op::Write { offset, width, value }),
        1 => (offset(), width(), value()).prop_map(align)
            .prop_map(|(offset, width, _)| Op::Read { offset, width }),
        2 => (0x1000_u64..0x2_0000, proptest::collection::vec(any::<u8>(), 1..64))
            .prop_map(|(at, data)| Op::Store { at, data }),
        8 => (0x30_u64..0x200, 0_u64..16, value(), 0_u32..0x2_0000, 0_u32..64, any::<u32>()).prop_map(
            |(page, index, parameter, status, kind, flags)| Op::Trb {
                at: (page << 8) + 16 * index,
                parameter,
                status,
                control: kind << 10 | flags & 0x0f1f_03ff,
            }
        ),
        1 => (0_u32..4, speed()).prop_map(|(device, speed)| Op::Attach { device, speed }),
        1 => (0_u32..4).prop_map(|device| Op::Detach { device }),
        4 => (2_u8..8, 0_u32..3000).prop_map(|(endpoint, length)| Op::Queue { endpoint, length }),
        2 => (0_u32..3000, any::<bool>()).prop_map(|(length, inward)| Op::Command { length, inward }),
        6 => (prop_oneof![Just(0), any::<usize>()], failure(), 0_usize..3000, any::<bool>(), packets())
            .prop_map(|(pick, result, moved, as_out, packets)| Op::Answer { pick, result, moved, as_out, packets }),
        1 => (any::<usize>(), 0_usize..3000).prop_map(|(pick, moved)| Op::Again { pick, moved }),
        1 => any::<u64>().prop_map(|id| Op::Invent { id }),
        4 => (14_u8..17, 1_u8..8, 0_u32..18, 0_u64..8)
            .prop_map(|(kind, endpoint, stream, place)| Op::Endpoint { kind, endpoint, stream, place }),
        1 => (0_u32..256, 0_u32..256, prop_oneof![3 => Just(0), 1 => Just(PRIMARY << 10 | LINEAR)])
            .prop_map(|(drop, add, first)| Op::Configure { drop, add, first }),
        1 => prop_oneof![Just(10), Just(17), Just(9), Just(23)].prop_map(|kind| Op::Slot { kind }),
        1 => (1_u64..8).prop_map(|bits| Op::Abort { bits }),
        3 => (0_u64..100_000).prop_map(|micros| Op::Wait { micros }),
        1 => Just(Op::Reset),
    ]
}
