//! The actor between a guest and remotes, without sockets.

mod microphone;
mod remote;
mod requests;
mod resume;
mod supervision;
mod world;
