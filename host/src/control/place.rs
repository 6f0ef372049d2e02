//! Where the control socket is: in a folder that this user alone can write to.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use noise_tcp::PublicKey;

use crate::config::Config;

/// The socket of the host with this configuration and key.
///
/// # Errors
/// Its folder is not this user's alone.
pub(crate) fn of(config: &Config, host: &PublicKey) -> Result<PathBuf> {
    config.control.clone().map_or_else(|| Around::here().socket(host), Ok)
}

/// What the place depends on.
#[derive(Debug, Clone)]
pub(crate) struct Around {
    /// `XDG_RUNTIME_DIR`.
    pub(crate) runtime: Option<OsString>,
    /// Where the system keeps runtime folders of users.
    pub(crate) users: PathBuf,
    /// Where anybody may make a folder.
    pub(crate) anybodys: PathBuf,
    pub(crate) uid: u32,
}

impl Around {
    /// This process's.
    pub(crate) fn here() -> Self {
        Self {
            runtime: std::env::var_os("XDG_RUNTIME_DIR"),
            users: "/run/user".into(),
            anybodys: std::env::temp_dir(),
            uid: rustix::process::geteuid().as_raw(),
        }
    }

    fn folder(&self) -> PathBuf {
        let runtime = self.runtime.as_ref().map(PathBuf::from).filter(|runtime| runtime.is_absolute());
        let users = self.users.join(self.uid.to_string());
        let ours = |folder: &PathBuf| fs::metadata(folder).is_ok_and(|found| found.uid() == self.uid);
        match runtime.into_iter().chain([users]).find(ours) {
            Some(runtime) => runtime.join("farbus"),
            None => self.anybodys.join(format!("farbus-{}", self.uid)),
        }
    }

    /// The socket of the host with this key; a computer may run several.
    ///
    /// # Errors
    /// Its folder cannot be made, or somebody else could have put something there.
    pub(crate) fn socket(&self, host: &PublicKey) -> Result<PathBuf> {
        let folder = self.folder();
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("making the folder {}", folder.display()));
            }
            _ => self.check(&folder)?,
        }
        Ok(folder.join(format!("host-{:.16}.sock", host.to_string())))
    }

    fn check(&self, folder: &Path) -> Result<()> {
        let found =
            fs::symlink_metadata(folder).with_context(|| format!("the folder {}", folder.display()))?;
        if !found.is_dir() || found.uid() != self.uid || found.mode() & 0o022 != 0 {
            bail!(
                "{} is not a folder that this user alone can write to; remove it, or set `control` in the configuration",
                folder.display()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_socket_is_in_the_first_folder_of_this_user_that_there_is() {
        let root = tempfile::tempdir().unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let (users, anybodys) = (root.path().join("users"), root.path().join("tmp"));
        fs::create_dir_all(&anybodys).unwrap();
        let mut around = Around { runtime: None, users, anybodys, uid };
        let key = PublicKey([0; 32]);
        let name = "host-aaaaaaaaaaaaaaaa.sock";
        let shared = around.anybodys.join(format!("farbus-{uid}"));
        assert_eq!(around.socket(&key).unwrap(), shared.join(name));
        assert_eq!(fs::metadata(&shared).unwrap().mode() & 0o777, 0o700);
        let runtime = root.path().join("xdg");
        fs::create_dir(&runtime).unwrap();
        around.runtime = Some(runtime.clone().into());
        assert_eq!(around.socket(&key).unwrap(), runtime.join("farbus").join(name));
        around.runtime = Some("relative".into());
        assert_eq!(around.socket(&key).unwrap(), shared.join(name));
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let around =
            Around { runtime: None, users: root.path().join("none"), anybodys: root.path().into(), uid };
        let key = PublicKey([0; 32]);
        let folder = around.socket(&key).unwrap().parent().unwrap().to_owned();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(around.socket(&key).unwrap_err().to_string().contains("alone"));
        fs::remove_dir(&folder).unwrap();
        std::os::unix::fs::symlink(root.path(), &folder).unwrap();
        assert!(around.socket(&key).is_err(), "a link is not a folder");
    }
}
