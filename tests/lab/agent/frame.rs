//! What travels between the lab and its agent in the guest: frames on one byte stream each way.
//!
//! ```text
//! +------+---------+-------------+---------------+
//! | kind | command | length      | payload       |
//! | u8   | u32 LE  | u32 LE      | length bytes  |
//! +------+---------+-------------+---------------+
//! ```
//! The guest starts its stream with [`GREETING`], which is how the lab finds the first frame after the guest was
//! reset in the middle of one.

use std::io;

/// The bytes before the first frame of a guest's life. No frame of the lab's own carries them by accident.
pub(crate) const GREETING: &[u8; 25] = b"\n\0lab agent is ready v1\0\n";

/// The most payload one frame may have, in bytes. Longer data travels as several frames.
pub(crate) const MAX_PAYLOAD: usize = 64 * 1024;

/// Bytes before the payload.
pub(crate) const HEADER_LEN: usize = 9;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To the guest: start this command; the payload is a shell script.
    Run,
    /// To the guest: bytes for the command's standard input.
    Stdin,
    /// To the guest: the command's standard input ends.
    StdinEnd,
    /// To the guest: send the signal (payload: its number in decimal) to the command and all its children.
    Signal,
    /// To the lab: bytes of the command's standard output.
    Stdout,
    /// To the lab: bytes of the command's standard error.
    Stderr,
    /// To the lab: the command and everything that held its output is gone; the payload is its exit code as four
    /// bytes, little endian, 128 + N where signal N killed it.
    Exit,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Run, Self::Stdin, Self::StdinEnd, Self::Signal, Self::Stdout, Self::Stderr, Self::Exit];

    fn decode(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// What it says.
    pub(crate) kind: Kind,
    /// Which command it is about; the lab numbers them.
    pub(crate) command: u32,
    /// What goes with it.
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The bytes on the stream.
    ///
    /// # Panics
    /// If the payload is longer than [`MAX_PAYLOAD`].
    #[must_use]
    pub(crate) fn encode(&self) -> Vec<u8> {
        assert!(self.payload.len() <= MAX_PAYLOAD, "the sender splits long payloads");
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.payload.len());
        bytes.push(self.kind as u8);
        bytes.extend(self.command.to_le_bytes());
        bytes.extend((self.payload.len() as u32).to_le_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// What a header says: kind, command, and the length of the payload to follow.
    ///
    /// # Errors
    /// An unknown kind or a length above [`MAX_PAYLOAD`]: the stream is out of step.
    pub(crate) fn decode_header(header: [u8; HEADER_LEN]) -> io::Result<(Kind, u32, usize)> {
        let [kind, c0, c1, c2, c3, l0, l1, l2, l3] = header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        match Kind::decode(kind) {
            Some(kind) if length <= MAX_PAYLOAD => Ok((kind, u32::from_le_bytes([c0, c1, c2, c3]), length)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("not a frame: {header:02x?}"))),
        }
    }
}
