//! What can be asked of a running `connect` by its control socket, and the answers.
//!
//! ```text
//!   farbus-remote lend | return | status | … ── client ──► control-socket ──► Lender
//! ```

pub(crate) mod client;

use std::{fmt, path::PathBuf, str::FromStr};

use actix::Recipient;
use anyhow::{Context as _, Result};
use control_socket::{Answer, Around, Server, SocketFile};
use serde::{Deserialize, Serialize};

use crate::{
    ports::Report,
    sound::{self, Headphones},
    usb::which::Selector,
    ways::Way,
};

/// What the names of remotes' sockets begin with; a host may have its own in the same folder.
const PREFIX: &str = "remote-";
/// What to do where there can be no socket.
const ELSEWHERE: &str = "`--control PATH` says where the control socket is";

/// Answers at the socket with this path, or at this process's own in the folder of sockets. The socket's file is there
/// until what it returns is dropped.
///
/// # Errors
/// There can be no socket there.
pub(crate) fn listen(path: Option<PathBuf>, lender: Recipient<Request>) -> Result<SocketFile> {
    let own = || Ok(Around::here().make_folder()?.join(format!("{PREFIX}{}.sock", std::process::id())));
    let (server, file) = path.map_or_else(own, Ok).and_then(|path| Server::bind(&path)).context(ELSEWHERE)?;
    actix::spawn(async move {
        let ending = |_| Reply::Error("the remote is ending".to_owned());
        server.serve(async |request: Request| lender.send(request).await.unwrap_or_else(ending)).await;
    });
    Ok(file)
}

/// What can be asked of a running remote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Lend what this names, now and when it is plugged in later.
    Lend { usb: Selector },
    /// Give back what this names.
    Return { what: Target },
    /// Tell what is lent, and how the sound is.
    Status,
    /// Mute the microphone, or not.
    Mute { muted: bool },
    /// Move the session to a link of this kind.
    Switch { to: Way },
    /// Tell the VM whether headphones are plugged in.
    Headphones { plugged: Headphones },
}

/// Something that is lent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) enum Target {
    /// Real devices.
    Usb(Selector),
    /// The device with this id.
    Device(u32),
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// What became of each device that is here.
    Lend(Vec<Outcome>),
    /// What was given back.
    Return(Vec<Outcome>),
    /// What is lent, and what is not.
    Status {
        #[serde(flatten)]
        report: Report,
        kept: Vec<Outcome>,
        sound: sound::status::Status,
    },
    /// The session is on a link of this kind now.
    Switched { transport: String },
    /// How the sound is.
    Sound(sound::status::Status),
    /// Nothing, and why.
    Error(String),
}

impl Answer for Reply {
    fn refused(why: String) -> Self {
        Self::Error(why)
    }
}

/// What became of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Where it is plugged in, if it is a real one.
    pub(crate) bus_port: Option<String>,
    /// `idVendor:idProduct`.
    pub(crate) id: Option<String>,
    pub(crate) name: String,
    pub(crate) lent: bool,
    pub(crate) reason: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bus_port, id, name, reason, .. } = self;
        for word in [bus_port, id].into_iter().flatten() {
            write!(f, "{word}  ")?;
        }
        write!(f, "{name}: {reason}")
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(device) => Ok(Self::Device(device)),
            Err(_) => text.parse().map(Self::Usb).map_err(|error| {
                format!("{error}; or say the number of a device as `farbus-remote status` shows it")
            }),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usb(selector) => selector.fmt(f),
            Self::Device(device) => device.fmt(f),
        }
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}
