//! Interrupts: INTCTL, INTSTS, and when a message is sent. HDA 1.0a §3.3.14, §3.3.15, §4.4.
//!
//! A message is an edge. It is sent when a source that is enabled becomes pending, and again after each write that
//! acknowledges or enables something and leaves something pending: so none is lost between the guest's look at
//! INTSTS and its acknowledgement.
//!
//! The level of an interrupt line (INTx) is what is pending at the moment.

use crate::registers::InterruptControl;

/// The controller's own bit in INTCTL (CIE) and INTSTS (CIS).
pub(crate) const CONTROLLER: u32 = 1 << 30;
/// The sum of all in INTSTS (GIS).
const GLOBAL: u32 = 1 << 31;

/// Enables, and what the guest was told of.
#[derive(Debug)]
pub(crate) struct Interrupts {
    pub(crate) control: InterruptControl,
    told: u32,
    acknowledged: bool,
}

impl Default for Interrupts {
    fn default() -> Self {
        Self { control: InterruptControl::DEFAULT, told: 0, acknowledged: false }
    }
}

impl Interrupts {
    /// INTSTS, made of the sources that ask (SISn and CIS).
    pub(crate) fn status(sources: u32) -> u32 {
        if sources == 0 { 0 } else { sources | GLOBAL }
    }

    /// The sources that may interrupt.
    pub(crate) fn pending(&self, sources: u32) -> u32 {
        if self.control.global() { sources & self.control.sources().value() } else { 0 }
    }

    /// Something was acknowledged or enabled: what is pending now is told again.
    pub(crate) fn acknowledge(&mut self) {
        self.acknowledged = true;
    }

    /// Looks at the sources. Answers whether a message is to be sent.
    pub(crate) fn update(&mut self, sources: u32) -> bool {
        let pending = self.pending(sources);
        let new = pending & !self.told != 0;
        let left = core::mem::take(&mut self.acknowledged) && pending != 0;
        self.told = pending;
        new || left
    }
}

#[cfg(test)]
mod tests {
    use arbitrary_int::u31;

    use super::*;

    fn enabled(sources: u32) -> Interrupts {
        let control = InterruptControl::DEFAULT.with_global(true).with_sources(u31::new(sources));
        Interrupts { control, ..Interrupts::default() }
    }

    #[test]
    fn a_message_is_sent_once_for_each_source_that_becomes_pending() {
        let mut interrupts = enabled(0b11);
        let steps = [(0b01, true), (0b01, false), (0b11, true), (0b11, false), (0b111, false), (0b10, false)];
        for (at, (sources, sent)) in steps.into_iter().enumerate() {
            assert_eq!(interrupts.update(sources), sent, "step {at}");
        }
    }

    #[test]
    fn an_acknowledgement_that_leaves_something_pending_sends_again_once() {
        let mut interrupts = enabled(0b11);
        assert!(interrupts.update(0b11));
        interrupts.acknowledge();
        assert!(interrupts.update(0b10));
        assert!(!interrupts.update(0b10));
        interrupts.acknowledge();
        assert!(!interrupts.update(0));
    }

    #[test]
    fn nothing_is_sent_without_the_global_enable() {
        let mut interrupts = enabled(0b1);
        interrupts.control = interrupts.control.with_global(false);
        assert!(!interrupts.update(0b1));
        interrupts.control = interrupts.control.with_global(true);
        assert!(interrupts.update(0b1));
    }

    #[test]
    fn the_status_is_the_sum_of_all_sources_enabled_or_not() {
        assert_eq!(Interrupts::status(0), 0);
        assert_eq!(Interrupts::status(0b100 | CONTROLLER), 0xc000_0004);
    }
}
