//! The end that asks.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{ANSWER, AskError, QUESTION, SocketError};

/// How long whoever listens may take for an answer that it has at hand, or has to open a device for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A conversation with whoever listens. It blocks: a command has nothing else to do.
#[derive(Debug)]
pub struct Line(BufReader<UnixStream>);

impl Line {
    /// Calls whoever listens there; `None` if nobody does.
    ///
    /// # Errors
    /// The socket cannot be reached although somebody may listen.
    pub fn open(socket: &Path) -> Result<Option<Self>, SocketError> {
        match UnixStream::connect(socket) {
            Ok(stream) => Ok(Some(Self(BufReader::new(stream)))),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                Ok(None)
            }
            Err(error) => Err(SocketError::Io(socket.to_owned(), error)),
        }
    }

    /// Asks, and waits so long for the answer.
    ///
    /// # Errors
    /// The other end ends, speaks otherwise, or says nothing for so long.
    pub fn ask<A: DeserializeOwned>(
        &mut self,
        question: &impl Serialize,
        patience: Duration,
    ) -> Result<A, AskError> {
        let mut line = serde_json::to_vec(question).map_err(AskError::Question)?;
        line.push(b'\n');
        if line.len() > QUESTION {
            return Err(AskError::TooLong);
        }
        let stream = self.0.get_mut();
        stream.set_read_timeout(Some(patience)).map_err(AskError::Write)?;
        stream.set_write_timeout(Some(patience)).map_err(AskError::Write)?;
        stream.write_all(&line).map_err(AskError::Write)?;
        let mut answer = Vec::new();
        (&mut self.0).take(ANSWER as u64).read_until(b'\n', &mut answer).map_err(AskError::Read)?;
        if answer.is_empty() {
            return Err(AskError::Ended);
        }
        serde_json::from_slice(&answer).map_err(AskError::Answer)
    }
}
