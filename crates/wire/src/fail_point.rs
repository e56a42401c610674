//! Fail points: faults on demand, for the test suites of drivers.
//!
//! Set by `configureFailPoint`, which exists only where test commands are enabled; asked by dispatch before a command
//! runs. Costs one atomic load while none is set.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::{Code, Error, Result};
use bson::{Bson, Document};
use document::{RawDoc, Value};
use parking_lot::Mutex;

use crate::fields::{Accepts, Field, Fields, field, ignored, integral};

/// The fail points of a node; `failCommand` is the only one.
#[derive(Debug, Default)]
pub(crate) struct FailPoints {
    enabled: AtomicBool,
    fail_command: Mutex<Option<FailCommand>>,
    /// How often it applied since it was set.
    entered: Mutex<i64>,
}

#[derive(Clone, Debug)]
struct FailCommand {
    mode: Mode,
    commands: Vec<String>,
    application: Option<String>,
    fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Always,
    Times(i64),
    Skip(i64),
}

/// What happens to a command.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Fault {
    /// Wait first.
    pub(crate) delay: Option<Duration>,
    /// Close the connection instead of an answer.
    pub(crate) close_connection: bool,
    /// Answer this error instead of running the command.
    pub(crate) error: Option<Error>,
    /// The labels of the error, instead of those that the server would add.
    pub(crate) labels: Option<Vec<String>>,
    /// Run the command and report this.
    pub(crate) write_concern_error: Option<Document>,
}

impl FailPoints {
    /// Sets or clears a fail point. Answers how often it applied since it was set before.
    pub(crate) fn configure(&self, name: &str, mode: &Value<'_>, data: Option<RawDoc<'_>>) -> Result<i64> {
        if name != "failCommand" {
            let message = format!("Fail point {name} not found");
            return Err(Error::new(Code::FAIL_POINT_SET_FAILED, message));
        }
        let mode = Mode::parse(mode)?;
        let point = mode.map(|mode| FailCommand::parse(mode, data)).transpose()?;
        self.enabled.store(point.is_some(), Ordering::Release);
        *self.fail_command.lock() = point;
        Ok(std::mem::take(&mut *self.entered.lock()))
    }

    /// What happens to this command, if anything.
    pub(crate) fn check(&self, command: &str, application: impl Fn() -> Option<String>) -> Option<Fault> {
        if !self.enabled.load(Ordering::Acquire) || command == "configureFailPoint" {
            return None;
        }
        let mut slot = self.fail_command.lock();
        let point = slot.as_mut()?;
        let named = point.commands.iter().any(|name| name == command);
        if !named || point.application.is_some() && point.application != application() {
            return None;
        }
        if !point.mode.applies() {
            return None;
        }
        *self.entered.lock() += 1;
        Some(point.fault.clone())
    }
}

impl Mode {
    /// `None` for "off".
    fn parse(mode: &Value<'_>) -> Result<Option<Mode>> {
        const FIELDS: &[Field] = &[field("skip", Accepts::Integer), field("times", Accepts::Integer)];
        match mode {
            Value::String("off") => Ok(None),
            Value::String("alwaysOn") => Ok(Some(Mode::Always)),
            Value::Document(document::DocRef::Raw(counted)) => {
                let fields = Fields::read("configureFailPoint.mode", FIELDS, *counted)?;
                match (fields.integer("times")?, fields.integer("skip")?) {
                    (Some(times), None) => Ok(Some(Mode::Times(times))),
                    (None, Some(skip)) => Ok(Some(Mode::Skip(skip))),
                    _ => Err(Error::bad_value("a fail point's mode needs either 'times' or 'skip'")),
                }
            }
            _ => Err(Error::bad_value("a fail point's mode is 'off', 'alwaysOn', {times: n} or {skip: n}")),
        }
    }

    fn applies(&mut self) -> bool {
        match self {
            Mode::Always => true,
            Mode::Times(left) if *left > 0 => {
                *left -= 1;
                true
            }
            Mode::Times(_) => false,
            Mode::Skip(left) if *left > 0 => {
                *left -= 1;
                false
            }
            Mode::Skip(_) => true,
        }
    }
}

const DATA: &[Field] = &[
    field("appName", Accepts::String),
    field("blockConnection", Accepts::Bool),
    field("blockTimeMS", Accepts::Integer),
    field("closeConnection", Accepts::Bool),
    field("errorCode", Accepts::Integer),
    field("errorExtraInfo", Accepts::Object),
    field("errorLabels", Accepts::Array),
    field("failCommands", Accepts::Array),
    ignored("failInternalCommands", Accepts::Bool, "there are none"),
    ignored("namespace", Accepts::String, "commands are chosen by name"),
    field("writeConcernError", Accepts::Object),
];

impl FailCommand {
    fn parse(mode: Mode, data: Option<RawDoc<'_>>) -> Result<FailCommand> {
        let owner = "configureFailPoint.data";
        let fields =
            data.map_or_else(|| Ok(Fields::empty(owner, DATA)), |data| Fields::read(owner, DATA, data))?;
        let strings = |name: &str| -> Option<Vec<String>> {
            let array = fields.value(name)?.as_array()?;
            Some(array.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect())
        };
        let labels = strings("errorLabels");
        let error = fields.integer("errorCode")?.map(|code| fail_command_error(code, &fields)).transpose()?;
        let write_concern_error = fields.value("writeConcernError").and_then(|value| value.as_document());
        let block_ms =
            fields.value("blockTimeMS").map(|value| integral(owner, "blockTimeMS", &value)).transpose()?;
        let blocks = fields.bool("blockConnection") == Some(true);
        let delay =
            block_ms.and_then(|ms| u64::try_from(ms).ok()).filter(|_| blocks).map(Duration::from_millis);
        let fault = Fault {
            delay,
            close_connection: fields.bool("closeConnection") == Some(true),
            error,
            labels,
            write_concern_error: write_concern_error.map(|error| complete(error.to_document())),
        };
        Ok(FailCommand {
            mode,
            commands: strings("failCommands").unwrap_or_default(),
            application: fields.str("appName").map(str::to_owned),
            fault,
        })
    }
}

fn fail_command_error(code: i64, fields: &Fields<'_>) -> Result<Error> {
    let code = i32::try_from(code).map_err(|_| Error::bad_value("errorCode is out of range"))?;
    let error = Error::new(Code(code), "Failing command via 'failCommand' failpoint");
    let extra = fields.element("errorExtraInfo").map(|element| element.value.to_vec());
    Ok(match extra {
        Some(details) => error.with_details(details),
        None => error,
    })
}

/// Adds the code's name, which clients expect beside the code.
fn complete(mut error: Document) -> Document {
    if let (Some(Bson::Int32(code)), false) = (error.get("code"), error.contains_key("codeName")) {
        let name = Code(*code).name();
        error.insert("codeName", name);
    }
    error
}
