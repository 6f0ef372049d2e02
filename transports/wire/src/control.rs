//! Control messages: written as rmp-serde maps with named fields, so that fields can be added.

use serde::{Deserialize, Serialize};

use crate::usb::{DeviceId, Speed};

/// The longest text of any control message, bytes; longer ones are refused when read.
pub const MAX_TEXT: usize = 256;

/// What a remote says first, inside the first handshake message (so before anything is known of its key's owner:
/// it may be a replay, and nothing is done because of it but choosing a VM).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The [`crate::VERSION`] it speaks.
    pub version: u16,
    /// The VM it wants; none means the only one it is allowed.
    #[serde(default)]
    pub vm: Option<String>,
    /// A name for people to read, such as its host name.
    #[serde(default)]
    pub name: String,
}

/// What the host answers, inside the second handshake message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The remote is paired with this VM.
    Welcome {
        /// The VM's name.
        vm: String,
    },
    /// The remote is not wanted; the connection ends.
    Refused {
        /// Whether a later try may succeed.
        reason: Refusal,
        /// One sentence for people, with the next step in it.
        text: String,
    },
}

/// Why a host refuses a remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The remote's key is not allowed for the VM it asked for, or there is no such VM.
    NotAllowed,
    /// It must name a VM, because it is allowed for several.
    Ambiguous,
    /// Another remote has the VM and keeps it.
    Busy,
    /// The versions do not fit.
    Version,
    /// The VM's worker is not running at the moment.
    Unavailable,
}

/// A device that is lent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its id.
    pub device: DeviceId,
    /// The speed it runs at, which chooses a USB 2 or USB 3 port.
    pub speed: Speed,
    /// `idVendor`.
    pub vendor: u16,
    /// `idProduct`.
    pub product: u16,
    /// A name for people.
    #[serde(default)]
    pub name: String,
}

/// Control messages to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHost {
    /// A device is lent from now on.
    Attached(Attachment),
    /// A device is gone; its requests are completed as disconnected, before this or not at all.
    Detached {
        /// The device.
        device: DeviceId,
    },
}

/// Control messages to the remote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToRemote {
    /// The host ends the session; the remote may try again unless told otherwise.
    Bye {
        /// One sentence for people.
        text: String,
        /// Whether coming back makes sense.
        retry: bool,
    },
}
