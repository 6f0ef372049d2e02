//! The UsbCtrl actor: an xhci model on a bus
