//! The place where machines are made.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use tokio::task::spawn_blocking;

use crate::desk::DeskBuilder;
use crate::provision::{Cache, Initramfs, Kernel, Qemu, coturn, incumbents, rustc_for_wasm, tshark};
use crate::qtest::QtestBuilder;
use crate::vm::VmBuilder;

/// A cache and a QEMU. Many labs may be open at once, in one process or several.
#[derive(Clone, Debug)]
pub struct Lab {
    cache: Cache,
    qemu: Qemu,
}

impl Lab {
    /// Opens the lab in the user's cache; provides QEMU first if there is none.
    ///
    /// # Errors
    /// If QEMU cannot be provided.
    pub async fn open() -> Result<Self> {
        spawn_blocking(|| Self::at(Cache::open()?)).await?
    }

    /// Opens the lab in a cache.
    ///
    /// # Errors
    /// If QEMU cannot be provided. Blocks meanwhile.
    pub fn at(cache: Cache) -> Result<Self> {
        let qemu = Qemu::find(&cache).context("providing QEMU")?;
        Ok(Self { cache, qemu })
    }

    /// A VM to be booted. The name, of letters, digits and hyphens, is also the guest's host name.
    pub fn vm(&self, name: &str) -> VmBuilder<'_> {
        VmBuilder::new(self, name)
    }

    /// A desk to be booted: the remote computer, as a VM. The name is as for [`Lab::vm`].
    pub fn desk(&self, name: &str) -> DeskBuilder<'_> {
        DeskBuilder::new(self, name)
    }

    /// A machine without processor, firmware and guest, whose bus is driven from here.
    pub fn qtest(&self, name: &str) -> QtestBuilder<'_> {
        QtestBuilder::new(self, name)
    }

    /// The stacks to be measured beside Farbus, as a cpio archive for [`Vm::unpack`](crate::Vm::unpack) that brings the
    /// commands `usbredirect`, `usbip` and `usbipd`; fetched if they are not there yet.
    ///
    /// # Errors
    /// If they cannot be fetched.
    pub async fn incumbents(&self) -> Result<Vec<u8>> {
        let cache = self.cache.clone();
        spawn_blocking(move || incumbents(&cache)).await?.context("providing the stacks to be measured")
    }

    /// A command for `tshark`, to be run on this computer; fetched if it is not there yet.
    ///
    /// # Errors
    /// If it cannot be fetched.
    pub async fn tshark(&self) -> Result<Command> {
        let cache = self.cache.clone();
        spawn_blocking(move || tshark(&cache)).await?.context("providing tshark")
    }

    /// A command for coturn's `turnserver`, to be run on this computer; fetched if it is not there yet.
    ///
    /// # Errors
    /// If it cannot be fetched.
    pub async fn coturn(&self) -> Result<Command> {
        let cache = self.cache.clone();
        spawn_blocking(move || coturn(&cache)).await?.context("providing coturn")
    }

    /// A Rust compiler that has the target `wasm32-unknown-unknown`: the one in use, or one that is fetched if it is not
    /// there yet.
    ///
    /// # Errors
    /// If it cannot be fetched.
    pub async fn rustc_for_wasm(&self) -> Result<PathBuf> {
        let cache = self.cache.clone();
        spawn_blocking(move || rustc_for_wasm(&cache)).await?.context("providing a compiler for wasm32")
    }

    /// The QEMU that runs its machines.
    #[must_use]
    pub fn qemu(&self) -> &Qemu {
        &self.qemu
    }

    /// A kernel and what it boots into.
    pub(crate) async fn kernel(&self, package: &str, modules: &[String]) -> Result<(Kernel, Initramfs)> {
        let (cache, package, modules) = (self.cache.clone(), package.to_owned(), modules.to_vec());
        let provide = spawn_blocking(move || {
            let kernel = Kernel::unpack(&cache, &package)?;
            let modules: Vec<_> = modules.iter().map(String::as_str).collect();
            let initramfs = Initramfs::build(&cache, &kernel, &modules)?;
            anyhow::Ok((kernel, initramfs))
        });
        provide.await?.context("providing a kernel")
    }
}
