//! The shell: a language of statements, their execution, and a line editor around them.
//!
//! [`statement`] reads a statement into a [`request`], [`execute`] sends it and shows the answer. [`session`] runs
//! statements from a pipe; [`interactive`] adds line editing, history, completion and colours on a terminal.

mod arguments;
pub mod balance;
mod complete;
pub mod execute;
mod help;
mod highlight;
pub mod interactive;
pub mod method;
pub mod request;
pub mod session;
pub mod statement;
pub mod table;
pub mod words;
