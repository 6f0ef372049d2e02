//! What carries messages of a known length: a stream, a link, or a session.

use std::future::poll_fn;

use anyhow::{Result, ensure};
use bytes::Bytes;
use link::Link;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, ReadHalf, WriteHalf,
};
use wire::{Lane, Message};

use crate::end::End;

/// What a reader takes at a time at most, bytes: as much as the link of our own.
const READ: usize = 256 << 10;

/// One end of what carries messages.
pub(crate) trait Pipe: Send + 'static {
    /// Sends a message; it may wait here for more.
    fn send(&mut self, message: Bytes) -> impl Future<Output = Result<()>> + Send;
    /// Gets everything on its way.
    fn flush(&mut self) -> impl Future<Output = Result<()>> + Send;
    /// Takes a message of this length.
    fn receive(&mut self, length: usize) -> impl Future<Output = Result<()>> + Send;
}

/// A stream that knows no messages: the reader knows how long they are.
pub(crate) struct Stream<S> {
    input: BufReader<ReadHalf<S>>,
    output: WriteHalf<S>,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite> Stream<S> {
    pub(crate) fn new(stream: S) -> Self {
        let (input, output) = tokio::io::split(stream);
        Self { input: BufReader::with_capacity(READ, input), output, buffer: Vec::new() }
    }
}

impl<S: AsyncRead + AsyncWrite + Send + 'static> Pipe for Stream<S> {
    async fn send(&mut self, message: Bytes) -> Result<()> {
        Ok(self.output.write_all(&message).await?)
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(self.output.flush().await?)
    }

    async fn receive(&mut self, length: usize) -> Result<()> {
        self.buffer.resize(length, 0);
        self.input.read_exact(&mut self.buffer).await?;
        Ok(())
    }
}

fn message(body: Bytes) -> Message {
    // What is small is urgent.
    let lane = if body.len() <= 64 { Lane::Int } else { Lane::Bulk };
    Message { lane, head: Bytes::new(), body }
}

/// A message that is longer than the frames that a link calls good is a sequence of them.
impl Pipe for Box<dyn Link> {
    async fn send(&mut self, mut body: Bytes) -> Result<()> {
        let good = self.profile().good_frame;
        let lane = message(body.clone()).lane;
        while !body.is_empty() {
            poll_fn(|cx| self.poll_ready(cx)).await?;
            let body = body.split_to(good.min(body.len()));
            Link::send(self, Message { lane, head: Bytes::new(), body })?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(poll_fn(|cx| self.poll_flush(cx)).await?)
    }

    async fn receive(&mut self, length: usize) -> Result<()> {
        let mut came = 0;
        while came < length {
            came += poll_fn(|cx| self.poll_receive(cx)).await?.1.len();
        }
        ensure!(came == length, "{came} bytes");
        Ok(())
    }
}

impl Pipe for End {
    async fn send(&mut self, body: Bytes) -> Result<()> {
        Self::send(self, message(body)).await
    }

    async fn flush(&mut self) -> Result<()> {
        poll_fn(|cx| std::task::Poll::Ready(self.turn(cx))).await
    }

    async fn receive(&mut self, length: usize) -> Result<()> {
        let (_, bytes) = Self::receive(self).await?;
        ensure!(bytes.len() == length, "{} bytes", bytes.len());
        Ok(())
    }
}
