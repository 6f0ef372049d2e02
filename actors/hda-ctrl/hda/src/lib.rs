//! The Intel HD Audio controller and codec as a pure model
