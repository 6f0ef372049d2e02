//! The buffer descriptor list: a ring of pieces of guest memory. HDA 1.0a §3.6.3.

use pci::{Dma, DmaError};

/// A piece of the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Buffer {
    address: u64,
    /// At least 1.
    length: u64,
    /// Interrupt on completion.
    interrupt: bool,
    /// From this piece's first byte to the end of the next piece with [`Self::interrupt`], this one included.
    to_interrupt: Option<u64>,
}

/// The ring as it was when the stream started, and how far it has been walked.
///
/// The guest's list is read once and never again (it may not change while the stream runs). Empty pieces are left
/// out, so that every step makes way. The walk wraps behind the last piece, whatever CBL says.
#[derive(Debug, Clone)]
pub(crate) struct Ring {
    buffers: Vec<Buffer>,
    bytes: u64,
    index: usize,
    /// Bytes of `buffers[index]` that are done: fewer than it has.
    offset: u64,
}

/// Why there is no ring: a descriptor error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadList {
    /// The list cannot be read.
    Memory,
    /// All its pieces are empty.
    Empty,
}

impl Ring {
    /// Reads a list of `last` + 1 descriptors.
    pub(crate) fn read(dma: &dyn Dma, list: u64, last: u8) -> Result<Self, BadList> {
        let mut raw = [0; 16 * 256];
        let raw = raw.get_mut(..16 * (usize::from(last) + 1)).ok_or(BadList::Memory)?;
        dma.read(list, raw).map_err(|_: DmaError| BadList::Memory)?;
        let mut buffers: Vec<_> = raw.chunks_exact(16).filter_map(Buffer::decode).collect();
        let bytes = buffers.iter().map(|buffer| buffer.length).sum();
        // Twice backwards around the ring: the second time knows what follows behind the end.
        let mut ahead: Option<u64> = None;
        for _ in 0..2 {
            for buffer in buffers.iter_mut().rev() {
                ahead = if buffer.interrupt { Some(0) } else { ahead }.map(|bytes| bytes + buffer.length);
                buffer.to_interrupt = ahead;
            }
        }
        if buffers.is_empty() {
            return Err(BadList::Empty);
        }
        Ok(Self { buffers, bytes, index: 0, offset: 0 })
    }

    /// The bytes of one lap, at least 1.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The bytes from here to the end of the next piece that interrupts.
    pub(crate) fn to_interrupt(&self) -> Option<u64> {
        self.buffers.get(self.index)?.to_interrupt.map(|bytes| bytes - self.offset)
    }

    /// Walks `bytes` on, handing each piece of memory on the way to `visit`, in order. Answers whether the end of a
    /// piece that interrupts was passed.
    pub(crate) fn walk(
        &mut self,
        mut bytes: u64,
        mut visit: impl FnMut(u64, usize) -> Result<(), DmaError>,
    ) -> Result<bool, DmaError> {
        let mut interrupts = false;
        while bytes > 0 {
            let Some(buffer) = self.buffers.get(self.index) else { break };
            let step = bytes.min(buffer.length - self.offset);
            visit(buffer.address.wrapping_add(self.offset), usize::try_from(step).unwrap_or(usize::MAX))?;
            bytes -= step;
            self.offset += step;
            if self.offset == buffer.length {
                interrupts |= buffer.interrupt;
                self.offset = 0;
                self.index = (self.index + 1) % self.buffers.len();
            }
        }
        Ok(interrupts)
    }
}

impl Buffer {
    fn decode(raw: &[u8]) -> Option<Self> {
        let address = raw.first_chunk().copied().map(u64::from_le_bytes)?;
        let length = raw.get(8..)?.first_chunk().copied().map(u32::from_le_bytes)?;
        let interrupt = raw.get(12)? & 1 == 1;
        (length > 0).then(|| Self { address, length: length.into(), interrupt, to_interrupt: None })
    }
}

#[cfg(test)]
mod tests {
    use pci::Ram;

    use super::*;

    fn ring(buffers: &[(u64, u32, bool)]) -> Result<Ring, BadList> {
        let ram = Ram::new(0, 4096);
        for (at, (address, length, interrupt)) in buffers.iter().enumerate() {
            ram.write(16 * at as u64, &address.to_le_bytes()).unwrap();
            ram.write(16 * at as u64 + 8, &length.to_le_bytes()).unwrap();
            ram.write(16 * at as u64 + 12, &u32::from(*interrupt).to_le_bytes()).unwrap();
        }
        Ring::read(&ram, 0, (buffers.len() - 1) as u8)
    }

    #[test]
    fn the_walk_goes_around_in_order_and_reports_only_ends_that_interrupt() {
        let mut ring = ring(&[(0x1000, 4, true), (0x2000, 0, true), (0x3000, 8, false)]).unwrap();
        assert_eq!(ring.bytes(), 12);
        let mut seen = Vec::new();
        let mut walk = |ring: &mut Ring, bytes| {
            seen.clear();
            let hit = ring.walk(bytes, |address, length| {
                seen.push((address, length));
                Ok(())
            });
            (hit.unwrap(), seen.clone())
        };
        assert_eq!(ring.to_interrupt(), Some(4));
        assert_eq!(walk(&mut ring, 3), (false, vec![(0x1000, 3)]));
        assert_eq!(ring.to_interrupt(), Some(1));
        assert_eq!(walk(&mut ring, 1), (true, vec![(0x1003, 1)]));
        assert_eq!(ring.to_interrupt(), Some(12));
        assert_eq!(walk(&mut ring, 13), (true, vec![(0x3000, 8), (0x1000, 4), (0x3000, 1)]));
        assert_eq!(ring.to_interrupt(), Some(11));
        assert_eq!(walk(&mut ring, 0), (false, vec![]));
    }

    #[test]
    fn a_ring_without_interrupts_has_no_next_one() {
        assert_eq!(ring(&[(0, 4, false), (8, 4, false)]).unwrap().to_interrupt(), None);
    }

    #[test]
    fn a_list_that_is_empty_or_nowhere_is_no_ring() {
        assert_eq!(ring(&[(0x1000, 0, true); 3]).unwrap_err(), BadList::Empty);
        assert_eq!(Ring::read(&Ram::new(0, 64), 48, 1).unwrap_err(), BadList::Memory);
        assert_eq!(Ring::read(&Ram::new(0, 64), u64::MAX - 15, 255).unwrap_err(), BadList::Memory);
    }
}
