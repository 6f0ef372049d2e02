//! `farbus-remote pair` and `forget`: first contact with a host, and the end of it.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use noise_tcp::{
    HandshakeError, PublicKey, SecretKey,
    pairing::{self, Code, PairError, Paired},
};
use serde_json::json;
use wire::control::Hello;
use zeroize::Zeroizing;

use crate::{
    cli::{Connect, Forget, Pair},
    known::KnownHosts,
    remote::REFUSED,
};

/// Pairs, and remembers the host.
///
/// # Errors
/// The code is none, the host cannot be reached or remembered.
pub(crate) fn pair(args: &Pair, key_file: &Path, me: &SecretKey, hello: &Hello) -> Result<ExitCode> {
    let mut hosts = KnownHosts::beside(key_file)?;
    let code = match &args.code {
        Some(code) => code.clone(),
        None => ask_for_code(&args.host)?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let pinned = hosts.key(&args.host);
    let paired = pairing::pair(&*args.host, me, hello, &code, |found| same(pinned, found));
    match runtime.block_on(paired) {
        Ok(Paired { host, vm }) => {
            hosts.pin(&args.host, host)?;
            let words = format!(
                "paired: this remote may have VM `{vm}`; the host's key has the fingerprint\n{}\nNow: farbus-remote connect {}",
                host.fingerprint(),
                args.host
            );
            say(args.json, &json!({ "event": "paired", "vm": vm, "host_key": host.to_string() }), &words);
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            let refused = matches!(
                error,
                PairError::NoCode
                    | PairError::Version
                    | PairError::WrongCode { .. }
                    | PairError::Refused { .. }
                    | PairError::Connection(HandshakeError::AnotherHost { .. })
            );
            if !refused {
                return Err(error).with_context(|| format!("pairing with {}", args.host));
            }
            say(args.json, &json!({ "event": "refused", "text": error.to_string() }), "");
            eprintln!("farbus-remote: {error}");
            Ok(ExitCode::from(REFUSED))
        }
    }
}

/// Forgets a host's key.
///
/// # Errors
/// The known hosts cannot be read or written.
pub(crate) fn forget(args: &Forget, key_file: &Path) -> Result<ExitCode> {
    if KnownHosts::beside(key_file)?.forget(&args.host)? {
        println!("{} is not known any more", args.host);
        return Ok(ExitCode::SUCCESS);
    }
    bail!("{} is not known; addresses are remembered as they were given to `farbus-remote pair`", args.host)
}

/// The key to expect of a host: what was said, else what is known.
///
/// # Errors
/// Neither is.
pub(crate) fn host_key(connect: &Connect, key_file: &Path) -> Result<PublicKey> {
    if let Some(key) = connect.host_key {
        return Ok(key);
    }
    let host = &connect.host;
    KnownHosts::beside(key_file)?.key(host).with_context(|| {
        format!(
            "the host {host} is not known: run `farbus-host pair VM` there and `farbus-remote pair {host}` here, or say --host-key KEY"
        )
    })
}

/// A host that is known has the key that is known.
fn same(pinned: Option<PublicKey>, found: PublicKey) -> Result<(), HandshakeError> {
    match pinned.filter(|pinned| *pinned != found) {
        Some(pinned) => {
            Err(HandshakeError::AnotherHost { pinned: pinned.fingerprint(), found: found.fingerprint() })
        }
        None => Ok(()),
    }
}

/// The code of somebody at the terminal, or of a program that writes it to standard input.
fn ask_for_code(host: &str) -> Result<Code> {
    if io::stdin().is_terminal() {
        let mut out = io::stderr().lock();
        write!(out, "the code that `farbus-host pair` shows at {host}: ")?;
        out.flush()?;
    }
    let mut line = Zeroizing::new(String::new());
    io::stdin().lock().read_line(&mut line).context("reading the code")?;
    Ok(line.trim().parse()?)
}

/// A closed standard output is not an error: nobody listens.
fn say(json: bool, object: &serde_json::Value, words: &str) {
    let line = if json { object.to_string() } else { words.to_owned() };
    if !line.is_empty() {
        let _ = writeln!(io::stdout().lock(), "{line}");
    }
}
