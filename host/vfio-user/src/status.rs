//! How a bus is doing, for whoever asks from wherever.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering::Relaxed};

use crate::codec::{Client, Irq};

/// Counters and states of one server. Readable from any thread; values of one moment need not fit together.
#[derive(Debug, Default)]
pub struct Status {
    client: AtomicU8,
    clients: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
    shared_maps: AtomicU64,
    shared_bytes: AtomicU64,
    private_maps: AtomicU64,
    private_bytes: AtomicU64,
    poisoned: AtomicBool,
    msi: AtomicU16,
    msix: AtomicU16,
    intx: AtomicBool,
}

const QEMU: u8 = 1;
const CLOUD_HYPERVISOR: u8 = 2;

impl Status {
    /// The client of the moment, if it has introduced itself.
    #[must_use]
    pub fn client(&self) -> Option<Client> {
        match self.client.load(Relaxed) {
            QEMU => Some(Client::Qemu),
            CLOUD_HYPERVISOR => Some(Client::CloudHypervisor),
            _ => None,
        }
    }

    /// Clients so far, those included that said nothing sensible.
    #[must_use]
    pub fn clients(&self) -> u64 {
        self.clients.load(Relaxed)
    }

    /// Clients that were turned away because there was one already.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Connections that we have ended because of what came over them.
    #[must_use]
    pub fn broken(&self) -> u64 {
        self.broken.load(Relaxed)
    }

    /// Windows of guest memory that the device can reach: their number and their bytes.
    #[must_use]
    pub fn shared_memory(&self) -> (u64, u64) {
        (self.shared_maps.load(Relaxed), self.shared_bytes.load(Relaxed))
    }

    /// Windows that the client announced without sharing the memory: their number and their bytes. A ROM is one;
    /// if there is no shared memory beside them, the VM was started without it (QEMU: `share=on`).
    #[must_use]
    pub fn private_memory(&self) -> (u64, u64) {
        (self.private_maps.load(Relaxed), self.private_bytes.load(Relaxed))
    }

    /// Whether the client has truncated memory that was mapped. Nothing of it is used any more.
    #[must_use]
    pub fn poisoned(&self) -> bool {
        self.poisoned.load(Relaxed)
    }

    /// MSI vectors that are wired to the guest; not 0 means that its driver has enabled MSI.
    #[must_use]
    pub fn msi_vectors(&self) -> u16 {
        self.msi.load(Relaxed)
    }

    /// MSI-X vectors that are wired to the guest.
    #[must_use]
    pub fn msix_vectors(&self) -> u16 {
        self.msix.load(Relaxed)
    }

    /// Whether the interrupt pin is wired to the guest.
    #[must_use]
    pub fn intx(&self) -> bool {
        self.intx.load(Relaxed)
    }

    pub(crate) fn connected(&self) {
        self.clients.fetch_add(1, Relaxed);
    }

    pub(crate) fn greeted(&self, client: Client) {
        let code = match client {
            Client::Qemu => QEMU,
            Client::CloudHypervisor => CLOUD_HYPERVISOR,
        };
        self.client.store(code, Relaxed);
    }

    pub(crate) fn disconnected(&self) {
        self.client.store(0, Relaxed);
        self.poisoned.store(false, Relaxed);
    }

    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(crate) fn broke(&self) {
        self.broken.fetch_add(1, Relaxed);
    }

    pub(crate) fn mapped(&self, bytes: u64, shared: bool) {
        let (maps, total) = self.memory(shared);
        maps.fetch_add(1, Relaxed);
        total.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn unmapped(&self, bytes: u64, shared: bool) {
        let (maps, total) = self.memory(shared);
        maps.fetch_sub(1, Relaxed);
        total.fetch_sub(bytes, Relaxed);
    }

    pub(crate) fn unmapped_all(&self) {
        for (maps, total) in [self.memory(true), self.memory(false)] {
            maps.store(0, Relaxed);
            total.store(0, Relaxed);
        }
    }

    pub(crate) fn poison(&self) {
        self.poisoned.store(true, Relaxed);
    }

    pub(crate) fn wired(&self, irq: Irq, vectors: u16) {
        match irq {
            Irq::Msi => self.msi.store(vectors, Relaxed),
            Irq::MsiX => self.msix.store(vectors, Relaxed),
            Irq::IntX => self.intx.store(vectors > 0, Relaxed),
        }
    }

    fn memory(&self, shared: bool) -> (&AtomicU64, &AtomicU64) {
        if shared {
            (&self.shared_maps, &self.shared_bytes)
        } else {
            (&self.private_maps, &self.private_bytes)
        }
    }
}
