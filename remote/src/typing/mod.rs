//! Where a lent keyboard's keys come from: this terminal, or a script on standard input.

mod script;
mod terminal;

use std::{
    io::{BufRead, ErrorKind, IsTerminal, stdin},
    time::Duration,
};

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
    /// Nothing is pressed for so long.
    Wait(Duration),
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
        read_script(stdin().lock(), &sender);
        // The end of the script is not the end of the keyboard.
        tracing::debug!("no more keys on standard input");
    });
    Ok((typed, None))
}

/// Reads a script until it ends, or nobody listens. A line that is wrong is said and passed over.
fn read_script(script: impl BufRead, typed: &mpsc::Sender<Typed>) {
    for (number, line) in script.lines().enumerate() {
        let parsed = match line {
            Ok(line) => script::parse(&line),
            Err(error) if error.kind() == ErrorKind::InvalidData => Err("it is not UTF-8".to_owned()),
            Err(error) => return tracing::warn!(%error, "reading standard input"),
        };
        match parsed {
            Ok(what) => {
                for what in what {
                    if typed.blocking_send(what).is_err() {
                        return;
                    }
                }
            }
            Err(error) => tracing::error!("standard input, line {}: {error}", number + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_line_does_not_stop_the_script() {
        let (sender, mut typed) = mpsc::channel(8);
        read_script(&b"type a\nnonsense\n\xff\xfe\nkey b\n"[..], &sender);
        drop(sender);
        let keys: Vec<_> = std::iter::from_fn(|| typed.blocking_recv()).collect();
        let key = |usage| Typed::Stroke(Stroke { modifiers: 0, usage });
        assert_eq!(keys, [key(4), key(5)]);
    }
}
