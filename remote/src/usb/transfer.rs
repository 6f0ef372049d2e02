//! libusb's asynchronous transfers behind a safe face: the only unsafe code of the remote.
//!
//! ```text
//!   Engine::submit ──► libusb ── kernel ──► event thread: callback ──► Finishes (a queue), wake
//!   Engine::next_finished ◄───────────────────────────────────────────┘
//! ```
//!
//! Who owns what: a [`Flight`] owns the transfer, its buffer and the note for its callback, and lies in the engine's
//! map from submission until its finish was taken out of the queue. The callback only reads the note and puts a number
//! into the queue; after that libusb does not touch the transfer any more. So nothing is freed while libusb has it,
//! and cancelling one that has just finished is harmless.
#![expect(unsafe_code, reason = "libusb's asynchronous interface is C")]

use std::{
    collections::HashMap,
    ffi::{c_int, c_uint, c_void},
    io,
    ptr::NonNull,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rusb::{
    DeviceHandle, UsbContext,
    constants::{
        LIBUSB_ERROR_IO, LIBUSB_ERROR_NO_DEVICE, LIBUSB_ERROR_NO_MEM, LIBUSB_SUCCESS,
        LIBUSB_TRANSFER_CANCELLED, LIBUSB_TRANSFER_COMPLETED, LIBUSB_TRANSFER_NO_DEVICE,
        LIBUSB_TRANSFER_OVERFLOW, LIBUSB_TRANSFER_STALL, LIBUSB_TRANSFER_TYPE_BULK,
        LIBUSB_TRANSFER_TYPE_BULK_STREAM, LIBUSB_TRANSFER_TYPE_CONTROL, LIBUSB_TRANSFER_TYPE_INTERRUPT,
        LIBUSB_TRANSFER_TYPE_ISOCHRONOUS,
    },
    ffi::{
        libusb_alloc_streams, libusb_alloc_transfer, libusb_cancel_transfer, libusb_free_streams,
        libusb_free_transfer, libusb_iso_packet_descriptor, libusb_submit_transfer, libusb_transfer,
        libusb_transfer_set_stream_id,
    },
};
use wire::usb::{Endpoint, Failure, PacketEnd, Transfer};

use super::carrier::{Carrier, Finished, Order, SubmitError};

/// How long the end of a device waits for its transfers: a kernel that does not give them back has a bug.
const PATIENCE: Duration = Duration::from_secs(5);

/// Numbers of transfers that have ended, put in by the event thread.
struct Finishes {
    ended: Mutex<Vec<u64>>,
    changed: Condvar,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Finishes {
    fn push(&self, number: u64) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.push(number);
        let first = ended.len() == 1;
        drop(ended);
        self.changed.notify_all();
        if first {
            (self.wake)();
        }
    }

    fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn wait(&self, until: Instant) {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let left = until.saturating_duration_since(Instant::now());
        if ended.is_empty() {
            drop(self.changed.wait_timeout(ended, left));
        }
    }
}

/// What a callback needs to know.
struct Note {
    number: u64,
    finishes: Arc<Finishes>,
}

/// A transfer that libusb has, and everything it points to.
struct Flight {
    transfer: NonNull<libusb_transfer>,
    endpoint: Endpoint,
    buffer: Vec<u8>,
    _note: Box<Note>,
}

// SAFETY: nothing in a flight belongs to a thread; libusb's functions may be called from any.
unsafe impl Send for Flight {}

/// The transfers of one open device.
pub(super) struct Engine<T: UsbContext> {
    handle: Arc<DeviceHandle<T>>,
    finishes: Arc<Finishes>,
    /// By numbers of our own: nobody else may choose what is freed.
    flights: HashMap<u64, Flight>,
    last: u64,
    /// Finishes that were taken out of the queue, in order.
    taken: std::vec::IntoIter<u64>,
}

impl<T: UsbContext> Engine<T> {
    /// An engine for this device. Somebody must handle the context's events. `wake` is called on the event thread when
    /// there is something to take, and must not wait.
    pub(super) fn new(handle: Arc<DeviceHandle<T>>, wake: Box<dyn Fn() + Send + Sync>) -> Self {
        let finishes = Finishes { ended: Mutex::default(), changed: Condvar::new(), wake };
        Self {
            handle,
            finishes: Arc::new(finishes),
            flights: HashMap::new(),
            last: 0,
            taken: Vec::new().into_iter(),
        }
    }

    /// Gives bulk endpoints streams; how many there are.
    ///
    /// # Errors
    /// libusb's code.
    pub(super) fn alloc_streams(&self, endpoints: &[Endpoint], count: u16) -> Result<u32, c_int> {
        let mut addresses: Vec<u8> = endpoints.iter().map(|endpoint| endpoint.address()).collect();
        let number = addresses.len() as c_int;
        // SAFETY: the addresses live during the call, and their number is right.
        let code = unsafe {
            libusb_alloc_streams(self.handle.as_raw(), count.into(), addresses.as_mut_ptr(), number)
        };
        u32::try_from(code).map_err(|_| code)
    }

    /// Takes the streams of bulk endpoints away.
    pub(super) fn free_streams(&self, endpoints: &[Endpoint]) {
        let mut addresses: Vec<u8> = endpoints.iter().map(|endpoint| endpoint.address()).collect();
        let number = addresses.len() as c_int;
        // SAFETY: as above. That there are none is no harm.
        unsafe { libusb_free_streams(self.handle.as_raw(), addresses.as_mut_ptr(), number) };
    }
}

impl<T: UsbContext> Carrier for Engine<T> {
    fn submit(&mut self, order: Order) -> Result<u64, SubmitError> {
        let Order { endpoint, transfer, mut buffer } = order;
        let lengths = match &transfer {
            Transfer::Isochronous(packets) => packets.lengths(),
            _ => &[],
        };
        // SAFETY: it allocates, or answers null; the count is at most MAX_PACKETS.
        let allocated = NonNull::new(unsafe { libusb_alloc_transfer(lengths.len() as c_int) });
        let Some(raw) = allocated else {
            return Err(SubmitError::NoMemory);
        };
        self.last += 1;
        let number = self.last;
        let note = Box::new(Note { number, finishes: Arc::clone(&self.finishes) });
        let control = matches!(transfer, Transfer::Control(_));
        // SAFETY: libusb_alloc_transfer has given room for one transfer and so many packets, and nobody else has it
        // yet. `buffer` and `note` are kept, unmoved on the heap, until the transfer has ended.
        unsafe {
            let it = raw.as_ptr();
            (*it).dev_handle = self.handle.as_raw();
            // A control transfer's direction is in its setup bytes.
            (*it).endpoint = if control { 0 } else { endpoint.address() };
            (*it).transfer_type = kind(&transfer);
            (*it).timeout = 0;
            (*it).buffer = buffer.as_mut_ptr();
            (*it).length = c_int::try_from(buffer.len()).unwrap_or(c_int::MAX);
            (*it).callback = ended;
            (*it).user_data = std::ptr::from_ref::<Note>(&note).cast_mut().cast::<c_void>();
            (*it).num_iso_packets = lengths.len() as c_int;
            for (descriptor, length) in packets_of(it).iter_mut().zip(lengths) {
                descriptor.length = c_uint::from(*length);
            }
            if let Transfer::Bulk { stream: stream @ 1.. } = transfer {
                libusb_transfer_set_stream_id(it, stream.into());
            }
        }
        self.flights.insert(number, Flight { transfer: raw, endpoint, buffer, _note: note });
        // SAFETY: the transfer is complete, and the device is open as long as the engine is.
        let code = unsafe { libusb_submit_transfer(raw.as_ptr()) };
        if code == LIBUSB_SUCCESS {
            return Ok(number);
        }
        // First of all: whatever else is done may change it.
        let last = io::Error::last_os_error().kind();
        self.flights.remove(&number);
        Err(refusal(code, last))
    }

    fn cancel(&self, number: u64) {
        if let Some(flight) = self.flights.get(&number) {
            // SAFETY: the transfer is in the map, so it was submitted and is not freed. That it has just ended is
            // answered with an error, and that is right.
            unsafe { libusb_cancel_transfer(flight.transfer.as_ptr()) };
        }
    }

    fn next_finished(&mut self) -> Option<Finished> {
        loop {
            let Some(number) = self.taken.next() else {
                let more = self.finishes.take();
                if more.is_empty() {
                    return None;
                }
                self.taken = more.into_iter();
                continue;
            };
            let Some(flight) = self.flights.remove(&number) else { continue };
            return Some(flight.finish(number));
        }
    }

    fn wait(&self, until: Instant) -> bool {
        if self.taken.len() == 0 {
            self.finishes.wait(until);
        }
        Instant::now() < until
    }
}

impl<T: UsbContext> Drop for Engine<T> {
    fn drop(&mut self) {
        for number in self.flights.keys() {
            self.cancel(*number);
        }
        let until = Instant::now() + PATIENCE;
        while self.next_finished().is_some() || (!self.flights.is_empty() && self.wait(until)) {}
        // What never ended is libusb's for ever: its memory must not be given to anybody else, nor the handle closed.
        for (_, flight) in self.flights.drain() {
            tracing::error!("a transfer did not end within {PATIENCE:?}");
            std::mem::forget((flight, Arc::clone(&self.handle)));
        }
    }
}

impl Flight {
    /// The buffer of a transfer that libusb does not have any more.
    fn land(mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    fn finish(self, number: u64) -> Finished {
        // SAFETY: the callback has come, so libusb has written everything and writes nothing more.
        let (status, actual, packets) = unsafe {
            let it = self.transfer.as_ptr();
            let status = (*it).status;
            let packets = packets_of(it).iter().map(|packet| packet_end(status, packet));
            (status, usize::try_from((*it).actual_length).unwrap_or(0), packets.collect())
        };
        let endpoint = self.endpoint;
        Finished { number, endpoint, result: result(status), actual, buffer: self.land(), packets }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // SAFETY: a flight is dropped when libusb has not taken the transfer, or has given it back.
        unsafe { libusb_free_transfer(self.transfer.as_ptr()) };
    }
}

/// The packets of an isochronous transfer.
///
/// # Safety
/// `it` was allocated with at least `num_iso_packets` packets, and nobody else has it meanwhile.
unsafe fn packets_of<'a>(it: *mut libusb_transfer) -> &'a mut [libusb_iso_packet_descriptor] {
    // SAFETY: by the contract above; they lie behind the transfer in one allocation.
    unsafe {
        let first = (&raw mut (*it).iso_packet_desc).cast::<libusb_iso_packet_descriptor>();
        std::slice::from_raw_parts_mut(first, usize::try_from((*it).num_iso_packets).unwrap_or(0))
    }
}

/// libusb's callback, on the event thread.
extern "system" fn ended(it: *mut libusb_transfer) {
    // SAFETY: libusb passes the transfer that was submitted; its note lives until its finish is taken, and that is
    // only put into the queue here.
    let note = unsafe { &*(*it).user_data.cast::<Note>() };
    let (number, finishes) = (note.number, Arc::clone(&note.finishes));
    finishes.push(number);
}

/// Why libusb has not taken a transfer; `last` is what the operating system said to it. Of a control or isochronous
/// transfer without memory libusb says only that something went wrong.
fn refusal(code: c_int, last: io::ErrorKind) -> SubmitError {
    match code {
        LIBUSB_ERROR_NO_MEM => SubmitError::NoMemory,
        LIBUSB_ERROR_IO if last == io::ErrorKind::OutOfMemory => SubmitError::NoMemory,
        LIBUSB_ERROR_NO_DEVICE => SubmitError::Gone,
        other => SubmitError::Other(other),
    }
}

fn kind(transfer: &Transfer) -> u8 {
    match transfer {
        Transfer::Control(_) => LIBUSB_TRANSFER_TYPE_CONTROL,
        Transfer::Isochronous(_) => LIBUSB_TRANSFER_TYPE_ISOCHRONOUS,
        Transfer::Bulk { stream: 0 } => LIBUSB_TRANSFER_TYPE_BULK,
        Transfer::Bulk { .. } => LIBUSB_TRANSFER_TYPE_BULK_STREAM,
        Transfer::Interrupt => LIBUSB_TRANSFER_TYPE_INTERRUPT,
    }
}

/// How a packet ended, of a transfer that ended like this. Of one that was cancelled libusb calls those well that never
/// were on the bus.
fn packet_end(transfer: c_int, packet: &libusb_iso_packet_descriptor) -> PacketEnd {
    let moved = u16::try_from(packet.actual_length).unwrap_or(u16::MAX);
    let never = transfer == LIBUSB_TRANSFER_CANCELLED && moved == 0;
    PacketEnd { moved, result: if never { Err(Failure::Cancelled) } else { result(packet.status) } }
}

fn result(status: c_int) -> Result<(), Failure> {
    match status {
        LIBUSB_TRANSFER_COMPLETED => Ok(()),
        LIBUSB_TRANSFER_CANCELLED => Err(Failure::Cancelled),
        LIBUSB_TRANSFER_STALL => Err(Failure::Stall),
        LIBUSB_TRANSFER_NO_DEVICE => Err(Failure::Disconnected),
        LIBUSB_TRANSFER_OVERFLOW => Err(Failure::Overflow),
        // A timeout cannot be: none was set.
        _ => Err(Failure::Fault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_memory_is_known_whatever_libusb_makes_of_it() {
        use io::ErrorKind::{InvalidInput, OutOfMemory};
        let enomem = io::Error::from_raw_os_error(rustix::io::Errno::NOMEM.raw_os_error()).kind();
        for (code, last, expected) in [
            (LIBUSB_ERROR_NO_MEM, InvalidInput, SubmitError::NoMemory),
            (LIBUSB_ERROR_IO, enomem, SubmitError::NoMemory),
            (LIBUSB_ERROR_IO, InvalidInput, SubmitError::Other(LIBUSB_ERROR_IO)),
            // What was said before means nothing.
            (LIBUSB_ERROR_NO_DEVICE, OutOfMemory, SubmitError::Gone),
        ] {
            assert_eq!(refusal(code, last), expected, "{code}, {last}");
        }
    }

    #[test]
    fn a_packet_that_a_cancelled_transfer_never_moved_is_no_success() {
        let end = |transfer, moved, status| {
            let packet = libusb_iso_packet_descriptor { length: 192, actual_length: moved, status };
            packet_end(transfer, &packet).result
        };
        assert_eq!(end(LIBUSB_TRANSFER_CANCELLED, 0, LIBUSB_TRANSFER_COMPLETED), Err(Failure::Cancelled));
        assert_eq!(end(LIBUSB_TRANSFER_CANCELLED, 8, LIBUSB_TRANSFER_COMPLETED), Ok(()));
        assert_eq!(end(LIBUSB_TRANSFER_COMPLETED, 0, LIBUSB_TRANSFER_COMPLETED), Ok(()));
        assert_eq!(end(LIBUSB_TRANSFER_COMPLETED, 0, LIBUSB_TRANSFER_STALL), Err(Failure::Stall));
    }
}
