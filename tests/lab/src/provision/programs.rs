//! Programs made ready to run in a guest: with the libraries they need and with the loader that belongs to those, so that
//! it does not matter which C library the guest has.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::cpio::Cpio;
use super::{loader, run};

/// The loader of x86-64 programs (System V ABI, AMD64 supplement), which lists what a program needs when asked to.
pub(super) const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// A cpio archive that makes a program of this computer a command of the guest in whose root it is unpacked.
///
/// # Errors
/// If the program cannot be read, or a library that it needs is missing here.
pub(crate) fn pack(program: &Path) -> Result<Vec<u8>> {
    let home = format!("opt/{}", file_name(program)?);
    pack_into(&home, &[program.to_owned()], Path::new(LOADER), || Command::new(LOADER))
}

/// The same for programs of an unpacked Debian root, which share the folder `home` in the guest.
///
/// # Errors
/// As of [`pack`].
pub(super) fn pack_foreign(home: &str, root: &Path, programs: &[&str]) -> Result<Vec<u8>> {
    let programs: Vec<_> = programs.iter().map(|program| root.join(program)).collect();
    pack_into(home, &programs, &root.join(LOADER.trim_start_matches('/')), || loader(root))
}

/// `list` makes the loader's command, by which it is asked what a program needs.
fn pack_into(home: &str, programs: &[PathBuf], loader: &Path, list: impl Fn() -> Command) -> Result<Vec<u8>> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    let mut cpio = Cpio::new(Vec::new());
    let mut needed = BTreeMap::new();
    for program in programs {
        let name = file_name(program)?;
        cpio.file(&format!("{home}/bin/{name}"), true, &without_debug_information(program)?)?;
        cpio.file(&format!("usr/bin/{name}"), true, call(&name, home).as_bytes())?;
        needed.extend(libraries(list().arg("--list").arg(program))?);
    }
    for (library, file) in needed {
        cpio.file(&format!("{home}/lib/{library}"), true, &read(&file)?)?;
    }
    cpio.file(&format!("{home}{LOADER}"), true, &read(loader)?)?;
    cpio.link(&format!("{home}/var/run"), "/run")?;
    Ok(cpio.finish()?)
}

fn file_name(program: &Path) -> Result<String> {
    let name = program.file_name().with_context(|| format!("{} is no program", program.display()))?;
    Ok(name.to_string_lossy().into_owned())
}

/// The command that runs a program in a root of its own, in which it finds its loader, its libraries and itself, and all
/// that is not a program of the guest's.
fn call(name: &str, home: &str) -> String {
    format!(
        "#!/bin/sh
         for folder in dev proc sys tmp run root; do
             [ -e /{home}/$folder ] || {{ mkdir /{home}/$folder; mount --rbind /$folder /{home}/$folder; }}
         done
         exec chroot /{home} /bin/{name} \"$@\"\n"
    )
}

/// The libraries of a program by the names it calls them, and their files. The loader only looks: nothing of the
/// program runs.
fn libraries(list: &mut Command) -> Result<Vec<(String, PathBuf)>> {
    run(list)?.lines().filter_map(|line| parse_library(line.trim()).transpose()).collect()
}

/// Reads a line `NAME => FILE (ADDRESS)`; others name the loader itself and what the kernel provides.
fn parse_library(line: &str) -> Result<Option<(String, PathBuf)>> {
    match line.split_once(" => ") {
        Some((name, "not found")) => bail!("the library {name} is missing here"),
        Some((name, rest)) => {
            let file = rest.rsplit_once(" (").map_or(rest, |(file, _)| file);
            Ok(Some((name.to_owned(), file.into())))
        }
        None => Ok(None),
    }
}

/// The program as it is smaller by far, where `strip` is at hand.
fn without_debug_information(program: &Path) -> Result<Vec<u8>> {
    let small = tempfile::NamedTempFile::new()?;
    let stripped =
        Command::new("strip").arg("--strip-debug").arg("-o").arg(small.path()).arg(program).output();
    let path = if stripped.is_ok_and(|output| output.status.success()) { small.path() } else { program };
    fs::read(path).with_context(|| format!("reading {}", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_with_a_file_and_a_missing_one_is_an_error() -> Result<()> {
        assert_eq!(
            parse_library("libasound.so.2 => /lib/x86_64-linux-gnu/libasound.so.2 (0x00007f0)")?,
            Some(("libasound.so.2".to_owned(), "/lib/x86_64-linux-gnu/libasound.so.2".into()))
        );
        assert_eq!(parse_library("linux-vdso.so.1 (0x00007ffe)")?, None);
        assert_eq!(parse_library("/lib64/ld-linux-x86-64.so.2 (0x00007f0)")?, None);
        assert_eq!(parse_library("statically linked")?, None);
        assert!(parse_library("libabsent.so.1 => not found").is_err());
        Ok(())
    }

    #[test]
    fn a_program_comes_with_its_libraries_its_loader_and_a_command_of_its_name() -> Result<()> {
        let archive = pack(&std::env::current_exe()?)?;
        let text = String::from_utf8_lossy(&archive);
        for part in ["/lib/libc.so.6\0", "/lib64/ld-linux-x86-64.so.2\0", "usr/bin/lab-", "TRAILER!!!\0"] {
            assert!(text.contains(part), "{part:?}");
        }
        Ok(())
    }
}
