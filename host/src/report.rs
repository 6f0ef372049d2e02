//! What `serve` says on standard output: a sentence or a JSON object for everything that happens.

use std::{
    io::{self, Write},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Report {
    /// Remotes can connect.
    Listening { address: String, host_key: String },
    /// Web pages can ask for links.
    Web { address: String, fingerprint: String },
    /// A VM's sockets are there: the VM may be started.
    VmReady { vm: String, usb: String, hda: String, worker: u32 },
    /// A VM's worker ended; it is started again after a while, or not any more.
    WorkerEnded { vm: String, status: String, again_in_ms: Option<u64> },
    /// A remote was turned away.
    Refused { remote: String, text: String },
    /// A remote has a VM.
    Linked { vm: String, remote: String, transport: String },
    /// A remote lends a device.
    Attached { vm: String, name: String, id: String },
    /// The remote has no link at the moment; what it lends is held.
    Detached { vm: String, reason: String },
    /// The remote's session goes on over another link; it had none for so long, or moved from one to the other.
    Resumed { vm: String, transport: String, after_ms: Option<u64> },
    /// The remote is gone.
    LinkLost { vm: String, reason: String },
    /// What went to the remote since the worker started.
    Counted { vm: String, frames: u64, requests: u64, links: u64 },
    /// A remote knew a VM's code, and may have it from now on.
    Paired { vm: String, remote: String, name: String },
    /// Somebody did not know the code.
    WrongCode { remote: String, burned: bool },
    /// A key is refused from now on.
    Revoked { remote: String },
    /// A remote may not have its VM any more, and is told so.
    SentAway { vm: String, remote: String, text: String },
    /// A VM's controller failed too often.
    GaveUp { vm: String, controller: String },
}

/// Writes reports the way the user asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reporter {
    pub(crate) json: bool,
}

#[derive(Serialize)]
struct Stamped<'a> {
    /// CLOCK_MONOTONIC, nanoseconds: comparable between the processes of one machine.
    at_ns: u64,
    #[serde(flatten)]
    report: &'a Report,
}

impl Reporter {
    /// Says it. A closed standard output is not an error: nobody listens.
    pub(crate) fn say(self, report: &Report) {
        let line = if self.json {
            let at_ns = u64::try_from(monotonic().as_nanos()).unwrap_or(u64::MAX);
            serde_json::to_string(&Stamped { at_ns, report }).unwrap_or_default()
        } else {
            sentence(report)
        };
        if !line.is_empty() {
            let _ = writeln!(io::stdout().lock(), "{line}");
        }
    }
}

fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The sentence for people; empty for what people need not see.
fn sentence(report: &Report) -> String {
    match report {
        Report::Listening { address, host_key } => {
            format!(
                "listening on {address}\nremotes connect with: farbus-remote connect {address} --host-key {host_key}\nor without a key, once they are paired: farbus-host pair VM"
            )
        }
        Report::Web { address, fingerprint } => {
            format!("web endpoint at https://{address}, certificate SHA-256 {fingerprint}")
        }
        Report::VmReady { vm, usb, hda, .. } => format!("vm {vm}: ready at {usb} and {hda}"),
        Report::WorkerEnded { vm, status, again_in_ms: Some(ms) } => {
            format!(
                "vm {vm}: its worker ended ({status}); again in {ms} ms. The VM must be restarted to see its devices: no VMM reconnects"
            )
        }
        Report::WorkerEnded { vm, status, again_in_ms: None } => {
            format!("vm {vm}: its worker ended ({status}) too often; giving up")
        }
        Report::Refused { remote, text } => format!("refused {remote}: {text}"),
        Report::Linked { vm, remote, transport } => {
            format!("vm {vm}: linked to remote {remote} by {transport}")
        }
        Report::Detached { vm, reason } => {
            format!("vm {vm}: no link ({reason}); its devices are held until the remote is back")
        }
        Report::Resumed { vm, transport, after_ms: Some(ms) } => {
            format!("vm {vm}: linked again by {transport} after {ms} ms; the VM did not notice")
        }
        Report::Resumed { vm, transport, after_ms: None } => format!("vm {vm}: moved to {transport}"),
        Report::Attached { vm, name, id } => format!("vm {vm}: {id} {name} attached"),
        Report::LinkLost { vm, reason } => format!("vm {vm}: its remote is gone: {reason}"),
        Report::Counted { .. } => String::new(),
        Report::Paired { vm, remote, name } => format!("vm {vm}: paired with remote {remote} ({name})"),
        Report::WrongCode { remote, burned: false } => format!("{remote} did not know the pairing code"),
        Report::WrongCode { remote, burned: true } => {
            format!("{remote} did not know the pairing code; it is not valid any more")
        }
        Report::Revoked { remote } => format!("revoked {remote}"),
        Report::SentAway { vm, remote, text } => format!("vm {vm}: sent {remote} away: {text}"),
        Report::GaveUp { vm, controller } => format!("vm {vm}: its {controller} controller failed too often"),
    }
}
