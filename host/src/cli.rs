//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use noise_tcp::PublicKey;

use crate::print_args::Vmm;

/// Presents the USB ports and the sound card of a remote desk to virtual machines, as an xHCI and an Intel HD Audio
/// controller that their stock drivers drive.
#[derive(Debug, Parser)]
#[command(name = "farbus-host", version, propagate_version = true)]
pub(crate) struct Cli {
    /// How to write logs (to standard error). The level comes from RUST_LOG, e.g. RUST_LOG=debug.
    #[arg(long, value_enum, default_value = "human", global = true)]
    pub(crate) log: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Human,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the configured VMs until Ctrl-C or SIGTERM.
    Serve(Serve),
    /// Make a code for a remote's first contact: whoever runs `farbus-remote pair` with it may have the VM from then on.
    ///
    /// The code is valid once, for two minutes and three tries. Waits for the remote. Exit code 1 if none was paired.
    Pair(Pair),
    /// Tell what every VM of the running host has: its remote, what is lent, and how the way there is.
    Status(Ask),
    /// Refuse a remote's key from now on, whatever the configuration says, and end what it has at the moment.
    Revoke(Judge),
    /// Refuse a revoked key no more: what the configuration lists it for counts again.
    Allow(Judge),
    /// Make a token by which a web page may ask for a VM at the web endpoint (`[web]` in the configuration), and print it.
    ///
    /// It is leave to ask only: the VM goes to remotes whose keys are allowed, as by TCP.
    WebToken(WebToken),
    /// Print this host's public key, which remotes pin; the secret key file is made (mode 0600) if absent.
    Key(Key),
    /// Print what to paste into a VM's command line or definition.
    PrintArgs(PrintArgs),
    /// Check a VM's surroundings and say what to do. Exit code 1 if something is wrong.
    Doctor(Doctor),
    /// One VM's worker. Started by `serve`, not by hand.
    #[command(hide = true)]
    Vm(VmWorker),
}

/// Where the configuration is.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigFile {
    /// The configuration, TOML.
    #[arg(long, value_name = "FILE", default_value = "/etc/farbus/host.toml", env = "FARBUS_HOST_CONFIG")]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// Print one JSON object a line on standard output for everything that happens, instead of sentences.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Pair {
    /// The VM's name in the configuration.
    pub(crate) vm: String,
    /// Print one JSON object for the code, and one for what became of it.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) config: ConfigFile,
}

#[derive(Debug, Args)]
pub(crate) struct Ask {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) config: ConfigFile,
}

#[derive(Debug, Args)]
pub(crate) struct Judge {
    /// The remote's public key, as `farbus-remote key` prints it.
    #[arg(value_name = "KEY")]
    pub(crate) key: PublicKey,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) config: ConfigFile,
}

#[derive(Debug, Args)]
pub(crate) struct WebToken {
    /// The VM's name in the configuration.
    pub(crate) vm: String,
    /// How long it is good for; without this, until it is dropped.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) seconds: Option<u64>,
    /// Drop all tokens for the VM instead.
    #[arg(long, conflicts_with = "seconds")]
    pub(crate) drop: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) config: ConfigFile,
}

#[derive(Debug, Args)]
pub(crate) struct Key {
    /// Print the fingerprint, which remotes show when another key answers than the one they know.
    #[arg(long)]
    pub(crate) fingerprint: bool,
    /// The configuration whose key_file is meant.
    #[arg(long, value_name = "FILE", conflicts_with = "key_file")]
    pub(crate) config: Option<PathBuf>,
    /// The key file itself [default: farbus/host.key in the user's configuration folder].
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct PrintArgs {
    /// The VM's name in the configuration.
    pub(crate) vm: String,
    /// What starts the VM.
    #[arg(long = "for", value_enum, value_name = "VMM")]
    pub(crate) vmm: Vmm,
    #[command(flatten)]
    pub(crate) config: ConfigFile,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// The VM's name in the configuration.
    pub(crate) vm: String,
    /// The QEMU that runs the VM.
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-x86_64")]
    pub(crate) qemu: PathBuf,
    /// Print the findings as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) config: ConfigFile,
}

#[derive(Debug, Args)]
pub(crate) struct VmWorker {
    /// The VM's name in the configuration.
    pub(crate) vm: String,
    #[command(flatten)]
    pub(crate) config: ConfigFile,
}
