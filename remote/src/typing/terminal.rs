//! Keys typed in this terminal. It tells of presses only, so every key is pressed and released at once.

use anyhow::{Context as _, Result};
use crossterm::{
    event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, read as read_event},
    terminal::{disable_raw_mode, enable_raw_mode},
};
use functions::Stroke;
use tokio::sync::mpsc;

use super::Typed;

/// The terminal's raw mode, for as long as this lives.
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    pub(super) fn enter() -> Result<Self> {
        enable_raw_mode().context("putting the terminal into raw mode")?;
        // A panic prints its message before anything is dropped: give the terminal back first.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let _ = disable_raw_mode();
            hook(info);
        }));
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = disable_raw_mode();
    }
}

/// Reads keys until the user leaves or nobody listens.
pub(super) fn read(typed: &mpsc::Sender<Typed>) {
    while let Ok(event) = read_event() {
        let Event::Key(key) = event else { continue };
        let Some(what) = meaning(key) else { continue };
        if typed.blocking_send(what).is_err() || what == Typed::Leave {
            return;
        }
    }
}

fn meaning(key: KeyEvent) -> Option<Typed> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    // Terminals send Ctrl-] as Ctrl-5.
    let leave = matches!(key.code, KeyCode::Char(']' | '5')) && key.modifiers.contains(KeyModifiers::CONTROL);
    if leave {
        return Some(Typed::Leave);
    }
    let mut modifiers = 0;
    for (held, bit) in [
        (KeyModifiers::CONTROL, Stroke::CTRL),
        (KeyModifiers::ALT, Stroke::ALT),
        (KeyModifiers::SHIFT, Stroke::SHIFT),
    ] {
        modifiers |= if key.modifiers.contains(held) { bit } else { 0 };
    }
    let named = |name: &str| Stroke::named(name).ok();
    let stroke = match key.code {
        KeyCode::Char(character) => Stroke::typing(character).ok(),
        KeyCode::F(number) => named(&format!("F{number}")),
        KeyCode::BackTab => Stroke::typing('\t').ok(),
        KeyCode::Enter => named("ENTER"),
        KeyCode::Esc => named("ESC"),
        KeyCode::Backspace => named("BACKSPACE"),
        KeyCode::Tab => named("TAB"),
        KeyCode::Insert => named("INSERT"),
        KeyCode::Delete => named("DELETE"),
        KeyCode::Home => named("HOME"),
        KeyCode::End => named("END"),
        KeyCode::PageUp => named("PAGEUP"),
        KeyCode::PageDown => named("PAGEDOWN"),
        KeyCode::Left => named("LEFT"),
        KeyCode::Right => named("RIGHT"),
        KeyCode::Up => named("UP"),
        KeyCode::Down => named("DOWN"),
        _ => None,
    }?;
    Some(Typed::Stroke(Stroke { modifiers: stroke.modifiers | modifiers, usage: stroke.usage }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_bracket_leaves_and_other_keys_reach_the_vm() {
        let key = |code, modifiers| meaning(KeyEvent::new(code, modifiers));
        assert_eq!(key(KeyCode::Char(']'), KeyModifiers::CONTROL), Some(Typed::Leave));
        let ctrl_c = Stroke { modifiers: Stroke::CTRL, usage: 0x06 };
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Typed::Stroke(ctrl_c)));
        let up = Stroke { modifiers: 0, usage: 0x52 };
        assert_eq!(key(KeyCode::Up, KeyModifiers::NONE), Some(Typed::Stroke(up)));
    }
}
