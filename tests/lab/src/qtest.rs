//! A machine without processor, firmware and guest: we are its processor, over QEMU's qtest protocol
//! (QEMU, `docs/devel/testing/qtest.rst`), one line per access.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::lab::Lab;
use crate::machine::{Machine, Preparation, chain, vfio_user};
use crate::qmp::Qmp;

/// How long one access may take, unless told otherwise. A device that does not answer stalls it.
const DEADLINE: Duration = Duration::from_secs(120);
const DEFAULT_MEMORY_MIB: u32 = 256;

/// The ports through which PCI configuration space is reached (PCI 3.0 §3.2.2.3.2).
const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;
/// Where [`Qtest::enable_ecam`] puts the memory-mapped configuration space of q35.
const ECAM: u64 = 0xb000_0000;
/// Register PCIEXBAR of q35's host bridge, and its bit that enables the window.
const PCIEXBAR: u16 = 0x60;
const PCIEXBAR_ENABLE: u32 = 1;

/// A place on PCI bus 0: slot and function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Devfn(u8);

impl Devfn {
    /// The host bridge.
    pub const HOST_BRIDGE: Self = Self(0);

    /// The function `function` (0..=7) of slot `slot` (0..=31).
    ///
    /// # Panics
    /// If either is out of range.
    #[must_use]
    pub const fn new(slot: u8, function: u8) -> Self {
        assert!(slot < 32 && function < 8, "a bus has 32 slots of 8 functions");
        Self(slot << 3 | function)
    }
}

/// A qtest machine to be started: q35 with shared memory.
#[derive(Debug)]
#[must_use = "a machine does not exist before it is started"]
pub struct QtestBuilder<'lab> {
    lab: &'lab Lab,
    name: String,
    memory_mib: u32,
    devices: Vec<Value>,
    extra_args: Vec<OsString>,
    deadline: Duration,
}

impl<'lab> QtestBuilder<'lab> {
    pub(crate) fn new(lab: &'lab Lab, name: &str) -> Self {
        Self {
            lab,
            name: name.to_owned(),
            memory_mib: DEFAULT_MEMORY_MIB,
            devices: Vec::new(),
            extra_args: Vec::new(),
            deadline: DEADLINE,
        }
    }

    /// Its memory; 256 MiB unless told otherwise.
    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// Puts the PCI function served at a vfio-user socket into a slot, with the slot's number as part of its id:
    /// `slot4`.
    pub fn vfio_user(self, slot: u8, socket: impl Into<PathBuf>) -> Self {
        let mut device = vfio_user(&format!("slot{slot}"), &socket.into());
        device["addr"] = format!("{slot:x}").into();
        self.device(device)
    }

    /// Gives it a device, as QEMU's `-device` takes it in JSON.
    pub fn device(mut self, device: Value) -> Self {
        self.devices.push(device);
        self
    }

    /// More arguments for QEMU.
    pub fn extra_args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.extra_args.extend(args.into_iter().map(Into::into));
        self
    }

    /// How long one access may take; two minutes unless told otherwise.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Starts the machine.
    ///
    /// # Errors
    /// If QEMU refuses; then with its words.
    pub async fn start(self) -> Result<Qtest> {
        let mut machine = Preparation::new(&self.name, self.memory_mib)?;
        machine.args(["-machine", "q35,memory-backend=mem", "-accel", "qtest", "-qtest-log", "/dev/null"]);
        let qtest = machine.channel("qtest")?;
        machine.args(["-qtest".into(), chain("unix:", &qtest)]);
        for device in &self.devices {
            machine.args(["-device", &device.to_string()]);
        }
        machine.args(self.extra_args);
        let (machine, streams) = machine.start(self.lab.qemu()).await?;
        let stream = streams.into_iter().next().ok_or_else(|| anyhow!("QEMU connects to every channel"))?;
        Ok(Qtest { machine, stream: Mutex::new(BufReader::new(stream)), deadline: self.deadline })
    }
}

/// A running qtest machine. Addresses are physical; numbers are in the bus's byte order, little endian.
#[derive(Debug)]
pub struct Qtest {
    machine: Machine,
    stream: Mutex<BufReader<UnixStream>>,
    deadline: Duration,
}

