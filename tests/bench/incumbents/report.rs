//! The best of all rounds, as a table with a verdict on each line.

use std::{collections::BTreeMap, fmt, fs};

use anyhow::{Context as _, Result};

use crate::{
    stacks::{Cpu, Stack},
    workload::{DELAYS, Figure, What},
};

/// How many times as fast as the better of the others Farbus is to be, without and with an added delay.
const BARS: (f64, f64) = (2.0, 1.0);
pub(crate) const MEBIBYTE: f64 = 1_048_576.0;

const LINES: [(What, &str, Unit); 8] = [
    (What::Attach, "lent until driver bound", Unit::Milliseconds),
    (What::Enumerate, "found until driver bound", Unit::Milliseconds),
    (What::Control, "one control transfer", Unit::Milliseconds),
    (What::Bulk, "one bulk OUT and its IN", Unit::Milliseconds),
    (What::ReadMebibytes, "read 1 MiB", Unit::Rate),
    (What::WriteMebibytes, "write 1 MiB", Unit::Rate),
    (What::ReadSectors, "read 4 KiB", Unit::Milliseconds),
    (What::WriteSectors, "write 4 KiB", Unit::Milliseconds),
];

#[derive(Clone, Copy)]
enum Unit {
    Milliseconds,
    /// MB/s of operations on a mebibyte.
    Rate,
}

impl Unit {
    fn of(self, seconds: f64) -> f64 {
        match self {
            Self::Milliseconds => seconds * 1e3,
            Self::Rate => MEBIBYTE / seconds / 1e6,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Rate => "MB/s",
        }
    }
}

/// The best figure of each stack on each line.
#[derive(Default)]
pub(crate) struct Board(BTreeMap<(u32, What, Stack), Figure>);

impl Board {
    pub(crate) fn take(&mut self, stack: Stack, figures: Vec<Figure>) {
        for figure in figures {
            let best = self.0.entry((figure.delay_ms, figure.what, stack)).or_insert(figure);
            if figure.seconds < best.seconds {
                *best = figure;
            }
        }
    }

    fn of(&self, delay_ms: u32, what: What, stack: Stack) -> Option<Figure> {
        self.0.get(&(delay_ms, what, stack)).copied()
    }

    /// The figures of the three, in the order of [`Stack::ALL`].
    fn line(&self, delay_ms: u32, what: What) -> Option<[Figure; 3]> {
        let [farbus, usb_redir, usbip] = Stack::ALL.map(|stack| self.of(delay_ms, what, stack));
        Some([farbus?, usb_redir?, usbip?])
    }
}

impl fmt::Display for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [farbus, usb_redir, usbip] = Stack::ALL;
        for delay in DELAYS.iter().rev() {
            let bar = if delay.ms == 0 { BARS.0 } else { BARS.1 };
            writeln!(
                f,
                "{:<30}      {farbus:>10}{usb_redir:>10}{usbip:>10}     ratio (bar {bar}){:>14}",
                format!("{} ms of added delay", delay.ms),
                if delay.ms == 0 { format!("{}", Stack::Local) } else { String::new() }
            )?;
            for (what, name, unit) in LINES {
                let Some(figures) = self.line(delay.ms, what) else { continue };
                let [ours, others @ ..] = figures.map(|figure| figure.seconds);
                let ratio = others.into_iter().fold(f64::INFINITY, f64::min) / ours;
                let verdict = if ratio >= bar { "reached" } else { "MISSED" };
                write!(f, "  {name:<28}{:>6}", unit.name())?;
                for figure in figures {
                    write!(f, "{:>10.2}", unit.of(figure.seconds))?;
                }
                write!(f, "     {ratio:>5.2} {verdict}")?;
                if let Some(local) = self.of(delay.ms, what, Stack::Local) {
                    write!(f, "{:>15.2}", unit.of(local.seconds))?;
                }
                writeln!(f)?;
            }
        }
        writeln!(f, "where the time goes: processor time of one operation in ms, of desk + guest + host")?;
        for delay in DELAYS.iter().rev() {
            writeln!(
                f,
                "{:<22}{farbus:>24}{usb_redir:>24}{usbip:>24}",
                format!("{} ms of added delay", delay.ms)
            )?;
            for (what, name, _) in LINES {
                let Some(figures) = self.line(delay.ms, what) else { continue };
                let [Some(farbus), Some(usb_redir), Some(usbip)] = figures.map(|figure| figure.cpu) else {
                    continue;
                };
                let [farbus, usb_redir, usbip] = [farbus, usb_redir, usbip].map(|cpu| sum(&cpu));
                writeln!(f, "  {name:<20}{farbus:>24}{usb_redir:>24}{usbip:>24}")?;
            }
        }
        Ok(())
    }
}

fn sum(cpu: &Cpu) -> String {
    let Cpu { desk, guest, host } = *cpu;
    format!("{:.1} + {:.1} + {:.1}", desk * 1e3, guest * 1e3, host * 1e3)
}

/// The load averages of this computer: what else ran meanwhile.
pub(crate) fn load() -> Result<String> {
    let load = fs::read_to_string("/proc/loadavg").context("reading /proc/loadavg")?;
    Ok(load.split(' ').take(3).collect::<Vec<_>>().join(" "))
}
