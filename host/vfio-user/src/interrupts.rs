//! Interrupts: the client's eventfds, which lead into the guest.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use pci::{Interrupts, Layout};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat};

use crate::Status;
use crate::codec::{Irq, Refusal, Signal};

/// The eventfds of one function.
#[derive(Debug)]
pub(crate) struct Wires {
    msi: RefCell<Vec<Option<OwnedFd>>>,
    msix: RefCell<Vec<Option<OwnedFd>>>,
    /// Of the interrupt pin, if there is one.
    intx: RefCell<Vec<Option<OwnedFd>>>,
    /// The pin has fired, and the client has not asked for more yet.
    masked: Cell<bool>,
    status: Arc<Status>,
}

impl Wires {
    pub(crate) fn new(layout: Layout, status: Arc<Status>) -> Self {
        let places = |vectors: u16| RefCell::new((0..vectors).map(|_| None).collect());
        let intx = places(layout.intx.into());
        Self { msi: places(layout.msi), msix: places(layout.msix), intx, masked: Cell::new(false), status }
    }

    /// Does what the client asks; the codec has checked the range. `line`: the function drives its pin.
    pub(crate) fn apply(
        &self,
        irq: Irq,
        signal: Signal<'_>,
        eventfds: Vec<OwnedFd>,
        line: bool,
    ) -> Result<(), Refusal> {
        let mut wires = self.of(irq).borrow_mut();
        match signal {
            Signal::Connect { first } => {
                if !eventfds.iter().all(can_be_signalled) {
                    return Err(Refusal::Invalid);
                }
                for (wire, eventfd) in wires.iter_mut().skip(first.into()).zip(eventfds) {
                    *wire = Some(eventfd);
                }
                self.unmask(irq);
            }
            Signal::Mask => self.masked.set(true),
            Signal::Unmask => self.unmask(irq),
            Signal::Disconnect { first, count } => {
                wires.iter_mut().skip(first.into()).take(count.into()).for_each(|wire| *wire = None);
            }
            Signal::DisconnectAll => wires.fill_with(|| None),
            Signal::Fire { first, count, chosen } => {
                for (index, wire) in wires.iter().skip(first.into()).take(count.into()).enumerate() {
                    if chosen.is_none_or(|chosen| chosen.get(index).is_some_and(|byte| *byte != 0)) {
                        fire(wire);
                    }
                }
            }
        }
        self.status.wired(irq, wires.iter().flatten().count() as u16);
        drop(wires);
        self.drive(line);
        Ok(())
    }

    fn unmask(&self, irq: Irq) {
        if irq == Irq::IntX {
            self.masked.set(false);
        }
    }

    /// Forgets the client's eventfds.
    pub(crate) fn forget(&self) {
        for irq in [Irq::Msi, Irq::MsiX, Irq::IntX] {
            self.of(irq).borrow_mut().fill_with(|| None);
            self.status.wired(irq, 0);
        }
    }

    fn of(&self, irq: Irq) -> &RefCell<Vec<Option<OwnedFd>>> {
        match irq {
            Irq::Msi => &self.msi,
            Irq::MsiX => &self.msix,
            Irq::IntX => &self.intx,
        }
    }
}

impl Interrupts for Wires {
    fn raise(&self, vector: u16) {
        // Only one of the two is enabled at a time; a guest that has both wired has switched to the younger.
        for irq in [Irq::MsiX, Irq::Msi] {
            let wires = self.of(irq).borrow();
            if let Some(wire @ Some(_)) = wires.get(usize::from(vector)) {
                return fire(wire);
            }
        }
    }

    /// An eventfd has no level: it fires when the pin is driven, and again when the client, who takes any access to a
    /// BAR for the end of the interrupt, says that it wants to know and the pin is driven still.
    fn drive(&self, line: bool) {
        if line
            && !self.masked.get()
            && let Some(wire @ Some(_)) = self.intx.borrow().first()
        {
            self.masked.set(true);
            fire(wire);
        }
    }
}

/// Whether a write of 8 bytes can neither block nor be read by somebody as data: an anonymous file (eventfds are),
/// not a pipe, a socket or a file. It is made non-blocking, as a counter that is full would block as well.
fn can_be_signalled(eventfd: &OwnedFd) -> bool {
    let anonymous = fstat(eventfd).is_ok_and(|stat| {
        // Anonymous files have no type, which no other file can say of itself.
        FileType::from_raw_mode(stat.st_mode) == FileType::Unknown
    });
    anonymous
        && fcntl_getfl(eventfd).is_ok_and(|flags| {
            flags.contains(OFlags::NONBLOCK) || fcntl_setfl(eventfd, flags | OFlags::NONBLOCK).is_ok()
        })
}

