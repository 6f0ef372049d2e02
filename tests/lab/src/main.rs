//! The lab for people and scripts: makes what VMs need, boots one beside a Farbus remote, runs a script in it.

#![forbid(unsafe_code)]

mod run;

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use lab::provision::{self, Cache, Qemu};
use tracing_subscriber::EnvFilter;

#[derive(Debug, Parser)]
#[command(about, version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make everything a VM needs, ahead of time: QEMU, a kernel, a guest. Some minutes at first, nothing later
    Provision {
        /// Compare every file with its checksum first, and make anew what differs
        #[arg(long)]
        verify: bool,
    },
    /// Boot a VM paired with a remote, run a script in it as root, print its output, exit with its code
    Run(Box<run::Arguments>),
    /// Run the QEMU that the lab uses, with these arguments
    Qemu {
        /// As QEMU takes them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match Cli::parse().command {
        Command::Provision { verify } => provision(verify),
        Command::Run(arguments) => run::run(arguments),
        Command::Qemu { arguments } => {
            let error = Qemu::find(&Cache::open()?)?
                .command()
                .args(arguments)
                .stdin(std::process::Stdio::inherit())
                .exec();
            bail!("starting QEMU: {error}")
        }
    }
}

fn provision(verify: bool) -> Result<ExitCode> {
    let cache = Cache::open()?;
    if verify {
        let (good, removed) = cache.verify()?;
        eprintln!("lab: {good} trees are as they were made; removed: {removed:?}");
    }
    let (qemu, kernel, _) = provision::everything(&cache)?;
    let (cache, qemu, kernel) = (cache.path().display(), qemu.version(), kernel.release());
    eprintln!("lab: everything a VM needs is there: QEMU {qemu}, Linux {kernel} (kept in {cache})");
    Ok(ExitCode::SUCCESS)
}
