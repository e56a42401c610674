//! A read of all the shards that it can mean: each does its part, and the parts are merged here as they come.
//!
//! Used by `find` and `aggregate`. Whoever reads holds one [`Gather`]; each of its parts stands for a range of hashes and
//! remembers behind which position it goes on. Always holds: each document of a part comes out once, also when the part's
//! cursor is lost, its shard has another primary, or other shards have taken the place of its shard: then the part is cut
//! into one for each shard that has some of its documents, and each of them goes on behind the same position. With a sort,
//! nothing comes out before every part has something to offer or has ended.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use base::limits::BATCH_BYTES_MAX;
use base::{Code, Error, NodeId, Result, ShardId};
use bytes::Bytes;
use catalog::CollectionRecord;
use document::DocBuf;
use document::filter::Filter;
use query::state::HashRange;

use crate::aggregate::Divided;
use crate::command::{CursorId, ReadPreference, ScanCommand, ScanReply, ScanScope, ScanSize};
use crate::peer::{Operation, OperationReply};
use crate::resolve::{Place, all_places, places_of};
use crate::retry::{Attempts, is_stale};
use crate::{OperationContext, Router};

/// Bytes that a part's batch may have when there are many of them.
const PART_BYTES_MIN: usize = 256 * 1024;

/// How much of a read one reply carries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchSize {
    pub(crate) documents_max: usize,
    pub(crate) bytes_max: usize,
}

/// What is left of a read of one or several shards.
pub(crate) struct Gather {
    router: Weak<Router>,
    /// The collection as of the last look.
    record: Arc<CollectionRecord>,
    /// What each part is asked, but for its place and position.
    scan: ScanCommand,
    parts: Vec<Part>,
    /// Whether documents come out in the order of their sort keys.
    sorted: bool,
    /// Whether a part counts only as a whole: its groups are half done.
    grouped: bool,
    /// Documents still to be left out, and still to be given.
    skip: u64,
    limit: Option<u64>,
    reads: ReadPreference,
    /// Whether a document has come from any shard.
    has_begun: bool,
}

/// The documents of a range of hashes.
struct Part {
    shard_key: Vec<String>,
    range: HashRange,
    /// The ranges that they were in under the shard keys that the collection had since the read began.
    earlier: Vec<ScanScope>,
    /// The shard that has them; `None` when that has to be looked up again.
    place: Option<Place>,
    /// Whether the shard has others too.
    is_scoped: bool,
    /// Where the rest waits.
    cursor: Option<(NodeId, CursorId)>,
    /// Behind which position to go on without a cursor; `None` at the start.
    position: Option<Bytes>,
    buffer: VecDeque<(Bytes, DocBuf)>,
    is_done: bool,
}

impl Part {
    fn whole(place: Place) -> Part {
        let placement = place.placement();
        let range = HashRange { first: placement.first_hash(), last: placement.last_hash() };
        Part {
            shard_key: place.record.shard_key.clone(),
            range,
            earlier: Vec::new(),
            place: Some(place),
            is_scoped: false,
            cursor: None,
            position: None,
            buffer: VecDeque::new(),
            is_done: false,
        }
    }

    fn scope(&self) -> ScanScope {
        let HashRange { first, last } = self.range;
        ScanScope { shard_key: self.shard_key.clone(), first, last }
    }

    fn needs_more(&self, grouped: bool) -> bool {
        (self.buffer.is_empty() || grouped) && !self.is_done
    }

    /// The part cut into one for each shard that has some of its documents as of `record`.
    fn relocated(&self, record: &Arc<CollectionRecord>) -> Vec<Part> {
        let same_key = record.shard_key == self.shard_key;
        let mut earlier = self.earlier.clone();
        if !same_key && self.range != HashRange::WHOLE {
            earlier.push(self.scope());
        }
        let cut = |place: Place| {
            let placement = place.placement();
            let range = if same_key { self.range } else { HashRange::WHOLE };
            let (first, last) =
                (placement.first_hash().max(range.first), placement.last_hash().min(range.last));
            let has_others = placement.first_hash() < first || placement.last_hash() > last;
            (first <= last).then(|| Part {
                shard_key: record.shard_key.clone(),
                range: HashRange { first, last },
                earlier: earlier.clone(),
                is_scoped: has_others,
                place: Some(place),
                cursor: None,
                position: self.position.clone(),
                buffer: VecDeque::new(),
                is_done: false,
            })
        };
        all_places(record).into_iter().filter_map(cut).collect()
    }
}

