//! The VmSession actor: one VM, one remote
