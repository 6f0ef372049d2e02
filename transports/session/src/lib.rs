//! Numbered messages on prioritised lanes, over links that come and go
