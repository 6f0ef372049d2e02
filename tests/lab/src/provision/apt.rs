//! A world of its own for the system's `apt`: another Debian release's lists, an empty list of installed packages, and
//! downloads into the cache. The system's packages and settings are read (the mirror, a proxy), never changed, and no
//! root is needed.
//!
//! apt checks the signature of the lists and the checksum of every package, with the keys of `debian-archive-keyring`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::{Cache, progress, run};

/// The keys that sign Debian; older and newer releases of their package name the file differently.
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];
/// Overrides the mirror found in the system's apt configuration.
const MIRROR_VARIABLE: &str = "FARBUS_DEBIAN_MIRROR";
/// What to do where apt cannot serve us.
const ELSEWHERE: &str = "the lab makes its VMs of Debian packages; on a system without apt run it in a Debian container, \
     or, for QEMU alone, put a qemu-system-x86_64 >= 10.1 with vfio-user-pci on PATH";

/// The packages of one Debian release, with its updates and backports.
#[derive(Debug)]
pub(super) struct Archive {
    folder: PathBuf,
    release: &'static str,
}

/// A package as apt would fetch it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fetch {
    file: String,
    /// Which kind of checksum, and the checksum that apt compares.
    checksum: String,
}

impl Archive {
    /// Fetches the lists of `release`.
    pub(super) fn open(cache: &Cache, release: &'static str) -> Result<Self> {
        Self::of_suites(cache, release, &["", "-updates", "-backports"])
    }

    /// Fetches the lists of a `release` that is not out yet: nothing is backported to it.
    pub(super) fn open_testing(cache: &Cache, release: &'static str) -> Result<Self> {
        Self::of_suites(cache, release, &[""])
    }

    fn of_suites(cache: &Cache, release: &'static str, suites: &[&str]) -> Result<Self> {
        let folder = cache.path().join(format!("apt-{release}"));
        for below in ["state/lists/partial", "cache/archives/partial", "log"] {
            fs::create_dir_all(folder.join(below))?;
        }
        fs::write(folder.join("status"), "")?;
        fs::write(folder.join("sources.list"), sources(release, suites)?)?;
        let archive = Self { folder, release };
        progress(&format!("fetching the package lists of Debian {release}"));
        run(archive.apt().args(["update", "--error-on=any"]))?;
        Ok(archive)
    }

    /// Unpacks `packages` and everything they depend on into `root`, preferring `suite` (say `trixie-backports`).
    pub(super) fn unpack(&self, suite: &str, packages: &[&str], root: &Path) -> Result<()> {
        self.unpack_only(suite, packages, "", root)
    }

    /// Unpacks, of `packages` and what they depend on, only those whose names begin with `prefix`.
    pub(super) fn unpack_only(
        &self,
        suite: &str,
        packages: &[&str],
        prefix: &str,
        root: &Path,
    ) -> Result<()> {
        let plan = self.plan(suite, packages)?;
        let plan: Vec<_> = plan.into_iter().filter(|fetch| fetch.file.starts_with(prefix)).collect();
        progress(&format!("fetching {} packages for {}", plan.len(), packages.join(", ")));
        // With their versions, so that it is what the plan chose, whatever is preferred otherwise.
        let exactly = plan.iter().filter_map(|fetch| name_and_version(&fetch.file));
        let exactly = exactly.map(|(name, version)| format!("{name}={version}"));
        let folder = self.folder.join("cache/archives");
        run(self.apt().arg("download").args(exactly).current_dir(&folder))?;

        merged_usr(root)?;
        for Fetch { file, .. } in &plan {
            extract(&folder.join(file), root)?;
        }
        let list: String =
            plan.iter().map(|Fetch { file, checksum }| format!("{checksum} {file}\n")).collect();
        fs::write(root.join(".packages"), list)?;
        run(self.apt().arg("clean")).map(drop)
    }

