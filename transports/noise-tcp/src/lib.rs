//! Link over TCP with Noise
