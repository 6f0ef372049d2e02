//! What a guest's kernel makes of a keyboard, event by event.

use std::collections::BTreeMap;

/// Copies every event of the keyboard into a file; says so first.
pub(crate) const RECORD: &str = r#"
for name in /sys/class/input/event*/device/name; do
    grep -q "Farbus Keyboard" "$name" || continue
    event=$(basename "$(dirname "$(dirname "$name")")")
    break
done
exec 3</dev/input/$event
echo READY
# The kernel keeps few events for who does not read them in time.
exec cat <&3 >/tmp/events
"#;

/// Waits until so many keys that came one after another have been read: the kernel has room for few more.
pub(crate) async fn until_read(vm: &lab::Vm, keys: usize) -> anyhow::Result<()> {
    let bytes = keys * EVENTS * EVENT;
    let read = format!("until [ $(wc -c < /tmp/events) -ge {bytes} ]; do usleep 10000; done");
    vm.run(&read).await?.success().map(drop)
}

/// Of each key: down and up, each with its scan code and the end of the report.
const EVENTS: usize = 6;
/// `struct input_event` of 64-bit Linux: two words of time, then type, code and value.
const EVENT: usize = 24;
/// EV_KEY and EV_SYN of Linux, and SYN_DROPPED.
const KEY: u16 = 1;
const SYN: u16 = 0;
const DROPPED: u16 = 3;

/// What the keys did.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// The codes of the keys that went down, in order.
    pub(crate) pressed: Vec<u16>,
    /// How often a key was repeated because it seemed to be held.
    pub(crate) repeated: usize,
    /// How often the kernel dropped events because nobody had read them.
    pub(crate) dropped: usize,
    /// Keys that are down at the end.
    pub(crate) down: usize,
}

impl Keys {
    /// Reads recorded events.
    pub(crate) fn read(events: &[u8]) -> Self {
        let mut keys = Self::default();
        let mut down = BTreeMap::new();
        for event in events.chunks_exact(EVENT) {
            let kind = u16::from_le_bytes([event[16], event[17]]);
            let code = u16::from_le_bytes([event[18], event[19]]);
            let value = i32::from_le_bytes([event[20], event[21], event[22], event[23]]);
            match (kind, value) {
                (KEY, 1) => {
                    keys.pressed.push(code);
                    down.insert(code, ());
                }
                (KEY, 0) => drop(down.remove(&code)),
                (KEY, _) => keys.repeated += 1,
                (SYN, _) if code == DROPPED => keys.dropped += 1,
                _ => {}
            }
        }
        keys.down = down.len();
        keys
    }
}

/// The code that Linux gives to a letter key. `input-event-codes.h`.
pub(crate) fn code(letter: char) -> Option<u16> {
    let rows = [("qwertyuiop", 16), ("asdfghjkl", 30), ("zxcvbnm", 44)];
    rows.iter().find_map(|(row, first)| Some(first + u16::try_from(row.find(letter)?).ok()?))
}
