//! Reads on a shard's view: planning, running in slices, and the candidates of writes.

use std::sync::Arc;
use std::time::Duration;

use base::{Code, Error, LogIndex, Result};
use bytes::Bytes;
use catalog::ShardPlacement;
use document::filter::Filter;
use document::sort::SortSpec;
use document::{DocBuf, EvalContext, Value};
use query::Failure;
use query::execute::{FindExecutor, FindRequest, HashScope, Progress, Slice};
use query::plan::{Hint as IndexHint, PlanRequest, plan};
use query::position::Position;
use query::state::ShardState;
use replica::{ReadView, ShardHandle};
use storage::View;

use crate::command::{Hint, ReadSource};
use crate::resolve::Place;
use crate::retry::is_stale;
use crate::write::WriteContext;
use crate::{OperationContext, Router};

/// How long a read waits for a secondary that is behind before another replica is tried.
const CATCH_UP_MS_MAX: u64 = 1_000;

/// How a write finds its documents.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    pub(crate) filter: Arc<Filter>,
    pub(crate) sort: Option<DocBuf>,
    pub(crate) hint: Option<Hint>,
    pub(crate) multi: bool,
}

/// What a read wants of a shard.
#[derive(Clone, Debug)]
pub(crate) struct ReadRequest {
    pub(crate) filter: Arc<Filter>,
    pub(crate) sort: Option<Arc<SortSpec>>,
    pub(crate) skip: u64,
    pub(crate) limit: Option<u64>,
    pub(crate) hint: Option<Hint>,
    pub(crate) context: EvalContext,
    /// Behind which position of an earlier read it goes on.
    pub(crate) after: Option<Position>,
    /// Only the part of the shard's documents that is in all of them.
    pub(crate) scopes: Vec<HashScope>,
}

impl Router {
    /// Keys of documents that match, at most `limit`, in the search's order. Empty when there is no collection.
    pub(crate) async fn search(
        &self,
        context: &WriteContext<'_>,
        search: &Search,
        limit: usize,
    ) -> Result<Vec<Bytes>> {
        let Some(place) = context.place else { return Ok(Vec::new()) };
        let (sort, hint) = order(search.sort.as_ref(), search.hint.clone())?;
        let request = ReadRequest {
            filter: Arc::clone(&search.filter),
            sort,
            skip: 0,
            limit: (limit != usize::MAX).then_some(limit as u64),
            hint,
            context: self.eval_context(context.variables.clone()),
            after: None,
            scopes: Vec::new(),
        };
        let Some(mut executor) = self.start_read(context.cx, place, &request).await? else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        let mut keys = Vec::new();
        loop {
            let slice = Slice::examining(Slice::EXAMINED_DEFAULT);
            let progress = self.step(executor.next_located_batch(&slice, &mut found))?;
            keys.extend(found.drain(..).map(|located| located.key));
            if progress == Progress::Done {
                return Ok(keys);
            }
            self.breathe(context.cx).await?;
        }
    }

    /// Plans a read and starts it on a view of now. `None` when the collection was dropped meanwhile.
    pub(crate) async fn start_read(
        &self,
        cx: &OperationContext,
        place: &Place,
        request: &ReadRequest,
    ) -> Result<Option<FindExecutor>> {
        let Some((view, state)) = self.view(cx, place).await? else { return Ok(None) };
        self.executor(view, &state, request).map(Some)
    }

    /// A view of a shard as of now. `None` when the collection was dropped meanwhile; fails as stale when
    /// this node's replica does not lead.
    pub(crate) async fn view(
        &self,
        cx: &OperationContext,
        place: &Place,
    ) -> Result<Option<(Arc<dyn View>, Arc<ShardState>)>> {
        let read = match (self.shard_of(place), cx.source) {
            (Ok(shard), ReadSource::Primary) => shard.read().await,
            (Ok(shard), ReadSource::Replica(at_least)) => {
                self.read_behind(cx, place.placement(), &shard, at_least).await
            }
            (Err(error), _) => Err(error),
        };
        match read {
            // Others have taken its place, or it has not taken that of others.
            Ok((_, state)) if !self.answers_reads(&state) => self.dropped_or(place, not_serving(place)).await,
            Ok(pair) => Ok(Some(pair)),
            Err(error) if is_stale(&error) => self.dropped_or(place, error).await,
            Err(error) => Err(error),
        }
    }

    /// Whether a shard in this state answers reads.
    fn answers_reads(&self, state: &ShardState) -> bool {
        #[cfg(feature = "bugs")]
        if self.reads_wrongly(state) {
            return true;
        }
        state.serves()
    }

    /// `None` when the collection was dropped; else the error.
    async fn dropped_or<T>(&self, place: &Place, error: Error) -> Result<Option<T>> {
        let (current, record) = (self.catalog_now().await?, &place.record);
        match current.find(&record.namespace).is_some_and(|found| found.id == record.id) {
            true => Err(error),
            false => Ok(None),
        }
    }

