//! Compiles the guest agent to a static program, so that it runs in any guest whatever C library that guest has.
//!
//! The agent is one small program of the standard library alone; a cargo package of its own could not be built for
//! another linkage than its workspace without a second cargo run.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=agent");
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let agent = PathBuf::from(variable("OUT_DIR")).join("agent");
    let status = Command::new(variable("RUSTC"))
        .args(["--edition", "2024", "--crate-name", "agent", "--target", "x86_64-unknown-linux-gnu"])
        .args(["-Copt-level=s", "-Cpanic=abort", "-Cstrip=symbols", "-Ctarget-feature=+crt-static"])
        .arg("-o")
        .arg(&agent)
        .arg("agent/main.rs")
        .status()
        .expect("rustc can be started");
    assert!(status.success(), "the guest agent does not compile");
    assert!(fs::metadata(&agent).is_ok_and(|file| file.len() > 0), "rustc wrote no agent");
}
