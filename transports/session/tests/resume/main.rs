//! A session over links that come and go.

mod adversary;
#[path = "../common/frames.rs"]
mod frames;
mod hand_over;
mod model;
mod rules;
mod security;
mod world;
