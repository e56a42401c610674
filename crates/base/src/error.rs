//! The error that reaches a client: a MongoDB code and a sentence.
//!
//! Every crate returns this type for what the *user* did or must know. Faults of the node itself (failed fsync,
//! corruption) are `storage::Fault` and stop the node; they never become one of these silently.

use std::fmt;

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error for a client: deterministic, safe to reply with.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// MongoDB's number for this kind of error.
    pub code: Code,
    /// A sentence that says what was wrong with which field.
    pub message: String,
    /// What else the reply carries (`keyPattern`, `keyValue` of a duplicate key), as the bytes of a BSON document.
    pub details: Option<Box<[u8]>>,
}

impl Error {
    /// An error without details.
    pub fn new(code: Code, message: impl Into<String>) -> Error {
        Error { code, message: message.into(), details: None }
    }

    /// `BadValue` (2).
    pub fn bad_value(message: impl Into<String>) -> Error {
        Error::new(Code::BAD_VALUE, message)
    }

    /// `FailedToParse` (9).
    pub fn failed_to_parse(message: impl Into<String>) -> Error {
        Error::new(Code::FAILED_TO_PARSE, message)
    }

    /// `TypeMismatch` (14).
    pub fn type_mismatch(message: impl Into<String>) -> Error {
        Error::new(Code::TYPE_MISMATCH, message)
    }

    /// Adds fields to the reply: the bytes of a BSON document.
    #[must_use]
    pub fn with_details(mut self, document: Vec<u8>) -> Error {
        self.details = Some(document.into_boxed_slice());
        self
    }

    /// Puts `context` and ": " before the message.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Error {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.code.name(), self.code.0, self.message)
    }
}

impl std::error::Error for Error {}

/// A MongoDB error code. Codes without a constant are those that MongoDB itself gives no name ("Location12345").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code(pub i32);

