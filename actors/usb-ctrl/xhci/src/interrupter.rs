//! Interrupters: an event ring each, and when to interrupt for it. xHCI 1.2 §4.17, §5.5.2.
//!
//! ```text
//!   event written ──► wanted ──EHB clear, moderation over──► IP, EHB ──IE, INTE──► message; IP cleared, IMODC loaded
//!                        ▲                                     │
//!                        └── guest clears EHB, ring not empty ─┘
//! ```
//!
//! No event is ever dropped: what finds no room waits in a backlog, and while anything waits there the controller
//! fetches and retires nothing ([`Events::ready`]), so that the backlog stays as small as what one step emits.

use core::time::Duration;
use std::collections::VecDeque;

use pci::{Cx, Dma};

use crate::{
    Output,
    event_ring::{EventRing, Posted, RingError},
    registers::{
        Write,
        runtime::{Iman, InterrupterRegister},
    },
    trb::event::Event,
};

/// The unit of moderation. xHCI 1.2 §5.5.2.2.
const MODERATION_NS: u64 = 250;

/// One interrupter.
#[derive(Debug, Clone)]
struct Interrupter {
    iman: Iman,
    /// IMODI, in units of 250 ns.
    interval: u16,
    /// When the moderation counter reaches 0.
    quiet_until: Duration,
    /// The four low bits of ERDP apart from EHB: storage.
    erdp_low: u32,
    erdp: u64,
    /// Event Handler Busy (EHB).
    busy: bool,
    /// There is an event that deserves an interrupt (IPE).
    wanted: bool,
    ring: EventRing,
    backlog: VecDeque<Event>,
}

impl Interrupter {
    fn new() -> Self {
        Self {
            iman: Iman::DEFAULT,
            interval: InterrupterRegister::Imod.row().reset as u16,
            quiet_until: Duration::ZERO,
            erdp_low: 0,
            erdp: 0,
            busy: false,
            wanted: false,
            ring: EventRing::default(),
            backlog: VecDeque::new(),
        }
    }

    fn post(&mut self, dma: &dyn Dma, event: Event) -> Result<(), RingError> {
        if self.backlog.is_empty() && self.try_post(dma, event)? {
            return Ok(());
        }
        self.backlog.push_back(event);
        Ok(())
    }

    fn try_post(&mut self, dma: &dyn Dma, event: Event) -> Result<bool, RingError> {
        let posted = self.ring.post(dma, event)?;
        self.wanted |= match posted {
            Posted::Written => event.interrupts(),
            Posted::NoRoomTold => true,
            Posted::NoRoom => false,
        };
        Ok(posted == Posted::Written)
    }

    fn drain(&mut self, dma: &dyn Dma) -> Result<(), RingError> {
        while let Some(event) = self.backlog.front().copied() {
            if !self.try_post(dma, event)? {
                return Ok(());
            }
            self.backlog.pop_front();
        }
        self.ring.all_posted();
        Ok(())
    }

    /// Whether a message is to be sent now, and whether EINT is to be set.
    fn poll(&mut self, now: Duration, enabled: bool) -> (bool, bool) {
        let mut event_interrupt = false;
        if self.wanted && !self.busy && now >= self.quiet_until {
            self.wanted = false;
            self.busy = true;
            event_interrupt = !self.iman.pending();
            self.iman = self.iman.with_pending(true);
        }
        let send = enabled && self.iman.enable() && self.iman.pending();
        if send {
            self.iman = self.iman.with_pending(false);
            self.quiet_until = now + Duration::from_nanos(MODERATION_NS * u64::from(self.interval));
        }
        (send, event_interrupt)
    }

    /// The guest has read up to ERDP. An empty ring wants no interrupt; one that is not empty wants another as soon
    /// as the guest says that it is done.
    fn consumed(&mut self, done: bool) {
        self.ring.consumed_to(self.erdp);
        self.wanted = self.ring.has_unread() && (self.wanted || done);
    }

    fn counter(&self, now: Duration) -> u32 {
        let left = self.quiet_until.saturating_sub(now).as_nanos() / u128::from(MODERATION_NS);
        u32::try_from(left).unwrap_or(u32::MAX).min(0xffff)
    }
}

/// All interrupters.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    interrupters: Vec<Interrupter>,
    error: Option<RingError>,
}

impl Events {
    /// This many, in their reset state.
    pub(crate) fn new(interrupters: u8) -> Self {
        Self { interrupters: vec![Interrupter::new(); interrupters.into()], error: None }
    }

    /// Adds an event to the ring of an interrupter. One that does not exist, or has no ring, is the primary.
    pub(crate) fn post(&mut self, dma: &dyn Dma, target: u16, event: Event) {
        let usable = self.interrupters.get(usize::from(target)).is_some_and(|i| i.ring.armed());
        let index = if usable { usize::from(target) } else { 0 };
        let Some(interrupter) = self.interrupters.get_mut(index) else { return };
        if let Err(error) = interrupter.post(dma, event) {
            self.error = Some(error);
        }
    }

