//! Guest memory as a device sees it.

/// Guest-physical memory, as bus-master accesses of one function see it.
///
/// Addresses are the guest's and may be anything: implementations check every range, split it over mappings, and
/// never panic. Copy once, then parse: what was read is the caller's own, the guest cannot change it afterwards.
pub trait Dma {
    /// Copies guest memory into `data`.
    ///
    /// # Errors
    /// [`DmaError`]; `data` may then be partly filled.
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), DmaError>;

    /// Copies `data` into guest memory.
    ///
    /// # Errors
    /// [`DmaError`]; a part may then have been written.
    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaError>;

    /// Reads the little-endian dword at a 4-byte aligned address so that everything its writer wrote before it is
    /// visible to later reads (acquire). For cycle bits and the like.
    ///
    /// # Errors
    /// [`DmaError`].
    fn observe(&self, address: u64) -> Result<u32, DmaError>;

    /// Writes a little-endian dword at a 4-byte aligned address after everything written before it (release).
    ///
    /// # Errors
    /// [`DmaError`].
    fn publish(&self, address: u64, value: u32) -> Result<(), DmaError>;
}

/// Why a bus-master access failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DmaError {
    /// No memory is mapped at (a part of) the range, or it wraps around the address space.
    #[error("no guest memory at this address")]
    Unmapped,
    /// The memory may not be accessed in this direction.
    #[error("guest memory is protected")]
    Protected,
    /// Command.BME is 0: the function may not master the bus. PCI 3.0 §6.2.2.
    #[error("bus mastering is disabled")]
    BusMasterDisabled,
    /// The address of a dword access is not a multiple of four.
    #[error("misaligned dword access")]
    Misaligned,
}
