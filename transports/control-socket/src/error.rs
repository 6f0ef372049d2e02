//! What can be wrong with a control socket; whoever shows it adds what to do.

use std::{io, path::PathBuf};

use thiserror::Error;

/// There can be no socket, or it cannot be found.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Somebody else could have put something there.
    #[error("{} is not a folder that this user alone can write to", .0.display())]
    NotAlone(PathBuf),
    /// The folder cannot be made or looked at.
    #[error("the folder {}", .0.display())]
    Folder(PathBuf, #[source] io::Error),
    /// Something else is there, and stays.
    #[error("{} is there and no socket", .0.display())]
    NoSocket(PathBuf),
    /// Another program listens there.
    #[error("another one listens at {}", .0.display())]
    Taken(PathBuf),
    /// The socket cannot be made or reached.
    #[error("the control socket {}", .0.display())]
    Io(PathBuf, #[source] io::Error),
}

/// A question without an answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// The question has more bytes than one may have.
    #[error("a question has at most {} bytes", crate::QUESTION)]
    TooLong,
    /// It cannot be put into JSON.
    #[error("the question cannot be written")]
    Question(#[source] serde_json::Error),
    /// It does not reach the other end.
    #[error("the question is not taken")]
    Write(#[source] io::Error),
    /// The other end is silent.
    #[error("it does not answer")]
    Read(#[source] io::Error),
    /// The other end has closed without a word.
    #[error("it has ended without an answer")]
    Ended,
    /// The other end speaks otherwise: it is of another release, or no program of ours.
    #[error("it answers something else")]
    Answer(#[source] serde_json::Error),
}
