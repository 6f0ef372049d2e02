use super::*;
use crate::tests::usb_device;

fn log() -> (Log<u8>, mpsc::UnboundedReceiver<Seen<u8>>) {
    let (tell, seen) = mpsc::unbounded_channel();
    (Log::new(tell), seen)
}

fn told(seen: &mut mpsc::UnboundedReceiver<Seen<u8>>) -> Vec<String> {
    let line = |seen| match seen {
        Seen::Arrived(device, handle) => format!("+{} {handle}", Device::bus_port(&device)),
        Seen::Left(port) => format!("-{port}"),
        Seen::NoBus(why) => why,
    };
    std::iter::from_fn(|| seen.try_recv().ok()).map(line).collect()
}

#[test]
fn a_device_arrives_once_and_leaves_once() {
    let (mut log, mut seen) = log();
    let (now, stick) = (Instant::now(), usb_device("1-2", 8));
    log.arrived((1, 5), stick.clone(), 1, now);
    log.arrived((1, 5), stick, 2, now);
    log.left((1, 5));
    log.left((1, 5));
    assert_eq!(told(&mut seen), ["+1-2 1", "-1-2"]);
    assert!(log.missing([].into_iter()).is_empty());
}

#[test]
fn a_port_has_one_device_at_a_time_in_whatever_order_it_is_told() {
    let (mut log, mut seen) = log();
    let (now, stick) = (Instant::now(), usb_device("1-2", 8));
    log.arrived((1, 5), stick.clone(), 1, now);
    log.arrived((1, 6), stick, 2, now);
    log.left((1, 5));
    assert_eq!(told(&mut seen), ["+1-2 1", "-1-2", "+1-2 2"]);
    assert_eq!(log.missing([(1, 7)].into_iter()), [(1, 6)]);
}

#[test]
fn a_hid_device_waits_for_its_driver_but_not_for_ever() {
    let (mut log, mut seen) = log();
    let (now, key) = (Instant::now(), usb_device("1-2", 3));
    log.arrived((1, 5), key.clone(), 1, now);
    log.settle(now, |_| None);
    assert!(told(&mut seen).is_empty());
    log.settle(now, |_| Some(Device { input: Input::Yes, ..key.clone() }));
    assert_eq!(told(&mut seen), ["+1-2 1"]);
    log.arrived((1, 6), Device { ports: vec![3], ..key.clone() }, 2, now);
    log.settle(now + SETTLED, |_| None);
    assert_eq!(told(&mut seen), ["+1-3 2"]);
    log.arrived((1, 7), Device { ports: vec![4], ..key }, 3, now);
    log.left((1, 7));
    assert!(told(&mut seen).is_empty(), "nobody has heard of it");
}

#[test]
fn a_hid_device_is_no_input_only_when_its_driver_has_had_time_to_say_so() {
    let (mut log, mut seen) = log();
    let (now, key) = (Instant::now(), Device { input: Input::No, ..usb_device("1-2", 3) });
    log.arrived((1, 5), key.clone(), 1, now);
    log.settle(now, |_| Some(key.clone()));
    assert!(told(&mut seen).is_empty(), "a driver is named before it has done its work");
    log.settle(now + SETTLED, |_| Some(key.clone()));
    assert_eq!(told(&mut seen), ["+1-2 1"]);
}

#[test]
fn a_makers_own_device_and_a_wireless_one_wait_for_their_drivers_and_a_disk_does_not() {
    for (class, waits) in [(0xff, true), (0xe0, true), (0x08, false)] {
        let (mut log, mut seen) = log();
        let (now, device) = (Instant::now(), Device { input: Input::No, ..usb_device("1-2", class) });
        log.arrived((1, 5), device.clone(), 1, now);
        assert_eq!(told(&mut seen).is_empty(), waits, "{class:#x}");
        // A touch screen, or an adapter that carries a keyboard.
        log.settle(now, |_| Some(Device { input: Input::Yes, ..device.clone() }));
        assert_eq!(told(&mut seen).len(), usize::from(waits), "{class:#x}");
    }
}

#[test]
fn a_watch_ends_when_it_is_dropped_with_or_without_a_bus() {
    let (watch, mut seen) = Watch::start().unwrap();
    drop(watch);
    while seen.try_recv().is_ok() {}
    assert!(seen.is_closed(), "the thread is gone");
}
