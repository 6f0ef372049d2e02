//! The actor between a guest and remotes, without sockets.

mod microphone;
mod remote;
mod resume;
mod supervision;
mod world;
