//! What can be asked of a running `serve` by its control socket, and the answers.
//!
//! ```text
//!   farbus-host pair | revoke | allow | status ── client ──► control-socket ──► ConnectionManager
//! ```

pub(crate) mod client;
pub(crate) mod status;

use std::path::PathBuf;

use actix::Message;
use anyhow::{Context as _, Result};
use control_socket::{Answer, Around};
use noise_tcp::PublicKey;
use serde::{Deserialize, Serialize};

use crate::{config::Config, counted::Counted, lent::LentDevice};

/// What to do where there can be no socket.
pub(crate) const ELSEWHERE: &str = "`control` in the configuration says where the control socket is";

/// The socket of the host with this configuration and key; a computer may run several.
///
/// # Errors
/// Its folder cannot be made, or is not this user's alone.
pub(crate) fn socket(config: &Config, host: &PublicKey) -> Result<PathBuf> {
    if let Some(path) = &config.control {
        return Ok(path.clone());
    }
    Ok(Around::here().make_folder().context(ELSEWHERE)?.join(format!("host-{:.16}.sock", host.to_string())))
}

/// What can be asked of a running host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Message)]
#[rtype(result = "Reply")]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Make a code that a remote can be paired with this VM by. A code that is still valid is not any more.
    Pair { vm: String },
    /// Wait for what becomes of the code of this number.
    Await { pairing: u64 },
    /// Refuse this key from now on, and end what it has.
    Revoke { key: String },
    /// Refuse this key no more.
    Allow { key: String },
    /// Make a token by which a web page may ask for this VM, for so long; none: until it is dropped.
    WebToken { vm: String, seconds: Option<u64> },
    /// Drop all tokens for this VM.
    DropWebTokens { vm: String },
    /// Tell what every VM has.
    Status,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// A code is valid.
    Code(Code),
    /// What became of a code.
    Pairing(Outcome),
    /// A key is refused.
    Revoked {
        /// The VMs that it was paired with.
        paired: Vec<String>,
        /// The VMs that it had at that moment.
        ended: Vec<String>,
    },
    /// A key is refused no more, or never was.
    Allowed {
        /// Whether it was.
        was_revoked: bool,
    },
    /// A token was made. It is said once, and kept as a hash.
    WebToken {
        /// What it is for.
        vm: String,
        token: String,
        /// Seconds since 1970.
        until: Option<u64>,
    },
    /// Tokens are good for nothing any more.
    WebTokensDropped {
        /// How many.
        dropped: usize,
    },
    /// What every VM has.
    Status(Status),
    /// Nothing, and why.
    Error(String),
}

impl Answer for Reply {
    fn refused(why: String) -> Self {
        Self::Error(why)
    }
}

/// A code, and what the remote must know beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Code {
    /// Its number.
    pub(crate) pairing: u64,
    pub(crate) vm: String,
    pub(crate) code: String,
    /// Where this host listens.
    pub(crate) address: String,
    pub(crate) fingerprint: String,
    /// How long it is valid, seconds.
    pub(crate) seconds: u64,
    /// How often it may be tried.
    pub(crate) tries: u8,
}

/// What became of a code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// A remote knew it, and may have the VM from now on.
    Paired { key: String, name: String },
    /// Nobody came in time.
    Expired,
    /// Whoever came did not know it, and that was the last try.
    Burned,
    /// A newer code has taken its place.
    Replaced,
    /// There is no code of this number any more.
    Unknown,
}

/// What every VM has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Where remotes connect to.
    pub(crate) address: String,
    pub(crate) fingerprint: String,
    /// Where web pages ask, if anywhere.
    #[serde(default)]
    pub(crate) web: Option<WebStatus>,
    pub(crate) uptime_s: u64,
    pub(crate) vms: Vec<VmStatus>,
}

/// The web endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WebStatus {
    /// Where it listens.
    pub(crate) address: String,
    /// SHA-256 of its certificate.
    pub(crate) fingerprint: String,
}

/// What one VM has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VmStatus {
    pub(crate) vm: String,
    /// The process id of its worker, if it runs.
    pub(crate) worker: Option<u32>,
    pub(crate) remote: Option<Remote>,
    /// What it lends.
    #[serde(default)]
    pub(crate) lent: Vec<LentDevice>,
    #[serde(flatten)]
    pub(crate) counted: Counted,
}

/// The remote that has a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remote {
    pub(crate) key: String,
    /// What it calls itself.
    pub(crate) name: String,
    pub(crate) address: Option<String>,
    pub(crate) transport: Option<String>,
    pub(crate) linked_for_s: u64,
}
