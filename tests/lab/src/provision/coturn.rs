//! A STUN and TURN server that is not ours, for links over WebRTC.

use std::process::Command;

use anyhow::Result;

use super::apt::Archive;
use super::guest::RELEASE;
use super::{Cache, foreign, key};

const PACKAGES: [&str; 1] = ["coturn"];

/// A command for `turnserver`, run on this computer. It is fetched when first wanted.
pub(crate) fn coturn(cache: &Cache) -> Result<Command> {
    let name = format!("coturn-{}", key([RELEASE].into_iter().chain(PACKAGES)));
    let root = cache.tree(&name, "coturn, a server for STUN and TURN", |root| {
        Archive::open(cache, RELEASE)?.unpack(RELEASE, &PACKAGES, root)
    })?;
    Ok(foreign(&root, "usr/bin/turnserver", "turnserver"))
}
