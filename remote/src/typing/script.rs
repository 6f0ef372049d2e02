//! The keyboard's script, line by line:
//!
//! ```text
//! type Hello, world!        types the rest of the line
//! key CTRL+ALT+DELETE       presses one key with modifiers: CTRL SHIFT ALT META
//! # anything                is a comment, as is an empty line
//! ```

use functions::Stroke;

use super::keys;

/// The strokes of a line.
pub(super) fn parse(line: &str) -> Result<Vec<Stroke>, String> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word.trim() {
        "type" => rest
            .chars()
            .map(|c| keys::of_char(c).ok_or_else(|| format!("a US keyboard has no key for {c:?}")))
            .collect(),
        "key" => combination(rest.trim()).map(|stroke| vec![stroke]),
        "" => Ok(Vec::new()),
        comment if comment.starts_with('#') => Ok(Vec::new()),
        other => Err(format!("`{other}` is not a command; there are: type TEXT, key COMBINATION, # comment")),
    }
}

fn combination(text: &str) -> Result<Stroke, String> {
    let mut stroke = Stroke { modifiers: 0, usage: 0 };
    for name in text.split('+') {
        if let Some(bit) = keys::modifier(name) {
            stroke.modifiers |= bit;
        } else if stroke.usage != 0 {
            return Err(format!("`{text}` has two keys that are not modifiers"));
        } else {
            stroke.usage = keys::of_name(name).ok_or_else(|| format!("there is no key `{name}`"))?;
        }
    }
    Ok(stroke)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_its_strokes() {
        let stroke = |modifiers, usage| Stroke { modifiers, usage };
        for (line, strokes) in [
            ("type Ab", vec![stroke(keys::SHIFT, 0x04), stroke(0, 0x05)]),
            ("key CTRL+ALT+DELETE", vec![stroke(keys::CTRL | keys::ALT, 0x4c)]),
            ("key F5", vec![stroke(0, 0x3e)]),
            ("key META", vec![stroke(keys::META, 0)]),
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
