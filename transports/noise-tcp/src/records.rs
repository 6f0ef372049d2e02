//! Records: many small frames in one, one large frame in one, and the switch to the next key.

use bytes::{Buf, Bytes, BytesMut};
use link::{Frame, LinkError};
use snow::TransportState;
use wire::Lane;

/// The longest ciphertext: what a Noise message may have.
const MAX_CIPHERTEXT: usize = 65_535;
const TAG: usize = 16;
/// The length in front of a record.
const PREFIX: usize = 2;
/// `lane u8 | u16 len` in front of a frame.
const FRAME_PREFIX: usize = 3;
/// The longest frame: alone in a record, with room for the switch to the next key behind it.
pub(crate) const MAX_FRAME: usize = MAX_CIPHERTEXT - TAG - 2 * FRAME_PREFIX;
/// Waiting frames of so many bytes make a record. Less would be a record for each chunk and another for what little
/// waits behind it; more would be chosen too early.
const RECORD_FULL: usize = 16 * 1024;
/// Incoming bytes that are read at once. At least one record.
const READ_BUFFER: usize = 256 * 1024;

/// Pseudo lane: the next record of this direction has the next key. Last in its record.
const REKEY: u8 = 0xf0;
/// Pseudo lane: the link is closed; the bytes are a reason for people.
const CLOSE: u8 = 0xf1;

/// When a direction takes its next key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RekeyAfter {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

/// Sealed bytes that are kept: one record at least can be sealed while others wait to be written.
const SEALED: usize = 4 * (PREFIX + MAX_CIPHERTEXT);

/// Frames on their way out: collected, then sealed into records.
pub(crate) struct Sealer {
    plain: Vec<u8>,
    sealed: Box<[u8]>,
    /// The part of `sealed` that is not written yet.
    unwritten: std::ops::Range<usize>,
    limit: RekeyAfter,
    used: RekeyAfter,
}

impl Sealer {
    pub(crate) fn new(limit: RekeyAfter) -> Self {
        Self {
            plain: Vec::with_capacity(MAX_CIPHERTEXT),
            sealed: vec![0; SEALED].into(),
            unwritten: 0..0,
            limit,
            used: RekeyAfter { records: 0, bytes: 0 },
        }
    }

    pub(crate) fn rekey_after(&mut self, limit: RekeyAfter) {
        self.limit = limit;
    }

    /// Bytes for the socket.
    pub(crate) fn unwritten(&self) -> &[u8] {
        &self.sealed[self.unwritten.clone()]
    }

    pub(crate) fn written(&mut self, len: usize) {
        self.unwritten.start += len;
        if self.unwritten.is_empty() {
            self.unwritten = 0..0;
        }
    }

    /// Whether the socket has taken some of the sealed bytes, and not all: it is full.
    pub(crate) fn torn(&self) -> bool {
        self.unwritten.start > 0
    }

    /// Whether two more records can be sealed: what waits, and a frame that does not fit behind it.
    pub(crate) fn room(&self) -> bool {
        self.sealed.len() - self.unwritten.end >= 2 * (PREFIX + MAX_CIPHERTEXT)
    }

    /// Whether nothing waits to be sealed.
    pub(crate) fn is_empty(&self) -> bool {
        self.plain.is_empty()
    }

    /// Whether what waits should be sealed before more is taken.
    pub(crate) fn full(&self) -> bool {
        self.plain.len() >= RECORD_FULL
    }

    /// Takes a frame. To be called when there is room.
    pub(crate) fn push(&mut self, frame: &Frame, noise: &mut TransportState) -> Result<(), LinkError> {
        if self.plain.len() + FRAME_PREFIX + frame.len() > MAX_FRAME + FRAME_PREFIX {
            self.seal(noise)?;
        }
        self.put(frame.lane as u8, &frame.head, &frame.body);
        Ok(())
    }

    /// Takes the notice that the link is closed. To be called when everything is written.
    pub(crate) fn push_close(&mut self, reason: &str) {
        self.put(CLOSE, reason.as_bytes(), &[]);
    }

    fn put(&mut self, lane: u8, head: &[u8], body: &[u8]) {
        self.plain.push(lane);
        self.plain.extend_from_slice(&((head.len() + body.len()) as u16).to_be_bytes());
        self.plain.extend_from_slice(head);
        self.plain.extend_from_slice(body);
    }

