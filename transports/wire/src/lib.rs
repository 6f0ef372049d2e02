//! The nouns of USB, audio and control, and how they are written
