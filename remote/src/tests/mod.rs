//! The actors of a remote among recipients that record, on time that passes when everybody waits.

mod auto;
mod capture;
mod control;
mod host;
mod lender;
mod microphone;
mod port;
mod remote;
mod resume;
mod sound;
mod world;

pub(crate) use world::{attachment, nowhere, usb_device};
