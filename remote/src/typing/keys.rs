//! Keys by name and by character: US layout, HID usage page 7 (HID Usage Tables 1.5 §10).

use functions::Stroke;

/// Left Control.
pub(crate) const CTRL: u8 = 1;
/// Left Shift.
pub(crate) const SHIFT: u8 = 2;
/// Left Alt.
pub(crate) const ALT: u8 = 4;
/// Left GUI.
pub(crate) const META: u8 = 8;

/// Characters of keys from usage 0x2d on, plain and shifted.
const SIGNS: [(u8, char, char); 11] = [
    (0x2d, '-', '_'),
    (0x2e, '=', '+'),
    (0x2f, '[', '{'),
    (0x30, ']', '}'),
    (0x31, '\\', '|'),
    (0x33, ';', ':'),
    (0x34, '\'', '"'),
    (0x35, '`', '~'),
    (0x36, ',', '<'),
    (0x37, '.', '>'),
    (0x38, '/', '?'),
];

/// Names of keys that are no characters.
const NAMES: [(&str, u8); 24] = [
    ("ENTER", 0x28),
    ("ESC", 0x29),
    ("BACKSPACE", 0x2a),
    ("TAB", 0x2b),
    ("SPACE", 0x2c),
    ("CAPSLOCK", 0x39),
    ("PRINTSCREEN", 0x46),
    ("SCROLLLOCK", 0x47),
    ("PAUSE", 0x48),
    ("INSERT", 0x49),
    ("HOME", 0x4a),
    ("PAGEUP", 0x4b),
    ("DELETE", 0x4c),
    ("END", 0x4d),
    ("PAGEDOWN", 0x4e),
    ("RIGHT", 0x4f),
    ("LEFT", 0x50),
    ("DOWN", 0x51),
    ("UP", 0x52),
    ("NUMLOCK", 0x53),
    ("MENU", 0x65),
    ("RETURN", 0x28),
    ("DEL", 0x4c),
    ("INS", 0x49),
];

/// The stroke that types a character, if a US keyboard has it.
pub(crate) fn of_char(character: char) -> Option<Stroke> {
    let plain = |usage| Some(Stroke { modifiers: 0, usage });
    let shifted = |usage| Some(Stroke { modifiers: SHIFT, usage });
    match character {
        'a'..='z' => plain(0x04 + (character as u8 - b'a')),
        'A'..='Z' => shifted(0x04 + (character as u8 - b'A')),
        '1'..='9' => plain(0x1e + (character as u8 - b'1')),
        '0' => plain(0x27),
        '\n' | '\r' => plain(0x28),
        '\t' => plain(0x2b),
        ' ' => plain(0x2c),
        _ => {
            let above_digits = "!@#$%^&*()".chars().position(|sign| sign == character);
            above_digits.and_then(|at| shifted(0x1e + at as u8)).or_else(|| {
                let (usage, unshifted, _) =
                    SIGNS.into_iter().find(|(_, low, high)| [*low, *high].contains(&character))?;
                if unshifted == character { plain(usage) } else { shifted(usage) }
            })
        }
    }
}

/// The usage of a key with this name, such as `F5`, `ENTER` or `a`; case does not matter.
pub(crate) fn of_name(name: &str) -> Option<u8> {
    let upper = name.to_ascii_uppercase();
    if let Some(number) = upper.strip_prefix('F').and_then(|digits| digits.parse::<u8>().ok()) {
        return (1..=12).contains(&number).then(|| 0x39 + number);
    }
    if let Some((_, usage)) = NAMES.into_iter().find(|(known, _)| *known == upper) {
        return Some(usage);
    }
    let mut characters = name.chars();
    match (characters.next(), characters.next()) {
        (Some(character), None) => of_char(character.to_ascii_lowercase()).map(|stroke| stroke.usage),
        _ => None,
    }
}

/// The modifier bit of this name.
pub(crate) fn modifier(name: &str) -> Option<u8> {
    Some(match name.to_ascii_uppercase().as_str() {
        "CTRL" | "CONTROL" => CTRL,
        "SHIFT" => SHIFT,
        "ALT" => ALT,
        "META" | "SUPER" | "WIN" | "GUI" => META,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_printable_ascii_character_has_one_stroke_of_its_own() {
        let strokes: Vec<_> =
            (' '..='~').map(|c| of_char(c).unwrap_or_else(|| panic!("no key for {c:?}"))).collect();
        for (n, stroke) in strokes.iter().enumerate() {
            assert!(!strokes[..n].contains(stroke), "{stroke:?} twice");
        }
        assert_eq!(of_char('ä'), None);
    }

    #[test]
    fn keys_have_the_usages_of_the_tables() {
        for (name, usage) in
            [("a", 0x04), ("Z", 0x1d), ("enter", 0x28), ("F1", 0x3a), ("F12", 0x45), ("?", 0x38)]
        {
            assert_eq!(of_name(name), Some(usage), "{name}");
        }
        for name in ["F13", "F0", "", "nokey"] {
            assert_eq!(of_name(name), None, "{name}");
        }
    }
}
