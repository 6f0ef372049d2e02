//! Real virtual machines for tests, the demo and people

pub mod provision;
