//! How much one call may do: a vCPU waits for it.

/// TRBs that are read from rings or reported from.
const TRBS: u32 = 1024;
/// TDs and commands that are begun or ended.
const TDS: u32 = 64;
/// Payload bytes that are copied: some 20 microseconds.
const BYTES: u32 = 128 << 10;

/// What is left for this call; the rest is for the next tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    trbs: u32,
    tds: u32,
    bytes: u32,
}

impl Budget {
    /// A call's worth.
    pub(crate) fn new() -> Self {
        Self { trbs: TRBS, tds: TDS, bytes: BYTES }
    }

    /// Whether anything may be begun.
    pub(crate) fn left(self) -> bool {
        self.trbs > 0 && self.tds > 0 && self.bytes > 0
    }

    /// Pays for a TRB.
    pub(crate) fn take_trb(&mut self) -> bool {
        let enough = self.trbs > 0;
        self.trbs = self.trbs.saturating_sub(1);
        enough
    }

    /// Pays for a TD or a command.
    pub(crate) fn take_td(&mut self) {
        self.tds = self.tds.saturating_sub(1);
    }

    /// Pays for TRBs that are already there.
    pub(crate) fn spend_trbs(&mut self, trbs: usize) {
        self.trbs = self.trbs.saturating_sub(u32::try_from(trbs).unwrap_or(u32::MAX));
    }

    /// Pays for as many of these bytes as may be copied now; how many that are.
    pub(crate) fn take_bytes(&mut self, bytes: usize) -> usize {
        let taken = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes);
        self.bytes -= taken;
        taken as usize
    }

    /// Pays for bytes that are copied.
    pub(crate) fn spend_bytes(&mut self, bytes: u32) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}
