//! Cutting a stream of bytes, and the descriptors that came with it, into messages.

use std::collections::VecDeque;

use zerocopy::FromBytes;

use super::{Header, MAX_FDS, MAX_MESSAGE};

/// How much is asked of the socket at a time.
const CHUNK: usize = 64 * 1024;

/// The step is lost: no telling where the next message begins. The connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of {size} bytes was announced")]
pub struct Broken {
    /// The size in the header.
    pub size: u32,
}

/// Received bytes that wait to be looked at, in one buffer that is used again and again.
///
/// Descriptors travel with the first byte of their message, and the kernel ends a read behind the bytes that had
/// some: those of one read belong to the last message that began in it, or else to the one under way.
#[derive(Debug)]
pub struct Inbox<F> {
    buffer: Vec<u8>,
    head: usize,
    tail: usize,
    /// Bytes consumed since the beginning: where `head` is in the stream.
    consumed: u64,
    /// Descriptors, and where in the stream their message begins.
    descriptors: VecDeque<(u64, Vec<F>)>,
}

impl<F> Default for Inbox<F> {
    fn default() -> Self {
        Self { buffer: vec![0; CHUNK], head: 0, tail: 0, consumed: 0, descriptors: VecDeque::new() }
    }
}

impl<F> Inbox<F> {
    /// Room for more bytes, never empty.
    pub fn space(&mut self) -> &mut [u8] {
        if self.head == self.tail {
            (self.head, self.tail) = (0, 0);
            // After a large message: back to the usual size.
            if self.buffer.len() > CHUNK {
                self.buffer.truncate(CHUNK);
                self.buffer.shrink_to_fit();
            }
        }
        let announced = self.announced().unwrap_or(0).min(MAX_MESSAGE);
        if self.tail == self.buffer.len() || self.head + announced > self.buffer.len() {
            self.buffer.copy_within(self.head..self.tail, 0);
            (self.head, self.tail) = (0, self.tail - self.head);
            let wanted = announced.max(self.tail + 1);
            if self.buffer.len() < wanted {
                self.buffer.resize(wanted, 0);
            }
        }
        self.buffer.get_mut(self.tail..).unwrap_or_default()
    }

    /// The first `bytes` bytes of [`Self::space`] were filled, and these descriptors came with them.
    pub fn received(&mut self, bytes: usize, descriptors: Vec<F>) {
        self.tail = self.tail.saturating_add(bytes).min(self.buffer.len());
        if !descriptors.is_empty() {
            let start = self.last_begun();
            let waiting = match self.descriptors.back_mut() {
                Some((at, waiting)) if *at == start => {
                    waiting.extend(descriptors);
                    waiting
                }
                _ => &mut self.descriptors.push_back_mut((start, descriptors)).1,
            };
            // One more than any message may have is enough to be refused; a dribble must not collect them.
            waiting.truncate(MAX_FDS + 1);
        }
    }

    /// The length of the message in front, if it is complete.
    ///
    /// # Errors
    /// [`Broken`], if its header announces a size that no message has.
    pub fn ready(&self) -> Result<Option<usize>, Broken> {
        let Some(announced) = self.announced() else { return Ok(None) };
        if !(Header::BYTES..=MAX_MESSAGE).contains(&announced) {
            return Err(Broken { size: u32::try_from(announced).unwrap_or(u32::MAX) });
        }
        Ok((announced <= self.tail - self.head).then_some(announced))
    }

    /// The first `length` bytes, at most what is there.
    #[must_use]
    pub fn front(&self, length: usize) -> &[u8] {
        self.filled().get(..length).unwrap_or(self.filled())
    }

    /// Takes the descriptors of the message in front.
    pub fn take_descriptors(&mut self) -> Vec<F> {
        match self.descriptors.front() {
            Some((at, _)) if *at <= self.consumed => self.descriptors.pop_front().map(|(_, taken)| taken),
            _ => None,
        }
        .unwrap_or_default()
    }

    /// The message in front, of this length, is done with.
    pub fn consume(&mut self, length: usize) {
        let length = length.min(self.tail - self.head);
        self.head += length;
        self.consumed += length as u64;
    }

    fn filled(&self) -> &[u8] {
        self.buffer.get(self.head..self.tail).unwrap_or_default()
    }

