//! Where control sockets are: in a folder that this user alone can write to.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder},
    io,
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, MetadataExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use crate::{SocketError, claim::Claim};

/// What the place depends on.
#[derive(Debug, Clone)]
pub struct Around {
    /// `XDG_RUNTIME_DIR`.
    pub runtime: Option<OsString>,
    /// Where the system keeps runtime folders of users.
    pub users: PathBuf,
    /// Where anybody may make a folder.
    pub anybodys: PathBuf,
    /// This user.
    pub uid: u32,
}

impl Around {
    /// This process's.
    pub fn here() -> Self {
        Self {
            runtime: std::env::var_os("XDG_RUNTIME_DIR"),
            users: "/run/user".into(),
            anybodys: std::env::temp_dir(),
            uid: rustix::process::geteuid().as_raw(),
        }
    }

    /// The folder of control sockets.
    pub fn folder(&self) -> PathBuf {
        let runtime = self.runtime.as_ref().map(PathBuf::from).filter(|runtime| runtime.is_absolute());
        let users = self.users.join(self.uid.to_string());
        let ours = |folder: &PathBuf| fs::metadata(folder).is_ok_and(|found| found.uid() == self.uid);
        match runtime.into_iter().chain([users]).find(ours) {
            Some(runtime) => runtime.join("farbus"),
            None => self.anybodys.join(format!("farbus-{}", self.uid)),
        }
    }

    /// Makes sure that the folder is there and nobody else's.
    ///
    /// # Errors
    /// It cannot be made, or somebody else could have put something there.
    pub fn make_folder(&self) -> Result<PathBuf, SocketError> {
        let folder = self.folder();
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(SocketError::Folder(folder, error));
            }
            _ => self.check(&folder)?,
        }
        Ok(folder)
    }

    fn check(&self, folder: &Path) -> Result<(), SocketError> {
        let found =
            fs::symlink_metadata(folder).map_err(|error| SocketError::Folder(folder.to_owned(), error))?;
        match found.is_dir() && found.uid() == self.uid && found.mode() & 0o022 == 0 {
            true => Ok(()),
            false => Err(SocketError::NotAlone(folder.to_owned())),
        }
    }

    /// The sockets whose names begin so and behind which somebody listens, sorted. Those that were left behind are
    /// removed.
    ///
    /// # Errors
    /// The folder is somebody else's.
    pub fn listening(&self, prefix: &str) -> Result<Vec<PathBuf>, SocketError> {
        let folder = self.folder();
        let Ok(entries) = fs::read_dir(&folder) else { return Ok(Vec::new()) };
        self.check(&folder)?;
        let named =
            |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes());
        let sockets =
            entries.flatten().filter(named).map(|entry| entry.path()).filter(|path| is_socket(path));
        let mut listening: Vec<_> = sockets.filter(|path| listens(path)).collect();
        listening.sort();
        Ok(listening)
    }
}

/// Whether there is a socket; not a link to one.
pub(crate) fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// Whether somebody listens there; the socket of somebody who died is removed.
fn listens(socket: &Path) -> bool {
    answers(socket) || {
        // Who has the claim is about to listen, or has just removed it.
        let claim = Claim::of(socket);
        let claim = claim.inspect_err(|error| tracing::debug!(%error, "the lock of {}", socket.display()));
        claim.ok().flatten().is_some_and(|claim| answers_or_goes(socket, &claim))
    }
}

/// Whether somebody listens there, as is looked up by whoever has the claim: the socket of somebody who died is removed.
pub(crate) fn answers_or_goes(socket: &Path, _claim: &Claim) -> bool {
    let answers = answers(socket);
    if !answers
        && let Err(error) = fs::remove_file(socket)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(%error, "removing {}", socket.display());
    }
    answers
}

fn answers(socket: &Path) -> bool {
    let gone = [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotFound];
    // Any other error may be of one that we may not use.
    UnixStream::connect(socket).map_or_else(|error| !gone.contains(&error.kind()), |_| true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::PermissionsExt, net::UnixListener};

    use super::*;

    fn around(root: &Path) -> Around {
        let uid = rustix::process::geteuid().as_raw();
        let around = Around { runtime: None, users: root.join("users"), anybodys: root.join("tmp"), uid };
        for folder in ["users", "tmp", "xdg"] {
            fs::create_dir(root.join(folder)).unwrap();
        }
        around
    }

    #[test]
    fn the_folder_is_in_the_first_of_three_places_that_there_is() {
        let root = tempfile::tempdir().unwrap();
        let mut around = around(root.path());
        let uid = around.uid.to_string();
        assert_eq!(around.folder(), root.path().join(format!("tmp/farbus-{uid}")));
        fs::create_dir(around.users.join(&uid)).unwrap();
        assert_eq!(around.folder(), around.users.join(&uid).join("farbus"));
        around.runtime = Some("relative".into());
        assert_eq!(around.folder(), around.users.join(&uid).join("farbus"));
        around.runtime = Some(root.path().join("xdg").into());
        assert_eq!(around.folder(), root.path().join("xdg/farbus"));
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let around = around(root.path());
        let folder = around.make_folder().unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        assert_eq!(around.make_folder().unwrap(), folder, "it may be there already");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(around.make_folder().unwrap_err().to_string().contains("alone"));
        assert!(around.listening("").is_err());
        fs::remove_dir(&folder).unwrap();
        std::os::unix::fs::symlink(root.path().join("xdg"), &folder).unwrap();
        assert!(around.make_folder().is_err(), "a link is not a folder");
    }

    #[test]
    fn only_sockets_with_somebody_behind_them_count() {
        let root = tempfile::tempdir().unwrap();
        let around = around(root.path());
        assert!(around.listening("remote-").unwrap().is_empty(), "no folder, nobody");
        let folder = around.make_folder().unwrap();
        let alive = UnixListener::bind(folder.join("remote-1.sock")).unwrap();
        drop(UnixListener::bind(folder.join("remote-2.sock")).unwrap());
        fs::write(folder.join("remote-3.sock"), "").unwrap();
        let host = UnixListener::bind(folder.join("host-1.sock")).unwrap();
        assert_eq!(around.listening("remote-").unwrap(), [folder.join("remote-1.sock")]);
        assert!(!folder.join("remote-2.sock").exists(), "stale sockets go");
        drop((alive, host));
        assert!(around.listening("remote-").unwrap().is_empty());
    }
}
