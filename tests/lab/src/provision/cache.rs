//! The cache directory: trees of files that are either complete or absent.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use std::{env, io};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::fcntl::{Flock, FlockArg};

use super::{progress, run, walk};

/// In every tree: one line per file, `SHA256 SIZE PATH`.
const MANIFEST: &str = ".manifest";
/// How many files one run of `sha256sum` is given.
const FILES_PER_RUN: usize = 500;

/// The directory where the lab keeps what it made: `$XDG_CACHE_HOME/farbus`, else `~/.cache/farbus`.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens the user's cache, made if absent.
    ///
    /// # Errors
    /// If neither `XDG_CACHE_HOME` nor `HOME` is set, or the directory cannot be made.
    pub fn open() -> Result<Self> {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let base = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
        Self::at(
            base.ok_or_else(|| anyhow!("set HOME or XDG_CACHE_HOME: the lab keeps its files there"))?
                .join("farbus"),
        )
    }

    /// Opens a cache at a directory of the caller's choice, made if absent.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn at(root: PathBuf) -> Result<Self> {
        fs::create_dir_all(&root).with_context(|| format!("making {}", root.display()))?;
        Ok(Self { root: root.canonicalize()? })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The tree `name`, made by `build` if it is absent or damaged.
    ///
    /// `build` fills an empty directory, which then gets a manifest and its name; whoever else wants a tree at the same
    /// time waits.
    pub(super) fn tree(
        &self,
        name: &str,
        what: &str,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let tree = self.root.join(name);
        if complete(&tree) {
            return Ok(tree);
        }
        let _lock = self.lock(what)?;
        if complete(&tree) {
            return Ok(tree);
        }
        let started = Instant::now();
        progress(&format!("making {what} in {}", tree.display()));
        let partial = self.root.join(format!("{name}.partial"));
        remove(&partial)?;
        fs::create_dir(&partial)?;
        build(&partial).with_context(|| format!("making {what}"))?;
        write_manifest(&partial)?;
        remove(&tree)?;
        fs::rename(&partial, &tree)?;
        progress(&format!("{what} is ready ({:.1} s)", started.elapsed().as_secs_f32()));
        Ok(tree)
    }

    /// Compares every file of every tree with its manifest and removes the trees that differ, so that they are made
    /// anew when next wanted. Returns how many were good and the names of those removed.
    ///
    /// # Errors
    /// If a tree cannot be read or removed.
    pub fn verify(&self) -> Result<(usize, Vec<String>)> {
        let _lock = self.lock("the check")?;
        let (mut good, mut removed) = (0, Vec::new());
        for entry in fs::read_dir(&self.root)? {
            let tree = entry?.path();
            if !tree.join(MANIFEST).exists() {
                continue;
            }
            if complete(&tree) && fs::read_to_string(tree.join(MANIFEST))? == manifest(&tree)? {
                good += 1;
            } else {
                remove(&tree)?;
                removed.extend(tree.file_name().map(|name| name.to_string_lossy().into_owned()));
            }
        }
        Ok((good, removed))
    }

    /// The lock under which anything in the cache changes. Freed when dropped, and by the kernel if we die.
    fn lock(&self, what: &str) -> Result<Flock<File>> {
        let path = self.root.join("lock");
        let file = File::options().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("opening {}", path.display()))?;
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, nix::errno::Errno::EWOULDBLOCK)) => file,
            Err((_, error)) => return Err(error).with_context(|| format!("locking {}", path.display())),
        };
        progress(&format!("waiting for another lab that is busy in the cache ({what} is next)"));
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error.into())
    }
}

/// Whether a tree has its manifest and every file in it has the size it says: enough to notice what an unclean end of
/// the machine left; [`Cache::verify`] reads the contents too.
fn complete(tree: &Path) -> bool {
    let Ok(manifest) = fs::read_to_string(tree.join(MANIFEST)) else { return false };
    let intact = |line: &str| {
        let mut fields = line.splitn(3, ' ').skip(1);
        let (size, path) = (fields.next()?.parse::<u64>().ok()?, fields.next()?);
        (fs::symlink_metadata(tree.join(path)).ok()?.len() == size).then_some(())
    };
    !manifest.is_empty() && manifest.lines().all(|line| intact(line).is_some())
}

