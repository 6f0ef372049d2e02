//! The arrows between the crates, and what pure crates may not touch, as DESIGN has them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Every arrow there may be between our crates: who may name whom.
const ARROWS: &[(&str, &[&str])] = &[
    ("pci", &[]),
    ("alarm", &[]),
    ("wire", &[]),
    ("xhci", &["pci", "wire"]),
    ("hda", &["pci", "wire"]),
    ("session", &["wire"]),
    ("sound", &["wire"]),
    ("functions", &["wire"]),
    ("link", &["wire"]),
    ("capture", &["wire"]),
    ("control-socket", &[]),
    ("noise", &["link", "wire"]),
    ("noise-tcp", &["noise", "link", "wire"]),
    ("webrtc", &["noise", "link", "wire"]),
    ("vfio-user", &["pci"]),
    ("usb-ctrl", &["xhci", "alarm", "pci", "wire"]),
    ("hda-ctrl", &["hda", "sound", "alarm", "pci", "wire"]),
    ("vm-session", &["usb-ctrl", "hda-ctrl", "xhci", "hda", "pci", "session", "link", "capture", "wire"]),
    (
        "farbus-host",
        &[
            "vm-session",
            "vfio-user",
            "noise-tcp",
            "webrtc",
            "link",
            "capture",
            "control-socket",
            "xhci",
            "hda",
            "pci",
            "wire",
        ],
    ),
    (
        "farbus-remote",
        &[
            "functions",
            "session",
            "sound",
            "noise-tcp",
            "webrtc",
            "link",
            "capture",
            "control-socket",
            "wire",
        ],
    ),
    ("lab", &[]),
    ("fuzz", &["xhci", "hda", "pci", "session", "sound", "functions", "vfio-user", "wire"]),
    ("farbus", &[]),
];

/// Crates that are values: no runtime, clock, socket, thread, randomness or unsafe code.
const PURE: &[&str] = &["pci", "xhci", "hda", "wire", "session", "sound", "functions"];

/// What a pure crate must not depend on.
const IMPURE_CRATES: &[&str] = &[
    "tokio",
    "actix",
    "mio",
    "libc",
    "nix",
    "rustix",
    "rand",
    "getrandom",
    "socket2",
    "rusb",
    "cpal",
    "snow",
];

/// What the source of a pure crate must not say (outside comments).
const IMPURE_WORDS: &[&str] = &[
    "std::time::Instant",
    "SystemTime",
    "std::net",
    "std::thread",
    "std::fs",
    "std::process",
    "std::env",
    "unsafe {",
];

fn metadata() -> Metadata {
    MetadataCommand::new().no_deps().exec().expect("cargo metadata of this workspace")
}

fn dependencies(package: &Package, kind: DependencyKind) -> BTreeSet<String> {
    package.dependencies.iter().filter(|d| d.kind == kind).map(|d| d.name.clone()).collect()
}

/// Those of our workspace: a crate of a registry may have the name of one of ours.
fn our_dependencies(package: &Package) -> BTreeSet<String> {
    let ours = package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal && d.path.is_some());
    ours.map(|d| d.name.clone()).collect()
}

#[test]
fn every_arrow_points_right() {
    let metadata = metadata();
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    for package in &metadata.packages {
        let name = package.name.as_str();
        let targets = allowed.get(name).unwrap_or_else(|| panic!("{name} is not in the table of arrows"));
        for dependency in our_dependencies(package) {
            assert!(
                targets.contains(&dependency.as_str()),
                "{name} -> {dependency} is not an arrow of DESIGN"
            );
        }
    }
    assert_eq!(metadata.packages.len(), ARROWS.len(), "the table of arrows names a crate that is gone");
}

#[test]
fn pure_crates_depend_on_nothing_impure() {
    let metadata = metadata();
    for package in metadata.packages.iter().filter(|p| PURE.contains(&p.name.as_str())) {
        for dependency in dependencies(package, DependencyKind::Normal) {
            assert!(!IMPURE_CRATES.contains(&dependency.as_str()), "{} -> {dependency}", package.name);
        }
    }
}

