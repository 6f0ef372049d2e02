//! The web endpoint, and a remote that is not ours: a page in a browser.

mod endpoint;
mod https;
mod page;
#[path = "../bench/vmm.rs"]
mod vmm;
