//! A state machine of counters and strings, small enough to follow by eye in a trace.

use bytes::Bytes;
use replica::overlay::OverlayReader;
use replica::{EvaluateContext, StateMachine};
use storage::{KvBatch, KvOp, View};

/// The key whose value is the published state.
const STATE_KEY: &[u8] = b"state";

/// What the machine does.
#[derive(Clone, Debug)]
pub(crate) enum KvCommand {
    /// Sets a key.
    Set(String, String),
    /// Adds one to a number and answers it.
    Increment(String),
    /// Sets a key that must not exist.
    Insert(String, String),
    /// Removes a key; answers whether it was there.
    Delete(String),
    /// Answers a key's value and writes nothing.
    Get(String),
}

/// A value, if there is one.
pub(crate) type KvReply = Option<String>;

/// See the module's comment.
#[derive(Default)]
pub(crate) struct KvMachine {
    is_reset: bool,
}

impl StateMachine for KvMachine {
    type Command = KvCommand;
    type Reply = KvReply;
    type State = Option<Bytes>;

    fn evaluate(
        &mut self,
        _cx: &EvaluateContext,
        reader: OverlayReader<'_>,
        command: &KvCommand,
        batch: &mut KvBatch,
    ) -> storage::Result<base::Result<KvReply>> {
        assert!(self.is_reset, "evaluation begins with a reset");
        let get = |key: &str| {
            reader
                .get(key.as_bytes())
                .map(|value| value.map(|value| String::from_utf8_lossy(&value).into_owned()))
        };
        Ok(Ok(match command {
            KvCommand::Set(key, value) => {
                batch.put(key.clone(), value.clone());
                None
            }
            KvCommand::Increment(key) => {
                let next = get(key)?.and_then(|value| value.parse().ok()).unwrap_or(0u64) + 1;
                batch.put(key.clone(), next.to_string());
                Some(next.to_string())
            }
            KvCommand::Insert(key, value) => {
                if let Some(other) = get(key)? {
                    let message = format!("{key} is {other} already");
                    return Ok(Err(base::Error::new(base::Code::DUPLICATE_KEY, message)));
                }
                batch.put(key.clone(), value.clone());
                None
            }
            KvCommand::Delete(key) => {
                let old = get(key)?;
                if old.is_some() {
                    batch.delete(key.clone());
                }
                old
            }
            KvCommand::Get(key) => get(key)?,
        }))
    }

    fn reset(&mut self, _reader: OverlayReader<'_>) -> storage::Result<()> {
        self.is_reset = true;
        Ok(())
    }

    fn upkeep(&mut self, _wall_ms: i64) -> Option<KvCommand> {
        None
    }

    fn load_state(view: &dyn View) -> storage::Result<Option<Bytes>> {
        view.get(STATE_KEY)
    }

    fn next_state(_previous: &Option<Bytes>, batch: &KvBatch) -> storage::Result<Option<Option<Bytes>>> {
        Ok(batch.ops.iter().rev().find(|op| op.key() == STATE_KEY).map(|op| op.value().cloned()))
    }
}

/// A batch with one put.
pub(crate) fn initial() -> KvBatch {
    KvBatch { ops: vec![KvOp::Put { key: STATE_KEY.into(), value: Bytes::from_static(b"new") }] }
}
