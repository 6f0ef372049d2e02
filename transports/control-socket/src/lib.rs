//! How a program asks another one that runs on this computer: `farbus-host pair` its `serve`, `farbus-remote lend` its
//! `connect`. One question is a line of JSON, and so is one answer; what they say is the programs' own.
//!
//! ```text
//!   Line::ask(question) ──► Unix socket, mode 0600, in a folder of this user alone ──► Server::serve(|question| answer)
//!          answer       ◄──                                                        ◄──
//! ```
//! Whoever asks is this user or root, by what the kernel says of the peer; even so a question is bounded in size and
//! time, and so are the conversations at the same time ([`server`]).
#![forbid(unsafe_code)]

mod claim;
pub mod client;
pub mod error;
pub mod place;
pub mod server;

use serde::{Serialize, de::DeserializeOwned};

pub use client::Line;
pub use error::{AskError, SocketError};
pub use place::Around;
pub use server::{Server, SocketFile};

/// The longest question, bytes with the end of its line.
pub const QUESTION: usize = 4 << 10;
/// The longest answer, bytes.
pub const ANSWER: usize = 1 << 20;

/// How long something lasts already, as answers tell it to people: as exactly as anybody wants to know.
#[must_use]
pub fn time(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// What is answered to a question.
pub trait Answer: Serialize + DeserializeOwned {
    /// Nothing is done, and why.
    fn refused(why: String) -> Self;
}
