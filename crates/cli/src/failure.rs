//! Why a command of the command line failed: a sentence for people and an exit code for scripts.
//!
//! Every subcommand returns it; `cli::main` prints it. Exit codes: 0 done; 1 refused, rejected or not found; 2 wrong
//! usage (also clap's); 3 no server answered.

use std::fmt::Display;

use mongodb::error::{ErrorKind, WriteFailure};

/// A failure that ends a subcommand.
#[derive(Debug)]
pub struct Failure {
    /// The sentence for standard error; empty when there is nothing to say, as for a reader that closed its pipe.
    pub message: String,
    /// The exit code.
    pub exit_code: u8,
}

impl Failure {
    /// The request was refused, or something was not found or not accepted.
    pub fn refused(message: impl Display) -> Failure {
        Failure { message: message.to_string(), exit_code: 1 }
    }

    /// The command line itself is wrong.
    pub fn usage(message: impl Display) -> Failure {
        Failure { message: message.to_string(), exit_code: 2 }
    }

    /// No server answered.
    pub fn unreachable(message: impl Display) -> Failure {
        Failure { message: message.to_string(), exit_code: 3 }
    }

    /// Puts `context` and ": " before the sentence.
    #[must_use]
    pub fn context(self, context: impl Display) -> Failure {
        Failure { message: format!("{context}: {}", self.message), ..self }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        match error.kind() {
            // Whoever read our output has seen enough: `psdb find ... | head`.
            std::io::ErrorKind::BrokenPipe => Failure { message: String::new(), exit_code: 0 },
            _ => Failure::refused(error),
        }
    }
}

impl From<mongodb::error::Error> for Failure {
    fn from(error: mongodb::error::Error) -> Failure {
        match error.kind.as_ref() {
            ErrorKind::Command(error) => server_error(error.code, Some(&error.code_name), &error.message),
            ErrorKind::Write(WriteFailure::WriteError(error)) => {
                server_error(error.code, error.code_name.as_deref(), &error.message)
            }
            ErrorKind::InsertMany(failed) => match failed.write_errors.as_ref().and_then(|e| e.first()) {
                Some(error) => server_error(error.code, error.code_name.as_deref(), &error.message),
                None => Failure::refused(&error),
            },
            ErrorKind::ServerSelection { message, .. } => Failure::unreachable(format!(
                "no server answers: {}. Is it running? Start one with: psdb start --data DIR",
                reason(message)
            )),
            ErrorKind::Io(error) => {
                Failure::unreachable(format!("the connection to the server failed: {error}"))
            }
            ErrorKind::ConnectionPoolCleared { message, .. } => Failure::unreachable(message),
            ErrorKind::InvalidArgument { message, .. } => Failure::usage(message),
            _ => Failure::refused(&error),
        }
    }
}

/// What the server said: its code's name, the code and the sentence.
pub fn server_error(code: i32, name: Option<&str>, message: &str) -> Failure {
    let known = base::Code(code).name();
    let name = name.filter(|name| !name.is_empty()).unwrap_or(&known);
    Failure::refused(format!("{name} ({code}): {message}"))
}

/// The cause within the driver's report on why it found no server.
fn reason(message: &str) -> String {
    let Some((_, cause)) = message.split_once("Error: ") else {
        return message.to_owned();
    };
    let end = cause.find(", labels:").unwrap_or(cause.len());
    let cause = cause.get(..end).unwrap_or(cause);
    cause.trim_start_matches("Kind: ").trim_start_matches("I/O error: ").trim_end_matches('.').to_owned()
}
