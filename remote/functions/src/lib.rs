//! USB functions made of software
