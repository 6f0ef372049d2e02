//! The programs of the two stacks for USB over a network that Debian has, to be measured beside Farbus.

use anyhow::Result;

use super::apt::Archive;
use super::guest::RELEASE;
use super::programs::pack_foreign;
use super::{Cache, key};

const PACKAGES: [&str; 2] = ["usbredirect", "usbip"];
const PROGRAMS: [&str; 3] = ["usr/bin/usbredirect", "usr/sbin/usbip", "usr/sbin/usbipd"];
/// Where they live in the guest, with their libraries.
const HOME: &str = "opt/incumbents";

/// A cpio archive that makes them commands of the guest in whose root it is unpacked. They are fetched when first wanted:
/// nothing but the measurement needs them.
pub(crate) fn incumbents(cache: &Cache) -> Result<Vec<u8>> {
    let name = format!("incumbents-{}", key([RELEASE].into_iter().chain(PACKAGES)));
    let root = cache.tree(&name, "the stacks to be measured beside Farbus", |root| {
        Archive::open(cache, RELEASE)?.unpack(RELEASE, &PACKAGES, root)
    })?;
    pack_foreign(HOME, &root, &PROGRAMS)
}
