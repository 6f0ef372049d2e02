//! The server over a real socket, against two clients: our own, which can say what no VMM says, and the crate that
//! Cloud Hypervisor uses.

mod clients;
mod cloud_hypervisor;
mod desk;
mod memory;
mod protocol;
