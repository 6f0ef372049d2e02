//! QMP, the protocol by which QEMU is asked and told: one JSON object per line, answers matched by id, events in
//! between (QEMU, `docs/interop/qmp-spec.rst`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, oneshot};
use tokio::time::timeout;

/// How long QEMU may take to answer. A device that does not answer stalls QMP too.
const DEADLINE: Duration = Duration::from_secs(120);
/// How many events a listener may fall behind.
const EVENTS: usize = 256;

type Pending = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Result<Value>>>>>>;

/// A connection to QEMU's QMP server.
#[derive(Debug)]
pub struct Qmp {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    /// Who waits for which answer; none when the connection is gone.
    pending: Pending,
    next_id: AtomicU64,
    events: broadcast::Sender<Value>,
}

impl Qmp {
    /// Greets QEMU on a fresh connection.
    ///
    /// # Errors
    /// If it does not greet back in time.
    pub async fn open(stream: UnixStream) -> Result<Self> {
        let (reader, writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        let greeting = timeout(DEADLINE, lines.next_line()).await.context("QEMU does not greet")??;
        let greeting: Value = serde_json::from_str(&greeting.ok_or_else(|| anyhow!("QEMU ended"))?)?;
        if greeting.get("QMP").is_none() {
            bail!("not QMP's greeting: {greeting}");
        }
        let pending = Pending::new(Mutex::new(Some(HashMap::new())));
        let (events, _) = broadcast::channel(EVENTS);
        tokio::spawn(sort(lines, pending.clone(), events.clone()));
        let qmp = Self { writer: writer.into(), pending, next_id: AtomicU64::new(0), events };
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Has QEMU carry out a command and returns what it answers.
    ///
    /// # Errors
    /// QEMU's own, the end of QEMU, or no answer in time.
    pub async fn execute(&self, command: &str, arguments: Value) -> Result<Value> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        match self.pending.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(pending) => drop(pending.insert(id, answer)),
            None => bail!("QMP {command}: QEMU has ended"),
        }
        let mut line = json!({ "execute": command, "arguments": arguments, "id": id }).to_string();
        line.push('\n');
        self.writer
            .lock()
            .await
            .write_all(line.as_bytes())
            .await
            .with_context(|| format!("QMP {command}"))?;
        let answer = timeout(DEADLINE, answered).await;
        let answer = answer.with_context(|| format!("QMP {command}: no answer within {DEADLINE:?}"))?;
        answer
            .with_context(|| format!("QMP {command}: QEMU ended without an answer"))?
            .with_context(|| format!("QMP {command}"))
    }

    /// The events that happen from now on, whole: `{"event": NAME, "data": {..}, ..}`.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Value> {
        self.events.subscribe()
    }

    /// Waits on `events` for the next of the given name and returns its data.
    ///
    /// # Errors
    /// If it has not come after `limit`, or QEMU ended first.
    pub async fn event(
        events: &mut broadcast::Receiver<Value>,
        name: &str,
        limit: Duration,
    ) -> Result<Value> {
        timeout(limit, wait_event(events, name))
            .await
            .with_context(|| format!("no event {name} within {limit:?}"))?
    }
}

/// Waits for an event without a limit; fails when QEMU ends.
pub(crate) async fn wait_event(events: &mut broadcast::Receiver<Value>, name: &str) -> Result<Value> {
    loop {
        match events.recv().await {
            Ok(mut event) if event["event"] == name => return Ok(event["data"].take()),
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => bail!("QEMU ended before the event {name}"),
        }
    }
}

/// Reads what QEMU says and hands it to whom it concerns.
async fn sort(
    mut lines: Lines<BufReader<OwnedReadHalf>>,
    pending: Pending,
    events: broadcast::Sender<Value>,
) {
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(mut message) = serde_json::from_str::<Value>(&line) else { continue };
        if message.get("event").is_some() {
            // Nobody may be listening.
            let _ = events.send(message);
            continue;
        }
        let answer = match message.get("error") {
            Some(error) => {
                Err(anyhow!("{}", error["desc"].as_str().unwrap_or("an error without a description")))
            }
            None => Ok(message["return"].take()),
        };
        let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = message["id"].as_u64().and_then(|id| pending.as_mut()?.remove(&id));
        if let Some(waiting) = waiting {
            let _ = waiting.send(answer);
        }
    }
    pending.lock().unwrap_or_else(PoisonError::into_inner).take();
}
