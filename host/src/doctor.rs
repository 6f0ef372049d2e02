//! `farbus-host doctor`: checks what can be checked from outside and says what to do.

mod network;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use control_socket::client::PATIENCE;
use serde::Serialize;

use crate::{
    config::{Config, Vm},
    control::{Reply, Request, Status, client},
};

/// The oldest QEMU that has `vfio-user-pci`.
const OLDEST_QEMU: (u32, u32) = (10, 1);

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was looked at.
    pub(crate) check: String,
    /// How it stands.
    pub(crate) verdict: Verdict,
    /// What was seen.
    pub(crate) seen: String,
    /// What to do, if something is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advice: Option<String>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// As it should be.
    Good,
    /// Not wrong, but not known either, or not yet.
    Unknown,
    /// Wrong.
    Bad,
}

impl Finding {
    fn good(check: &str, seen: impl Into<String>) -> Self {
        Self { check: check.into(), verdict: Verdict::Good, seen: seen.into(), advice: None }
    }

    fn unknown(check: &str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        let advice = Some(advice.into());
        Self { check: check.into(), verdict: Verdict::Unknown, seen: seen.into(), advice }
    }

    fn bad(check: &str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Bad, ..Self::unknown(check, seen, advice) }
    }
}

/// Everything that can be said about this VM, and about how remotes reach the host.
pub(crate) fn examine(name: &str, config: &Config, vm: &Vm, qemu: &Path) -> Vec<Finding> {
    let mut findings = of_vm(name, vm, qemu);
    findings.extend(network::examine(config, serving(config).as_ref()));
    findings
}

/// What the running host says of itself; none if none runs, or none that this user may ask.
fn serving(config: &Config) -> Option<Status> {
    let mut line = client::call(config).ok().flatten()?;
    match client::ask(&mut line, &Request::Status, PATIENCE) {
        Ok(Reply::Status(status)) => Some(status),
        _ => None,
    }
}

fn of_vm(name: &str, vm: &Vm, qemu: &Path) -> Vec<Finding> {
    let listening = listening_sockets(&fs::read_to_string("/proc/net/unix").unwrap_or_default());
    let mut findings = vec![qemu_version(qemu), qemu_device(qemu)];
    for (check, socket) in
        [("USB controller's socket", vm.usb_socket()), ("HDA controller's socket", vm.hda_socket())]
    {
        findings.push(socket_finding(check, &socket, &listening));
    }
    findings.push(match command_line_with(&vm.usb_socket()) {
        None => Finding::unknown(
            "the running VM",
            "no process has this VM's usb.sock on its command line",
            format!("start the VM with the arguments of `farbus-host print-args {name} --for qemu`"),
        ),
        Some(arguments) => running_vm(name, &arguments),
    });
    findings
}

fn qemu_version(qemu: &Path) -> Finding {
    const CHECK: &str = "QEMU's version";
    let need = format!("install QEMU {}.{} or later", OLDEST_QEMU.0, OLDEST_QEMU.1);
    let Some(text) = stdout(qemu, &["--version"]) else {
        return Finding::unknown(
            CHECK,
            format!("{} cannot be run", qemu.display()),
            format!("{need}, or name another with --qemu"),
        );
    };
    match parse_version(&text) {
        Some(version) if version >= OLDEST_QEMU => {
            Finding::good(CHECK, format!("{}.{}", version.0, version.1))
        }
        Some((major, minor)) => Finding::bad(CHECK, format!("{major}.{minor} is too old"), need),
        None => Finding::unknown(CHECK, "its --version says no version", need),
    }
}

fn qemu_device(qemu: &Path) -> Finding {
    const CHECK: &str = "QEMU's vfio-user-pci device";
    match stdout(qemu, &["-device", "help"]) {
        Some(text) if text.contains("\"vfio-user-pci\"") => Finding::good(CHECK, "present"),
        Some(_) => Finding::bad(
            CHECK,
            "absent from this build",
            "use a build with vfio-user (configure --enable-vfio-user-client)",
        ),
        None => Finding::unknown(CHECK, "QEMU cannot be run", "name another with --qemu"),
    }
}

