//! `farbus-host print-args`: what to paste into the VM's command line or definition.

use std::path::Path;

use clap::ValueEnum;

use crate::config::Vm;

/// What starts the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Vmm {
    /// A QEMU command line (10.1 or later).
    Qemu,
    /// A libvirt domain definition.
    Libvirt,
    /// A Cloud Hypervisor command line.
    CloudHypervisor,
}

/// The text to paste.
pub(crate) fn print_args(name: &str, vm: &Vm, vmm: Vmm) -> String {
    let sockets = [("usb", vm.usb_socket()), ("hda", vm.hda_socket())];
    match vmm {
        Vmm::Qemu => {
            let devices: String = sockets
                .iter()
                .map(|(id, path)| format!(" \\\n  -device '{}'", qemu_device(id, path)))
                .collect();
            format!(
                "# {name}: QEMU >= 10.1. Guest memory must be shared; size= must equal -m.\n  \
                 -machine q35,memory-backend=mem \\\n  -m 4G -object memory-backend-memfd,id=mem,size=4G,share=on{devices}\n"
            )
        }
        Vmm::Libvirt => {
            let devices: String = sockets
                .iter()
                .map(|(id, path)| {
                    let device = qemu_device(id, path).replace('&', "&amp;").replace('\'', "&apos;");
                    format!("    <qemu:arg value='-device'/>\n    <qemu:arg value='{device}'/>\n")
                })
                .collect();
            format!(
                "<!-- {name}: QEMU >= 10.1. Put xmlns:qemu on <domain>, and the rest inside it. -->\n\
                 <domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\n  \
                 <memoryBacking>\n    <source type='memfd'/>\n    <access mode='shared'/>\n  </memoryBacking>\n  \
                 <qemu:commandline>\n{devices}  </qemu:commandline>\n</domain>\n"
            )
        }
        Vmm::CloudHypervisor => {
            let devices: String = sockets
                .iter()
                .map(|(_, path)| format!(" \\\n  --user-device socket={}", path.display()))
                .collect();
            format!(
                "# {name}: Cloud Hypervisor. Guest memory must be shared.\n  --memory size=4G,shared=on{devices}\n"
            )
        }
    }
}

/// QEMU takes the socket's address only in the JSON form of `-device`.
fn qemu_device(id: &str, socket: &Path) -> String {
    serde_json::json!({
        "driver": "vfio-user-pci",
        "id": format!("farbus-{id}"),
        "bus": "pcie.0",
        "socket": { "type": "unix", "path": socket },
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Allowed;

    fn vm() -> Vm {
        Vm::for_tests(vec![Allowed::Any])
    }

    #[test]
    fn every_vmm_is_given_both_sockets_and_shared_memory() {
        for (vmm, shared) in [
            (Vmm::Qemu, "share=on"),
            (Vmm::Libvirt, "<access mode='shared'/>"),
            (Vmm::CloudHypervisor, "shared=on"),
        ] {
            let text = print_args("a", &vm(), vmm);
            for part in ["/run/farbus/a/usb.sock", "/run/farbus/a/hda.sock", shared] {
                assert!(text.contains(part), "{vmm:?}: no {part} in {text}");
            }
        }
    }

    #[test]
    fn the_qemu_device_is_json_that_names_driver_and_socket() {
        let device: serde_json::Value =
            serde_json::from_str(&qemu_device("usb", Path::new("/x/usb.sock"))).unwrap();
        assert_eq!(device["driver"], "vfio-user-pci");
        assert_eq!(device["socket"]["path"], "/x/usb.sock");
    }
}