impl Router {
    /// Begins a read of every shard that the filter can mean; nothing is asked yet.
    pub(crate) fn gather(
        &self,
        cx: &OperationContext,
        record: &Arc<CollectionRecord>,
        filter: &Filter,
        scan: ScanCommand,
    ) -> Gather {
        self.gather_of(cx, record, places_of(record, filter), scan)
    }

    fn gather_of(
        &self,
        cx: &OperationContext,
        record: &Arc<CollectionRecord>,
        places: Vec<Place>,
        scan: ScanCommand,
    ) -> Gather {
        Gather {
            router: self.own.clone(),
            record: Arc::clone(record),
            parts: places.into_iter().map(Part::whole).collect(),
            sorted: scan.sort.is_some(),
            grouped: false,
            skip: scan.skip,
            limit: scan.limit,
            scan,
            reads: cx.reads.clone(),
            has_begun: false,
        }
    }

    /// The source of an aggregation: what every shard makes of its part of the stages.
    pub(crate) fn gather_pipeline(
        &self,
        cx: &OperationContext,
        record: &Arc<CollectionRecord>,
        divided: &Divided,
        scan: ScanCommand,
    ) -> Gather {
        let mut gather = self.gather(cx, record, &divided.filter, scan);
        gather.sorted = divided.sort.is_some();
        gather.grouped = divided.groups;
        gather
    }

    /// A read of one shard, which leaves out and limits by itself while it is the only one.
    pub(crate) fn gather_from(&self, cx: &OperationContext, place: Place, scan: ScanCommand) -> Gather {
        let record = Arc::clone(&place.record);
        self.gather_of(cx, &record, vec![place], scan)
    }

    /// The same, when the shard has answered already, and left out what it had to.
    pub(crate) fn gather_after(
        &self,
        cx: &OperationContext,
        place: Place,
        scan: ScanCommand,
        reply: ScanReply,
    ) -> Gather {
        let mut gather = self.gather_from(cx, place, scan);
        gather.take(0, self.node, reply);
        gather
    }

    /// Adds the next documents to `out`. Says whether there may be more.
    pub(crate) async fn fill_gather(
        &self,
        cx: &OperationContext,
        gather: &mut Gather,
        size: &BatchSize,
        out: &mut Vec<DocBuf>,
    ) -> Result<bool> {
        let (mut documents, mut bytes) = (0, 0);
        loop {
            if gather.limit == Some(0) {
                gather.end();
                return Ok(false);
            }
            if documents >= size.documents_max {
                return Ok(!gather.is_exhausted());
            }
            let Some(position) = gather.next_part() else {
                if gather.is_exhausted() {
                    return Ok(false);
                }
                // What has been found goes out before anybody waits for more of it.
                if documents > 0 && !gather.sorted {
                    return Ok(true);
                }
                self.ask_parts(cx, gather, size.documents_max - documents).await?;
                continue;
            };
            let part = gather.parts.get_mut(position).expect("the position was found among the parts");
            let Some((key, document)) = part.buffer.pop_front() else { continue };
            let length = document.bytes().len();
            if documents > 0 && bytes + length > size.bytes_max {
                part.buffer.push_front((key, document));
                return Ok(true);
            }
            if gather.skip > 0 {
                gather.skip -= 1;
                continue;
            }
            gather.limit = gather.limit.map(|limit| limit - 1);
            documents += 1;
            bytes += length;
            out.push(document);
        }
    }

