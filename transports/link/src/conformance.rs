//! What every link has to pass, whatever carries it.
