//! Links that break, come back and change under a VM that works: what its user sees is in the README's table, and each
//! row is here.

mod cable;
mod keys;
mod sound;
mod switch;