    /// What apt would fetch for `packages`, all of it: nothing counts as installed.
    fn plan(&self, suite: &str, packages: &[&str]) -> Result<Vec<Fetch>> {
        // Without the downloads of a run that was cut off, or apt would leave out what it already has.
        run(self.apt().arg("clean"))?;
        let plan = run(self.install(suite, packages).arg("--print-uris"))?;
        let plan: Vec<_> = plan.lines().filter_map(parse_uri_line).collect();
        if plan.is_empty() {
            bail!("apt found nothing to fetch for {} in Debian {}", packages.join(", "), self.release);
        }
        Ok(plan)
    }

    fn install(&self, suite: &str, packages: &[&str]) -> Command {
        let mut apt = self.apt();
        apt.args(["install", "--yes", "--no-install-recommends"]);
        // The release itself is not asked for: it would be preferred to its own security updates.
        if suite != self.release {
            apt.args(["--target-release", suite]);
        }
        apt.args(packages);
        apt
    }

    fn apt(&self) -> Command {
        let mut apt = Command::new("apt-get");
        let place = |option: &str, below: &str| format!("{option}={}", self.folder.join(below).display());
        apt.arg("-q");
        for option in [
            place("Dir::State", "state"),
            place("Dir::State::status", "status"),
            place("Dir::Cache", "cache"),
            place("Dir::Log", "log"),
            place("Dir::Etc::sourcelist", "sources.list"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            "Dir::Etc::preferences=/dev/null".to_owned(),
            "Dir::Etc::preferencesparts=/dev/null".to_owned(),
            "APT::Architecture=amd64".to_owned(),
            "APT::Architectures=amd64".to_owned(),
            // The cache is this user's; the one to whom apt run by root would change may not enter it.
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Retries=3".to_owned(),
            // Which checksum a plan shows; apt compares with the strongest one there is in any case.
            "Acquire::ForceHash=SHA256".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        ] {
            apt.arg("-o").arg(option);
        }
        apt
    }
}

/// A sources.list for the `suites` of `release` and its security updates, with the system's own mirrors and the
/// archive's own keys.
fn sources(release: &str, suites: &[&str]) -> Result<String> {
    let Some(keyring) = KEYRINGS.into_iter().find(|path| Path::new(path).exists()) else {
        bail!(
            "the keys of the Debian archive are missing: install the package debian-archive-keyring. {ELSEWHERE}"
        );
    };
    let mirrors = Mirrors::find()?;
    let line = |uri: &str, suite: &str| format!("deb [signed-by={keyring}] {uri} {suite} main\n");
    let mut lines: String =
        suites.iter().map(|tail| line(&mirrors.main, &format!("{release}{tail}"))).collect();
    if let Some(security) = &mirrors.security {
        lines.push_str(&line(security, &format!("{release}-security")));
    }
    Ok(lines)
}

/// Where the system fetches Debian from.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    main: String,
    security: Option<String>,
}

impl Mirrors {
    fn find() -> Result<Self> {
        let targets = run(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(REPO_URI) $(RELEASE) $(COMPONENT)",
            "Created-By: Packages",
        ]))
        .context(ELSEWHERE)?;
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let codename =
            release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or("stable");
        let chosen = env::var(MIRROR_VARIABLE).ok().filter(|uri| !uri.is_empty());
        match Self::choose(&targets, codename, chosen) {
            Some(mirrors) => Ok(mirrors),
            None => bail!(
                "apt's configuration names no Debian mirror for {codename}; \
                 set {MIRROR_VARIABLE} to the address of one. {ELSEWHERE}"
            ),
        }
    }

    /// Picks the mirrors out of lines `URI SUITE COMPONENT`; other archives may be among them.
    fn choose(targets: &str, codename: &str, chosen: Option<String>) -> Option<Self> {
        let suites = [codename, "stable", "testing", "oldstable"];
        let of = |tail: &str| {
            let mut uris: Vec<&str> = targets
                .lines()
                .filter_map(|line| {
                    let fields: Vec<&str> = line.split(' ').collect();
                    let [uri, suite, "main"] = fields[..] else { return None };
                    suites.iter().any(|name| suite == format!("{name}{tail}")).then_some(uri)
                })
                .collect();
            // A mirror of Debian itself is customarily named so; third parties rarely are.
            uris.sort_by_key(|uri| !uri.trim_end_matches('/').contains("/debian"));
            uris.first().map(|uri| (*uri).to_owned())
        };
        Some(Self { main: chosen.or_else(|| of(""))?, security: of("-security") })
    }
}

