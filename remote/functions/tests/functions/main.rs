//! The software functions as a host drives them.

mod bot;
mod chapter9;
mod disk;
mod host;
mod hostile;
mod keyboard;
mod zero;
