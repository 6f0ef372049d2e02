//! Recording what passes between host and devices.

use capture::{Totals, record_into};
use wire::{
    Lane, ToHost, ToRemote,
    usb::{self, Completion, Moved, RequestId},
};

use super::{host::request, world::World};
use crate::port::{Ended, PortId, What};

#[actix::test]
async fn a_capture_has_every_request_and_its_end_over_all_sessions() {
    tokio::time::pause();
    let folder = tempfile::tempdir().unwrap();
    let (tap, writer) = record_into(&folder.path().join("x.pcapng"), "test").unwrap();
    let mut world = World::recorded(Some(tap)).await;
    for session in 1..=2 {
        let mut host = world.accept();
        let [device, _] = host.attached().await;
        host.say(ToRemote::Usb(usb::ToRemote::Submit(request(device, 7)))).await;
        host.say(ToRemote::Usb(usb::ToRemote::Reset { device, id: RequestId(8) })).await;
        while !matches!(world.told(0).await.0, What::Submit(_)) {}
        let (result, moved, packets) = (Ok(()), Moved::Out(0), Vec::new());
        let end = Completion { id: RequestId(7), result, moved, packets, lane: Lane::Int };
        let completions = vec![end.clone()];
        world.say(Lane::Int, Ended { session, port: PortId(1), completions, ..Ended::default() }).await;
        assert_eq!(host.hear().await, ToHost::Completed(end));
        drop(host);
        world.forget().await;
    }
    assert_eq!(writer.finish().unwrap(), Totals { records: 4, dropped: 0 });
}
