//! A server on a thread of its own, with a function that shows everything through its registers, and a small client
//! that can also say what no VMM says.

use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::StreamExt;
use pci::{Bus, Function, Layout, Region};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tempfile::TempDir;
use tokio::sync::oneshot;
use vfio_user::codec::{Command, DmaMap, DmaUnmap, Header, RegionAccess, SetIrqs, Version};
use vfio_user::{Options, Server, Status};
use zerocopy::{FromBytes, IntoBytes};

pub(crate) const LAYOUT: Layout = Layout { bars: [0x1000, 0, 0, 0, 0, 0], msi: 4, msix: 0, intx: false };

/// Write: raises this MSI vector.
pub(crate) const RAISE: u64 = 0x100;
/// Write: reads a dword at this guest address; [`RESULT`] has it, or all-ones.
pub(crate) const LOOK: u64 = 0x108;
/// Write: writes [`RESULT`]'s low dword to this guest address; [`RESULT`] has 0, or all-ones.
pub(crate) const PUT: u64 = 0x110;
/// See there.
pub(crate) const RESULT: u64 = 0x118;
/// Read: how often the function was reset.
pub(crate) const RESETS: u64 = 0x120;

struct Probe {
    registers: [u8; 0x1000],
    resets: u64,
    bus: Bus,
}

impl Function for Probe {
    fn read(&mut self, region: Region, offset: u64, data: &mut [u8]) {
        self.set(RESETS, self.resets);
        if region == Region::Bar(0) {
            data.iter_mut()
                .zip(self.registers.iter().skip(offset as usize))
                .for_each(|(to, from)| *to = *from);
        }
    }

    fn write(&mut self, region: Region, offset: u64, data: &[u8]) {
        if region != Region::Bar(0) {
            return;
        }
        self.registers.iter_mut().skip(offset as usize).zip(data).for_each(|(to, from)| *to = *from);
        let value = self.at(offset & 0xff8);
        match offset {
            RAISE => self.bus.interrupts.raise(value as u16),
            LOOK => self.set(RESULT, self.bus.dma.observe(value).map_or(u64::MAX, u64::from)),
            PUT => {
                let result = self.bus.dma.publish(value, self.at(RESULT) as u32);
                self.set(RESULT, result.map_or(u64::MAX, |()| 0));
            }
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.registers.fill(0);
        self.resets += 1;
    }
}

impl Probe {
    fn at(&self, offset: u64) -> u64 {
        u64::from_le_bytes(self.registers[offset as usize..][..8].try_into().unwrap())
    }

    fn set(&mut self, offset: u64, value: u64) {
        self.registers[offset as usize..][..8].copy_from_slice(&value.to_le_bytes());
    }
}

pub(crate) struct Desk {
    pub(crate) path: PathBuf,
    pub(crate) status: Arc<Status>,
    _directory: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self::with(Options::default())
    }

    pub(crate) fn with(options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("device.sock");
        let server = Server::bind(&path, LAYOUT, options).unwrap();
        let status = server.status();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = serve(server) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { path, status, _directory: directory, stop: Some(stop), thread: Some(thread) }
    }

    /// A client that has said nothing.
    pub(crate) fn connect(&self) -> Client {
        let socket = UnixStream::connect(&self.path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Client { socket, id: 0 }
    }

    /// A client like QEMU.
    pub(crate) fn qemu(&self) -> Client {
        let mut client = self.connect();
        client.ok(Command::Version, Version { major: 0, minor: 0 }.as_bytes());
        client
    }
}

async fn serve(server: Server) {
    let mut bus = server.into_bus().unwrap();
    let shown = Bus {
        transactions: Box::pin(futures_util::stream::pending()),
        dma: bus.dma.clone(),
        interrupts: bus.interrupts.clone(),
    };
    let mut probe = Probe { registers: [0; 0x1000], resets: 0, bus: shown };
    while let Some(transaction) = bus.transactions.next().await {
        transaction.perform(&mut probe);
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
        let result = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            result.expect("the server's thread has panicked");
        }
    }
}

pub(crate) struct Client {
    pub(crate) socket: UnixStream,
    id: u16,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) header: Header,
    pub(crate) payload: Vec<u8>,
}

impl Client {
    pub(crate) fn message(&mut self, command: u16, flags: u32, payload: &[u8]) -> Vec<u8> {
        self.id = self.id.wrapping_add(1);
        let size = (Header::BYTES + payload.len()) as u32;
        let header = Header { id: self.id, command, size, flags, errno: 0 };
        [header.as_bytes(), payload].concat()
    }