macro_rules! accesses {
    ($($(#[$doc:meta])* $read:ident, $write:ident: $number:ty, $address:ty;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// No answer in time, or QEMU ended.
        pub async fn $read(&self, address: $address) -> Result<$number> {
            let answer = self.ask(&format!(concat!(stringify!($read), " {:#x}"), address)).await?;
            number(&answer).and_then(|value| Ok(<$number>::try_from(value)?)).with_context(|| answer)
        }

        /// The write that goes with it.
        ///
        /// # Errors
        /// No answer in time, or QEMU ended.
        pub async fn $write(&self, address: $address, value: $number) -> Result<()> {
            self.ask(&format!(concat!(stringify!($write), " {:#x} {:#x}"), address, value)).await.map(drop)
        }
    )*};
}

impl Qtest {
    accesses! {
        /// Reads 8 bits of memory or of a BAR.
        readb, writeb: u8, u64;
        /// Reads 16 bits of memory or of a BAR.
        readw, writew: u16, u64;
        /// Reads 32 bits of memory or of a BAR.
        readl, writel: u32, u64;
        /// Reads 64 bits of memory or of a BAR.
        readq, writeq: u64, u64;
        /// Reads 8 bits of a port.
        inb, outb: u8, u16;
        /// Reads 16 bits of a port.
        inw, outw: u16, u16;
        /// Reads 32 bits of a port.
        inl, outl: u32, u16;
    }

    /// Reads memory, or a BAR as a burst.
    ///
    /// # Errors
    /// No answer in time, or QEMU ended.
    pub async fn read(&self, address: u64, length: usize) -> Result<Vec<u8>> {
        if length == 0 {
            return Ok(Vec::new());
        }
        let answer = self.ask(&format!("read {address:#x} {length:#x}")).await?;
        let digits = answer.strip_prefix("0x").ok_or_else(|| anyhow!("not bytes: {answer}"))?;
        let bytes =
            digits.as_bytes().chunks(2).map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?));
        bytes.collect()
    }

    /// Writes memory, or a BAR as a burst.
    ///
    /// # Errors
    /// No answer in time, or QEMU ended.
    pub async fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut line = format!("write {address:#x} {:#x} 0x", bytes.len());
        bytes.iter().for_each(|byte| line.push_str(&format!("{byte:02x}")));
        self.ask(&line).await.map(drop)
    }

    /// Reads the 32-bit register of PCI configuration space at `register`, a multiple of 4 below 0x100.
    ///
    /// # Errors
    /// No answer in time, or QEMU ended.
    pub async fn config_read(&self, function: Devfn, register: u16) -> Result<u32> {
        self.outl(CONFIG_ADDRESS, config_address(function, register)?).await?;
        self.inl(CONFIG_DATA).await
    }

    /// Writes the 32-bit register of PCI configuration space at `register`, a multiple of 4 below 0x100.
    ///
    /// # Errors
    /// No answer in time, or QEMU ended.
    pub async fn config_write(&self, function: Devfn, register: u16, value: u32) -> Result<()> {
        self.outl(CONFIG_ADDRESS, config_address(function, register)?).await?;
        self.outl(CONFIG_DATA, value).await
    }

    /// Writes 16 bits of PCI configuration space at `register`, a multiple of 2 below 0x100.
    ///
    /// # Errors
    /// No answer in time, or QEMU ended.
    pub async fn config_writew(&self, function: Devfn, register: u16, value: u16) -> Result<()> {
        self.outl(CONFIG_ADDRESS, config_address(function, register & !2)?).await?;
        self.outw(CONFIG_DATA + (register & 2), value).await
    }

    /// Offset of the first capability with this id in a function's list, if it has one (PCI 3.0 §6.7).
    ///
    /// # Errors
    /// No answer in time, or QEMU ended.
    pub async fn capability(&self, function: Devfn, id: u8) -> Result<Option<u16>> {
        let mut at = self.config_read(function, 0x34).await? & 0xfc;
        // A list that fits into configuration space has at most 48 entries; a longer one is a ring.
        for _ in 0..48 {
            if at == 0 {
                return Ok(None);
            }
            let entry = self.config_read(function, at as u16).await?;
            if entry.to_le_bytes()[0] == id {
                return Ok(Some(at as u16));
            }
            at = entry >> 8 & 0xfc;
        }
        bail!("the capability list has no end")
    }

    /// Opens the memory window to configuration space that reaches registers from 0x100 on.
    ///
    /// # Errors
    /// No answer in time, or QEMU ended.
    pub async fn enable_ecam(&self) -> Result<()> {
        self.config_write(Devfn::HOST_BRIDGE, PCIEXBAR, ECAM as u32 | PCIEXBAR_ENABLE).await
    }

    /// Address of a register (below 0x1000) in the window of [`Qtest::enable_ecam`].
    #[must_use]
    pub fn ecam(function: Devfn, register: u16) -> u64 {
        ECAM + u64::from(function.0) * 4096 + u64::from(register)
    }

    /// QEMU itself.
    #[must_use]
    pub fn qmp(&self) -> &Qmp {
        self.machine.qmp()
    }

    /// Process id of its QEMU.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.machine.process().id()
    }

    /// Ends QEMU as a crash would.
    ///
    /// # Errors
    /// If its end cannot be seen.
    pub async fn kill(&self) -> Result<()> {
        self.machine.kill().await
    }

    /// Sends one line of the protocol and returns what follows `OK` in the answer.
    ///
    /// # Errors
    /// No answer in time, an answer that is not `OK`, or QEMU ended.
    pub async fn ask(&self, line: &str) -> Result<String> {
        let exchange = async {
            let mut stream = self.stream.lock().await;
            stream.get_mut().write_all(format!("{line}\n").as_bytes()).await?;
            loop {
                let mut answer = String::new();
                if stream.read_line(&mut answer).await? == 0 {
                    bail!("QEMU ended{}", self.machine.said());
                }
                // Interrupts are told in between when they are intercepted.
                if answer.starts_with("IRQ ") {
                    continue;
                }
                match answer.trim_end().strip_prefix("OK") {
                    Some(value) => return Ok(value.trim_start().to_owned()),
                    None => bail!("{}", answer.trim_end()),
                }
            }
        };
        let answer = timeout(self.deadline, exchange).await;
        let shown = &line[..line.len().min(80)];
        answer
            .map_err(|_| anyhow!("no answer within {:?}", self.deadline))
            .and_then(|answer| answer)
            .with_context(|| format!("qtest {shown:?} in {}", self.machine.name()))
    }
}

fn number(answer: &str) -> Result<u64> {
    let digits = answer.strip_prefix("0x").ok_or_else(|| anyhow!("not a number"))?;
    Ok(u64::from_str_radix(digits, 16)?)
}

fn config_address(function: Devfn, register: u16) -> Result<u32> {
    if register >= 0x100 || !register.is_multiple_of(4) {
        bail!("no 32-bit register of the first 256 bytes: {register:#x}");
    }
    Ok(1 << 31 | u32::from(function.0) << 8 | u32::from(register))
}
