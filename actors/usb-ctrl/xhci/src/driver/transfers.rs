//! Transfers as the driver queues them.

use pci::Width;

use super::{Driver, Event, Host, Trb, normal};

impl<H: Host> Driver<H> {
    /// Puts a TRB on a transfer ring, the doorbell apart; answers where it is.
    pub fn queue(&mut self, slot: u8, endpoint: u8, trb: Trb) -> u64 {
        let ring = self.rings.get_mut(&(slot, endpoint)).expect("a configured endpoint");
        ring.push(&mut self.host, trb)
    }

    /// Where the next TRB of an endpoint's ring goes, and its cycle bit in bit 0.
    pub fn enqueue(&self, slot: u8, endpoint: u8) -> u64 {
        self.rings.get(&(slot, endpoint)).expect("a configured endpoint").enqueue()
    }

    /// Rings the doorbell of an endpoint.
    pub fn ring_doorbell(&mut self, slot: u8, endpoint: u8) {
        self.host.write(self.doorbells + 4 * u64::from(slot), Width::Dword, endpoint.into());
    }

    /// Queues one TD of one TRB with IOC and ISP, and rings.
    pub fn transfer(&mut self, slot: u8, endpoint: u8, buffer: u64, length: u32) -> u64 {
        let at = self.queue(slot, endpoint, normal(buffer, length).with(Trb::IOC | Trb::ISP));
        self.ring_doorbell(slot, endpoint);
        at
    }

    /// Queues a control transfer with IOC on its status stage and ISP on its data stage, and rings. Answers where its
    /// TRBs are; without data the second is the third.
    pub fn control(&mut self, slot: u8, setup: [u8; 8], buffer: u64) -> [u64; 3] {
        let [request_type, .., low, high] = setup;
        let length = u32::from(u16::from_le_bytes([low, high]));
        let inward = request_type & 0x80 != 0;
        let kind = match (length, inward) {
            (0, _) => 0,
            (_, false) => 2,
            (_, true) => 3,
        };
        let first = self.queue(slot, 1, Trb::setup(setup, kind));
        let data = (length > 0).then(|| {
            let direction = if inward { 1 << 16 } else { 0 };
            let trb = Trb { parameter: buffer, status: length, control: 3 << 10 | direction | Trb::ISP };
            self.queue(slot, 1, trb)
        });
        let direction = if inward && length > 0 { 0 } else { 1 << 16 };
        let status =
            self.queue(slot, 1, Trb { parameter: 0, status: 0, control: 4 << 10 | direction | Trb::IOC });
        self.ring_doorbell(slot, 1);
        [first, data.unwrap_or(status), status]
    }

    /// Set TR Dequeue Pointer to where the driver will put its next TRB, or to a TRB of its own.
    pub fn set_dequeue(&mut self, slot: u8, endpoint: u8, to: Option<u64>) -> Event {
        let ring = self.rings.get(&(slot, endpoint)).expect("a configured endpoint");
        let parameter = to.unwrap_or_else(|| ring.enqueue());
        self.command(Trb { parameter, ..Trb::command(16, slot).with(u32::from(endpoint) << 16) })
    }

    /// Stop Endpoint, Reset Endpoint and the like: a command with an endpoint id.
    pub fn endpoint_command(&mut self, kind: u8, slot: u8, endpoint: u8) -> Trb {
        Trb::command(kind, slot).with(u32::from(endpoint) << 16)
    }
}
