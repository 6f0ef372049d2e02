//! Guest memory made of a vector.

use core::cell::RefCell;

use crate::{Dma, DmaError};

/// Plain memory from an address on: for tests, benches, and models that are driven without a VM.
#[derive(Debug, Clone)]
pub struct Ram {
    base: u64,
    bytes: RefCell<Vec<u8>>,
}

impl Ram {
    /// Zeroed memory.
    #[must_use]
    pub fn new(base: u64, size: usize) -> Self {
        Self { base, bytes: RefCell::new(vec![0; size]) }
    }

    /// The first address.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    fn range(&self, address: u64, length: usize) -> Result<core::ops::Range<usize>, DmaError> {
        let start = address.checked_sub(self.base).and_then(|start| usize::try_from(start).ok());
        let start = start.ok_or(DmaError::Unmapped)?;
        let end = start.checked_add(length).filter(|end| *end <= self.bytes.borrow().len());
        Ok(start..end.ok_or(DmaError::Unmapped)?)
    }
}

impl Dma for Ram {
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), DmaError> {
        let range = self.range(address, data.len())?;
        data.copy_from_slice(self.bytes.borrow().get(range).ok_or(DmaError::Unmapped)?);
        Ok(())
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaError> {
        let range = self.range(address, data.len())?;
        self.bytes.borrow_mut().get_mut(range).ok_or(DmaError::Unmapped)?.copy_from_slice(data);
        Ok(())
    }

    fn observe(&self, address: u64) -> Result<u32, DmaError> {
        if !address.is_multiple_of(4) {
            return Err(DmaError::Misaligned);
        }
        let mut data = [0; 4];
        self.read(address, &mut data)?;
        Ok(u32::from_le_bytes(data))
    }

    fn publish(&self, address: u64, value: u32) -> Result<(), DmaError> {
        if !address.is_multiple_of(4) {
            return Err(DmaError::Misaligned);
        }
        self.write(address, &value.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_lies_outside() {
        let ram = Ram::new(0x1000, 16);
        ram.publish(0x100c, 0x1234_5678).unwrap();
        assert_eq!(ram.observe(0x100c), Ok(0x1234_5678));
        for (address, length) in [(0xfff, 1), (0x1010, 1), (0x100f, 2), (u64::MAX, 2), (0x1000, 17)] {
            assert_eq!(
                ram.read(address, &mut vec![0; length]),
                Err(DmaError::Unmapped),
                "{address:#x}+{length}"
            );
            assert_eq!(
                ram.write(address, &vec![0; length]),
                Err(DmaError::Unmapped),
                "{address:#x}+{length}"
            );
        }
        assert_eq!(ram.observe(0x1002), Err(DmaError::Misaligned));
    }
}