fn write_manifest(tree: &Path) -> Result<()> {
    let manifest = manifest(tree)?;
    fs::write(tree.join(MANIFEST), manifest).context("writing the manifest")
}

fn manifest(tree: &Path) -> Result<String> {
    let mut files = Vec::new();
    for path in walk(tree)? {
        let file = fs::symlink_metadata(tree.join(&path))?;
        if file.is_file() && path != Path::new(MANIFEST) {
            files.push((path.into_os_string().into_string(), file.len()));
        }
    }
    let mut lines = String::new();
    for files in files.chunks(FILES_PER_RUN) {
        let paths = files.iter().filter_map(|(path, _)| path.as_ref().ok());
        let sums = run(Command::new("sha256sum").arg("--zero").arg("--").args(paths).current_dir(tree))?;
        let sums: HashMap<&str, &str> = sums
            .split_terminator('\0')
            .filter_map(|line| line.split_once("  "))
            .map(|(sum, path)| (path, sum))
            .collect();
        for (path, size) in files {
            let path = path.as_ref().map_err(|path| anyhow!("a path that is not UTF-8: {path:?}"))?;
            let Some(sum) = sums.get(path.as_str()) else { bail!("sha256sum said nothing of {path}") };
            lines.push_str(&format!("{sum} {size} {path}\n"));
        }
    }
    Ok(lines)
}

fn remove(tree: &Path) -> Result<()> {
    match fs::remove_dir_all(tree) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", tree.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> Result<(tempfile::TempDir, Cache)> {
        let folder = tempfile::tempdir()?;
        let cache = Cache::at(folder.path().to_owned())?;
        Ok((folder, cache))
    }

    fn one_file(text: &'static str) -> impl FnOnce(&Path) -> Result<()> {
        move |tree| Ok(fs::write(tree.join("file"), text)?)
    }

    #[test]
    fn a_tree_is_made_once() -> Result<()> {
        let (_folder, cache) = cache()?;
        let tree = cache.tree("t", "a test", one_file("first"))?;
        cache.tree("t", "a test", |_| bail!("made twice"))?;
        assert_eq!(fs::read_to_string(tree.join("file"))?, "first");
        Ok(())
    }

    #[test]
    fn a_tree_that_failed_half_way_is_not_there_and_is_made_again() -> Result<()> {
        let (_folder, cache) = cache()?;
        let half = cache.tree("t", "a test", |tree| {
            fs::write(tree.join("file"), "half")?;
            bail!("no network")
        });
        assert!(half.is_err());
        assert!(!cache.path().join("t").exists());
        let tree = cache.tree("t", "a test", one_file("whole"))?;
        assert_eq!(fs::read_to_string(tree.join("file"))?, "whole");
        Ok(())
    }

    #[test]
    fn a_tree_with_a_truncated_file_is_made_again() -> Result<()> {
        let (_folder, cache) = cache()?;
        let tree = cache.tree("t", "a test", one_file("whole"))?;
        fs::write(tree.join("file"), "")?;
        cache.tree("t", "a test", one_file("whole again"))?;
        assert_eq!(fs::read_to_string(tree.join("file"))?, "whole again");
        Ok(())
    }

    #[test]
    fn verify_removes_a_tree_whose_content_changed_under_the_same_size() -> Result<()> {
        let (_folder, cache) = cache()?;
        cache.tree("good", "a test", one_file("same"))?;
        let bad = cache.tree("bad", "a test", one_file("same"))?;
        fs::write(bad.join("file"), "SAME")?;
        assert_eq!(cache.verify()?, (1, vec!["bad".to_owned()]));
        assert!(!bad.exists());
        Ok(())
    }
}
