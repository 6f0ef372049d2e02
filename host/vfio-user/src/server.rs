//! From a path to a bus.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use pci::{Bus, Layout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::Status;
use crate::interrupts::Wires;
use crate::memory::Memory;
use crate::requests::{Requests, Shared};

/// How a server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Permissions of the socket: who may be the VMM. 0o660 with a group that both are in, or 0o600.
    pub mode: u32,
    /// Offer REGION_WRITE_MULTI. Understood in any case; QEMU 10.2 becomes slower if it is offered.
    pub write_multiple: bool,
}

impl Default for Options {
    /// Mode 0o600, no REGION_WRITE_MULTI.
    fn default() -> Self {
        Self { mode: 0o600, write_multiple: false }
    }
}

/// A listening socket for one PCI function. May be made on another thread than the one that serves it.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    layout: Layout,
    options: Options,
    status: Arc<Status>,
    file: Option<SocketFile>,
}

impl Server {
    /// Listens at a path. A socket that nobody listens at any more is removed first; this one is removed when the
    /// server, or its bus, goes.
    ///
    /// # Errors
    /// `AddrInUse` if there is a live server at this path, `AlreadyExists` if there is something else than a
    /// socket, and whatever the system says.
    pub fn bind(path: impl AsRef<Path>, layout: Layout, options: Options) -> io::Result<Self> {
        let path = path.as_ref();
        remove_stale(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        let file = SocketFile::new(path)?;
        // Nobody can connect between the two: it does not listen yet.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(options.mode))?;
        rustix::net::listen(&socket, 8)?;
        Self::with_file(socket, layout, options, Some(file))
    }

    /// Takes a socket that listens already (socket activation); its mode is its maker's business.
    ///
    /// # Errors
    /// If it cannot be made non-blocking.
    pub fn from_listener(listener: UnixListener, layout: Layout, options: Options) -> io::Result<Self> {
        Self::with_file(listener, layout, options, None)
    }

    /// How it is doing; goes on telling when this has become a bus.
    #[must_use]
    pub fn status(&self) -> Arc<Status> {
        self.status.clone()
    }

    /// Starts to serve: on this thread, inside a tokio runtime with IO and time.
    ///
    /// # Errors
    /// If the socket cannot be watched.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn into_bus(self) -> io::Result<Bus> {
        let Self { listener, layout, options, status, file } = self;
        let memory = Rc::new(Memory::new(status.clone()));
        let wires = Rc::new(Wires::new(layout, status.clone()));
        let connection = None.into();
        let shared =
            Shared { layout, options, memory: memory.clone(), wires: wires.clone(), status, connection };
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let requests = Requests { listener, shared: Rc::new(shared), rest: None, _file: file };
        Ok(Bus { transactions: Box::pin(requests), dma: memory, interrupts: wires })
    }

    fn with_file(
        listener: impl Into<OwnedFd>,
        layout: Layout,
        options: Options,
        file: Option<SocketFile>,
    ) -> io::Result<Self> {
        let listener: OwnedFd = listener.into();
        let listener = UnixListener::from(listener);
        listener.set_nonblocking(true)?;
        Ok(Self { listener, layout, options, status: Arc::default(), file })
    }
}

/// A socket in the file system, for as long as it is ours.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), inode: std::fs::symlink_metadata(path)?.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have put another one in its place.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => return Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) => Err(error),
    }
}