    fn announced(&self) -> Option<usize> {
        let (header, _) = Header::read_from_prefix(self.filled()).ok()?;
        Some(header.size as usize)
    }

    /// Where in the stream the last message begins that has a byte here.
    fn last_begun(&self) -> u64 {
        let mut at = self.head;
        loop {
            let rest = self.buffer.get(at..self.tail).unwrap_or_default();
            let next = match Header::read_from_prefix(rest) {
                Ok((header, _)) if header.size as usize >= Header::BYTES => {
                    at.saturating_add(header.size as usize)
                }
                _ => break,
            };
            if next >= self.tail {
                break;
            }
            at = next;
        }
        self.consumed + (at - self.head) as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    use super::*;

    fn message(id: u16, body: &[u8]) -> Vec<u8> {
        let size = (Header::BYTES + body.len()) as u32;
        let header = Header { id, command: 9, size, flags: 0, errno: 0 };
        [header.as_bytes(), body].concat()
    }

    fn feed(inbox: &mut Inbox<u32>, mut bytes: &[u8], mut descriptors: Vec<u32>) {
        while !bytes.is_empty() {
            let space = inbox.space();
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            inbox.received(count, core::mem::take(&mut descriptors));
            bytes = &bytes[count..];
        }
    }

    fn next(inbox: &mut Inbox<u32>) -> Option<(Vec<u8>, Vec<u32>)> {
        let length = inbox.ready().unwrap()?;
        let taken = (inbox.front(length).to_vec(), inbox.take_descriptors());
        inbox.consume(length);
        Some(taken)
    }

    #[test]
    fn descriptors_belong_to_the_last_message_that_began_with_them() {
        let mut inbox = Inbox::default();
        let (a, b, c) = (message(1, &[1; 8]), message(2, &[]), message(3, &[3; 40]));
        feed(&mut inbox, &a[..3], vec![10]);
        feed(&mut inbox, &[&a[3..], &b[..], &c[..1]].concat(), vec![30, 31]);
        feed(&mut inbox, &c[1..], vec![32]);
        assert_eq!(next(&mut inbox), Some((a, vec![10])));
        assert_eq!(next(&mut inbox), Some((b, vec![])));
        assert_eq!(next(&mut inbox), Some((c, vec![30, 31, 32])));
        assert_eq!(next(&mut inbox), None);
    }

    #[test]
    fn a_size_that_no_message_has_breaks_the_stream() {
        for size in [0, 15, MAX_MESSAGE as u32 + 1, u32::MAX] {
            let mut inbox = Inbox::default();
            let header = Header { id: 0, command: 1, size, flags: 0, errno: 0 };
            feed(&mut inbox, header.as_bytes(), vec![]);
            assert_eq!(inbox.ready(), Err(Broken { size }));
            assert!(inbox.space().len() <= MAX_MESSAGE);
        }
    }

    #[test]
    fn the_largest_message_fits_and_its_memory_is_given_back() {
        let mut inbox = Inbox::default();
        let large = message(1, &vec![7; MAX_MESSAGE - Header::BYTES]);
        feed(&mut inbox, &message(0, &[]), vec![]);
        feed(&mut inbox, &large, vec![]);
        assert!(next(&mut inbox).is_some());
        assert_eq!(next(&mut inbox), Some((large, vec![])));
        assert_eq!(inbox.space().len(), CHUNK);
    }

    proptest! {
        #[test]
        fn any_cutting_of_the_stream_gives_the_same_messages(
            bodies in proptest::collection::vec(0usize..3000, 1..80),
            cuts in proptest::collection::vec(1usize..5000, 1..40),
        ) {
            let messages: Vec<_> = bodies.iter().zip(0..).map(|(n, id)| message(id, &vec![id as u8; *n])).collect();
            let stream = messages.concat();
            let mut inbox = Inbox::default();
            let mut got = Vec::new();
            let (mut rest, mut cuts) = (&stream[..], cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                feed(&mut inbox, piece, vec![]);
                while let Some((message, _)) = next(&mut inbox) {
                    got.push(message);
                }
                rest = tail;
            }
            prop_assert_eq!(got, messages);
        }
    }
}
