//! What is fuzzed: whatever comes from a guest, a remote, a device or a VMM.
//!
//! ```text
//!   make fuzz   libfuzzer/fuzz_targets ──bytes──►┐
//!   make test   tests/replay.rs: corpus ─────────┴──► TARGETS: bytes become actions, which must not break a rule
//! ```
//! A target panics if a rule is broken; any bytes at all are an input. What `make fuzz` finds belongs into `corpus`
//! with the fix.
#![forbid(unsafe_code)]

mod devices;
mod hda_ops;
mod remote_msgs;
mod session_links;
mod sound_path;
mod usb_descriptors;
mod vfio_user_step;
mod xhci_ops;

/// A target: carries out the actions that these bytes stand for.
pub type Target = fn(&[u8]);

/// Every target with its name, which is its folder in the corpus and its fuzzer, too.
pub const TARGETS: &[(&str, Target)] = &[
    ("xhci_ops", xhci_ops::run),
    ("hda_ops", hda_ops::run),
    ("remote_msgs", remote_msgs::run),
    ("session_links", session_links::run),
    ("sound_path", sound_path::run),
    ("usb_descriptors", usb_descriptors::run),
    ("vfio_user_step", vfio_user_step::run),
];

/// Runs the target of this name.
///
/// # Panics
/// If a rule is broken, or there is no such target.
pub fn run(name: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = found.unwrap_or_else(|| panic!("no target {name}"));
    target(data);
}
