//! What both halves share, and nothing else: what a pod says of itself, and what it is asked. Types only; no I/O.

pub mod last_words;
pub mod question;
pub mod record;
