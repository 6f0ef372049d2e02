//! What the descriptors of a lent device say of its interfaces. They are the remote's word.

use wire::{
    control::Profile,
    usb::{Direction, Endpoint},
};

/// USB 2.0 §9.4, table 9-5: the types of descriptors.
const CONFIGURATION: u16 = 2;
const INTERFACE: u8 = 4;
const ENDPOINT: u8 = 5;
/// USB 2.0 §9.6.6: the two bits of `bmAttributes` that tell the type of an endpoint, and interrupt.
const TYPE: u8 = 3;
const INTERRUPT: u8 = 3;

/// An interface, or another setting of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    /// `bInterfaceClass`, `bInterfaceSubClass`, `bInterfaceProtocol`.
    pub(crate) class: (u8, u8, u8),
    /// Its interrupt IN endpoints.
    pub(crate) interrupt_in: Vec<Endpoint>,
}

/// The interfaces of all configurations, in order.
pub(crate) fn interfaces(profile: &Profile) -> Vec<Interface> {
    let configurations = profile.descriptors.iter().filter(|found| found.value >> 8 == CONFIGURATION);
    let mut interfaces: Vec<Interface> = Vec::new();
    for descriptor in configurations.flat_map(|found| split(&found.data)) {
        match *descriptor {
            // USB 2.0 §9.6.5.
            [_, INTERFACE, _, _, _, class, subclass, protocol, ..] => {
                interfaces.push(Interface { class: (class, subclass, protocol), interrupt_in: Vec::new() });
            }
            [_, ENDPOINT, address, attributes, ..] if attributes & TYPE == INTERRUPT => {
                let endpoint =
                    Endpoint::from_address(address).filter(|found| found.direction() == Direction::In);
                if let Some(interface) = interfaces.last_mut() {
                    interface.interrupt_in.extend(endpoint);
                }
            }
            _ => {}
        }
    }
    interfaces
}

/// The descriptors in a configuration descriptor, one after the other. USB 2.0 §9.4.3.
fn split(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        // A length of 0 would lead nowhere.
        let length = usize::from(*rest.first()?).max(1);
        let (descriptor, behind) = rest.split_at_checked(length)?;
        rest = behind;
        Some(descriptor)
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use wire::control::Descriptor;

    use super::*;

    /// A configuration with interfaces of these classes, each with an interrupt IN endpoint.
    pub(crate) fn profile(classes: &[(u8, u8, u8)]) -> Profile {
        let mut data = vec![9, 2, 0, 0, classes.len() as u8, 1, 0, 0x80, 50];
        for (number, (class, subclass, protocol)) in (0..).zip(classes) {
            data.extend([9, 4, number, 0, 1, *class, *subclass, *protocol, 0]);
            data.extend([7, 5, 0x81 + number, 3, 8, 0, 10]);
        }
        let descriptor = Descriptor { request_type: 0x80, value: 0x0200, index: 0, data: data.into() };
        Profile { descriptors: vec![descriptor], ..Profile::default() }
    }

    #[test]
    fn each_interface_has_its_endpoints() {
        let endpoint = |address| Endpoint::from_address(address).into_iter().collect();
        let expected = vec![
            Interface { class: (3, 1, 1), interrupt_in: endpoint(0x81) },
            Interface { class: (8, 6, 80), interrupt_in: endpoint(0x82) },
        ];
        assert_eq!(interfaces(&profile(&[(3, 1, 1), (8, 6, 80)])), expected);
        assert!(interfaces(&Profile::default()).is_empty());
    }

    #[test]
    fn descriptors_that_are_cut_or_lie_about_their_length_end_the_search() {
        let whole = profile(&[(3, 1, 1), (8, 6, 80)]).descriptors.remove(0);
        let found = |data| {
            let descriptors = vec![Descriptor { data, ..whole.clone() }];
            interfaces(&Profile { descriptors, ..Profile::default() }).len()
        };
        for length in 0..=whole.data.len() {
            assert!(found(whole.data.slice(..length)) <= 2);
        }
        for lie in [0, 1, 255] {
            assert!(found(vec![lie, 4, 0, 0, 0, 3, 1, 1].into()) <= 1);
        }
    }
}