    /// A view of this node's replica, whatever its role, once it has applied `at_least`.
    async fn read_behind(
        &self,
        cx: &OperationContext,
        placement: &ShardPlacement,
        shard: &ShardHandle,
        at_least: LogIndex,
    ) -> Result<ReadView<ShardState>> {
        let limit = Duration::from_millis(self.time_left_ms(cx).min(CATCH_UP_MS_MAX));
        let caught_up = async {
            tokio::select! {
                biased;
                () = shard.applied(at_least) => {}
                () = self.ask_for_news(cx, placement, shard), if shard.commit_index() < at_least => {
                    shard.applied(at_least).await;
                }
            }
        };
        if tokio::time::timeout(limit, caught_up).await.is_err() {
            let message =
                format!("the replica of {} on {} is behind what was read before", shard.shard(), self.node);
            return Err(Error::new(Code::STALE_CONFIG, message));
        }
        shard.read_behind().await
    }

    /// Has the primary say what is committed: by itself it takes its time. Whether that arrives need not be known.
    async fn ask_for_news(&self, cx: &OperationContext, placement: &ShardPlacement, shard: &ShardHandle) {
        if let Some(primary) = shard.leader_node().filter(|primary| *primary != self.node)
            && let Err(failure) = self.ask_index(primary, placement.shard, cx).await
        {
            tracing::debug!(shard = %placement.shard, %primary, ?failure, "the primary was not asked for news");
        }
    }

    /// Plans a read on a view.
    pub(crate) fn executor(
        &self,
        view: Arc<dyn View>,
        state: &ShardState,
        request: &ReadRequest,
    ) -> Result<FindExecutor> {
        let plan = self.plan(view.as_ref(), state, request)?;
        let find = FindRequest {
            filter: Arc::clone(&request.filter),
            sort: request.sort.clone(),
            skip: request.skip,
            limit: request.limit,
            scopes: request.scopes.clone(),
            context: request.context.clone(),
        };
        let after = request.after.clone().unwrap_or_default();
        Ok(FindExecutor::new_after(Arc::new(plan), find, view, after))
    }

    /// Chooses the way to the documents.
    pub(crate) fn plan(
        &self,
        view: &dyn View,
        state: &ShardState,
        request: &ReadRequest,
    ) -> Result<query::plan::Plan> {
        let hint = request.hint.as_ref().map(index_hint).transpose()?.flatten();
        let wanted = PlanRequest {
            filter: &request.filter,
            sort: request.sort.as_deref(),
            hint: hint.as_ref(),
            limit: request.limit.map(|limit| limit.saturating_add(request.skip)),
            after: request.after.as_ref(),
        };
        self.step(plan(state, view, &wanted))
    }

    /// Lets others have their turn between two slices; fails when the operation has to end.
    pub(crate) async fn breathe(&self, cx: &OperationContext) -> Result<()> {
        tokio::task::yield_now().await;
        cx.check(self.clock.monotonic())
    }

    /// Separates a client's error from a fault, which stops the node.
    pub(crate) fn step<T>(&self, result: Result<T, Failure>) -> Result<T> {
        result.map_err(|failure| match failure {
            Failure::Error(error) => error,
            Failure::Fault(fault) => {
                self.host.fault_latch().set(fault);
                let message = "This node is stopping because its storage failed; its log says how.";
                Error::new(Code::INTERRUPTED_AT_SHUTDOWN, message)
            }
        })
    }
}

fn not_serving(place: &Place) -> Error {
    let message = format!(
        "{} of {} does not serve: its shards are being cut anew",
        place.shard, place.record.namespace
    );
    Error::new(Code::STALE_CONFIG, message)
}

/// Parses a sort, for which an index may be hinted at; an empty one is none. A sort by `$natural` is no sort but the
/// collection's own order: a hint.
pub(crate) fn order(
    spec: Option<&DocBuf>,
    hint: Option<Hint>,
) -> Result<(Option<Arc<SortSpec>>, Option<Hint>)> {
    let Some(spec) = spec.filter(|spec| !spec.as_doc().is_empty()) else { return Ok((None, hint)) };
    let Some(direction) = spec.as_doc().get("$natural") else {
        return Ok((Some(Arc::new(SortSpec::parse(spec.as_doc())?)), hint));
    };
    if spec.as_doc().iter().count() > 1 {
        return Err(Error::bad_value("Cannot include '$natural' in compound sort"));
    }
    if !matches!(direction, Value::Int32(1 | -1) | Value::Int64(1 | -1) | Value::Double(1.0 | -1.0)) {
        return Err(Error::bad_value("$natural sort cannot be set to a value other than -1 or 1."));
    }
    let natural = Hint::Key(spec.clone());
    if hint.is_some_and(|hint| hint != natural) {
        return Err(Error::bad_value("index hint not allowed with $natural sort order"));
    }
    Ok((None, Some(natural)))
}

fn index_hint(hint: &Hint) -> Result<Option<IndexHint>> {
    match hint {
        Hint::Name(name) => Ok(Some(IndexHint::Name(name.clone()))),
        Hint::Key(key) => IndexHint::parse(&Value::Document(key.as_doc())),
    }
}
