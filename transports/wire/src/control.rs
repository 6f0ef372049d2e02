//! Control messages: written as rmp-serde maps with named fields, so that fields can be added.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::usb::{DeviceId, Endpoint, Speed};

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
    /// The link carries an offer of another one and its answer, and no session.
    #[serde(default)]
    pub signalling: bool,
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
    /// What the host may know of the device beforehand.
    #[serde(default)]
    pub profile: Profile,
}

/// What a remote tells of a device when it lends it, so that its host need not ask, or wait.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Profile {
    /// Descriptors that do not change while the device is lent.
    #[serde(default)]
    pub descriptors: Vec<Descriptor>,
    /// Interrupt IN endpoints that may be read before the guest asks: their reports mean the same a little later.
    #[serde(default)]
    pub read_ahead: Vec<Endpoint>,
    /// Endpoints of Bulk-Only Transport: a command decides what is read next.
    #[serde(default)]
    pub bulk_only: Vec<BulkOnly>,
}

/// The two bulk endpoints of a Bulk-Only Transport interface. USB Mass Storage Class, Bulk-Only Transport 1.0 §4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkOnly {
    /// Commands and data to the device.
    pub out: Endpoint,
    /// Data from the device, and the status of each command.
    pub input: Endpoint,
}

/// The most bytes of all descriptors of a [`Profile`] together; what does not fit is asked for.
pub const MAX_DESCRIPTORS: usize = 32 << 10;

/// The answer to a `GET_DESCRIPTOR` request. USB 2.0 §9.4.3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// `bmRequestType`: 0x80 asks the device, 0x81 an interface.
    pub request_type: u8,
    /// `wValue`: type and index.
    pub value: u16,
    /// `wIndex`: language or interface.
    pub index: u16,
    /// The whole descriptor.
    pub data: Bytes,
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
    /// There was no link for longer than the host holds this device: it has unplugged it. To be lent again, anew.
    Unplugged {
        /// The device, as the remote named it.
        device: DeviceId,
    },
    /// The host ends the session; the remote may try again unless told otherwise.
    Bye {
        /// One sentence for people.
        text: String,
        /// Whether coming back makes sense.
        retry: bool,
    },
}
