//! `farbus-host pair | revoke | allow`: asks the running host.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::MetadataExt,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use control_socket::{Line, client::PATIENCE};
use serde::Serialize;

use super::{Code, Outcome, Reply, Request};
use crate::{
    cli::{Judge, Pair, WebToken},
    config::Config,
    state::State,
};

/// What to do where a running host is needed.
pub(super) const NO_HOST: &str =
    "no farbus-host runs with this configuration (as this user); start it with `farbus-host serve`";

/// `farbus-host pair`: shows a code and waits for what becomes of it.
///
/// # Errors
/// No host runs with this configuration, or it refuses.
pub(crate) fn pair(args: &Pair) -> Result<ExitCode> {
    let config = Config::load(&args.config.config)?;
    config.vm(&args.vm)?;
    let mut line = call(&config)?.context(NO_HOST)?;
    let code = match ask(&mut line, &Request::Pair { vm: args.vm.clone() }, PATIENCE)? {
        Reply::Code(code) => code,
        other => return unexpected(other),
    };
    say(args.json, &CodeShown { event: "code", code: &code }, || shown(&code))?;
    let until = Duration::from_secs(code.seconds) + PATIENCE;
    let outcome = match ask(&mut line, &Request::Await { pairing: code.pairing }, until)? {
        Reply::Pairing(outcome) => outcome,
        other => return unexpected(other),
    };
    say(args.json, &outcome, || became(&outcome, &code.vm))?;
    Ok(ExitCode::from(u8::from(!matches!(outcome, Outcome::Paired { .. }))))
}

/// `farbus-host revoke`: at the running host, or in its state if none runs.
///
/// # Errors
/// The running host cannot do it, or the state cannot be changed.
pub(crate) fn revoke(args: &Judge) -> Result<ExitCode> {
    let request = Request::Revoke { key: args.key.to_string() };
    let reply = judge(args, &request, |state| Reply::Revoked {
        paired: state.revoke(args.key, seconds_since_1970()).into_iter().collect(),
        ended: Vec::new(),
    })?;
    let Reply::Revoked { paired, ended } = &reply else { return unexpected(reply) };
    say(args.json, &reply, || {
        let mut words = format!("{} is refused from now on", args.key);
        if !paired.is_empty() {
            words += &format!("; it was paired with {}", paired.join(", "));
        }
        if !ended.is_empty() {
            words += &format!("; it had {} and was sent away", ended.join(", "));
        }
        words
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `farbus-host allow`: at the running host, or in its state if none runs.
///
/// # Errors
/// As for [`revoke`].
pub(crate) fn allow(args: &Judge) -> Result<ExitCode> {
    let request = Request::Allow { key: args.key.to_string() };
    let reply = judge(args, &request, |state| Reply::Allowed { was_revoked: state.allow(args.key) })?;
    let Reply::Allowed { was_revoked } = reply else { return unexpected(reply) };
    say(args.json, &reply, || {
        match was_revoked {
        true => "not refused any more: it may have what the configuration lists it for; pair it again for more".to_owned(),
        false => "it was not revoked; a remote gets a VM by `remotes` in the configuration, or by `farbus-host pair`".to_owned(),
    }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `farbus-host web-token`: has the running host make a token, or drop all of a VM's.
///
/// # Errors
/// No host runs with this configuration, or it refuses.
pub(crate) fn web_token(args: &WebToken) -> Result<ExitCode> {
    let config = Config::load(&args.config.config)?;
    let mut line = call(&config)?.context(NO_HOST)?;
    let vm = args.vm.clone();
    let request = match args.drop {
        true => Request::DropWebTokens { vm },
        false => Request::WebToken { vm, seconds: args.seconds },
    };
    let reply = ask(&mut line, &request, PATIENCE)?;
    let words = match &reply {
        Reply::WebToken { token, .. } => token.clone(),
        Reply::WebTokensDropped { dropped } => {
            format!("{dropped} tokens dropped; links that there are stay: `farbus-host revoke` ends those")
        }
        _ => return unexpected(reply),
    };
    say(args.json, &reply, || words)?;
    Ok(ExitCode::SUCCESS)
}

/// Has the running host do it; where none runs, `offline` does.
fn judge(args: &Judge, request: &Request, offline: impl FnOnce(&mut State) -> Reply) -> Result<Reply> {
    let config = Config::load(&args.config.config)?;
    if let Some(mut line) = call(&config)? {
        return ask(&mut line, request, PATIENCE);
    }
    if let Ok(key) = fs::metadata(&config.key_file)
        && key.uid() != rustix::process::geteuid().as_raw()
    {
        // It may run where this user does not look, and could not read what this user writes.
        bail!(
            "{} belongs to another user: run this as the user that farbus-host runs as",
            config.key_file.display()
        );
    }
    let file = State::beside(&config.key_file);
    let mut state = State::load(&file)?;
    let reply = offline(&mut state);
    state.save(&file)?;
    Ok(reply)
}

/// Now, as states write it.
pub(crate) fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

pub(super) fn unexpected(reply: Reply) -> Result<ExitCode> {
    match reply {
        Reply::Error(error) => bail!(error),
        _ => bail!("the running farbus-host answers something else: is it of the same release?"),
    }
}

/// As the other events are printed.
#[derive(Serialize)]
struct CodeShown<'a> {
    event: &'static str,
    #[serde(flatten)]
    code: &'a Code,
}

/// Prints an object, or words for people, and does not keep them back: a person waits for a code.
pub(super) fn say(json: bool, what: &impl Serialize, words: impl FnOnce() -> String) -> Result<()> {
    let line = if json { serde_json::to_string(what)? } else { words() };
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn shown(code: &Code) -> String {
    let Code { vm, code, address, fingerprint, seconds, tries, .. } = code;
    format!(
        "code: {code}\nFor VM `{vm}`, valid for {seconds} s, {tries} tries. At the remote:\n\n    farbus-remote pair {address}\n\n\
         (with the address by which the remote reaches this host). This host's key has the fingerprint\n{fingerprint}\nWaiting..."
    )
}

fn became(outcome: &Outcome, vm: &str) -> String {
    match outcome {
        Outcome::Paired { key, name } => {
            format!("paired: `{name}` may have VM `{vm}` from now on; `farbus-host revoke {key}` ends that")
        }
        Outcome::Expired => "nobody came in time; the code is not valid any more".to_owned(),
        Outcome::Burned => {
            "whoever came did not know the code, and that was the last try; it is not valid any more"
                .to_owned()
        }
        Outcome::Replaced => "a newer code has taken the place of this one".to_owned(),
        Outcome::Unknown => "the code is not valid any more".to_owned(),
    }
}

/// Calls the host of this configuration; `None` if none runs.
///
/// # Errors
/// It cannot be reached although it may run.
pub(crate) fn call(config: &Config) -> Result<Option<Line>> {
    // A host that has no key yet has never run.
    if !config.key_file.exists() {
        return Ok(None);
    }
    let socket = super::socket(config, &crate::load_key(&config.key_file)?.public())?;
    Line::open(&socket).context("reaching the running farbus-host")
}

/// Asks the running host, and waits so long for the answer.
///
/// # Errors
/// The host ends, or does not answer in time.
pub(crate) fn ask(line: &mut Line, request: &Request, patience: Duration) -> Result<Reply> {
    line.ask(request, patience).context("asking the running farbus-host")
}
