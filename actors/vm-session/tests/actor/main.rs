//! The actor between a guest and remotes, without sockets.

mod microphone;
mod supervision;
mod world;