    /// Whether nothing waits for room, so that more may happen.
    pub(crate) fn ready(&self) -> bool {
        self.error.is_none() && self.interrupters.iter().all(|i| i.backlog.is_empty())
    }

    /// Moves what waits into the rings as far as there is room.
    pub(crate) fn drain(&mut self, dma: &dyn Dma) {
        for interrupter in &mut self.interrupters {
            if let Err(error) = interrupter.drain(dma) {
                self.error = Some(error);
            }
        }
    }

    /// An error that ends the controller's work, once.
    pub(crate) fn take_error(&mut self) -> Option<RingError> {
        self.error.take()
    }

    /// Remembers where the rings stand. xHCI 1.2 §4.23.2.
    pub(crate) fn save(&mut self) {
        self.interrupters.iter_mut().for_each(|interrupter| interrupter.ring.save());
    }

    /// The rings go on where they stood, although their registers have been written anew.
    pub(crate) fn restore(&mut self) {
        self.interrupters.iter_mut().for_each(|interrupter| interrupter.ring.restore());
    }

    /// Sends the messages that are due, folding interrupters into this many vectors. Answers whether EINT is to be
    /// set.
    pub(crate) fn interrupt(&mut self, cx: &mut Cx<'_, Output>, enabled: bool, vectors: u16) -> bool {
        let mut event_interrupt = false;
        for (index, interrupter) in (0..).zip(&mut self.interrupters) {
            let (send, einte) = interrupter.poll(cx.now, enabled);
            event_interrupt |= einte;
            if send {
                cx.out.push(Output::Interrupt(index % vectors.max(1)));
            }
        }
        event_interrupt
    }

    /// When the next message that moderation holds back is due.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.interrupters.iter().filter(|i| i.wanted && !i.busy).map(|i| i.quiet_until).min()
    }

    /// Reads a register.
    pub(crate) fn read(&self, now: Duration, index: u8, register: InterrupterRegister) -> u32 {
        let Some(interrupter) = self.interrupters.get(usize::from(index)) else { return 0 };
        match register {
            InterrupterRegister::Iman => interrupter.iman.raw_value(),
            InterrupterRegister::Imod => interrupter.counter(now) << 16 | u32::from(interrupter.interval),
            InterrupterRegister::ErstSz => interrupter.ring.size().into(),
            InterrupterRegister::ErstBaLow => interrupter.ring.table() as u32,
            InterrupterRegister::ErstBaHigh => (interrupter.ring.table() >> 32) as u32,
            InterrupterRegister::ErdpLow => {
                interrupter.erdp as u32 | interrupter.erdp_low | u32::from(interrupter.busy) << 3
            }
            InterrupterRegister::ErdpHigh => (interrupter.erdp >> 32) as u32,
        }
    }

    /// Writes a register.
    pub(crate) fn write(&mut self, now: Duration, index: u8, register: InterrupterRegister, write: Write) {
        let old = self.read(now, index, register);
        let row = register.row();
        let Some(interrupter) = self.interrupters.get_mut(usize::from(index)) else { return };
        let stored = row.apply(old, write);
        let stored = Write { value: stored, mask: u32::MAX };
        match register {
            InterrupterRegister::Iman => interrupter.iman = Iman::new_with_raw_value(stored.value),
            InterrupterRegister::Imod => {
                interrupter.interval = stored.value as u16;
                if write.mask >> 16 != 0 {
                    let counter = u64::from((old & !write.mask | write.bits()) >> 16);
                    interrupter.quiet_until = now + Duration::from_nanos(MODERATION_NS * counter);
                }
            }
            InterrupterRegister::ErstSz => interrupter.ring.resize(stored.value as u16),
            InterrupterRegister::ErstBaLow => {
                interrupter.ring.arm(stored.into_low(interrupter.ring.table()));
            }
            InterrupterRegister::ErstBaHigh => {
                interrupter.ring.arm(stored.into_high(interrupter.ring.table()));
            }
            InterrupterRegister::ErdpLow => {
                interrupter.erdp_low = stored.value & 0x7;
                interrupter.erdp = Write { value: stored.value & !0xf, ..stored }.into_low(interrupter.erdp);
                let was_busy = interrupter.busy;
                interrupter.busy = stored.value & 0x8 != 0;
                interrupter.consumed(was_busy && !interrupter.busy);
            }
            InterrupterRegister::ErdpHigh => {
                interrupter.erdp = stored.into_high(interrupter.erdp);
                interrupter.consumed(false);
            }
        }
    }
}