/// Reads a line of `--print-uris`: `'URI' FILE SIZE CHECKSUM`.
fn parse_uri_line(line: &str) -> Option<Fetch> {
    let (_uri, rest) = line.strip_prefix('\'')?.split_once("' ")?;
    let mut fields = rest.split(' ');
    let file = fields.next()?.to_owned();
    let checksum = fields.nth(1)?.to_owned();
    file.ends_with(".deb").then_some(Fetch { file, checksum })
}

/// Splits `NAME_VERSION_ARCHITECTURE.deb`, in which a colon of the version is spelled `%3a`.
fn name_and_version(file: &str) -> Option<(&str, String)> {
    let mut fields = file.split('_');
    Some((fields.next()?, fields.next()?.replace("%3a", ":")))
}

/// Makes the links by which `/bin`, `/lib` and the like lead into `/usr`, which no package but base-files ships.
fn merged_usr(root: &Path) -> Result<()> {
    for name in ["bin", "sbin", "lib", "lib64"] {
        fs::create_dir_all(root.join("usr").join(name))?;
        std::os::unix::fs::symlink(Path::new("usr").join(name), root.join(name))?;
    }
    Ok(())
}

/// Unpacks one package, through the links of [`merged_usr`] where its files lead there.
fn extract(package: &Path, root: &Path) -> Result<()> {
    // `dpkg-deb --extract` of older releases would replace those links by folders.
    let mut packed =
        Command::new("dpkg-deb").arg("--fsys-tarfile").arg(package).stdout(Stdio::piped()).spawn()?;
    let Some(tar) = packed.stdout.take() else { bail!("dpkg-deb has no output") };
    let mut unpack = Command::new("tar");
    unpack
        .args(["--extract", "--keep-directory-symlink", "--no-same-owner", "--directory"])
        .arg(root)
        .stdin(tar);
    let unpacked = unpack.output().context("running tar")?;
    if !packed.wait()?.success() || !unpacked.status.success() {
        bail!("unpacking {}: {}", package.display(), String::from_utf8_lossy(&unpacked.stderr).trim_end());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_systems_own_whatever_other_archives_are_configured() {
        let targets = "http://vendor.example/apt/ bookworm main\n\
                       http://mirror.example/debian/ bookworm main\n\
                       http://mirror.example/debian/ bookworm-updates main\n\
                       http://mirror.example/debian-security/ bookworm-security main\n\
                       http://other.example/debian/ nodistro main";
        let mirrors = Mirrors::choose(targets, "bookworm", None);
        let main = "http://mirror.example/debian/".to_owned();
        let security = Some("http://mirror.example/debian-security/".to_owned());
        assert_eq!(mirrors, Some(Mirrors { main, security }));
        assert_eq!(Mirrors::choose(targets, "noble", None), None);
    }

    #[test]
    fn a_line_of_print_uris_names_file_and_version() {
        let line = "'http://m.example/pool/b/busybox/busybox-static_1.35.0-4_amd64.deb' \
                    busybox-static_1%3a1.35.0-4_amd64.deb 928188 SHA256:00ff";
        let fetch = parse_uri_line(line).expect("a package");
        assert_eq!(name_and_version(&fetch.file), Some(("busybox-static", "1:1.35.0-4".to_owned())));
        assert_eq!(fetch.checksum, "SHA256:00ff");
        assert_eq!(parse_uri_line("Reading package lists..."), None);
    }
}
