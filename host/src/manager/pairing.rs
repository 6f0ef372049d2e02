//! Pairing at the host: the door carries the messages, the manager has the code and decides.

use std::net::SocketAddr;

use actix::prelude::*;
use anyhow::{Context as _, Result};
use noise_tcp::{
    FirstFrame, PublicKey, SecretKey,
    pairing::{self, Asked, Code, PairError},
};
use tokio::{net::TcpStream, sync::oneshot};
use wire::control::{Answer, Refusal};

use super::{
    ConnectionManager,
    book::{Number, TRIES, VALID},
};
use crate::{
    control::{self, Outcome, Reply, client::seconds_since_1970},
    lent::plain,
    report::Report,
};

/// Somebody asks for a pairing: which code may be offered?
#[derive(Message)]
#[rtype(result = "Option<(Number, Code)>")]
pub(super) struct Offer;

/// Somebody is about to prove that he knows the code: how many tries are left after this one?
#[derive(Message)]
#[rtype(result = "Option<u8>")]
pub(super) struct Spend(Number);

/// He does not.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Failed {
    number: Number,
    from: SocketAddr,
}

/// He does.
#[derive(Message)]
#[rtype(result = "Option<Answer>")]
pub(super) struct Proved {
    number: Number,
    key: PublicKey,
    name: String,
}

/// Those who wait for what becomes of a code, and what became of the last.
#[derive(Default)]
pub(super) struct Waiting {
    who: Vec<(Number, oneshot::Sender<Outcome>)>,
    last: Option<(Number, Outcome)>,
}

impl Waiting {
    fn tell(&mut self, number: Number, outcome: Outcome) {
        for (_, waiting) in self.who.extract_if(.., |(wanted, _)| *wanted == number) {
            // He may have hung up.
            let _ = waiting.send(outcome.clone());
        }
        self.last = Some((number, outcome));
    }
}

/// Pairs with a remote that asks for it, if it knows the code. No deadline of its own: the door has one for all.
pub(super) async fn serve(
    mut stream: TcpStream,
    from: SocketAddr,
    first: &FirstFrame,
    me: &SecretKey,
    manager: &Addr<ConnectionManager>,
) -> Result<()> {
    let stream = &mut stream;
    let asked = match Asked::read(first) {
        Ok(asked) => asked,
        Err(error) => {
            let version = matches!(error, PairError::Version);
            if version {
                pairing::say(stream, &pairing::Refusal::Version.frame()).await?;
            }
            return Err(error.into());
        }
    };
    let Some((number, code)) = manager.send(Offer).await? else { return no_code(stream).await };
    let (offered, offer) = asked.offer(me, &code);
    pairing::say(stream, &offer).await?;
    let (judging, answer) = offered.taken(&pairing::listen(stream).await?)?;
    pairing::say(stream, &answer).await?;
    let proof = pairing::listen(stream).await?;
    let Some(left) = manager.send(Spend(number)).await? else { return no_code(stream).await };
    let guest = match judging.judge(&proof) {
        Ok(guest) => guest,
        Err(error) => {
            manager.send(Failed { number, from }).await?;
            pairing::say(stream, &pairing::Refusal::WrongCode { left }.frame()).await?;
            return Err(error).context("a pairing failed: its code was wrong");
        }
    };
    let (key, name) = (guest.key(), plain(&guest.hello().name));
    let Some(answer) = manager.send(Proved { number, key, name }).await? else {
        return no_code(stream).await;
    };
    Ok(pairing::say(stream, &guest.tell(&answer)?).await?)
}

async fn no_code(stream: &mut TcpStream) -> Result<()> {
    Ok(pairing::say(stream, &pairing::Refusal::NoCode.frame()).await?)
}

impl ConnectionManager {
    /// Makes a code for a VM.
    pub(super) fn open_pairing(&mut self, vm: &str, ctx: &mut Context<Self>) -> Reply {
        if self.registry.ready(vm).is_none() {
            return Reply::Error(format!("VM `{vm}` is not served at the moment"));
        }
        let code = Code::generate();
        let text = code.text().to_string();
        let number = self.book.open(vm, code, self.start.elapsed());
        // At most one was valid before.
        self.waiting.tell(number - 1, Outcome::Replaced);
        ctx.run_later(VALID, move |act, _| act.expire_pairing(number));
        Reply::Code(control::Code {
            pairing: number,
            vm: vm.to_owned(),
            code: text,
            address: self.address.to_string(),
            fingerprint: self.key.fingerprint().to_string(),
            seconds: VALID.as_secs(),
            tries: TRIES,
        })
    }

    fn expire_pairing(&mut self, number: Number) {
        if self.book.expire(number, self.start.elapsed()) {
            self.waiting.tell(number, Outcome::Expired);
        }
    }

    /// Waits for what becomes of a code.
    pub(super) fn await_pairing(&mut self, number: Number) -> ResponseFuture<Reply> {
        let (told, outcome) = oneshot::channel();
        match &self.waiting.last {
            _ if self.book.has(number) => self.waiting.who.push((number, told)),
            // The remote was quicker than whoever shows the code.
            Some((last, outcome)) if *last == number => drop(told.send(outcome.clone())),
            _ => {}
        }
        Box::pin(async move { Reply::Pairing(outcome.await.unwrap_or(Outcome::Unknown)) })
    }

    /// A remote has proved that it knows the code: it may have the VM, from the moment that this is written down.
    fn admit(&mut self, Proved { number, key, name }: Proved) -> Option<Answer> {
        let vm = self.book.succeeded(number, self.start.elapsed())?;
        // Only what is written down is so.
        let written = self.changed(|state| state.pair(&vm, key, &name, seconds_since_1970()));
        let written = written.and_then(|((), state)| state.save(&self.state_file).map(|()| state));
        let (answer, outcome) = match written {
            Ok(state) => {
                self.publish(state);
                self.reporter.say(&Report::Paired {
                    vm: vm.clone(),
                    remote: key.to_string(),
                    name: name.clone(),
                });
                (Answer::Welcome { vm }, Outcome::Paired { key: key.to_string(), name })
            }
            Err(error) => {
                tracing::error!("a remote knew the code, but cannot be remembered: {error:#}");
                let text = "the host cannot write down that you are paired; its log says why".to_owned();
                (Answer::Refused { reason: Refusal::Unavailable, text }, Outcome::Unknown)
            }
        };
        self.waiting.tell(number, outcome);
        Some(answer)
    }

    fn guessed(&mut self, Failed { number, from }: Failed) {
        let burned = self.book.failed(number);
        self.reporter.say(&Report::WrongCode { remote: from.to_string(), burned });
        if burned {
            self.waiting.tell(number, Outcome::Burned);
        }
    }
}

impl Handler<Offer> for ConnectionManager {
    type Result = Option<(Number, Code)>;

    fn handle(&mut self, _: Offer, _: &mut Self::Context) -> Self::Result {
        self.book.offer(self.start.elapsed())
    }
}

impl Handler<Spend> for ConnectionManager {
    type Result = Option<u8>;

    fn handle(&mut self, Spend(number): Spend, _: &mut Self::Context) -> Self::Result {
        self.book.spend(number, self.start.elapsed())
    }
}

impl Handler<Failed> for ConnectionManager {
    type Result = ();

    fn handle(&mut self, failed: Failed, _: &mut Self::Context) {
        self.guessed(failed);
    }
}

impl Handler<Proved> for ConnectionManager {
    type Result = MessageResult<Proved>;

    fn handle(&mut self, proved: Proved, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.admit(proved))
    }
}
