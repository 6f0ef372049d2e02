//! The actors of a remote among recipients that record, on time that passes when everybody waits.

use actix::prelude::*;
use wire::{
    control::Attachment,
    usb::{DeviceId, Speed},
};

use crate::port::Do;

/// An actor that does nothing.
struct Nobody;

impl Actor for Nobody {
    type Context = Context<Self>;
}

impl Handler<Do> for Nobody {
    type Result = ();

    fn handle(&mut self, _: Do, _: &mut Self::Context) {}
}

/// Where messages go that nobody looks at.
pub(crate) fn nowhere() -> Recipient<Do> {
    System::new().block_on(async { Nobody.start().recipient() })
}

pub(crate) fn attachment(name: &str) -> Attachment {
    Attachment { device: DeviceId(0), speed: Speed::High, vendor: 1, product: 2, name: name.to_owned() }
}
