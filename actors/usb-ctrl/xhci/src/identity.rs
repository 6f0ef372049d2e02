//! Who the controller is on the PCI bus. xHCI 1.2 §5.2.

use pci::{Builder, ConfigSpace, Identity, MsixPlace};

use crate::{
    INTERRUPTERS,
    registers::{BAR_BYTES, MSIX_PENDING, MSIX_TABLE},
};

/// QEMU's generic xHCI function: no operating system has quirks for it, and virtual machines know it.
const IDENTITY: Identity = Identity {
    vendor: 0x1b36,
    device: 0x000d,
    revision: 0x01,
    class: 0x0c_03_30,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
};

/// Serial Bus Release Number: USB 3.0. xHCI 1.2 §5.2.3.
const SBRN: (u16, u8) = (0x60, 0x30);
/// Frame Length Adjustment: 60000 high-speed bit times; storage. xHCI 1.2 §5.2.4.
const FLADJ: (u16, u8, u8) = (0x61, 0x20, 0x3f);

fn function() -> Builder {
    ConfigSpace::builder(IDENTITY)
        .bar64(0, BAR_BYTES)
        .byte(SBRN.0, SBRN.1, 0)
        .byte(FLADJ.0, FLADJ.1, FLADJ.2)
        .pm(0x70)
}

/// The configuration space with one MSI vector; goes with [`crate::Config::vectors`] = 1.
#[must_use]
pub fn config_space() -> ConfigSpace {
    function().msi(0x80, 1).build()
}

/// The configuration space with MSI-X, a vector for each interrupter; any [`crate::Config::vectors`] goes with it.
#[must_use]
pub fn config_space_msix() -> ConfigSpace {
    let place = MsixPlace { vectors: INTERRUPTERS.into(), bar: 0, table: MSIX_TABLE, pending: MSIX_PENDING };
    function().msix(0x90, place).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(space: &ConfigSpace, at: u64) -> u32 {
        let mut data = [0; 4];
        space.read(at, &mut data);
        u32::from_le_bytes(data)
    }

    /// xHCI 1.2 §5.2: drivers bind to the class, and read these.
    #[test]
    fn both_configuration_spaces_are_those_of_an_xhci_function() {
        for (space, msi, msix) in [(config_space(), 1, 0), (config_space_msix(), 0, 8)] {
            assert_eq!(read(&space, 0x08) >> 8, 0x0c_03_30);
            assert_eq!(read(&space, 0x60) & 0xffff, 0x2030, "SBRN, FLADJ");
            assert_eq!(read(&space, 0x10) & 0xf, 4, "a 64-bit BAR");
            let layout = space.layout();
            assert_eq!((layout.bars[0], layout.msi, layout.msix), (0x1_0000, msi, msix));
        }
    }
}
