//! Building a configuration space. Mistakes here are ours, not a guest's: they panic when the device is built.

use arbitrary_int::{u3, u11};

use super::{Byte, CONFIG_BYTES, Command, ConfigSpace, MsiControl, MsixControl, PowerControl, Status};
use crate::Layout;

/// Who a function says it is. PCI 3.0 §6.2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Class code, 24 bits: base class, sub-class, programming interface (xHCI: 0x0c_03_30).
    pub class: u32,
    /// Subsystem Vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
}

/// Where MSI-X keeps its table and its pending bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsixPlace {
    /// Vectors, 1 to 2048.
    pub vectors: u16,
    /// The BAR that both are in, 0 to 5.
    pub bar: u8,
    /// The table's offset, a multiple of 8; 16 bytes each vector.
    pub table: u32,
    /// The offset of the pending bits, a multiple of 8; 8 bytes for each begun 64 vectors.
    pub pending: u32,
}

impl MsixPlace {
    /// Whether a BAR's byte belongs to the table or the pending bits.
    pub(crate) fn covers(self, bar: u8, offset: u64) -> bool {
        let (table, pending) = (u64::from(self.table), u64::from(self.pending));
        bar == self.bar
            && ((table..table + 16 * u64::from(self.vectors)).contains(&offset)
                || (pending..pending + 8 * u64::from(self.vectors).div_ceil(64)).contains(&offset))
    }
}

/// A configuration space that is being put together. Capabilities are chained in the order in which they are added;
/// the caller chooses where they lie (drivers expect some devices' at fixed places).
#[derive(Debug)]
pub struct Builder {
    space: ConfigSpace,
    claimed: Vec<(usize, usize)>,
    last_link: u8,
}

impl Builder {
    pub(super) fn new(identity: Identity) -> Self {
        let space = ConfigSpace {
            bytes: vec![Byte::default(); CONFIG_BYTES],
            layout: Layout { bars: [0; 6], msi: 0, msix: 0, intx: false },
            msi: None,
            msix: None,
        };
        let writable_command = Command::DEFAULT
            .with_memory_space(true)
            .with_bus_master(true)
            .with_parity_error_response(true)
            .with_serr_enable(true)
            .with_interrupt_disable(true);
        let clearable_status = Status::DEFAULT
            .with_master_data_parity_error(true)
            .with_signaled_target_abort(true)
            .with_received_target_abort(true)
            .with_received_master_abort(true)
            .with_signaled_system_error(true)
            .with_detected_parity_error(true);
        assert!(identity.class >> 24 == 0, "a class code has 24 bits");
        Self { space, claimed: Vec::new(), last_link: 0x34 }
            .put(0x00, &identity.vendor.to_le_bytes(), &[])
            .put(0x02, &identity.device.to_le_bytes(), &[])
            .put(Command::OFFSET.into(), &[0; 2], &writable_command.raw_value().to_le_bytes())
            .clearable(Status::OFFSET.into(), &clearable_status.raw_value().to_le_bytes())
            .put(0x08, &(identity.class << 8 | u32::from(identity.revision)).to_le_bytes(), &[])
            .put(0x0c, &[0], &[0xff]) // Cache Line Size
            .put(0x2c, &identity.subsystem_vendor.to_le_bytes(), &[])
            .put(0x2e, &identity.subsystem.to_le_bytes(), &[])
            .put(0x3c, &[0], &[0xff]) // Interrupt Line
            .claim(0x00, 0x40)
    }

    /// A 32-bit memory BAR, not prefetchable: index 0 to 5, size a power of two from 16 bytes to 2 GiB.
    #[must_use]
    pub fn bar32(self, index: u8, size: u32) -> Self {
        assert!(size.is_power_of_two() && size >= 16, "a BAR's size is a power of two");
        self.bar(index, size.into(), &[0; 4], &(!(size - 1)).to_le_bytes())
    }

    /// A 64-bit memory BAR, not prefetchable: index 0 to 4 (it takes the next one too), size a power of two.
    #[must_use]
    pub fn bar64(self, index: u8, size: u64) -> Self {
        assert!(index < 5, "a 64-bit BAR takes two");
        assert!(size.is_power_of_two() && size >= 16, "a BAR's size is a power of two");
        self.bar(index, size, &[0x04, 0, 0, 0, 0, 0, 0, 0], &(!(size - 1)).to_le_bytes())
    }

    /// An interrupt pin, INTA#. PCI 3.0 §6.2.4.
    #[must_use]
    pub fn intx(mut self) -> Self {
        self.space.layout.intx = true;
        self.put(0x3d, &[1], &[])
    }

