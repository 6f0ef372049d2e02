//! The keyboard's script, line by line:
//!
//! ```text
//! type Hello, world!        types the rest of the line
//! key CTRL+ALT+DELETE       presses one key with modifiers: CTRL SHIFT ALT META
//! # anything                is a comment, as is an empty line
//! ```

use functions::Stroke;

/// The strokes of a line.
pub(super) fn parse(line: &str) -> Result<Vec<Stroke>, String> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word.trim() {
        "type" => {
            rest.chars().map(Stroke::typing).collect::<Result<_, _>>().map_err(|error| error.to_string())
        }
        "key" => Stroke::combination(rest.trim()).map(|key| vec![key]).map_err(|error| error.to_string()),
        "" => Ok(Vec::new()),
        comment if comment.starts_with('#') => Ok(Vec::new()),
        other => Err(format!("`{other}` is not a command; there are: type TEXT, key COMBINATION, # comment")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_its_strokes() {
        let stroke = |modifiers, usage| Stroke { modifiers, usage };
        for (line, strokes) in [
            ("type Ab", vec![stroke(Stroke::SHIFT, 0x04), stroke(0, 0x05)]),
            ("key CTRL+ALT+DELETE", vec![stroke(Stroke::CTRL | Stroke::ALT, 0x4c)]),
            ("key F5", vec![stroke(0, 0x3e)]),
            ("key META", vec![stroke(Stroke::GUI, 0)]),
            ("# nothing", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(parse(line), Ok(strokes), "{line}");
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
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
