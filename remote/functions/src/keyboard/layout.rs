//! Keys by name and by character: US layout, HID usage page 7 (HID Usage Tables 1.5 §10).

use super::Stroke;

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

/// Why a text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoKey {
    /// A character that a US keyboard does not have.
    #[error("a US keyboard has no key for {0:?}")]
    Character(char),
    /// A name that no key has.
    #[error("there is no key `{0}`")]
    Name(String),
    /// Several keys at once that are not modifiers.
    #[error("`{0}` has two keys that are not modifiers")]
    Two(String),
}

impl Stroke {
    /// Left Control, to be held with another key.
    pub const CTRL: u8 = 1;
    /// Left Shift.
    pub const SHIFT: u8 = 2;
    /// Left Alt.
    pub const ALT: u8 = 4;
    /// Left GUI: Windows, Command or Meta.
    pub const GUI: u8 = 8;

    /// The stroke that types a character on a US keyboard.
    ///
    /// # Errors
    /// No single stroke does.
    pub fn typing(character: char) -> Result<Self, NoKey> {
        let plain = |usage| Some(Self { modifiers: 0, usage });
        let shifted = |usage| Some(Self { modifiers: Self::SHIFT, usage });
        let stroke = match character {
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
        };
        stroke.ok_or(NoKey::Character(character))
    }

    /// The key of this name, such as `F5`, `ENTER` or `a`, without modifiers; case does not matter.
    ///
    /// # Errors
    /// No key has this name.
    pub fn named(name: &str) -> Result<Self, NoKey> {
        let unknown = || NoKey::Name(name.to_owned());
        let upper = name.to_ascii_uppercase();
        let function = upper.strip_prefix('F').and_then(|digits| digits.parse::<u8>().ok());
        let mut characters = name.chars();
        let usage = match (function, characters.next(), characters.next()) {
            (Some(number @ 1..=12), ..) => 0x39 + number,
            (_, Some(character), None) => {
                Self::typing(character.to_ascii_lowercase()).map_err(|_| unknown())?.usage
            }
            _ => NAMES.into_iter().find(|(known, _)| *known == upper).ok_or_else(unknown)?.1,
        };
        Ok(Self { modifiers: 0, usage })
    }

    /// A key with modifiers, joined by `+`: `CTRL+ALT+DELETE`, `META`.
    ///
    /// # Errors
    /// A part is no key, or several parts are none that can be held.
    pub fn combination(text: &str) -> Result<Self, NoKey> {
        let mut stroke = Self { modifiers: 0, usage: 0 };
        for name in text.split('+') {
            if let Some(bit) = modifier(name) {
                stroke.modifiers |= bit;
            } else if stroke.usage != 0 {
                return Err(NoKey::Two(text.to_owned()));
            } else {
                stroke.usage = Self::named(name)?.usage;
            }
        }
        Ok(stroke)
    }
}

/// The modifier bit of this name.
fn modifier(name: &str) -> Option<u8> {
    Some(match name.to_ascii_uppercase().as_str() {
        "CTRL" | "CONTROL" => Stroke::CTRL,
        "SHIFT" => Stroke::SHIFT,
        "ALT" => Stroke::ALT,
        "META" | "SUPER" | "WIN" | "GUI" => Stroke::GUI,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_printable_ascii_character_has_one_stroke_of_its_own() {
        let strokes: Vec<_> = (' '..='~').map(|c| Stroke::typing(c).unwrap()).collect();
        for (n, stroke) in strokes.iter().enumerate() {
            assert!(!strokes[..n].contains(stroke), "{stroke:?} twice");
        }
        assert_eq!(Stroke::typing('ä'), Err(NoKey::Character('ä')));
    }

    #[test]
    fn keys_have_the_usages_of_the_tables() {
        for (name, usage) in
            [("a", 0x04), ("Z", 0x1d), ("enter", 0x28), ("F1", 0x3a), ("F12", 0x45), ("?", 0x38), ("f", 0x09)]
        {
            assert_eq!(Stroke::named(name), Ok(Stroke { modifiers: 0, usage }), "{name}");
        }
        for name in ["F13", "F0", "", "nokey"] {
            assert_eq!(Stroke::named(name), Err(NoKey::Name(name.into())), "{name}");
        }
    }

    #[test]
    fn a_combination_is_one_key_with_modifiers() {
        for (text, modifiers, usage) in [
            ("CTRL+ALT+DELETE", Stroke::CTRL | Stroke::ALT, 0x4c),
            ("meta", Stroke::GUI, 0),
            ("shift+a", Stroke::SHIFT, 4),
        ] {
            assert_eq!(Stroke::combination(text), Ok(Stroke { modifiers, usage }), "{text}");
        }
        assert_eq!(Stroke::combination("A+B"), Err(NoKey::Two("A+B".into())));
        assert_eq!(Stroke::combination(""), Err(NoKey::Name(String::new())));
    }
}
