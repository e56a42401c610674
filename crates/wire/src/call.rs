//! One command with everything that a command needs: its checked fields, its session, its deadline.
//!
//! Made by dispatch for each request; read by the command files. Always holds: the fields are those the command
//! declares, of the types it declares; documents taken from it share the message's memory.

use std::time::Duration;

use base::limits::WRITE_BATCH_MAX;
use base::{Code, Error, Namespace, Result, SessionId};
use bson::Bson;
use bytes::Bytes;
use document::expression::command_variables;
use document::value::RawElement;
use document::{ArrayRef, DocBuf, DocRef, EvalContext, Kind, RawDoc, Value};
use router::command::{Hint, OperationContext, ReadPreference};

use crate::command::Spec;
use crate::fields::{
    Accepts, Field, Fields, GENERIC, duplicate_field, field, ignored, missing_field, unknown_field,
    wrong_type,
};
use crate::message::{Request, Sequence, batch_size_error};
use crate::read_preference;
use crate::state::{Client, State};
use crate::write_concern::WriteConcern;

/// A command, ready to run.
pub(crate) struct Call<'a> {
    pub(crate) state: &'a State,
    pub(crate) client: &'a Client,
    pub(crate) spec: &'static Spec,
    /// The first field, which names the command; most often with the collection as its value.
    pub(crate) target: RawElement<'a>,
    /// The command's own fields.
    pub(crate) fields: Fields<'a>,
    /// The fields that every command may have.
    pub(crate) generic: Fields<'a>,
    pub(crate) database: &'a str,
    pub(crate) context: OperationContext,
    pub(crate) write_concern: Option<WriteConcern>,
    /// Whether the client takes a stream of replies.
    pub(crate) exhaust_allowed: bool,
    /// Whether the read concern asks for the primary.
    linearizable: bool,
    body: &'a Bytes,
    sequences: &'a [Sequence],
}

