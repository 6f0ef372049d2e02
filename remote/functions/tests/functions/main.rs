//! The software functions as a host drives them.

mod disk;
mod host;
mod keyboard;
