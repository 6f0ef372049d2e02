//! What happens when a file is truncated while it is mapped.
//!
//! Touching a page behind the end of the file raises SIGBUS in the thread that does. For ranges that are registered
//! here the handler puts anonymous memory in the place of the whole mapping and takes a note; the access then reads
//! 0 or writes into nowhere, and its caller looks at the note. Any other SIGBUS goes where it went before.
#![expect(unsafe_code, reason = "a signal handler cannot be installed otherwise")]
// UNSAFETY: sigaction, and a handler that calls nothing but mmap (a bare system call) and touches nothing but
// atomics. It replaces memory only in ranges that `Mapping` has registered and not yet unmapped.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Mappings at a time, in the whole process.
const PLACES: usize = 256;

static PLACE: [Place; PLACES] = [const { Place::new() }; PLACES];
static EARLIER: OnceLock<Option<libc::sigaction>> = OnceLock::new();

/// A range of memory; free while `start` is 0.
#[derive(Debug)]
struct Place {
    start: AtomicUsize,
    length: AtomicUsize,
    hit: AtomicBool,
}

/// A registered range.
#[derive(Debug)]
pub(super) struct Guard {
    place: &'static Place,
}

impl Place {
    const fn new() -> Self {
        Self { start: AtomicUsize::new(0), length: AtomicUsize::new(0), hit: AtomicBool::new(false) }
    }

    fn contains(&self, address: usize) -> bool {
        let start = self.start.load(Ordering::Acquire);
        start != 0 && address.wrapping_sub(start) < self.length.load(Ordering::Acquire)
    }
}

impl Guard {
    /// Guards a range; `None` if all places are taken or the handler cannot be installed.
    pub(super) fn new(start: usize, length: usize) -> Option<Self> {
        install()?;
        let place = PLACE.iter().find(|place| {
            // A length of 0 keeps the handler off until the rest is in place.
            place.start.compare_exchange(0, start, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })?;
        place.hit.store(false, Ordering::Release);
        place.length.store(length, Ordering::Release);
        Some(Self { place })
    }

    /// Whether the range was replaced.
    pub(super) fn hit(&self) -> bool {
        self.place.hit.load(Ordering::Acquire)
    }

    /// The range is about to be unmapped: once, as the place may be another's afterwards.
    pub(super) fn release(&mut self) {
        self.place.length.store(0, Ordering::Release);
        self.place.start.store(0, Ordering::Release);
    }
}

/// Puts the handler in place, once for the process.
fn install() -> Option<()> {
    let earlier = EARLIER.get_or_init(|| {
        // SAFETY: both structures are plain data for which all-zero is valid; the handler keeps to what one may do.
        unsafe {
            let mut action: libc::sigaction = core::mem::zeroed();
            action.sa_sigaction = on_bus_error as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
            let mut earlier: libc::sigaction = core::mem::zeroed();
            (libc::sigaction(libc::SIGBUS, &raw const action, &raw mut earlier) == 0).then_some(earlier)
        }
    });
    earlier.as_ref().map(|_| ())
}

extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands a valid structure to a handler that asked for it.
    let address = unsafe { (*info).si_addr() } as usize;
    match PLACE.iter().find(|place| place.contains(address)) {
        Some(place) if replace(place) => {}
        _ => pass_on(signal, info, context),
    }
}

fn replace(place: &Place) -> bool {
    let (start, length) = (place.start.load(Ordering::Acquire), place.length.load(Ordering::Acquire));
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    // SAFETY: exactly the range of a mapping that is registered; its owner unmaps whatever lies there.
    let replaced =
        unsafe { mmap_anonymous(start as *mut core::ffi::c_void, length, protection, flags) }.is_ok();
    place.hit.store(true, Ordering::Release);
    replaced
}

/// To whoever had the signal before, or to the end of the process.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let earlier = EARLIER.get().and_then(Option::as_ref);
    let handler = earlier.map_or(libc::SIG_DFL, |earlier| earlier.sa_sigaction);
    let takes_info = earlier.is_some_and(|earlier| earlier.sa_flags & libc::SA_SIGINFO != 0);
    // SAFETY: what `sigaction` gave us is a function of the type that its flags say. To restore the default and
    // return repeats the access, which then ends the process as if we had never been here.
    unsafe {
        match handler {
            libc::SIG_DFL | libc::SIG_IGN => {
                libc::signal(signal, libc::SIG_DFL);
            }
            handler if takes_info => {
                let call: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                    core::mem::transmute(handler);
                call(signal, info, context);
            }
            handler => {
                let call: extern "C" fn(libc::c_int) = core::mem::transmute(handler);
                call(signal);
            }
        }
    }
}
