//! The keyboard's script, line by line:
//!
//! ```text
//! type Hello, world!        types the rest of the line (US layout)
//! key CTRL+ALT+DELETE       presses one key with modifiers: CTRL SHIFT ALT META
//! wait 500                  presses nothing for so many milliseconds
//! # anything                is a comment, as is an empty line
//! ```
//! Keys wait for the VM to read them, so none is lost by coming early, and a script needs no `wait` for that.

use std::time::Duration;

use functions::{NoKey, Stroke};

use super::Typed;

/// What a line asks for.
pub(super) fn parse(line: &str) -> Result<Vec<Typed>, String> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let said = |error: NoKey| error.to_string();
    match word.trim() {
        "type" => rest.chars().map(|c| Stroke::typing(c).map(Typed::Stroke).map_err(said)).collect(),
        "key" => Stroke::combination(rest.trim()).map(|key| vec![Typed::Stroke(key)]).map_err(said),
        "wait" => {
            let time = rest.trim().parse().map_err(|_| format!("`{rest}` is no number of milliseconds"))?;
            Ok(vec![Typed::Wait(Duration::from_millis(time))])
        }
        "" => Ok(Vec::new()),
        comment if comment.starts_with('#') => Ok(Vec::new()),
        other => Err(format!(
            "`{other}` is not a command; there are: type TEXT, key COMBINATION, wait MILLISECONDS, # comment"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_its_strokes() {
        let stroke = |modifiers, usage| Typed::Stroke(Stroke { modifiers, usage });
        for (line, typed) in [
            ("type Ab", vec![stroke(Stroke::SHIFT, 0x04), stroke(0, 0x05)]),
            ("type  a", vec![stroke(0, 0x2c), stroke(0, 0x04)]),
            ("key CTRL+ALT+DELETE", vec![stroke(Stroke::CTRL | Stroke::ALT, 0x4c)]),
            ("key F5", vec![stroke(0, 0x3e)]),
            ("key META", vec![stroke(Stroke::GUI, 0)]),
            ("wait 20", vec![Typed::Wait(Duration::from_millis(20))]),
            ("# nothing", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(parse(line), Ok(typed), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        for (line, says) in [
            ("press a", "not a command"),
            ("type ä", "no key for 'ä'"),
            ("key A+B", "two keys"),
            ("key NOKEY", "there is no key `NOKEY`"),
            ("key ", "there is no key"),
            ("wait long", "no number"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