    pub(crate) fn send(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut ancillary = SendAncillaryBuffer::new(&mut room);
        if !fds.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
        }
        let mut sent =
            sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
        while sent < bytes.len() {
            sent += rustix::net::send(&self.socket, &bytes[sent..], SendFlags::NOSIGNAL).unwrap();
        }
    }

    pub(crate) fn reply(&mut self) -> Reply {
        let mut header = [0; 16];
        self.socket.read_exact(&mut header).unwrap();
        let header = Header::read_from_bytes(&header).unwrap();
        assert_eq!(header.flags & Header::TYPE, Header::REPLY);
        let mut payload = vec![0; header.size as usize - Header::BYTES];
        self.socket.read_exact(&mut payload).unwrap();
        Reply { header, payload }
    }

    /// Whether the server has closed the connection, once everything before has been read.
    pub(crate) fn closed(&mut self) -> bool {
        let mut byte = [0];
        match self.socket.read(&mut byte) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    pub(crate) fn ask_with(&mut self, command: u16, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Reply {
        let bytes = self.message(command, 0, payload);
        self.send(&bytes, fds);
        let reply = self.reply();
        assert_eq!((reply.header.id, reply.header.command), (self.id, command));
        let failed = reply.header.flags & Header::ERROR != 0;
        assert_eq!(failed, reply.header.errno != 0);
        assert!(!failed || reply.payload.is_empty());
        reply
    }

    pub(crate) fn ok(&mut self, command: Command, payload: &[u8]) -> Vec<u8> {
        let reply = self.ask_with(command as u16, payload, &[]);
        assert_eq!(reply.header.errno, 0, "{command:?}");
        reply.payload
    }

    pub(crate) fn errno(&mut self, command: u16, payload: &[u8], fds: &[BorrowedFd<'_>]) -> u32 {
        self.ask_with(command, payload, fds).header.errno
    }

    pub(crate) fn read(&mut self, offset: u64) -> u64 {
        let access = RegionAccess { offset, region: 0, count: 8 };
        let payload = self.ok(Command::RegionRead, access.as_bytes());
        assert_eq!(payload[..16], *access.as_bytes());
        u64::from_le_bytes(payload[16..].try_into().unwrap())
    }

    /// Posted, as QEMU does it.
    pub(crate) fn write(&mut self, offset: u64, value: u64) {
        let access = RegionAccess { offset, region: 0, count: 8 };
        let payload = [access.as_bytes(), &value.to_le_bytes()].concat();
        let bytes = self.message(Command::RegionWrite as u16, Header::NO_REPLY, &payload);
        self.send(&bytes, &[]);
    }

    pub(crate) fn map(&mut self, address: u64, offset: u64, size: u64, file: Option<BorrowedFd<'_>>) -> u32 {
        let map = DmaMap { argsz: 32, flags: 3, offset, address, size };
        self.errno(Command::DmaMap as u16, map.as_bytes(), file.as_slice())
    }

    pub(crate) fn unmap(&mut self, flags: u32, address: u64, size: u64) -> u32 {
        let unmap = DmaUnmap { argsz: 24, flags, address, size };
        self.errno(Command::DmaUnmap as u16, unmap.as_bytes(), &[])
    }

    pub(crate) fn set_irqs(&mut self, flags: u32, start: u32, count: u32, fds: &[BorrowedFd<'_>]) -> u32 {
        let set = SetIrqs { argsz: 20, flags, index: 1, start, count };
        self.errno(Command::SetIrqs as u16, set.as_bytes(), fds)
    }

    /// What the device sees at this guest address.
    pub(crate) fn look(&mut self, address: u64) -> Option<u32> {
        self.write(LOOK, address);
        u32::try_from(self.read(RESULT)).ok()
    }

    /// Lets the device write to this guest address.
    pub(crate) fn put(&mut self, address: u64, value: u32) -> bool {
        self.write(RESULT, value.into());
        self.write(PUT, address);
        self.read(RESULT) == 0
    }
}

pub(crate) fn memfd(pages: u64) -> std::fs::File {
    let file = rustix::fs::memfd_create("ram", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, pages * 4096).unwrap();
    file.into()
}

pub(crate) fn eventfd() -> OwnedFd {
    use rustix::event::EventfdFlags;
    rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap()
}

/// How often it was signalled since the last look.
pub(crate) fn signals(eventfd: &OwnedFd) -> u64 {
    let mut value = [0; 8];
    rustix::io::read(eventfd, &mut value).map_or(0, |_| u64::from_ne_bytes(value))
}

/// A descriptor to give away, and a way to wait until nobody has it any more.
pub(crate) struct Lent {
    reader: OwnedFd,
}

impl Lent {
    pub(crate) fn new() -> (Self, OwnedFd) {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        (Self { reader }, writer)
    }

    pub(crate) fn is_closed(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut polled = [PollFd::new(&self.reader, PollFlags::IN)];
        let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
        poll(&mut polled, Some(&patience)).unwrap();
        polled[0].revents().contains(PollFlags::HUP)
    }
}

pub(crate) fn borrow(fds: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    fds.iter().map(AsFd::as_fd).collect()
}