fn socket_finding(check: &str, socket: &Path, listening: &[PathBuf]) -> Finding {
    if listening.iter().any(|path| path == socket) {
        Finding::good(check, format!("{} is served", socket.display()))
    } else if socket.exists() {
        let advice = "start `farbus-host serve`; a socket left behind is replaced";
        Finding::bad(check, format!("{} exists, but nobody listens", socket.display()), advice)
    } else {
        Finding::bad(
            check,
            format!("{} is missing", socket.display()),
            "start `farbus-host serve` before the VM",
        )
    }
}

fn running_vm(name: &str, arguments: &[String]) -> Finding {
    const CHECK: &str = "the running VM's memory";
    let all = arguments.join(" ");
    let shared = ["share=on", "shared=on", "\"share\":true"].iter().any(|word| all.contains(word));
    if shared {
        Finding::good(CHECK, "shared")
    } else {
        let advice = format!(
            "QEMU starts happily without, and no transfer will ever work: see `farbus-host print-args {name} --for qemu`"
        );
        Finding::bad(CHECK, "no shared memory backend on its command line", advice)
    }
}

fn stdout(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `QEMU emulator version 11.1.3 (…)` -> (11, 1).
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split("version ").nth(1)?.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The paths of listening stream sockets in the text of `/proc/net/unix`.
fn listening_sockets(table: &str) -> Vec<PathBuf> {
    /// `__SO_ACCEPTCON`: the socket listens.
    const ACCEPTING: u32 = 0x1_0000;
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let flags = u32::from_str_radix(fields.get(3)?, 16).ok()?;
            (flags & ACCEPTING != 0).then(|| fields.get(7).map(PathBuf::from))?
        })
        .collect()
}

/// The arguments of the first process, other than this program's own, that names this socket.
fn command_line_with(socket: &Path) -> Option<Vec<String>> {
    let wanted = socket.to_string_lossy();
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let bytes = fs::read(entry.path().join("cmdline")).ok()?;
        let arguments: Vec<String> =
            bytes.split(|b| *b == 0).map(|a| String::from_utf8_lossy(a).into_owned()).collect();
        let own = arguments.first().is_some_and(|program| program.contains("farbus"));
        (!own && arguments.iter().any(|argument| argument.contains(&*wanted))).then_some(arguments)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_what_qemu_prints() {
        assert_eq!(parse_version("QEMU emulator version 11.1.3 (Debian 1:11.1.3)\nCopyright"), Some((11, 1)));
        assert_eq!(parse_version("QEMU emulator version 7.2.19"), Some((7, 2)));
        assert_eq!(parse_version("something else"), None);
    }

    #[test]
    fn only_listening_sockets_count_as_served() {
        let table = "Num RefCount Protocol Flags Type St Inode Path\n\
                     0000: 00000002 00000000 00010000 0001 01 100 /run/farbus/a/usb.sock\n\
                     0000: 00000003 00000000 00000000 0001 03 101 /run/farbus/a/hda.sock\n";
        let listening = listening_sockets(table);
        let verdict = |name: &str| socket_finding("x", Path::new(name), &listening).verdict;
        assert_eq!(verdict("/run/farbus/a/usb.sock"), Verdict::Good);
        assert_eq!(verdict("/run/farbus/a/hda.sock"), Verdict::Bad);
    }

    #[test]
    fn memory_that_is_not_shared_is_named_with_the_way_out() {
        let arguments = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            running_vm("a", &arguments("qemu -object memory-backend-memfd,share=on")).verdict,
            Verdict::Good
        );
        let finding = running_vm("a", &arguments("qemu -m 4G"));
        assert_eq!(finding.verdict, Verdict::Bad);
        assert!(finding.advice.unwrap().contains("print-args a"));
    }
}