fn fire(wire: &Option<OwnedFd>) {
    if let Some(eventfd) = wire {
        // The only errors are a counter that is full, which is as good as one more, and an anonymous file that is no
        // eventfd, whose giver does not want interrupts.
        let _ = rustix::io::write(eventfd, &1u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};
    use rustix::io::dup;

    use super::*;

    fn wires() -> Wires {
        Wires::new(Layout { bars: [0; 6], msi: 4, msix: 2, intx: true }, Arc::default())
    }

    fn count(eventfd: &OwnedFd) -> Option<u64> {
        let mut value = [0; 8];
        rustix::io::read(eventfd, &mut value).ok().map(|_| u64::from_ne_bytes(value))
    }

    fn pair() -> (OwnedFd, OwnedFd) {
        let ours = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap();
        let theirs = dup(&ours).unwrap();
        (ours, theirs)
    }

    #[test]
    fn a_raised_vector_reaches_its_own_eventfd_only() {
        let wires = wires();
        let ((a, to_a), (b, to_b)) = (pair(), pair());
        wires.apply(Irq::Msi, Signal::Connect { first: 1 }, vec![to_a, to_b], false).unwrap();
        for vector in [0, 1, 1, 3, 4, u16::MAX] {
            wires.raise(vector);
        }
        assert_eq!((count(&a), count(&b)), (Some(2), None));
        wires.apply(Irq::Msi, Signal::Disconnect { first: 1, count: 1 }, vec![], false).unwrap();
        wires.raise(1);
        wires.raise(2);
        assert_eq!((count(&a), count(&b)), (None, Some(1)));
        assert_eq!(wires.status.msi_vectors(), 1);
    }

    #[test]
    fn the_client_can_fire_them_itself() {
        let wires = wires();
        let ((a, to_a), (b, to_b)) = (pair(), pair());
        wires.apply(Irq::MsiX, Signal::Connect { first: 0 }, vec![to_a, to_b], false).unwrap();
        let chosen = Some(&[0u8, 1][..]);
        wires.apply(Irq::MsiX, Signal::Fire { first: 0, count: 2, chosen }, vec![], false).unwrap();
        assert_eq!((count(&a), count(&b)), (None, Some(1)));
        wires.apply(Irq::MsiX, Signal::Fire { first: 0, count: 2, chosen: None }, vec![], false).unwrap();
        assert_eq!((count(&a), count(&b)), (Some(1), Some(1)));
        wires.apply(Irq::MsiX, Signal::DisconnectAll, vec![], false).unwrap();
        wires.raise(0);
        assert_eq!(count(&a), None);
    }

    #[test]
    fn a_pin_that_is_driven_fires_once_and_again_whenever_the_client_wants_to_know() {
        let wires = wires();
        let (line, to_line) = pair();
        wires.drive(true);
        wires.apply(Irq::IntX, Signal::Connect { first: 0 }, vec![to_line], true).unwrap();
        wires.drive(true);
        assert_eq!(count(&line), Some(1), "driven before anybody listened");
        wires.drive(false);
        wires.drive(true);
        assert_eq!(count(&line), None, "masked since it has fired");
        wires.apply(Irq::IntX, Signal::Unmask, vec![], true).unwrap();
        assert_eq!(count(&line), Some(1), "something is pending still");
        wires.apply(Irq::IntX, Signal::Unmask, vec![], false).unwrap();
        assert_eq!(count(&line), None);
        wires.drive(true);
        assert_eq!(count(&line), Some(1));
        wires.apply(Irq::IntX, Signal::Unmask, vec![], false).unwrap();
        wires.apply(Irq::IntX, Signal::Mask, vec![], false).unwrap();
        wires.drive(true);
        assert_eq!(count(&line), None);
    }

    #[test]
    fn pipes_files_and_sockets_are_no_interrupts() {
        let wires = wires();
        let (_, pipe) = rustix::pipe::pipe().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap().into();
        let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
        for wrong in [pipe, file, socket.into()] {
            assert_eq!(
                wires.apply(Irq::Msi, Signal::Connect { first: 0 }, vec![wrong], false),
                Err(Refusal::Invalid)
            );
        }
        assert_eq!(wires.status.msi_vectors(), 0);
    }

    /// An eventfd whose counter is full, and that its owner has made to block, does not stop us.
    #[test]
    fn a_full_eventfd_does_not_block() {
        let wires = wires();
        let full = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        wires.apply(Irq::Msi, Signal::Connect { first: 0 }, vec![full], false).unwrap();
        wires.raise(0);
    }
}