    /// Makes a record of what waits, of nothing as well. To be called when there is room for one.
    pub(crate) fn seal(&mut self, noise: &mut TransportState) -> Result<(), LinkError> {
        self.used.records += 1;
        self.used.bytes += (self.plain.len() + TAG) as u64;
        let rekey = self.used.records >= self.limit.records || self.used.bytes >= self.limit.bytes;
        if rekey {
            self.put(REKEY, &[], &[]);
        }
        let (prefix, ciphertext) = self.sealed[self.unwritten.end..].split_at_mut(PREFIX);
        // Only a used-up nonce can fail here, after 2^64 records.
        let len = noise.write_message(&self.plain, ciphertext).map_err(misbehaved)?;
        prefix.copy_from_slice(&(len as u16).to_be_bytes());
        self.unwritten.end += PREFIX + len;
        self.plain.clear();
        if rekey {
            noise.rekey_outgoing();
            self.used = RekeyAfter { records: 0, bytes: 0 };
        }
        Ok(())
    }
}

/// What a record holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Frame(Lane, Bytes),
    Closed(String),
}

/// Bytes on their way in.
pub(crate) struct Opener {
    buffer: Box<[u8]>,
    /// The part of `buffer` that holds bytes which belong to no opened record yet.
    unread: std::ops::Range<usize>,
    /// What is left of the opened record.
    record: Bytes,
}

impl Opener {
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; READ_BUFFER].into(), unread: 0..0, record: Bytes::new() }
    }

    /// Room for bytes of the socket; never empty when [`Self::open`] said that it needs more.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.unread.is_empty() {
            self.unread = 0..0;
        } else if self.buffer.len() - self.unread.start < PREFIX + MAX_CIPHERTEXT {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        &mut self.buffer[self.unread.end..]
    }

    pub(crate) fn filled(&mut self, len: usize) {
        self.unread.end += len;
    }

    /// Opens the next record, if all of it is here. Returns whether it was.
    pub(crate) fn open(&mut self, noise: &mut TransportState) -> Result<bool, LinkError> {
        let Some((prefix, rest)) = self.buffer[self.unread.clone()].split_first_chunk::<PREFIX>() else {
            return Ok(false);
        };
        let len = usize::from(u16::from_be_bytes(*prefix));
        if len < TAG {
            return Err(LinkError::Misbehaved(format!("record of {len} bytes")));
        }
        let Some(ciphertext) = rest.get(..len) else { return Ok(false) };
        // As long as the ciphertext: then the cipher works in place.
        let mut plain = BytesMut::zeroed(len);
        let plain_len = noise.read_message(ciphertext, &mut plain).map_err(misbehaved)?;
        plain.truncate(plain_len);
        self.record = plain.freeze();
        self.unread.start += PREFIX + len;
        Ok(true)
    }

    /// The next item of the opened record.
    pub(crate) fn next(&mut self, noise: &mut TransportState) -> Result<Option<Item>, LinkError> {
        if self.record.is_empty() {
            return Ok(None);
        }
        let torn = || LinkError::Misbehaved("a record ends within a frame".to_owned());
        let &[lane, high, low] = self.record.first_chunk::<FRAME_PREFIX>().ok_or_else(torn)?;
        let len = usize::from(u16::from_be_bytes([high, low]));
        if self.record.len() < FRAME_PREFIX + len {
            return Err(torn());
        }
        let whole = self.record.len();
        self.record.advance(FRAME_PREFIX);
        let bytes = self.record.split_to(len);
        match lane {
            REKEY if len == 0 && self.record.is_empty() => {
                noise.rekey_incoming();
                Ok(None)
            }
            CLOSE => Ok(Some(Item::Closed(link::cut_reason(&String::from_utf8_lossy(&bytes)).to_owned()))),
            lane => match Lane::from_wire(lane) {
                // A small frame must not keep a large record in memory.
                Some(lane) if len < whole / 2 => Ok(Some(Item::Frame(lane, Bytes::copy_from_slice(&bytes)))),
                Some(lane) => Ok(Some(Item::Frame(lane, bytes))),
                None => Err(LinkError::Misbehaved(format!("frame on lane {lane:#04x}"))),
            },
        }
    }
}

fn misbehaved(error: snow::Error) -> LinkError {
    LinkError::Misbehaved(format!("record does not decrypt: {error}"))
}

#[cfg(test)]
mod tests;