    /// MSI with 64-bit addresses, at this offset: 14 bytes. Vectors: 1, 2, 4, 8, 16 or 32. PCI 3.0 §6.8.1.
    #[must_use]
    pub fn msi(mut self, at: u8, vectors: u16) -> Self {
        assert!(vectors.is_power_of_two() && vectors <= 32, "MSI vectors are a power of two up to 32");
        let control = MsiControl::DEFAULT.with_address_64(true);
        let capable = control.with_multiple_message_capable(u3::new(vectors.trailing_zeros() as u8));
        let writable = MsiControl::DEFAULT.with_enable(true).with_multiple_message_enable(u3::new(7));
        let [value, mask] = [capable, writable].map(|control| control.raw_value().to_le_bytes());
        self.space.msi = Some(at);
        self.space.layout.msi = vectors;
        self.capability(
            at,
            0x05,
            &[value[0], value[1], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[mask[0], mask[1], 0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        )
    }

    /// MSI-X at this offset: 12 bytes. PCI 3.0 §6.8.2.
    #[must_use]
    pub fn msix(mut self, at: u8, place: MsixPlace) -> Self {
        assert!((1..=2048).contains(&place.vectors) && place.bar < 6, "MSI-X has 1 to 2048 vectors");
        assert!(
            place.table.is_multiple_of(8) && place.pending.is_multiple_of(8),
            "MSI-X offsets have 3 free bits"
        );
        let control = MsixControl::DEFAULT.with_table_size(u11::new(place.vectors - 1));
        let writable = MsixControl::DEFAULT.with_enable(true).with_function_mask(true);
        let mut value = control.raw_value().to_le_bytes().to_vec();
        value.extend((place.table | u32::from(place.bar)).to_le_bytes());
        value.extend((place.pending | u32::from(place.bar)).to_le_bytes());
        self.space.msix = Some((at, place));
        self.space.layout.msix = place.vectors;
        self.capability(at, 0x11, &value, &writable.raw_value().to_le_bytes())
    }

    /// Power management at this offset: 8 bytes; D0 and D3hot, no events. PCI Power Management 1.2 §3.2.
    #[must_use]
    pub fn pm(self, at: u8) -> Self {
        let control = PowerControl::DEFAULT.with_no_soft_reset(true).raw_value().to_le_bytes();
        let version_3 = [0x03, 0x00];
        self.capability(at, 0x01, &[version_3[0], version_3[1], control[0], control[1], 0, 0], &[0, 0, 0x03])
    }

    /// PCI Express at this offset: 60 bytes; an integrated endpoint without a link. PCIe 3.0 §7.8.
    #[must_use]
    pub fn express(self, at: u8) -> Self {
        let mut value = [0; 58];
        value[0] = 0x92; // Capabilities: version 2, Root Complex Integrated Endpoint
        value[3] = 0x80; // Device Capabilities: 128-byte payloads, Role-Based Error Reporting
        let mut writable = [0; 58];
        (writable[6], writable[7]) = (0x1f, 0x78); // Device Control: error reporting, ordering, read request size
        self.capability(at, 0x10, &value, &writable)
    }

    /// Any capability at this offset (a multiple of 4 from 0x40): what follows its id and next pointer, and which
    /// of those bits a guest may write (missing mask bytes are 0).
    #[must_use]
    pub fn capability(self, at: u8, id: u8, body: &[u8], writable: &[u8]) -> Self {
        assert!(at >= 0x40 && at.is_multiple_of(4), "capabilities are dword aligned, behind the header");
        let link = self.last_link;
        let status = Status::DEFAULT.with_capabilities_list(true).raw_value().to_le_bytes();
        let mut this = self
            .claim(at.into(), 2 + body.len())
            .put(Status::OFFSET.into(), &status, &[])
            .put(link.into(), &[at], &[])
            .put(at.into(), &[id, 0], &[])
            .put(usize::from(at) + 2, body, writable);
        this.last_link = at + 1;
        this
    }

    /// One byte of the device's own space, 0x40 to 0xfff: its default, and which of its bits a guest may write.
    #[must_use]
    pub fn byte(self, at: u16, value: u8, writable: u8) -> Self {
        self.claim(at.into(), 1).put(at.into(), &[value], &[writable])
    }

    /// The finished space, in its reset state.
    #[must_use]
    pub fn build(mut self) -> ConfigSpace {
        if let Some(place) = self.space.msix_place() {
            let size = self.space.layout.bars.get(usize::from(place.bar)).copied().unwrap_or(0);
            let end = u64::from(place.table) + 16 * u64::from(place.vectors);
            assert!(end <= size && u64::from(place.pending) < size, "MSI-X lies outside its BAR");
        }
        self.space.reset();
        self.space
    }

    fn bar(mut self, index: u8, size: u64, value: &[u8], writable: &[u8]) -> Self {
        let slot = self.space.layout.bars.get_mut(usize::from(index)).expect("BARs have the numbers 0 to 5");
        *slot = size;
        let at = 0x10 + 4 * usize::from(index);
        assert!(
            self.space.bytes.iter().skip(at).take(value.len()).all(|byte| byte.writable == 0),
            "BARs overlap"
        );
        self.put(at, value, writable)
    }

    fn claim(mut self, at: usize, length: usize) -> Self {
        assert!(at + length <= CONFIG_BYTES, "outside configuration space");
        let overlaps = self.claimed.iter().any(|&(from, bytes)| at < from + bytes && from < at + length);
        assert!(!overlaps, "two things at {at:#x} of configuration space");
        self.claimed.push((at, length));
        self
    }

    fn put(mut self, at: usize, value: &[u8], writable: &[u8]) -> Self {
        let masks = writable.iter().copied().chain(core::iter::repeat(0));
        for ((byte, value), mask) in self.space.bytes.iter_mut().skip(at).zip(value).zip(masks) {
            byte.reset = *value;
            byte.writable = mask;
        }
        self
    }

    fn clearable(mut self, at: usize, mask: &[u8]) -> Self {
        for (byte, mask) in self.space.bytes.iter_mut().skip(at).zip(mask) {
            byte.write_1_to_clear = *mask;
        }
        self
    }
}
