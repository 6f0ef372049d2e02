//! The cases of testusb that a guest runs.

/// A case and what it needs said; the rest is as the kernel's own scripts have it. Lengths that vary must be whole
/// packets where the test reads (4, 8), and may be odd elsewhere.
pub(crate) struct Case {
    pub(crate) numbers: &'static [u32],
    pub(crate) arguments: &'static str,
}

/// What a source and sink of bulk data can be asked: all but isochronous and interrupt transfers.
pub(crate) const BULK_AND_CONTROL: [Case; 4] = [
    Case {
        numbers: &[0, 1, 2, 3, 5, 6, 7, 9, 10, 11, 12, 13, 14, 17, 18, 19, 20, 21, 24, 29],
        arguments: "-c 20 -s 1024 -v 421 -g 8",
    },
    // Lengths in whole packets, at either speed.
    Case { numbers: &[4, 8], arguments: "-c 20 -s 4096 -v 1024 -g 8" },
    Case { numbers: &[27, 28], arguments: "-c 8 -s 65536 -g 16" },
    // Entries that are no multiple of anything.
    Case { numbers: &[7], arguments: "-c 20 -s 4096 -v 41 -g 16" },
];

/// What takes a gadget zero of Farbus's own: isochronous, interrupt.
pub(crate) const ISOCHRONOUS_AND_INTERRUPT: [Case; 2] = [
    Case { numbers: &[15, 16, 22, 23], arguments: "-c 20 -s 1024 -v 421 -g 8" },
    Case { numbers: &[25, 26], arguments: "-c 20 -s 512" },
];
