//! The stream of requests: the listening socket, and the client of the moment.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use pci::{Function, Layout, Transaction};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Sleep, sleep};

use crate::connection::{Connection, End, World};
use crate::interrupts::Wires;
use crate::memory::Memory;
use crate::server::SocketFile;
use crate::{Options, Status};

/// How long the listening socket rests when the process has run out of descriptors.
const REST: Duration = Duration::from_millis(100);

/// What stream, transactions, memory and interrupts share.
pub(crate) struct Shared {
    pub(crate) layout: Layout,
    pub(crate) options: Options,
    pub(crate) memory: Rc<Memory>,
    pub(crate) wires: Rc<Wires>,
    pub(crate) status: Arc<Status>,
    pub(crate) connection: RefCell<Option<Connection>>,
}

/// The requests, in order: each item stands for all messages that have arrived.
pub(crate) struct Requests {
    pub(crate) listener: UnixListener,
    pub(crate) shared: Rc<Shared>,
    pub(crate) rest: Option<Pin<Box<Sleep>>>,
    /// Removes the socket from the file system in the end.
    pub(crate) _file: Option<SocketFile>,
}

struct Arrived {
    shared: Rc<Shared>,
}

impl Transaction for Arrived {
    fn perform(self: Box<Self>, function: &mut dyn Function) {
        let Shared { memory, wires, status, connection, .. } = &*self.shared;
        if let Some(connection) = connection.borrow_mut().as_mut() {
            connection.perform(function, World { memory, wires, status });
        }
    }
}

impl Stream for Requests {
    type Item = Box<dyn Transaction>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(result) = self.shared.poll_client(cx) {
                match result {
                    Poll::Ready(Ok(())) => {
                        return Poll::Ready(Some(Box::new(Arrived { shared: self.shared.clone() })));
                    }
                    Poll::Ready(Err(end)) => {
                        self.shared.disconnect(&end);
                        continue;
                    }
                    Poll::Pending => {}
                }
            }
            match ready!(self.poll_accept(cx)) {
                Ok(socket) => self.shared.admit(socket),
                Err(error) => {
                    tracing::warn!(%error, "no client can be accepted at the moment");
                    self.rest = Some(Box::pin(sleep(REST)));
                }
            }
        }
    }
}

impl Requests {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
        if let Some(rest) = &mut self.rest {
            ready!(rest.as_mut().poll(cx));
            self.rest = None;
        }
        loop {
            match ready!(self.listener.poll_accept(cx)) {
                Ok((socket, _)) => return Poll::Ready(Ok(socket)),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Shared {
    fn poll_client(&self, cx: &mut Context<'_>) -> Option<Poll<Result<(), End>>> {
        Some(self.connection.borrow_mut().as_mut()?.poll_message(cx))
    }

    fn admit(&self, socket: UnixStream) {
        // The successor may be seen before the end of its predecessor is; what that one wrote last is moot, as the
        // successor resets the device.
        if self.connection.borrow().as_ref().is_some_and(Connection::hung_up) {
            self.disconnect(&End::Gone);
        }
        if self.connection.borrow().is_some() {
            tracing::warn!("a second client was turned away");
            self.status.refuse();
            return;
        }
        match Connection::new(socket, self.layout, self.options) {
            Ok(connection) => {
                self.status.connected();
                *self.connection.borrow_mut() = Some(connection);
            }
            Err(error) => tracing::error!(%error, "a client could not be served"),
        }
    }

    /// The device keeps its state; what was the client's goes.
    fn disconnect(&self, end: &End) {
        match end {
            End::Gone => tracing::info!("the client has gone"),
            end => {
                tracing::warn!(reason = %end, "the connection was ended");
                self.status.broke();
            }
        }
        *self.connection.borrow_mut() = None;
        self.memory.forget();
        self.wires.forget();
        self.status.disconnected();
    }
}
