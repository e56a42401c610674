//! Documents as people type them: the relaxed JSON of the shell, of command line arguments and of imported files.
//!
//! [`parse`] reads it (unquoted names, single quotes, comments, `ISODate(..)`, `/regex/i`, Extended JSON), [`print`]
//! writes it for people, [`json`] writes it for programs (one line of Extended JSON). What `print` writes, `parse`
//! reads back as the same value. Nothing in here does I/O, and no text makes it panic.

mod constructor;
mod date;
mod extended;
pub mod json;
mod parse;
pub mod print;
mod text;

pub use constructor::NAMES as CONSTRUCTORS;
pub use parse::{DEPTH_MAX, ParseError, Parser, parse, parse_document};
