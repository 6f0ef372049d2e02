//! What the user asks of a running remote, and the answers.

use actix::prelude::*;
use futures_util::{
    FutureExt,
    future::{join, join_all},
};
use wire::usb::DeviceId;

use super::Lender;
use crate::{
    control::{Outcome, Reply, Request, Target},
    events::Gone,
    ports::{Status, Unlend, Whom},
    quality::Switch,
    sound::Ask,
};

impl Message for Request {
    type Result = Reply;
}

impl<H: Clone + Unpin + 'static> Handler<Request> for Lender<H> {
    type Result = ResponseActFuture<Self, Reply>;

    fn handle(&mut self, request: Request, ctx: &mut Self::Context) -> Self::Result {
        match request {
            Request::Lend { usb } => {
                let outcomes = join_all(self.lend(usb, ctx));
                let all = async { Reply::Lend(outcomes.await.into_iter().flatten().collect()) };
                Box::pin(all.into_actor(self))
            }
            Request::Return { what: Target::Usb(selector) } => {
                let asked = self.parts.asked.len();
                self.parts.asked.retain(|asked| *asked != selector);
                let outcomes = self.take_back(&selector);
                let reply = if self.parts.asked.len() < asked {
                    Reply::Return(outcomes)
                } else {
                    returned(outcomes, &selector.to_string())
                };
                Box::pin(fut::ready(reply))
            }
            Request::Return { what: Target::Device(device) } => {
                let unlend = Unlend { whom: Whom::Device(DeviceId(device)), because: Gone::Returned };
                let unlent = self.parts.remote.send(unlend);
                Box::pin(unlent.into_actor(self).map(move |unlent, act, _| {
                    let unlent = unlent.ok().flatten();
                    let outcomes = unlent.into_iter().map(|(port, name)| {
                        act.taken_back(port);
                        Outcome { bus_port: None, id: None, name, lent: false, reason: "returned".to_owned() }
                    });
                    returned(outcomes.collect(), &device.to_string())
                }))
            }
            Request::Status => {
                let asked = join(self.parts.remote.send(Status), self.parts.sound.send(Ask::Status));
                Box::pin(asked.into_actor(self).map(|answers, act, _| match answers {
                    (Ok(report), Ok(sound)) => Reply::Status { report, kept: act.kept(), sound },
                    _ => ending(),
                }))
            }
            Request::Switch { to } => {
                let switched = self.parts.remote.send(Switch(to)).map(|switched| match switched {
                    Ok(Ok(transport)) => Reply::Switched { transport },
                    Ok(Err(reason)) => Reply::Error(format!("the session stays where it is: {reason}")),
                    Err(_) => ending(),
                });
                Box::pin(switched.into_actor(self))
            }
            Request::Mute { muted } => self.ask(Ask::Mute(muted)),
            Request::Headphones { plugged } => self.ask(Ask::Headphones(plugged)),
        }
    }
}

impl<H: Clone + Unpin + 'static> Lender<H> {
    fn ask(&self, ask: Ask) -> ResponseActFuture<Self, Reply> {
        let asked = self.parts.sound.send(ask).map(|sound| sound.map_or_else(|_| ending(), Reply::Sound));
        Box::pin(asked.into_actor(self))
    }
}

fn ending() -> Reply {
    Reply::Error("it is ending".to_owned())
}

fn returned(outcomes: Vec<Outcome>, what: &str) -> Reply {
    if outcomes.is_empty() {
        return Reply::Error(format!(
            "nothing that is lent is `{what}`; `farbus-remote status` lists what is lent"
        ));
    }
    Reply::Return(outcomes)
}
