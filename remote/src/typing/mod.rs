//! Where a lent keyboard's keys come from: this terminal, or a script on standard input.

mod script;
mod terminal;

use std::io::{BufRead, IsTerminal, stdin};

use anyhow::Result;
use functions::Stroke;
use tokio::sync::mpsc;

pub(crate) use terminal::RawMode;

/// Strokes read, but not yet taken by the keyboard: whoever types waits then.
const STROKES: usize = 64;

/// What the user did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Typed {
    /// A key was pressed.
    Stroke(Stroke),
    /// The user wants to end.
    Leave,
}

/// Starts to read keys on a thread of its own; it ends with the process. In a terminal, the mode is to be kept until
/// the end: it is put back when dropped.
///
/// # Errors
/// The terminal does not go into raw mode.
pub(crate) fn start() -> Result<(mpsc::Receiver<Typed>, Option<RawMode>)> {
    let (sender, typed) = mpsc::channel(STROKES);
    if stdin().is_terminal() {
        let mode = RawMode::enter()?;
        eprint!("typing goes to the VM now; Ctrl-] ends\r\n");
        std::thread::spawn(move || terminal::read(&sender));
        return Ok((typed, Some(mode)));
    }
    std::thread::spawn(move || {
        for (number, line) in stdin().lock().lines().enumerate() {
            let Ok(line) = line else { return };
            match script::parse(&line) {
                Ok(strokes) => {
                    for stroke in strokes {
                        if sender.blocking_send(Typed::Stroke(stroke)).is_err() {
                            return;
                        }
                    }
                }
                Err(error) => tracing::error!("standard input, line {}: {error}", number + 1),
            }
        }
        // The end of the script is not the end of the keyboard.
        tracing::debug!("no more keys on standard input");
    });
    Ok((typed, None))
}
