//! A Rust compiler that knows wasm32, to show that what a browser will need can be built for one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::apt::Archive;
use super::{Cache, key, run};

const TARGET: &str = "wasm32-unknown-unknown";
/// The first Debian release whose compiler is not older than ours.
const RELEASE: &str = "forky";
/// A compiler, and a standard library for the target that is of the same version.
const PACKAGES: [&str; 2] = ["rustc", "libstd-rust-dev-wasm32"];
/// Runs the compiler with the loader and the libraries of the root that this lies in.
const WRAPPER: &str = r#"#!/bin/sh
root=$(dirname "$(readlink -f "$0")")
libraries=$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu
exec "$root/lib64/ld-linux-x86-64.so.2" --library-path "$libraries" --argv0 rustc "$root/usr/bin/rustc" "$@"
"#;

/// The compiler in use if it has the target, else Debian's, fetched when first wanted.
pub(crate) fn rustc_for_wasm(cache: &Cache) -> Result<PathBuf> {
    let own = PathBuf::from("rustc");
    let library = run(Command::new(&own).args(["--print", "target-libdir", "--target", TARGET]));
    if library.is_ok_and(|folder| Path::new(folder.trim_end()).exists()) {
        return Ok(own);
    }
    let name = format!("rustc-{}", key([RELEASE, WRAPPER].into_iter().chain(PACKAGES)));
    let root = cache.tree(&name, "a Rust compiler that knows wasm32", |root| {
        Archive::open_testing(cache, RELEASE)?.unpack(RELEASE, &PACKAGES, root)?;
        let wrapper = root.join("rustc");
        fs::write(&wrapper, WRAPPER)?;
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
        run(Command::new(&wrapper).arg("--version")).map(drop)
    })?;
    Ok(root.join("rustc"))
}
