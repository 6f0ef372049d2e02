//! One authenticated attachment to a peer, and its decorators
