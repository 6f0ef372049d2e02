//! Producer rings of the driver.

use super::Host;

/// A TRB as a driver writes it; the ring puts in the cycle bit. xHCI 1.2 §6.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trb {
    /// The first eight bytes.
    pub parameter: u64,
    /// The third dword.
    pub status: u32,
    /// The fourth dword, bit 0 apart.
    pub control: u32,
}

impl Trb {
    /// Interrupt on Short Packet.
    pub const ISP: u32 = 1 << 2;
    /// Chain bit.
    pub const CHAIN: u32 = 1 << 4;
    /// Interrupt On Completion.
    pub const IOC: u32 = 1 << 5;
    /// Immediate Data.
    pub const IDT: u32 = 1 << 6;

    /// A command of this type for this slot.
    #[must_use]
    pub fn command(kind: u8, slot: u8) -> Self {
        Self { control: u32::from(slot) << 24 | u32::from(kind) << 10, ..Self::default() }
    }

    /// A Setup Stage with these eight bytes; `transfer` is 0 for no data, 2 for OUT, 3 for IN.
    #[must_use]
    pub fn setup(bytes: [u8; 8], transfer: u32) -> Self {
        Self {
            parameter: u64::from_le_bytes(bytes),
            status: 8,
            control: transfer << 16 | 2 << 10 | Self::IDT,
        }
    }

    /// An Event Data TRB with this value and IOC.
    #[must_use]
    pub fn event_data(value: u64) -> Self {
        Self { parameter: value, status: 0, control: 7 << 10 | Self::IOC }
    }

    /// The same with more bits in its fourth dword.
    #[must_use]
    pub fn with(self, bits: u32) -> Self {
        Self { control: self.control | bits, ..self }
    }
}

/// A Normal TRB.
#[must_use]
pub fn normal(buffer: u64, length: u32) -> Trb {
    Trb { parameter: buffer, status: length & 0x1_ffff, control: 1 << 10 }
}

/// A ring of one segment that ends with a Link to its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProducerRing {
    base: u64,
    trbs: u32,
    index: u32,
    cycle: bool,
}

impl ProducerRing {
    pub(super) fn new(host: &mut impl Host, base: u64, trbs: u32) -> Self {
        host.store(base, &vec![0; 16 * trbs as usize]);
        Self { base, trbs, index: 0, cycle: true }
    }

    /// Its first TRB.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Where the next TRB goes, and its cycle bit in bit 0.
    #[must_use]
    pub fn enqueue(&self) -> u64 {
        self.address(self.index) | u64::from(self.cycle)
    }

    fn address(&self, index: u32) -> u64 {
        self.base + 16 * u64::from(index)
    }

    /// Adds a TRB; answers where it is.
    pub fn push(&mut self, host: &mut impl Host, trb: Trb) -> u64 {
        let at = self.address(self.index);
        store(host, at, trb, self.cycle);
        self.index += 1;
        if self.index == self.trbs - 1 {
            let link =
                Trb { parameter: self.base, status: 0, control: 6 << 10 | 2 | trb.control & Trb::CHAIN };
            store(host, self.address(self.index), link, self.cycle);
            self.index = 0;
            self.cycle = !self.cycle;
        }
        at
    }
}

/// The cycle bit is what makes a TRB valid: it comes last.
fn store(host: &mut impl Host, at: u64, trb: Trb, cycle: bool) {
    host.store(at, &trb.parameter.to_le_bytes());
    host.store(at + 8, &trb.status.to_le_bytes());
    host.store(at + 12, &(trb.control & !1 | u32::from(cycle)).to_le_bytes());
}
