//! Wireshark without its windows, to read what Farbus records.

use std::process::Command;

use anyhow::Result;

use super::apt::Archive;
use super::guest::RELEASE;
use super::{Cache, foreign, key};

const PACKAGES: [&str; 1] = ["tshark"];

/// A command for it, run on this computer. It is fetched when first wanted.
pub(crate) fn tshark(cache: &Cache) -> Result<Command> {
    let name = format!("tshark-{}", key([RELEASE].into_iter().chain(PACKAGES)));
    let root = cache.tree(&name, "Wireshark, to read captures", |root| {
        Archive::open(cache, RELEASE)?.unpack(RELEASE, &PACKAGES, root)
    })?;
    let mut command = foreign(&root, "usr/bin/tshark", "tshark");
    // It would look for them, and for the user's own settings, on this computer.
    command.env("WIRESHARK_DATA_DIR", root.join("usr/share/wireshark")).env("WIRESHARK_CONFIG_DIR", &root);
    command.env("WIRESHARK_PLUGIN_DIR", root.join("none")).env("WIRESHARK_EXTCAP_DIR", root.join("none"));
    Ok(command)
}
