//! What a machine prints: kept in a file, shown when a test fails, and waited for by those who wait for a text.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::watch;
use tokio::time::timeout;

/// How much of the end is kept in memory, in bytes.
const KEPT: usize = 1 << 20;
/// Where the file stops growing, in bytes: a guest may print for ever.
const FILE_LIMIT: usize = 64 << 20;
/// How many lines of the end tell what went wrong.
const TAIL_LINES: usize = 40;

/// One stream of text out of a machine.
#[derive(Clone, Debug)]
pub struct Console {
    name: Arc<str>,
    path: PathBuf,
    text: watch::Receiver<String>,
}

impl Console {
    /// Keeps what `stream` says in the file `path` until it ends.
    pub(crate) fn record(
        name: &str,
        path: &Path,
        mut stream: impl AsyncRead + Unpin + Send + 'static,
    ) -> Result<Self> {
        let mut file = File::create(path)?;
        let (said, text) = watch::channel(String::new());
        tokio::spawn(async move {
            let (mut buffer, mut written) = ([0; 4096], 0);
            while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                let bytes = &buffer[..length];
                if written < FILE_LIMIT {
                    // A full disk costs the record, not the run.
                    let _ = file.write_all(bytes);
                    written += length;
                }
                said.send_modify(|text| {
                    text.push_str(&String::from_utf8_lossy(bytes));
                    if text.len() > 2 * KEPT {
                        let cut = text.ceil_char_boundary(text.len() - KEPT);
                        text.drain(..cut);
                    }
                });
            }
        });
        Ok(Self { name: name.into(), path: path.to_owned(), text })
    }

    /// The file it is kept in, which lives as long as the machine.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was printed so far: all of it, unless it is very long.
    #[must_use]
    pub fn text(&self) -> String {
        self.text.borrow().clone()
    }

    /// Waits until `text` has been printed.
    ///
    /// # Errors
    /// If that has not happened after `limit`, or the machine ended without; then with what was printed instead.
    pub async fn wait_for(&self, wanted: &str, limit: Duration) -> Result<()> {
        let mut text = self.text.clone();
        let found = timeout(limit, text.wait_for(|text| text.contains(wanted))).await;
        let problem = match found {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(_)) => "ended".to_owned(),
            Err(_) => format!("went on for {limit:?}"),
        };
        bail!("the {} {problem} without {wanted:?}{}", self.name, self.tail());
    }

    /// The last lines, for an error message; empty if nothing was printed.
    pub(crate) fn tail(&self) -> String {
        let text = self.text.borrow();
        let lines: Vec<_> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        if tail.is_empty() {
            return String::new();
        }
        let tail: String = tail.iter().map(|line| format!("  | {}\n", line.trim_end_matches('\r'))).collect();
        format!("\n  {}, the end of it:\n{tail}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn a_text_is_found_across_reads_and_its_absence_is_noticed_at_the_end() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("console");
        let (mut machine, stream) = tokio::io::duplex(64);
        let console = Console::record("console", &path, stream)?;
        machine.write_all(b"login").await?;
        machine.write_all(b": now\n").await?;
        console.wait_for("login: now", Duration::from_secs(60)).await?;
        drop(machine);
        let error = console.wait_for("never", Duration::from_secs(60)).await.expect_err("it ended");
        assert!(error.to_string().contains("| login: now"), "{error}");
        assert_eq!(std::fs::read(&path)?, b"login: now\n");
        Ok(())
    }
}
