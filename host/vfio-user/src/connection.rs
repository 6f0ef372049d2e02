//! One client: its socket, its bytes, what it asks for.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pci::{Function, Layout};
use tokio::net::UnixStream;
use zerocopy::IntoBytes;

use crate::codec::{Action, Inbox, Protocol, RegionAccess, SmallWrite, region};
use crate::interrupts::Wires;
use crate::memory::Memory;
use crate::socket::{Input, Socket};
use crate::{Options, Status};

/// Messages that one transaction carries out at most.
const BUDGET: usize = 64;

/// A client that is connected.
pub(crate) struct Connection {
    socket: Socket,
    inbox: Inbox<OwnedFd>,
    protocol: Protocol,
    /// Replies that the socket has not taken yet. Nothing more is read before it has.
    replies: Vec<u8>,
    closing: Option<&'static str>,
}

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("the client has gone")]
    Gone,
    #[error("{0}")]
    Closed(&'static str),
    #[error(transparent)]
    Broken(#[from] crate::codec::Broken),
    #[error("the socket failed")]
    Failed(#[from] io::Error),
}

/// What a client's messages act upon, beside the function.
#[derive(Clone, Copy)]
pub(crate) struct World<'a> {
    pub(crate) memory: &'a Memory,
    pub(crate) wires: &'a Wires,
    pub(crate) status: &'a Arc<Status>,
}

impl Connection {
    pub(crate) fn new(socket: UnixStream, layout: Layout, options: Options) -> io::Result<Self> {
        let (socket, protocol) = (Socket::new(socket)?, Protocol::new(layout, options.write_multiple));
        Ok(Self { socket, inbox: Inbox::default(), protocol, replies: Vec::new(), closing: None })
    }

    /// Waits until there is a message to be carried out.
    pub(crate) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        loop {
            if !self.replies.is_empty() {
                ready!(self.socket.poll_send(cx, &mut self.replies))?;
            }
            if let Some(why) = self.closing {
                return Poll::Ready(Err(End::Closed(why)));
            }
            if self.inbox.ready()?.is_some() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.socket.poll_receive(cx, &mut self.inbox))? == Input::End {
                return Poll::Ready(Err(End::Gone));
            }
        }
    }

    /// Whether the client has closed its end, even if that has not been read yet.
    pub(crate) fn hung_up(&self) -> bool {
        self.socket.hung_up()
    }

    /// Carries out what has arrived, as far as the budget goes. What is left is found by the next
    /// [`Self::poll_message`], and so are errors.
    pub(crate) fn perform(&mut self, function: &mut dyn Function, world: World<'_>) {
        for _ in 0..BUDGET {
            if self.closing.is_some() || !self.replies.is_empty() {
                return;
            }
            let Ok(Some(length)) = self.inbox.ready() else { return };
            let descriptors = self.inbox.take_descriptors();
            let message = self.inbox.front(length);
            let action = self.protocol.step(message, descriptors.len(), &mut self.replies);
            if let Action::Close(why) = action {
                self.closing = Some(why);
            }
            carry_out(action, descriptors, &self.protocol, &mut self.replies, function, world);
            self.inbox.consume(length);
            if !self.replies.is_empty() && self.socket.send(&mut self.replies).is_err() {
                self.closing = Some("the client does not take its replies");
                self.replies.clear();
            }
        }
    }
}

fn carry_out(
    action: Action<'_>,
    descriptors: Vec<OwnedFd>,
    protocol: &Protocol,
    replies: &mut Vec<u8>,
    function: &mut dyn Function,
    world: World<'_>,
) {
    let answer = |ticket: crate::codec::Ticket, result, replies: &mut Vec<u8>| match result {
        Ok(()) => ticket.succeed(replies, &[0u8; 0]),
        Err(why) => ticket.refuse(replies, why),
    };
    match action {
        Action::Done | Action::Close(_) => {}
        Action::Greeted => {
            function.reset();
            if let Some(client) = protocol.client() {
                tracing::info!(?client, "a client has introduced itself");
                world.status.greeted(client);
            }
        }
        Action::Read(access, ticket) => {
            ticket.succeed_with(replies, access.as_bytes(), access.count as usize, |data| {
                match region(access.region) {
                    Some(region) => function.read(region, access.offset, data),
                    None => data.fill(0xff),
                }
            });
        }
        Action::Write(access, data, ticket) => {
            write(function, access, data);
            ticket.succeed(replies, &access);
        }
        Action::WriteMany(writes, ticket) => {
            let (chunks, _) = writes.as_chunks::<{ size_of::<SmallWrite>() }>();
            for chunk in chunks {
                let SmallWrite { at, data } = zerocopy::transmute!(*chunk);
                write(function, at, data.get(..at.count as usize).unwrap_or_default());
            }
            ticket.succeed(replies, &(chunks.len() as u64));
        }
        Action::Reset(ticket) => {
            function.reset();
            answer(ticket, Ok(()), replies);
        }
        Action::Map(asked, ticket) => {
            answer(ticket, world.memory.map(asked, descriptors.into_iter().next()), replies);
        }
        Action::Unmap(asked, ticket) => {
            let result = world.memory.unmap(asked.address, asked.size);
            protocol.unmapped(asked, result, ticket, replies);
        }
        Action::UnmapAll(asked, ticket) => {
            world.memory.unmap_all();
            protocol.unmapped(asked, Ok(()), ticket, replies);
        }
        Action::Wire(irq, signal, ticket) => {
            let line = function.interrupt_line();
            answer(ticket, world.wires.apply(irq, signal, descriptors, line), replies);
        }
    }
}

fn write(function: &mut dyn Function, access: RegionAccess, data: &[u8]) {
    if let Some(region) = region(access.region) {
        function.write(region, access.offset, data);
    }
}
