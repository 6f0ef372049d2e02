//! A bus that outlives the actor that reads it.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use futures_util::Stream;
use pci::{Bus, Transaction};

type Transactions = Pin<Box<dyn Stream<Item = Box<dyn Transaction>>>>;

/// The parent's hold on a bus. QEMU and Cloud Hypervisor never reconnect, so a controller's actor may die, but not the
/// connection it read: the next actor goes on with the next transaction.
pub(crate) struct SharedBus {
    transactions: Rc<RefCell<Transactions>>,
    bus: Bus,
}

/// One actor's view of the shared transactions.
struct View(Rc<RefCell<Transactions>>);

impl SharedBus {
    pub(crate) fn new(mut bus: Bus) -> Self {
        let none = Box::pin(futures_util::stream::empty());
        let transactions = std::mem::replace(&mut bus.transactions, none);
        Self { transactions: Rc::new(RefCell::new(transactions)), bus }
    }

    /// The bus for the next actor; the one before it is gone.
    pub(crate) fn lend(&self) -> Bus {
        Bus {
            transactions: Box::pin(View(Rc::clone(&self.transactions))),
            dma: Rc::clone(&self.bus.dma),
            interrupts: Rc::clone(&self.bus.interrupts),
        }
    }
}

impl Stream for View {
    type Item = Box<dyn Transaction>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.borrow_mut().as_mut().poll_next(cx)
    }
}
