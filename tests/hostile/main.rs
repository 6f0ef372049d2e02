//! Remotes that break the rules, play back what was said, read nothing or vanish, before the real host.

mod remote;
mod replayed;
mod slow;
mod vanished;
#[path = "../bench/vmm.rs"]
mod vmm;