impl<'a> Call<'a> {
    /// Checks a request against the declaration of its command.
    pub(crate) fn new(
        state: &'a State,
        client: &'a Client,
        spec: &'static Spec,
        request: &'a Request,
        default_database: &'a str,
    ) -> Result<Call<'a>> {
        let mut call =
            Call::read(state, client, spec, request.body.bytes(), request.body.as_raw(), default_database)?;
        call.sequences = &request.sequences;
        call.exhaust_allowed = request.exhaust_allowed;
        call.check_sequences()?;
        call.fields.check_required(|name| request.sequences.iter().any(|sequence| sequence.name == name))?;
        call.read_generic()?;
        Ok(call)
    }

    /// The command inside `explain`: `document` is a part of this call's body.
    pub(crate) fn nested<'n>(&'n self, spec: &'static Spec, document: RawDoc<'n>) -> Result<Call<'n>> {
        let call = Call::read(self.state, self.client, spec, self.body, document, self.database)?;
        call.fields.check_required(|_| false)?;
        Ok(Call { context: self.context.clone(), ..call })
    }

    fn read(
        state: &'a State,
        client: &'a Client,
        spec: &'static Spec,
        body: &'a Bytes,
        document: RawDoc<'a>,
        default_database: &'a str,
    ) -> Result<Call<'a>> {
        let mut elements = document.iter();
        let target = elements.next_element().ok_or_else(|| Error::failed_to_parse("the command is empty"))?;
        let mut fields = Fields::empty(spec.name, spec.fields);
        let mut generic = Fields::empty(spec.name, GENERIC);
        while let Some(element) = elements.next_element() {
            if element.name == target.name {
                return Err(duplicate_field(spec.name, &String::from_utf8_lossy(element.name)));
            }
            if !fields.add(element)? && !generic.add(element)? && !spec.any_fields {
                return Err(unknown_field(spec.name, &String::from_utf8_lossy(element.name)));
            }
        }
        let database = generic.str("$db").unwrap_or(default_database);
        Ok(Call {
            state,
            client,
            spec,
            target,
            fields,
            generic,
            database,
            context: OperationContext::default(),
            write_concern: None,
            exhaust_allowed: false,
            linearizable: false,
            body,
            sequences: &[],
        })
    }

    fn check_sequences(&self) -> Result<()> {
        for (position, sequence) in self.sequences.iter().enumerate() {
            let earlier = self.sequences.iter().take(position).any(|other| other.name == sequence.name);
            if !self.fields.declares(&sequence.name) {
                return Err(unknown_field(self.spec.name, &sequence.name));
            }
            if earlier || self.fields.element(&sequence.name).is_some() {
                return Err(duplicate_field(self.spec.name, &sequence.name));
            }
        }
        Ok(())
    }

    fn read_generic(&mut self) -> Result<()> {
        if self.database.is_empty() {
            return Err(Error::new(Code(40_571), "OP_MSG requests require a $db argument"));
        }
        base::namespace::check_database(self.database)?;
        if self.spec.admin_only && self.database != "admin" {
            let message = format!("{} may only be run against the admin database.", self.spec.name);
            return Err(Error::new(Code::UNAUTHORIZED, message));
        }
        self.check_api_version()?;
        self.read_concern()?;
        self.read_preference()?;
        self.observe_cluster_time();
        self.write_concern =
            self.document("writeConcern").map(|given| WriteConcern::parse(given.as_raw())).transpose()?;
        self.read_session()?;
        self.context.connection = self.client.id;
        self.context.deadline = self.deadline()?;
        self.context.cancelled = self.client.begin(self.context.session);
        Ok(())
    }

    fn deadline(&self) -> Result<Option<base::MonoTime>> {
        let Some(limit_ms) = self.generic.integer("maxTimeMS")? else { return Ok(None) };
        let limit_ms = u32::try_from(limit_ms).ok().filter(|limit_ms| *limit_ms <= i32::MAX as u32);
        let limit_ms = limit_ms
            .ok_or_else(|| Error::bad_value(format!("maxTimeMS must be between 0 and {}", i32::MAX)))?;
        let limited = limit_ms > 0;
        Ok(limited.then(|| self.state.clock.monotonic() + Duration::from_millis(u64::from(limit_ms))))
    }

    fn check_api_version(&self) -> Result<()> {
        let strict = self.generic.bool("apiStrict");
        let version = self.generic.str("apiVersion");
        match version {
            None if strict.is_some() || self.generic.bool("apiDeprecationErrors").is_some() => {
                let message = "Provided apiStrict and/or apiDeprecationErrors without passing apiVersion";
                Err(Error::new(Code::API_VERSION_ERROR, message))
            }
            Some(version) if version != "1" => Err(Error::new(
                Code::API_VERSION_ERROR,
                format!("API version must be \"1\", got \"{version}\""),
            )),
            Some(_) if strict == Some(true) && !self.spec.api_v1 => {
                let name = self.spec.name;
                let message =
                    format!("Provided apiStrict:true, but the command {name} is not in API Version 1");
                Err(Error::new(Code::API_STRICT_ERROR, message))
            }
            _ => Ok(()),
        }
    }

    /// A read at the primary is linearizable, so that any level up to that is met. A read at a secondary sees what is
    /// committed on a majority, and what its session has seen when it says so.
    fn read_concern(&mut self) -> Result<()> {
        const FIELDS: &[Field] = &[
            field("afterClusterTime", Accepts::Any),
            ignored("afterOpTime", Accepts::Any, "legacy"),
            field("atClusterTime", Accepts::Any),
            field("level", Accepts::String),
            ignored("provenance", Accepts::String, "informational"),
        ];
        let Some(given) = self.document("readConcern") else { return Ok(()) };
        let fields = Fields::read("readConcern", FIELDS, given.as_raw())?;
        match fields.str("level") {
            None | Some("local" | "available" | "majority" | "linearizable") => {}
            Some("snapshot") => {
                let message = "read concern level snapshot is not supported";
                return Err(Error::new(Code::INVALID_OPTIONS, message));
            }
            Some(other) => {
                return Err(Error::bad_value(format!(
                    "Enumeration value '{other}' for field 'readConcern.level' is not a valid value."
                )));
            }
        }
        if fields.element("atClusterTime").is_some() {
            let message = "readConcern.atClusterTime is only supported with read concern level snapshot";
            return Err(Error::new(Code::INVALID_OPTIONS, message));
        }
        self.linearizable = fields.str("level") == Some("linearizable");
        match fields.value("afterClusterTime") {
            None => {}
            Some(Value::Timestamp(_)) => self.context.reads.causal = true,
            Some(_) => return Err(Error::type_mismatch("readConcern.afterClusterTime must be a timestamp")),
        }
        Ok(())
    }

    /// Which replica answers. Linearizable reads are the primary's, whatever is preferred.
    fn read_preference(&mut self) -> Result<()> {
        let Some(given) = self.document("$readPreference") else { return Ok(()) };
        let preference = read_preference::parse(given.as_raw())?;
        if !self.linearizable {
            let causal = self.context.reads.causal;
            self.context.reads = ReadPreference { causal, ..preference };
        }
        Ok(())
    }

    /// The signature is not looked at: there are no users whose times could be told from others'.
    fn observe_cluster_time(&self) {
        let Some(given) = self.document("$clusterTime") else { return };
        if let Some(Value::Timestamp(time)) = given.as_doc().get("clusterTime") {
            self.state.backend.observe_cluster_time(time);
        }
    }

    fn read_session(&mut self) -> Result<()> {
        let invalid = |message: &str| Err(Error::new(Code::INVALID_OPTIONS, message));
        self.context.session =
            self.document("lsid").map(|given| read_session_id("lsid", given.as_raw())).transpose()?;
        let txn_number = self.generic.integer("txnNumber")?;
        let of_transactions = ["autocommit", "startTransaction"];
        if let Some(name) = of_transactions.iter().find(|name| self.generic.element(name).is_some()) {
            let message =
                format!("Multi-document transactions are not supported: run each command without '{name}'");
            return Err(Error::new(Code::ILLEGAL_OPERATION, message));
        }
        let Some(number) = txn_number else { return Ok(()) };
        if self.context.session.is_none() {
            return invalid("Transaction number requires a session ID to also be specified");
        }
        if number < 0 {
            return invalid("Transaction number cannot be negative");
        }
        if !self.spec.retryable {
            let message = format!(
                "txnNumber may only be provided for multi-document transactions and retryable write commands. \
                 autocommit:false was not provided, and {} is not a retryable write command.",
                self.spec.name
            );
            return Err(Error::new(Code::NOT_A_RETRYABLE_WRITE_COMMAND, message));
        }
        self.context.txn_number = Some(number);
        Ok(())
    }

    /// The collection that the command names.
    pub(crate) fn namespace(&self) -> Result<Namespace> {
        self.namespace_of(self.target.decode())
    }

    /// A collection by a value that names it.
    pub(crate) fn namespace_of(&self, name: Option<Value<'_>>) -> Result<Namespace> {
        match name {
            Some(Value::String(collection)) => Namespace::new(self.database, collection),
            other => {
                let kind = other.map_or(Kind(0), |value| value.kind()).name();
                let message = format!("collection name has invalid type {kind}");
                Err(Error::new(Code::INVALID_NAMESPACE, message))
            }
        }
    }

    /// A document, without a copy.
    pub(crate) fn document(&self, name: &str) -> Option<DocBuf> {
        let fields = if self.fields.declares(name) { &self.fields } else { &self.generic };
        fields.element(name).map(|element| self.share(element.value))
    }

    /// The values of `let`.
    pub(crate) fn variables(&self) -> Result<Option<DocBuf>> {
        let Some(given) = self.document("let") else { return Ok(None) };
        let now = bson::DateTime::from_millis(self.state.clock.wall_ms());
        let cx = EvalContext::new(now, base::Timestamp::default());
        let values = command_variables(given.as_doc(), &cx)?;
        DocBuf::encode(&values.0.into_iter().collect()).map(Some)
    }

    /// A list of documents: a document sequence or an array. Fails on elements of other types, and on more than a
    /// batch may have.
    pub(crate) fn documents(&self, name: &str) -> Result<Vec<DocBuf>> {
        if let Some(sequence) = self.sequences.iter().find(|sequence| sequence.name == name) {
            return Ok(sequence.documents.clone());
        }
        let Some(element) = self.fields.element(name) else {
            return Err(missing_field(self.spec.name, name));
        };
        self.documents_of(self.spec.name, name, element)
    }

    /// Whether a field came as a document sequence.
    pub(crate) fn is_sequence(&self, name: &str) -> bool {
        self.sequences.iter().any(|sequence| sequence.name == name)
    }

    /// The documents in an array that is a part of this call's body.
    pub(crate) fn documents_of(&self, owner: &str, name: &str, array: RawElement<'_>) -> Result<Vec<DocBuf>> {
        let mut documents = Vec::new();
        let mut elements = RawDoc::new(array.value).iter();
        while let Some(element) = elements.next_element() {
            if element.tag != 0x03 {
                let kind = element.decode().map_or(Kind(0), |value| value.kind());
                let position = documents.len();
                return Err(wrong_type(
                    &format!("{owner}.{name}"),
                    &position.to_string(),
                    kind,
                    Accepts::Object,
                ));
            }
            if documents.len() == WRITE_BATCH_MAX {
                return Err(batch_size_error(RawDoc::new(array.value).iter().count()));
            }
            documents.push(self.share(element.value));
        }
        Ok(documents)
    }

    /// Statement ids for retries: `stmtIds`, or `stmtId` and those after it.
    pub(crate) fn statement_ids(&self, statements: usize) -> Result<Vec<i32>> {
        let invalid = |message: String| Error::new(Code::INVALID_OPTIONS, message);
        if let Some(array) = self.fields.value("stmtIds").and_then(|value| value.as_array()) {
            let ids: Option<Vec<i32>> = array.iter().map(|value| int32(&value)).collect();
            let ids = ids.ok_or_else(|| {
                Error::type_mismatch(format!(
                    "BSON field '{}.stmtIds' must hold numbers of type int",
                    self.spec.name
                ))
            })?;
            if ids.len() != statements {
                return Err(invalid(format!(
                    "Number of statement ids must match the number of batch entries. Got {} statement ids but \
                     {statements} operations.",
                    ids.len()
                )));
            }
            return Ok(ids);
        }
        let Some(first) = self.fields.integer("stmtId")? else { return Ok(Vec::new()) };
        let ids: Option<Vec<i32>> =
            (0..statements).map(|offset| i32::try_from(first.checked_add(offset as i64)?).ok()).collect();
        ids.ok_or_else(|| invalid(format!("stmtId {first} is out of range")))
    }

    /// `hint`: a name, or a key pattern; an empty key pattern is none.
    pub(crate) fn hint(&self) -> Option<Hint> {
        self.hint_of(self.fields.element("hint"))
    }

    /// A hint from a part of this call's body or of its sequences.
    pub(crate) fn hint_of(&self, element: Option<RawElement<'_>>) -> Option<Hint> {
        let element = element?;
        match element.decode()? {
            Value::String(name) => Some(Hint::Name(name.to_owned())),
            Value::Document(key) if !key.is_empty() => Some(Hint::Key(self.share(element.value))),
            _ => None,
        }
    }

    /// A slice of this call's message as a document of its own, without a copy where the memory is shared.
    pub(crate) fn share(&self, value: &[u8]) -> DocBuf {
        share(self.body, value)
    }

    /// The elements of a field that is an array, as owned values.
    pub(crate) fn values(&self, name: &str) -> Vec<Bson> {
        let array = self.fields.value(name).and_then(|value| value.as_array());
        array
            .map(|array: ArrayRef<'_>| array.iter().map(|value| value.to_bson()).collect())
            .unwrap_or_default()
    }

    /// The message's memory that the command's own fields are parts of.
    pub(crate) fn message(&self) -> &'a Bytes {
        self.body
    }

    /// The whole command, for those that take any field.
    pub(crate) fn body(&self) -> DocRef<'_> {
        DocRef::Raw(RawDoc::new(self.body))
    }
}

