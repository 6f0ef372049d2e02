//! The xHCI controller as a pure model
