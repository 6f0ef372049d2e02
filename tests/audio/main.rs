//! The VM's sound card, both ways, with a stock guest's own tools: what it plays and records by `hw:` is compared frame
//! by frame with what the remote heard and said.

mod cards;
mod codec;
mod desk;
mod jacks;
mod levels;
mod lifecycle;
mod microphone;
mod network;
mod pcm;
mod playback;
mod registers;
mod sound_server;