/// A slice of `body` as a document, sharing its memory; a copy when the slice is not a part of it.
pub(crate) fn share(body: &Bytes, value: &[u8]) -> DocBuf {
    let whole = body.as_ptr_range();
    let part = value.as_ptr_range();
    let within = whole.start <= part.start && part.end <= whole.end;
    DocBuf::from_validated(if within { body.slice_ref(value) } else { Bytes::copy_from_slice(value) })
}

/// Reads `{id: UUID}`. Other fields of a session id are drivers' and mean nothing to a server without users.
pub(crate) fn read_session_id(owner: &'static str, document: RawDoc<'_>) -> Result<SessionId> {
    const FIELDS: &[Field] = &[
        crate::fields::required("id", Accepts::Any),
        ignored("txnNumber", Accepts::Any, "internal"),
        ignored("txnUUID", Accepts::Any, "internal"),
        ignored("uid", Accepts::Any, "there are no users yet"),
    ];
    match Fields::read(owner, FIELDS, document)?.value("id") {
        Some(Value::Binary { subtype: 4, bytes }) if bytes.len() == 16 => {
            Ok(SessionId(bytes.try_into().expect("the length was checked")))
        }
        Some(Value::Binary { .. }) => {
            Err(Error::new(Code::INVALID_UUID, "uuid must be a 16-byte binary field with UUID (4) subtype"))
        }
        other => {
            let kind = other.map_or(Kind(0), |value| value.kind()).name();
            Err(Error::type_mismatch(format!(
                "BSON field '{owner}.id' is the wrong type '{kind}', expected type 'binData'"
            )))
        }
    }
}

fn int32(value: &Value<'_>) -> Option<i32> {
    match value {
        Value::Int32(number) => Some(*number),
        Value::Int64(number) => i32::try_from(*number).ok(),
        _ => None,
    }
}
