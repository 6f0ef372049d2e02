//! A VMM in one thread: a vfio-user client with guest memory, an interrupt, and nothing else. What
//! [`xhci::driver`] runs on when a real controller process is measured without a guest.

use std::{
    fs::File,
    io::{IoSlice, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{fs::FileExt, net::UnixStream},
    },
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use pci::Width;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
    time::Timespec,
};
use vfio_user::codec::{Command, DmaMap, Header, RegionAccess, SetIrqs, Version};
use xhci::driver::Host;
use zerocopy::IntoBytes;

/// Guest memory from address 0 on, bytes.
pub(crate) const MEMORY: u64 = 64 << 20;
/// The regions of BAR 0 and of configuration space.
const BAR0: u32 = 0;
const CONFIG: u32 = 7;
const MSI: u32 = 1;
/// VERSION's payload: 0.0, and no capabilities beyond the defaults.
const CAPABILITIES: &[u8] = b"{\"capabilities\":{\"max_msg_fds\":1}}\0";

/// The client.
pub(crate) struct Vmm {
    stream: UnixStream,
    pub(crate) memory: File,
    interrupt: OwnedFd,
}

impl Vmm {
    /// Connects, maps memory, wires MSI vector 0, and lets the function master the bus.
    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("connecting to {}", socket.display()))?;
        let memory = memfd_create("guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let memory = File::from(memory);
        memory.set_len(MEMORY)?;
        fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let interrupt = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let mut vmm = Self { stream, memory, interrupt };

        let version = [Version { major: 0, minor: 0 }.as_bytes(), CAPABILITIES].concat();
        vmm.ask(Command::Version, &version, None)?;
        let map = DmaMap { argsz: 32, flags: 3, offset: 0, address: 0, size: MEMORY };
        let memory = vmm.memory.try_clone()?;
        vmm.ask(Command::DmaMap, map.as_bytes(), Some(memory.as_fd()))?;
        // Data and trigger by eventfd.
        let irqs = SetIrqs { argsz: 20, flags: 0x24, index: MSI, start: 0, count: 1 };
        let interrupt = vmm.interrupt.try_clone()?;
        vmm.ask(Command::SetIrqs, irqs.as_bytes(), Some(interrupt.as_fd()))?;
        let command =
            [RegionAccess { offset: 4, region: CONFIG, count: 2 }.as_bytes(), &[0x06, 0x00]].concat();
        vmm.ask(Command::RegionWrite, &command, None)?;
        Ok(vmm)
    }

    fn send(
        &mut self,
        command: Command,
        flags: u32,
        payload: &[u8],
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let size = (Header::BYTES + payload.len()) as u32;
        let header = Header { id: 1, command: command as u16, size, flags, errno: 0 };
        let message = [header.as_bytes(), payload].concat();
        let fds = fd.as_slice();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        let sent = sendmsg(&self.stream, &[IoSlice::new(&message)], &mut control, SendFlags::NOSIGNAL)?;
        self.stream.write_all(&message[sent..])?;
        Ok(())
    }

    /// A command and its reply's payload.
    fn ask(&mut self, command: Command, payload: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<Vec<u8>> {
        self.send(command, 0, payload, fd)?;
        let mut header = [0; Header::BYTES];
        self.stream.read_exact(&mut header)?;
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        ensure!(word(8) & Header::ERROR == 0, "{command:?} was refused");
        let mut reply = vec![0; word(4) as usize - Header::BYTES];
        self.stream.read_exact(&mut reply)?;
        Ok(reply)
    }
}

impl Host for Vmm {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        let access = RegionAccess { offset, region: BAR0, count: width.bytes() as u32 };
        let reply = self.ask(Command::RegionRead, access.as_bytes(), None).expect("a live controller");
        let mut value = [0; 8];
        value[..width.bytes()].copy_from_slice(&reply[reply.len() - width.bytes()..]);
        u64::from_le_bytes(value)
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        let access = RegionAccess { offset, region: BAR0, count: width.bytes() as u32 };
        let payload = [access.as_bytes(), &value.to_le_bytes()[..width.bytes()]].concat();
        self.send(Command::RegionWrite, Header::NO_REPLY, &payload, None).expect("a live controller");
    }

    fn load(&mut self, address: u64, data: &mut [u8]) {
        self.memory.read_exact_at(data, address).expect("guest memory");
    }

    fn store(&mut self, address: u64, data: &[u8]) {
        self.memory.write_all_at(data, address).expect("guest memory");
    }

    /// Until the next interrupt, at most this long.
    fn wait(&mut self, time: Duration) {
        let timeout = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
        let mut fds = [PollFd::new(&self.interrupt, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&timeout));
        let _ = rustix::io::read(&self.interrupt, &mut [0u8; 8]);
    }
}