    /// Asks every part that has nothing to offer for more, all at the same time, until each has or has ended.
    async fn ask_parts(&self, cx: &OperationContext, gather: &mut Gather, documents: usize) -> Result<()> {
        let mut attempts = Attempts::new(self);
        while gather.needs_more() {
            self.locate_parts(gather).await?;
            let size = gather.part_size(documents);
            let asked = gather.hungry();
            let operations = asked.iter().filter_map(|at| gather.operation(*at, size)).collect();
            let cx = &OperationContext { reads: gather.reads.clone(), ..cx.clone() };
            let answers = self.attempt_all(cx, operations, &mut 0).await;
            let mut failed = None;
            for (at, answer) in asked.into_iter().zip(answers) {
                match answer {
                    Ok((node, OperationReply::Scan(reply))) => gather.take(at, node, reply),
                    Ok((_, other)) => return Err(unexpected(&other)),
                    Err(error) if is_lost(&error) => {
                        gather.forget_cursor(at);
                        failed = Some(error);
                    }
                    Err(error) => return Err(error),
                }
            }
            if let Some(error) = failed {
                attempts.again(self, cx, as_stale(error)).await?;
            }
        }
        Ok(())
    }

    /// Finds the shards of parts that have lost theirs.
    async fn locate_parts(&self, gather: &mut Gather) -> Result<()> {
        if gather.parts.iter().all(|part| part.is_done || part.place.is_some()) {
            return Ok(());
        }
        let catalog = self.catalog_now().await?;
        let record = catalog
            .collection(gather.record.id)
            .filter(|record| catalog.find(&record.namespace).is_some_and(|found| found.id == record.id));
        let Some(record) = record else {
            return gather.begin_anew(catalog.find(&gather.record.namespace));
        };
        gather.record = Arc::clone(record);
        let mut parts = Vec::with_capacity(gather.parts.len());
        for part in gather.parts.drain(..) {
            if part.is_done || part.place.is_some() {
                parts.push(part);
            } else {
                // Whoever is asked for more has given all that came before.
                parts.extend(part.relocated(record));
            }
        }
        gather.parts = parts;
        Ok(())
    }
}

impl Part {
    fn take(&mut self, node: NodeId, reply: ScanReply) {
        let ranks = reply.sort_keys.into_iter().chain(std::iter::repeat(Bytes::new()));
        self.buffer.extend(ranks.zip(reply.documents));
        self.is_done = reply.is_done;
        self.cursor = reply.cursor.map(|cursor| (node, cursor));
        self.position = (!reply.position.is_empty()).then_some(reply.position);
    }
}

impl Gather {
    /// The collection was dropped. A read that has seen nothing of it yet is one of whatever has its name now. Fails with
    /// `QueryPlanKilled` (175) otherwise.
    fn begin_anew(&mut self, record: Option<&Arc<CollectionRecord>>) -> Result<()> {
        if self.has_begun {
            return Err(dropped(&self.record));
        }
        self.end();
        if let Some(record) = record {
            self.record = Arc::clone(record);
            self.parts = all_places(record).into_iter().map(Part::whole).collect();
        }
        Ok(())
    }

    /// Documents in all buffers, and no part that could have more.
    fn is_exhausted(&self) -> bool {
        self.parts.iter().all(|part| part.is_done && part.buffer.is_empty())
    }

    fn needs_more(&self) -> bool {
        self.parts.iter().any(|part| part.needs_more(self.grouped))
    }

    /// The parts that have to be asked.
    fn hungry(&self) -> Vec<usize> {
        let parts = self.parts.iter().enumerate();
        parts.filter(|(_, part)| part.needs_more(self.grouped)).map(|(at, _)| at).collect()
    }

    /// The part whose document comes next; `None` when somebody has to be asked first.
    fn next_part(&self) -> Option<usize> {
        let parts = self.parts.iter().enumerate();
        if !self.sorted {
            let has_some = |part: &Part| !part.buffer.is_empty() && (part.is_done || !self.grouped);
            return parts.filter(|(_, part)| has_some(part)).map(|(at, _)| at).next();
        }
        if self.needs_more() {
            return None;
        }
        let first = |part: &'_ Part| part.buffer.front().map(|(key, _)| key.clone());
        parts.filter_map(|(at, part)| Some((first(part)?, at))).min().map(|(_, at)| at)
    }

    /// What a part is asked for at once.
    fn part_size(&self, documents: usize) -> ScanSize {
        let wanted = documents as u64;
        // With a sort, what is left out comes from any of them.
        let documents_max = match self.limit {
            Some(limit) => wanted.min(limit).saturating_add(self.skip),
            None => wanted.saturating_add(self.skip),
        };
        let bytes_max = (BATCH_BYTES_MAX / self.parts.len().max(1)).max(PART_BYTES_MIN) as u64;
        ScanSize { documents_max, bytes_max }
    }

