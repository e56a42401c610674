//! The catalog as a state machine that a replica can drive.
//!
//! The owner loop evaluates against its own copy, which has everything proposed in it; readers get the copy that the
//! apply side publishes.

use catalog::{Catalog, Command, Reply};
use storage::{Direction, KeyRange, KvBatch, View};

use crate::machine::{EvaluateContext, StateMachine};
use crate::overlay::OverlayReader;

/// Evaluates catalog commands.
#[derive(Default)]
pub struct CatalogMachine {
    proposed: Catalog,
}

impl StateMachine for CatalogMachine {
    type Command = Command;
    type Reply = Reply;
    type State = Catalog;

    fn evaluate(
        &mut self,
        _cx: &EvaluateContext,
        _reader: OverlayReader<'_>,
        command: &Command,
        batch: &mut KvBatch,
    ) -> storage::Result<base::Result<Reply>> {
        match self.proposed.evaluate(command) {
            Ok((changes, reply)) => {
                self.proposed.apply(&changes)?;
                *batch = changes;
                Ok(Ok(reply))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    fn reset(&mut self, reader: OverlayReader<'_>) -> storage::Result<()> {
        self.proposed = Catalog::load(reader.scan(everything(), Direction::Forward))?;
        Ok(())
    }

    fn upkeep(&mut self, _wall_ms: i64) -> Option<Command> {
        None
    }

    fn load_state(view: &dyn View) -> storage::Result<Catalog> {
        Catalog::load(view.scan(everything(), Direction::Forward))
    }

    fn next_state(previous: &Catalog, batch: &KvBatch) -> storage::Result<Option<Catalog>> {
        if batch.is_empty() {
            return Ok(None);
        }
        let mut next = previous.clone();
        next.apply(batch)?;
        Ok(Some(next))
    }
}

fn everything() -> KeyRange {
    KeyRange::prefix(bytes::Bytes::new())
}
