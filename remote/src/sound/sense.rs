//! What of this computer's devices is there: what the VM finds plugged into its jacks.

use serde::{Deserialize, Serialize};

use crate::cli::Audio;

/// Whether the VM finds headphones plugged in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Headphones {
    /// If the sound system says that the sound goes to headphones or a headset.
    #[default]
    Auto,
    /// Always.
    Yes,
    /// Never: everything is played by the VM's speakers.
    No,
}

/// What is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) microphone: bool,
    pub(super) headphones: bool,
}

/// Looks for devices; it may take its time, and may be told to another thread.
pub(super) struct Sense {
    output: Audio,
    input: Audio,
    /// The devices that there were; only when they have changed is any of them asked.
    #[cfg(feature = "cpal")]
    names: Vec<String>,
    found: Found,
}

impl Sense {
    pub(super) fn new(output: Audio, input: Audio) -> Self {
        Self {
            output,
            input,
            #[cfg(feature = "cpal")]
            names: Vec::new(),
            found: Found::default(),
        }
    }

    /// Looks. Something may be `wrong` with the microphone that was there; then it is asked whatever there is.
    pub(super) fn look(&mut self, wrong: bool) -> Found {
        self.found.microphone = match &self.input {
            Audio::None => false,
            Audio::Wav(file) => file.exists(),
            Audio::Test(_) => true,
            Audio::Cpal(_) => self.found.microphone,
        };
        self.found.headphones &= matches!(self.output, Audio::Cpal(_));
        self.look_at_cards(wrong);
        self.found
    }

    #[cfg(feature = "cpal")]
    fn look_at_cards(&mut self, wrong: bool) {
        use super::card;

        let card = |audio: &Audio| matches!(audio, Audio::Cpal(_));
        if !card(&self.input) && !card(&self.output) {
            return;
        }
        let names = card::names().unwrap_or_default();
        if names == self.names && !wrong {
            return;
        }
        self.names = names;
        if let Audio::Cpal(wanted) = &self.input {
            self.found.microphone = card::hears(wanted.as_deref());
        }
        if let Audio::Cpal(wanted) = &self.output {
            self.found.headphones = card::is_headphones(wanted.as_deref());
        }
    }

    #[cfg(not(feature = "cpal"))]
    fn look_at_cards(&mut self, _: bool) {}
}
