//! `farbus-host`: puts the USB ports and sound cards of remote computers onto VMs.
//!
//! ```text
//! farbus-host serve            ConnectionManager: accepts remotes, decides, one worker process per VM
//! └─ farbus-host vm NAME       VmSession and its controllers, on the vfio-user sockets of one VM
//! ```
#![forbid(unsafe_code)]

mod adopting;
mod answering;
mod cli;
mod config;
mod control;
mod counted;
mod doctor;
mod exported;
mod fragment;
mod handoff;
mod lent;
mod manager;
mod measured;
mod print_args;
mod report;
mod signalling;
mod state;
mod worker;

use std::{io::IsTerminal, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;
use noise_tcp::SecretKey;
use tracing_subscriber::EnvFilter;

use crate::{
    cli::{Cli, Command, LogFormat},
    config::Config,
    control::client,
    doctor::Verdict,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logs(cli.log);
    link::keep_buffers();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("farbus-host: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Serve(serve) => manager::serve(&serve, cli.log)?,
        Command::Vm(vm) => worker::run(&vm)?,
        Command::Pair(pair) => return client::pair(&pair),
        Command::Status(ask) => return control::status::run(&ask),
        Command::Revoke(judge) => return client::revoke(&judge),
        Command::WebToken(token) => return client::web_token(&token),
        Command::Allow(judge) => return client::allow(&judge),
        Command::Key(key) => {
            let file = match (key.key_file, key.config) {
                (Some(file), _) => file,
                (None, Some(config)) => Config::load(&config)?.key_file,
                (None, None) => config::default_key_file(),
            };
            let own = load_key(&file)?.public();
            let text = if key.fingerprint { own.fingerprint().to_string() } else { own.to_string() };
            println!("{text}");
        }
        Command::PrintArgs(args) => {
            let config = Config::load(&args.config.config)?;
            print!("{}", print_args::print_args(&args.vm, config.vm(&args.vm)?, args.vmm));
        }
        Command::Doctor(doctor) => return examine(&doctor),
    }
    Ok(ExitCode::SUCCESS)
}

fn load_key(file: &std::path::Path) -> Result<SecretKey> {
    SecretKey::load_or_create(file).with_context(|| format!("the host's key file {}", file.display()))
}

fn examine(doctor: &cli::Doctor) -> Result<ExitCode> {
    let config = Config::load(&doctor.config.config)?;
    let findings = doctor::examine(&doctor.vm, &config, config.vm(&doctor.vm)?, &doctor.qemu);
    if doctor.json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        for finding in &findings {
            let mark = match finding.verdict {
                Verdict::Good => "good   ",
                Verdict::Unknown => "unknown",
                Verdict::Bad => "BAD    ",
            };
            println!("{mark}  {}: {}", finding.check, finding.seen);
            if let Some(advice) = &finding.advice {
                println!("         -> {advice}");
            }
        }
    }
    let bad = findings.iter().any(|finding| finding.verdict == Verdict::Bad);
    Ok(ExitCode::from(u8::from(bad)))
}

fn start_logs(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Human => logs.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => logs.json().init(),
    }
}