macro_rules! codes {
    ($($constant:ident = $number:literal, $name:literal;)*) => {
        impl Code {
            $(#[doc = $name] pub const $constant: Code = Code($number);)*

            /// MongoDB's name for the code, as `codeName` carries it.
            pub fn name(self) -> String {
                match self.0 {
                    $($number => $name.to_owned(),)*
                    other => format!("Location{other}"),
                }
            }
        }
    };
}

codes! {
    INTERNAL_ERROR = 1, "InternalError";
    BAD_VALUE = 2, "BadValue";
    NO_SUCH_KEY = 4, "NoSuchKey";
    GRAPH_CONTAINS_CYCLE = 5, "GraphContainsCycle";
    HOST_UNREACHABLE = 6, "HostUnreachable";
    HOST_NOT_FOUND = 7, "HostNotFound";
    UNKNOWN_ERROR = 8, "UnknownError";
    FAILED_TO_PARSE = 9, "FailedToParse";
    CANNOT_MUTATE_OBJECT = 10, "CannotMutateObject";
    USER_NOT_FOUND = 11, "UserNotFound";
    UNSUPPORTED_FORMAT = 12, "UnsupportedFormat";
    UNAUTHORIZED = 13, "Unauthorized";
    TYPE_MISMATCH = 14, "TypeMismatch";
    OVERFLOW = 15, "Overflow";
    INVALID_LENGTH = 16, "InvalidLength";
    PROTOCOL_ERROR = 17, "ProtocolError";
    AUTHENTICATION_FAILED = 18, "AuthenticationFailed";
    ILLEGAL_OPERATION = 20, "IllegalOperation";
    INVALID_BSON = 22, "InvalidBSON";
    ALREADY_INITIALIZED = 23, "AlreadyInitialized";
    LOCK_TIMEOUT = 24, "LockTimeout";
    NAMESPACE_NOT_FOUND = 26, "NamespaceNotFound";
    INDEX_NOT_FOUND = 27, "IndexNotFound";
    PATH_NOT_VIABLE = 28, "PathNotViable";
    CANNOT_BACKFILL_ARRAY = 34, "CannotBackfillArray";
    CONFLICTING_UPDATE_OPERATORS = 40, "ConflictingUpdateOperators";
    CURSOR_NOT_FOUND = 43, "CursorNotFound";
    NAMESPACE_EXISTS = 48, "NamespaceExists";
    FAILED_TO_SATISFY_READ_PREFERENCE = 133, "FailedToSatisfyReadPreference";
    MAX_STALENESS_OUT_OF_RANGE = 160, "MaxStalenessOutOfRange";
    MAX_TIME_MS_EXPIRED = 50, "MaxTimeMSExpired";
    DOLLAR_PREFIXED_FIELD_NAME = 52, "DollarPrefixedFieldName";
    INVALID_ID_FIELD = 53, "InvalidIdField";
    NOT_SINGLE_VALUE_FIELD = 54, "NotSingleValueField";
    EMPTY_FIELD_NAME = 56, "EmptyFieldName";
    DOTTED_FIELD_NAME = 57, "DottedFieldName";
    CONFLICTING_OPERATION_IN_PROGRESS = 117, "ConflictingOperationInProgress";
    COMMAND_NOT_FOUND = 59, "CommandNotFound";
    SHARD_KEY_NOT_FOUND = 61, "ShardKeyNotFound";
    SHARD_NOT_FOUND = 70, "ShardNotFound";
    NAMESPACE_NOT_SHARDED = 118, "NamespaceNotSharded";
    CANNOT_SPLIT = 147, "CannotSplit";
    NODE_NOT_FOUND = 74, "NodeNotFound";
    NOT_EXACT_VALUE_FIELD = 82, "NotExactValueField";
    WRITE_CONCERN_FAILED = 64, "WriteConcernFailed";
    MULTIPLE_ERRORS_OCCURRED = 65, "MultipleErrorsOccurred";
    IMMUTABLE_FIELD = 66, "ImmutableField";
    CANNOT_CREATE_INDEX = 67, "CannotCreateIndex";
    INDEX_ALREADY_EXISTS = 68, "IndexAlreadyExists";
    INVALID_OPTIONS = 72, "InvalidOptions";
    INVALID_NAMESPACE = 73, "InvalidNamespace";
    NETWORK_TIMEOUT = 89, "NetworkTimeout";
    SHUTDOWN_IN_PROGRESS = 91, "ShutdownInProgress";
    OPERATION_FAILED = 96, "OperationFailed";
    INDEX_OPTIONS_CONFLICT = 85, "IndexOptionsConflict";
    INDEX_KEY_SPECS_CONFLICT = 86, "IndexKeySpecsConflict";
    UNKNOWN_REPL_WRITE_CONCERN = 79, "UnknownReplWriteConcern";
    UNSATISFIABLE_WRITE_CONCERN = 100, "UnsatisfiableWriteConcern";
    FAIL_POINT_SET_FAILED = 167, "FailPointSetFailed";
    UNSUPPORTED_OP_QUERY_COMMAND = 352, "UnsupportedOpQueryCommand";
    NOT_A_RETRYABLE_WRITE_COMMAND = 50_768, "NotARetryableWriteCommand";
    WRITE_CONFLICT = 112, "WriteConflict";
    COMMAND_NOT_SUPPORTED = 115, "CommandNotSupported";
    INTERRUPTED = 11_601, "Interrupted";
    INTERRUPTED_AT_SHUTDOWN = 11_600, "InterruptedAtShutdown";
    EXCEEDED_TIME_LIMIT = 262, "ExceededTimeLimit";
    EXCEEDED_MEMORY_LIMIT = 146, "ExceededMemoryLimit";
    INVALID_PIPELINE_OPERATOR = 168, "InvalidPipelineOperator";
    CANNOT_INDEX_PARALLEL_ARRAYS = 171, "CannotIndexParallelArrays";
    INVALID_INDEX_SPECIFICATION_OPTION = 197, "InvalidIndexSpecificationOption";
    CANNOT_BUILD_INDEX_KEYS = 201, "CannotBuildIndexKeys";
    INVALID_UUID = 207, "InvalidUUID";
    NO_SUCH_SESSION = 206, "NoSuchSession";
    TRANSACTION_TOO_OLD = 225, "TransactionTooOld";
    NOT_IMPLEMENTED = 238, "NotImplemented";
    CONVERSION_FAILURE = 241, "ConversionFailure";
    NO_SUCH_TRANSACTION = 251, "NoSuchTransaction";
    OPERATION_NOT_SUPPORTED_IN_TRANSACTION = 263, "OperationNotSupportedInTransaction";
    INDEX_BUILD_ABORTED = 276, "IndexBuildAborted";
    QUERY_EXCEEDED_MEMORY_LIMIT = 292, "QueryExceededMemoryLimitNoDiskUseAllowed";
    API_VERSION_ERROR = 322, "APIVersionError";
    API_STRICT_ERROR = 323, "APIStrictError";
    OUT_OF_DISK_SPACE = 14_031, "OutOfDiskSpace";
    DUPLICATE_KEY = 11_000, "DuplicateKey";
    NOT_WRITABLE_PRIMARY = 10_107, "NotWritablePrimary";
    BSON_OBJECT_TOO_LARGE = 10_334, "BSONObjectTooLarge";
    STALE_CONFIG = 13_388, "StaleConfig";
    INTERRUPTED_DUE_TO_REPL_STATE_CHANGE = 11_602, "InterruptedDueToReplStateChange";
    PRIMARY_STEPPED_DOWN = 189, "PrimarySteppedDown";
    UNKNOWN_FIELD = 40_415, "Location40415";
    MISSING_FIELD = 40_414, "Location40414";
    DUPLICATE_FIELD = 40_413, "Location40413";
    KEY_TOO_LONG = 17_280, "KeyTooLong";
    QUERY_PLAN_KILLED = 175, "QueryPlanKilled";
    NO_QUERY_EXECUTION_PLANS = 291, "NoQueryExecutionPlans";
    COLLECTION_UUID_MISMATCH = 361, "CollectionUUIDMismatch";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}
