//! Jacks: what is plugged into them, and when the guest is told.
//!
//! The remote's word counts once it has stood for [`DEBOUNCE`]: a plug that scratches on its way in, or a remote that
//! comes and goes, is one event or none.

use core::time::Duration;

use wire::audio::Jack;

/// How long a jack must have been as it is.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// All jacks. They are outside of the controller: no reset changes what is plugged in.
#[derive(Debug, Default)]
pub(super) struct Jacks {
    headphone: Sense,
    microphone: Sense,
}

#[derive(Debug, Default)]
struct Sense {
    /// As the guest sees it.
    present: bool,
    /// When it is to be seen the other way round.
    change: Option<Duration>,
}

impl Jacks {
    /// Something was plugged in or pulled out.
    pub(super) fn set(&mut self, now: Duration, jack: Jack, present: bool) {
        let sense = self.sense(jack);
        if sense.present == present {
            sense.change = None;
        } else {
            sense.change.get_or_insert(now.saturating_add(DEBOUNCE));
        }
    }

    /// When [`Self::settled`] has an answer.
    pub(super) fn due(&self) -> Option<Duration> {
        self.headphone.change.into_iter().chain(self.microphone.change).min()
    }

    /// A jack that the guest is to see differently from now on.
    pub(super) fn settled(&mut self, now: Duration) -> Option<(Jack, bool)> {
        [Jack::Headphone, Jack::Microphone].into_iter().find_map(|jack| {
            let sense = self.sense(jack);
            sense.change.take_if(|due| *due <= now)?;
            sense.present = !sense.present;
            Some((jack, sense.present))
        })
    }

    /// All jacks as the guest sees them.
    pub(super) fn all(&self) -> [(Jack, bool); 2] {
        [(Jack::Headphone, self.headphone.present), (Jack::Microphone, self.microphone.present)]
    }

    fn sense(&mut self, jack: Jack) -> &mut Sense {
        match jack {
            Jack::Headphone => &mut self.headphone,
            Jack::Microphone => &mut self.microphone,
        }
    }
}