    /// What to ask of a part, and where.
    fn operation(&self, at: usize, size: ScanSize) -> Option<Asked> {
        let part = self.parts.get(at)?;
        let place = part.place.clone()?;
        if let Some((node, cursor)) = part.cursor {
            let namespace = self.scan.namespace.to_string();
            return Some(Asked {
                place,
                node: Some(node),
                operation: Operation::Continue { namespace, cursor, size },
            });
        }
        let own = part.is_scoped.then(|| part.scope());
        let scopes = part.earlier.iter().cloned().chain(own).collect();
        let skip = if self.parts.len() == 1 && part.position.is_none() { self.skip } else { 0 };
        let scan = ScanCommand {
            skip,
            limit: self.limit.map(|limit| limit.saturating_add(self.skip - skip)),
            ranked: self.sorted && self.parts.len() > 1,
            after: part.position.clone(),
            scopes,
            size,
            ..self.scan.clone()
        };
        Some(Asked { place, node: None, operation: Operation::Scan(scan) })
    }

    fn take(&mut self, at: usize, node: NodeId, reply: ScanReply) {
        self.has_begun |= !reply.documents.is_empty();
        let is_alone = self.parts.len() == 1;
        if let Some(part) = self.parts.get_mut(at) {
            if is_alone && part.position.is_none() {
                // It has left out by itself what was to be.
                self.skip = 0;
            }
            part.take(node, reply);
        }
    }

    /// A part whose cursor or shard is lost goes on elsewhere.
    fn forget_cursor(&mut self, at: usize) {
        if let Some(part) = self.parts.get_mut(at) {
            part.cursor = None;
            part.place = None;
            if self.grouped {
                // Nothing of it was used: it begins anew.
                part.position = None;
                part.buffer.clear();
            }
        }
    }

    /// Nothing more is wanted.
    fn end(&mut self) {
        self.close_cursors();
        self.parts.clear();
    }

    /// Closes what waits on other nodes; they would close it themselves in some minutes.
    fn close_cursors(&mut self) {
        let Some(router) = self.router.upgrade() else { return };
        for part in &mut self.parts {
            if let (Some((node, cursor)), Some(place)) = (part.cursor.take(), &part.place) {
                router.close_cursor(node, place.shard, self.scan.namespace.to_string(), cursor);
            }
        }
    }
}

impl Drop for Gather {
    fn drop(&mut self) {
        self.close_cursors();
    }
}

/// An operation and where it goes: to the primary of its shard, or to the node that holds its cursor.
pub(crate) struct Asked {
    pub(crate) place: Place,
    pub(crate) node: Option<NodeId>,
    pub(crate) operation: Operation,
}

impl Router {
    fn close_cursor(&self, node: NodeId, shard: ShardId, namespace: String, cursor: CursorId) {
        if node == self.node {
            self.kill_cursor(cursor, &namespace);
            return;
        }
        let router = self.shared();
        self.spawner.spawn(Box::pin(async move {
            let operation = Operation::KillCursors { namespace, cursors: vec![cursor] };
            let request = router.remote_operation(&OperationContext::default(), shard, operation);
            // A node that cannot be reached closes it by itself.
            let _ = router.ask(node, None, request).await;
        }));
    }
}

/// Whether a part can go on elsewhere: its shard has moved on, or its cursor is gone.
fn is_lost(error: &Error) -> bool {
    is_stale(error) || error.code == Code::CURSOR_NOT_FOUND
}

/// A lost cursor is asked for again as a shard that has moved on is.
fn as_stale(error: Error) -> Error {
    match error.code {
        Code::CURSOR_NOT_FOUND => Error::new(Code::STALE_CONFIG, error.message),
        _ => error,
    }
}

fn dropped(record: &CollectionRecord) -> Error {
    let message = format!("collection dropped. UUID of {} is gone", record.namespace);
    Error::new(Code::QUERY_PLAN_KILLED, message)
}

pub(crate) fn unexpected(reply: &OperationReply) -> Error {
    Error::new(Code::INTERNAL_ERROR, format!("a shard answered something else than it was asked: {reply:?}"))
}
