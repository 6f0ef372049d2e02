//! What a command of Bulk-Only Transport makes certain. USB Mass Storage Class, Bulk-Only Transport 1.0 §5, §6.
//!
//! ```text
//!   Command ──CBW, data to the device──► Data ──all of it──► Command, and a status follows
//!      └─CBW, data from the device, or none──► Command, and the data and a status follow
//! ```

/// A command block wrapper. §5.1.
const WRAPPER: usize = 31;
const SIGNATURE: &[u8] = b"USBC";
/// Logical units, and bytes of a command block, that there can be.
const MAX_UNIT: u8 = 15;
const MAX_COMMAND: u8 = 16;

/// The length of a command status wrapper, bytes. §5.2.
pub(crate) const STATUS: u32 = 13;

/// What the device is certain to be asked for next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// So many bytes, then the status.
    Data(u32),
    /// The status.
    Status,
}

/// What is sent to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// A command.
    Command,
    /// Data of the last command.
    Data,
}

/// The commands on a bulk OUT endpoint, as far as they have been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Commands {
    /// Bytes of data that the device still gets for the last one.
    left: u32,
}

impl Commands {
    /// Which part of a command these bytes are, if they are sent next; none if they do not fit the protocol.
    pub(crate) fn part(&self, data: &[u8]) -> Option<Part> {
        if wrapper(data).is_some() {
            return Some(Part::Command);
        }
        let fits = self.left > 0 && !data.is_empty() && data.len() <= self.left as usize;
        fits.then_some(Part::Data)
    }

    /// Whether the device still gets data for the last command.
    pub(crate) fn expect_data(&self) -> bool {
        self.left > 0
    }

    /// These bytes are sent to the device; what it will be asked for behind them, if that is certain.
    pub(crate) fn sent(&mut self, data: &[u8]) -> Option<Next> {
        if let Some((length, inward)) = wrapper(data) {
            self.left = if inward { 0 } else { length };
            return match (length, inward) {
                (0, _) => Some(Next::Status),
                (length, true) => Some(Next::Data(length)),
                (_, false) => None,
            };
        }
        let left = core::mem::take(&mut self.left);
        let length = u32::try_from(data.len()).ok()?;
        match left.checked_sub(length)? {
            0 if left > 0 => Some(Next::Status),
            left => {
                self.left = left;
                None
            }
        }
    }
}

/// The length of the data that a command moves, and whether it comes from the device; none if this is no command, or
/// no meaningful one (§6.2).
fn wrapper(data: &[u8]) -> Option<(u32, bool)> {
    let (signature, rest) = data.split_at_checked(4).filter(|_| data.len() == WRAPPER)?;
    let [_, _, _, _, a, b, c, d, flags, unit, command, ..] = *rest else { return None };
    let meaningful = signature == SIGNATURE && unit <= MAX_UNIT && (1..=MAX_COMMAND).contains(&command);
    meaningful.then_some((u32::from_le_bytes([a, b, c, d]), flags & 0x80 != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(length: u32, flags: u8) -> Vec<u8> {
        let mut data = vec![0; WRAPPER];
        data[..4].copy_from_slice(SIGNATURE);
        data[8..12].copy_from_slice(&length.to_le_bytes());
        (data[12], data[14]) = (flags, 10);
        data
    }

    #[test]
    fn a_command_that_reads_is_followed_by_its_data_and_one_without_data_by_its_status() {
        let mut commands = Commands::default();
        assert_eq!(commands.sent(&command(4096, 0x80)), Some(Next::Data(4096)));
        assert_eq!(commands.sent(&command(0, 0)), Some(Next::Status));
        assert_eq!(commands.sent(&command(0, 0x80)), Some(Next::Status));
    }

    #[test]
    fn a_command_that_writes_is_followed_by_its_status_when_all_its_data_is_sent() {
        let mut commands = Commands::default();
        assert_eq!(commands.sent(&command(1536, 0)), None);
        assert_eq!(commands.sent(&[0; 1024]), None);
        assert_eq!(commands.sent(&[0; 512]), Some(Next::Status));
        assert_eq!(commands.sent(&[0; 512]), None, "nobody has asked for this");
    }

    #[test]
    fn what_does_not_fit_the_protocol_makes_nothing_certain() {
        let mut longer = command(4096, 0x80);
        longer.push(0);
        let (mut unit, mut block, mut signature) = (command(1, 0x80), command(1, 0x80), command(1, 0x80));
        (unit[13], block[14], signature[3]) = (16, 17, b'S');
        for data in [longer, unit, block, signature, vec![], vec![0; 31]] {
            assert_eq!(Commands::default().sent(&data), None, "{data:?}");
        }
        let mut commands = Commands::default();
        commands.sent(&command(512, 0));
        assert_eq!(commands.sent(&[0; 1024]), None, "more than was announced");
        assert_eq!(commands.sent(&[0; 512]), None);
    }
}
