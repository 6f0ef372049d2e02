//! `farbus-remote lend | return | status | mute | unmute | headphones`: asks the running remote.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use control_socket::{Around, Line, client::PATIENCE, time};

use super::{ELSEWHERE, Outcome, PREFIX, Reply, Request};
use crate::ports::{Report, Row};

/// Asks, and prints the answer.
///
/// # Errors
/// No remote runs, several do, or it refuses.
pub(crate) fn run(control: Option<PathBuf>, request: &Request, json: bool) -> Result<ExitCode> {
    let socket = control.map_or_else(|| the_one(&Around::here()), Ok)?;
    let reply = ask(&socket, request)?;
    if json {
        println!("{}", serde_json::to_string(&reply)?);
    } else {
        print!("{}", words(&reply));
    }
    match reply {
        Reply::Error(error) => bail!(error),
        Reply::Lend(outcomes) if !outcomes.is_empty() && !outcomes.iter().any(|outcome| outcome.lent) => {
            Ok(ExitCode::FAILURE)
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// The socket of the one remote that runs.
fn the_one(around: &Around) -> Result<PathBuf> {
    let mut running = around.listening(PREFIX).context(ELSEWHERE)?;
    match running.len() {
        0 => bail!(
            "no farbus-remote of this user runs; start one with `farbus-remote connect`, or say --control PATH"
        ),
        1 => Ok(running.remove(0)),
        _ => {
            let all: Vec<_> = running.iter().map(|path| format!("  --control {}", path.display())).collect();
            bail!("several farbus-remote run; say which one:\n{}", all.join("\n"))
        }
    }
}

pub(crate) fn ask(socket: &Path, request: &Request) -> Result<Reply> {
    let shown = || format!("the farbus-remote at {}", socket.display());
    let mut line = Line::open(socket).with_context(shown)?.with_context(|| {
        format!(
            "no farbus-remote answers at {}; is `farbus-remote connect` running with this --control?",
            socket.display()
        )
    })?;
    line.ask(request, PATIENCE).with_context(shown)
}

fn words(reply: &Reply) -> String {
    match reply {
        Reply::Lend(outcomes) if outcomes.is_empty() => {
            "nothing of that is here now; it will be lent when it is plugged in\n".to_owned()
        }
        Reply::Return(outcomes) if outcomes.is_empty() => {
            "nothing of that was lent; it will not be lent when it is plugged in\n".to_owned()
        }
        Reply::Lend(outcomes) | Reply::Return(outcomes) => lines(outcomes),
        Reply::Status { report, kept, sound } => {
            status(report) + &sound.to_string() + &heading("not lent:", &lines(kept))
        }
        Reply::Switched { transport } => format!("the session is on {transport} now\n"),
        Reply::Sound(sound) => sound.to_string(),
        Reply::Error(_) => String::new(),
    }
}

fn lines(outcomes: &[Outcome]) -> String {
    outcomes.iter().map(|outcome| format!("{outcome}\n")).collect()
}

fn heading(heading: &str, lines: &str) -> String {
    if lines.is_empty() { String::new() } else { format!("{heading}\n{lines}") }
}

fn status(Report { vm, session, lent }: &Report) -> String {
    let mut words = match vm {
        Some(vm) => format!("connected: the VM `{vm}` has what is lent\n"),
        None => "no session with the host at the moment\n".to_owned(),
    };
    words += &session.as_ref().map(ToString::to_string).unwrap_or_default();
    if lent.is_empty() {
        words += "nothing is lent\n";
    }
    for Row { device, bus_port, id, name, speed, traffic, lent_for_s } in lent {
        let device = device.map_or("-".to_owned(), |device| device.to_string());
        let place = bus_port.as_deref().unwrap_or("software");
        words += &format!(
            "{device:>3}  {place:<9} {id}  {speed:<5}  {name}: {} requests, {} in, {} out, lent for {}\n",
            traffic.requests,
            bytes(traffic.bytes_in),
            bytes(traffic.bytes_out),
            time(*lent_for_s),
        );
    }
    words
}

fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{} kB", count / 1000),
        10_000_000..10_000_000_000 => format!("{} MB", count / 1_000_000),
        _ => format!("{} GB", count / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lent::Traffic;

    #[test]
    fn status_is_one_line_for_each_device() {
        let traffic = Traffic { requests: 7, bytes_in: 12_345, bytes_out: 0 };
        let row = Row {
            device: Some(3),
            bus_port: Some("1-2".into()),
            id: "1234:0008".into(),
            name: "Stick".into(),
            speed: "high".into(),
            traffic,
            lent_for_s: 7500,
        };
        let words = status(&Report { vm: Some("desk".into()), session: None, lent: vec![row] });
        for part in ["`desk`", "  3  1-2", "1234:0008", "Stick: 7 requests, 12 kB in, 0 B out", "2 h 5 min"] {
            assert!(words.contains(part), "{part}: {words}");
        }
    }
}
