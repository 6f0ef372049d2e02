//! What travels: headers and payloads, as they lie in the bytes. vfio-user specification, host byte order.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What every message begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// The sender's number for this message; repeated by the reply.
    pub id: u16,
    /// See [`Command`].
    pub command: u16,
    /// Bytes of the whole message, this header included.
    pub size: u32,
    /// Type in bits 0 to 3 ([`Header::COMMAND`] or [`Header::REPLY`]), then [`Header::NO_REPLY`] and
    /// [`Header::ERROR`].
    pub flags: u32,
    /// The error number, if `ERROR` is set.
    pub errno: u32,
}

impl Header {
    /// Its length in bytes.
    pub const BYTES: usize = size_of::<Self>();
    /// The bits of the type.
    pub const TYPE: u32 = 0xf;
    /// Type: a command.
    pub const COMMAND: u32 = 0;
    /// Type: a reply.
    pub const REPLY: u32 = 1;
    /// The sender does not want a reply.
    pub const NO_REPLY: u32 = 0x10;
    /// The command failed; nothing follows the header.
    pub const ERROR: u32 = 0x20;
}

/// The commands a client may send and we understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Command {
    /// Negotiate version and capabilities: always first.
    Version = 1,
    /// Guest memory appears.
    DmaMap = 2,
    /// Guest memory goes.
    DmaUnmap = 3,
    /// What the device is.
    GetInfo = 4,
    /// What a region is.
    GetRegionInfo = 5,
    /// What an interrupt type is.
    GetIrqInfo = 7,
    /// Wire, unwire or trigger interrupts.
    SetIrqs = 8,
    /// Read a region.
    RegionRead = 9,
    /// Write a region.
    RegionWrite = 10,
    /// Reset the device.
    DeviceReset = 13,
    /// Several small writes in one message.
    RegionWriteMulti = 15,
}

impl Command {
    /// The command of this number, if we understand it.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Version,
            2 => Self::DmaMap,
            3 => Self::DmaUnmap,
            4 => Self::GetInfo,
            5 => Self::GetRegionInfo,
            7 => Self::GetIrqInfo,
            8 => Self::SetIrqs,
            9 => Self::RegionRead,
            10 => Self::RegionWrite,
            13 => Self::DeviceReset,
            15 => Self::RegionWriteMulti,
            _ => return None,
        })
    }
}

/// Payload of VERSION, before the JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Version {
    /// Major version, 0.
    pub major: u16,
    /// Minor version.
    pub minor: u16,
}

/// Payload of DMA_MAP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DmaMap {
    /// Bytes of this payload.
    pub argsz: u32,
    /// 1: the device may read, 2: it may write.
    pub flags: u32,
    /// Where the memory begins in the file that came along.
    pub offset: u64,
    /// Where it begins in the guest.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

/// Payload of DMA_UNMAP, and of its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DmaUnmap {
    /// Bytes of this payload.
    pub argsz: u32,
    /// 2: everything.
    pub flags: u32,
    /// Where the memory begins in the guest.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

/// Payload of GET_INFO, and of its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DeviceInfo {
    /// Bytes of this payload.
    pub argsz: u32,
    /// 1: can be reset, 2: is a PCI device.
    pub flags: u32,
    /// Regions, BARs and configuration space among them.
    pub regions: u32,
    /// Interrupt types.
    pub irqs: u32,
}

/// Payload of GET_REGION_INFO, and of its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegionInfo {
    /// Bytes of this payload.
    pub argsz: u32,
    /// 1: readable, 2: writable.
    pub flags: u32,
    /// Which region.
    pub index: u32,
    /// Where capabilities begin: 0, there are none.
    pub capabilities: u32,
    /// Bytes; 0: there is no such region.
    pub size: u64,
    /// For mapping it, which we do not offer.
    pub offset: u64,
}

/// Payload of GET_IRQ_INFO, and of its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IrqInfo {
    /// Bytes of this payload.
    pub argsz: u32,
    /// 1: signalled by eventfd.
    pub flags: u32,
    /// Which interrupt type.
    pub index: u32,
    /// How many of it there are.
    pub count: u32,
}

/// Payload of SET_IRQS, before bools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetIrqs {
    /// Bytes of this payload.
    pub argsz: u32,
    /// One kind of data (1 none, 2 bools, 4 eventfds) and one action (8 mask, 0x10 unmask, 0x20 trigger).
    pub flags: u32,
    /// Which interrupt type.
    pub index: u32,
    /// The first vector.
    pub start: u32,
    /// How many vectors.
    pub count: u32,
}

/// Payload of REGION_READ and REGION_WRITE before the data, and of their replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegionAccess {
    /// Where in the region.
    pub offset: u64,
    /// Which region.
    pub region: u32,
    /// Bytes.
    pub count: u32,
}

/// One write of REGION_WRITE_MULTI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SmallWrite {
    /// Where, and how many bytes (at most 8).
    pub at: RegionAccess,
    /// The bytes.
    pub data: [u8; 8],
}

const _: () = {
    assert!(size_of::<Header>() == 16);
    assert!(size_of::<DmaMap>() == 32);
    assert!(size_of::<DmaUnmap>() == 24);
    assert!(size_of::<DeviceInfo>() == 16);
    assert!(size_of::<RegionInfo>() == 32);
    assert!(size_of::<IrqInfo>() == 16);
    assert!(size_of::<SetIrqs>() == 20);
    assert!(size_of::<RegionAccess>() == 16);
    assert!(size_of::<SmallWrite>() == 24);
};
