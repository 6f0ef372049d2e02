//! The server over a real socket, against two clients: our own, which can say what no VMM says, and the crate that
//! Cloud Hypervisor uses.

mod black_box;
mod cloud_hypervisor;
mod desk;
