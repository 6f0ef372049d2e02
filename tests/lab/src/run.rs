//! `lab run`: one VM, one remote, one script; and, if asked for, the remote's own VM with a script of its own.

mod desk;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use lab::desk::Desk;
use lab::farbus::{Host, Program};
use lab::{Event, Firmware, Lab, Running};
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

/// Exit code when the script took too long, as `timeout` has it.
const TIMED_OUT: u8 = 124;
/// Where the script is put in the guest.
const SCRIPT: &str = "/root/script";
/// Name of the one VM.
const VM: &str = "vm";

/// How to boot it, and what to run.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The script to run in the guest: by the interpreter that its first line names, else by `sh`
    #[arg(long, value_name = "FILE")]
    guest_script: PathBuf,
    /// A file to copy into the guest beforehand; may be given several times
    #[arg(long, value_name = "SRC:DST", value_parser = source_and_destination)]
    guest_file: Vec<(PathBuf, String)>,
    /// The Debian package of the guest's kernel: NAME, or NAME/SUITE
    #[arg(long, value_name = "DEB-NAME")]
    kernel_package: Option<String>,
    /// More kernel modules to load, separated by commas
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    modules: Vec<String>,
    /// What the machine starts with: seabios or ovmf
    #[arg(long, default_value = "seabios")]
    firmware: Firmware,
    /// The guest's memory, in MiB
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(128..))]
    memory: u32,
    /// What the remote lends: arguments for `farbus-remote connect`, in one string; nothing unless given. Files and
    /// devices are those of the computer the remote runs on: this one, or the desk
    #[arg(long, value_name = "ARGS OF farbus-remote", allow_hyphen_values = true)]
    remote: Option<String>,
    #[command(flatten)]
    desk: desk::DeskArguments,
    /// Boot a VM without Farbus's controllers and without a remote
    #[arg(long, conflicts_with = "remote")]
    without_farbus: bool,
    /// How long the script may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    /// More arguments for QEMU, after --
    #[arg(last = true, value_name = "QEMU ARGS")]
    qemu: Vec<OsString>,
}

fn source_and_destination(argument: &str) -> Result<(PathBuf, String)> {
    let (source, destination) = argument.rsplit_once(':').ok_or_else(|| anyhow!("SRC:DST is wanted"))?;
    Ok((source.into(), destination.to_owned()))
}

pub(crate) fn run(arguments: Box<Arguments>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            code = story(arguments) => code,
            // Ends here so that everything that was started ends with us.
            _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(128 + Signal::SIGINT as u8)),
            _ = terminate.recv() => Ok(ExitCode::from(128 + Signal::SIGTERM as u8)),
        }
    })
}

async fn story(arguments: Box<Arguments>) -> Result<ExitCode> {
    let script = fs::read(&arguments.guest_script)
        .with_context(|| format!("reading {}", arguments.guest_script.display()))?;
    let lab = Lab::open().await?;
    let folder = tempfile::Builder::new().prefix("farbus-run-").tempdir()?;
    let mut builder = lab
        .vm(VM)
        .memory_mib(arguments.memory)
        .firmware(arguments.firmware)
        .modules(arguments.modules)
        .extra_args(arguments.qemu);
    if let Some(package) = arguments.kernel_package {
        builder = builder.kernel_package(package);
    }
    let desk = arguments.desk.boot(&lab).await?;
    let mut beside = arguments.desk.begin(desk.as_ref()).await?;
    // Host and remote live as long as the VM.
    let mut farbus = None;
    if !arguments.without_farbus {
        let words = words(arguments.remote.as_deref().unwrap_or_default())?;
        let (host, remote) = pair(folder.path(), desk.as_ref(), &words).await?;
        let seat = host.seat(VM);
        builder = builder.usb_socket(seat.usb_socket()).hda_socket(seat.hda_socket());
        farbus = Some((host, remote));
    }

    let vm = builder.boot().await?;
    for (source, destination) in &arguments.guest_file {
        vm.put_file(source, destination).await?;
    }
    let call = call(&script, SCRIPT);
    vm.put(script, SCRIPT).await?;
    let mut running = vm.spawn(&call).await?;
    let limit = Duration::from_secs(arguments.timeout);
    let code = tokio::select! {
        code = timeout(limit, print(&mut running)) => code,
        gone = beside.go_on() => match gone? {},
    };
    let code = match code {
        Ok(code) => code?,
        Err(_) => {
            eprintln!("lab: the script ran for more than {limit:?}");
            TIMED_OUT
        }
    };
    vm.kill().await?;
    if let Some((mut host, mut remote)) = farbus {
        remote.stop().await?;
        host.program.stop().await?;
    }
    Ok(ExitCode::from(code))
}

/// How to run a script that is at `path`: by the interpreter that its first line names, else by `sh`.
fn call(script: &[u8], path: &str) -> String {
    match script.starts_with(b"#!") {
        true => format!("chmod +x {path} && exec {path}"),
        false => format!("exec sh {path}"),
    }
}

/// Starts a host and a remote, in the desk if there is one, and waits until they have found each other.
async fn pair(folder: &Path, desk: Option<&Desk>, words: &[String]) -> Result<(Host, Program)> {
    let mut host = Host::start(folder, &[VM]).await?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let remote = match desk {
        Some(desk) => desk.remote(&host, "remote", VM, &words).await?,
        None => host.remote("remote", VM, &words)?,
    };
    host.program.wait_for("linked").await.with_context(|| remote.last_words())?;
    Ok((host, remote))
}

/// Passes on what the script says, as it says it, and returns its exit code.
async fn print(running: &mut Running<'_>) -> Result<u8> {
    loop {
        match running.next().await? {
            Event::Stdout(bytes) => {
                let mut out = io::stdout().lock();
                out.write_all(&bytes).and_then(|()| out.flush()).context("writing to standard output")?;
            }
            Event::Stderr(bytes) => {
                io::stderr().lock().write_all(&bytes).context("writing to standard error")?
            }
            Event::Exit(code) => return Ok(u8::try_from(code).unwrap_or(u8::MAX)),
        }
    }
}

/// Splits a string into words as a shell does: at white space, but not within quotes, and not after a backslash.
fn words(line: &str) -> Result<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                let next = characters
                    .next()
                    .ok_or_else(|| anyhow!("nothing follows the last backslash of {line:?}"))?;
                word.get_or_insert_default().push(next);
            }
            (None, _) if character.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    if quote.is_some() {
        bail!("a quote of {line:?} is not closed");
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_does() {
        let split = |line| words(line).expect("words");
        assert_eq!(split(" --disk  a.img:ro --keyboard "), ["--disk", "a.img:ro", "--keyboard"]);
        assert_eq!(
            split(r#"--disk "my disk" 'a "b"' c\ d "" x'y'z"#),
            ["--disk", "my disk", "a \"b\"", "c d", "", "xyz"]
        );
        assert!(split("").is_empty());
        assert!(words("'open").is_err());
        assert!(words("open\\").is_err());
    }
}