/// What a crate is built from, itself included, with these arguments of cargo's; a target need not be installed.
fn built_from(package: &str, arguments: &[&str]) -> BTreeSet<String> {
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--locked", "--edges", "normal", "--prefix", "none", "--no-dedupe"]);
    let output = tree.args(["--package", package]).args(arguments).output().expect("cargo can be started");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).expect("cargo writes UTF-8");
    lines.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn pure_crates_reach_nothing_impure_in_a_browser() {
    for package in PURE {
        let all = built_from(package, &["--target", "wasm32-unknown-unknown"]);
        assert!(all.contains(*package), "{all:?}");
        for impure in IMPURE_CRATES.iter().chain(&["js-sys", "wasm-bindgen"]) {
            assert!(!all.contains(*impure), "{package} -> .. -> {impure}");
        }
    }
}

#[test]
fn a_remote_without_sound_cards_needs_no_headers_of_a_sound_system() {
    let linux = ["--target", "x86_64-unknown-linux-gnu"];
    let with = built_from("farbus-remote", &linux);
    let without = built_from("farbus-remote", &[&linux[..], &["--no-default-features"]].concat());
    for one in ["cpal", "alsa-sys"] {
        assert!(with.contains(one) && !without.contains(one), "{one}: {without:?}");
    }
}

#[tokio::test]
async fn pure_crates_build_for_a_browser() -> anyhow::Result<()> {
    let rustc = lab::Lab::open().await?.rustc_for_wasm().await?;
    let mut build = Command::new(env!("CARGO"));
    // Another compiler's results, and without the flags that suit this one.
    build.env("RUSTC", rustc).env_remove("RUSTFLAGS").env("CARGO_TARGET_DIR", env!("CARGO_TARGET_TMPDIR"));
    build.args(["build", "--locked", "--quiet", "--lib", "--target", "wasm32-unknown-unknown"]);
    build.args(PURE.iter().flat_map(|package| ["--package", package]));
    let output = build.output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn pure_crates_do_not_name_clocks_sockets_threads_or_files() {
    for package in metadata().packages.iter().filter(|p| PURE.contains(&p.name.as_str())) {
        for file in sources(package) {
            let text = fs::read_to_string(&file).expect("a source file");
            let code: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            for word in IMPURE_WORDS {
                let found = code.iter().find(|line| line.contains(word));
                assert!(found.is_none(), "{}: {}", file.display(), found.unwrap_or(&""));
            }
        }
    }
}

#[test]
fn only_guest_memory_and_libusbs_transfers_are_unsafe() {
    for package in metadata().packages.iter().filter(|p| !["vfio-user", "farbus"].contains(&p.name.as_str()))
    {
        let remote = package.name == "farbus-remote";
        let says = if remote { "#![deny(unsafe_code)]" } else { "#![forbid(unsafe_code)]" };
        for target in package.targets.iter().filter(|t| t.is_lib() || t.is_bin()) {
            let text = fs::read_to_string(&target.src_path).expect("a crate root");
            assert!(text.contains(says), "{} does not say {says}", target.src_path);
        }
        let expects =
            |file: &&PathBuf| fs::read_to_string(file).expect("a source file").contains("expect(unsafe_code");
        let files = sources(package);
        let files: Vec<_> = files.iter().filter(expects).collect();
        let allowed = files.iter().all(|file| remote && file.ends_with("usb/transfer.rs"));
        assert!(allowed, "{}: unsafe code in {files:?}", package.name);
    }
}

fn sources(package: &Package) -> Vec<PathBuf> {
    let root = package.manifest_path.parent().expect("a manifest is in a folder").as_std_path().join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    assert!(!found.is_empty(), "{} has no sources", package.name);
    found
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a source folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}
