//! Copies a shard into those that are about to take its place, from the node of its primary.
//!
//! Started by `reconcile` while the catalog has a reshard of the shard; whoever becomes primary next goes on where the
//! targets say that it stopped. In order: the shard commits "note what changes"; its documents are scanned; the notes are
//! followed until little is left; the catalog is told, and says when all sources are that far; the shard commits "sealed";
//! the last notes are sent, and the catalog is told that this source is complete. Always holds: nothing is sent to a target
//! out of turn; a source is complete in the catalog only when every target has committed everything of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::histogram::DurationHistogram;
use base::{Code, CollectionId, Error, Result};
use catalog::{Catalog, Command, Failure, Reshard, ReshardPhase, ReshardStep};
use document::ShardKey;
use query::copy::{Copy, Pairs, Piece, PieceSize};
use query::evaluate::{Batch, ConfigChange, ShardCommand, ShardReply};
use query::state::{Driver, HashRange, Origin, Reached, ShardState};
use replica::ShardHandle;
#[cfg(feature = "bugs")]
use replica::bugs::Bug;

use crate::gather::{Asked, unexpected};
use crate::peer::{Operation, OperationReply};
use crate::reconcile::PENDING_INTERVAL;
use crate::resolve::Place;
use crate::retry::{Attempts, ends_command};
use crate::{OperationContext, Router};

/// What goes into one batch.
const PIECE: PieceSize = PieceSize { keys_max: 2_000, bytes_wanted: 1024 * 1024 };
/// Bytes of shards that a node copies in a second beside clients, at most: they have the rest of the machine.
pub(crate) const COPY_BYTES_PER_S: u64 = 48 * 1024 * 1024;
/// A source with no more notes than this to send has caught up.
const TAIL_NOTES_MAX: usize = 64;
/// How long a source that has caught up waits before it looks for further notes.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(10);
/// Notes that one entry removes when a reshard was given up.
const PURGE_NOTES: usize = 2_000;

/// What this node has copied of shards that others took the place of, since it started. Read for the metrics page.
#[derive(Debug, Default)]
pub struct CopyCounts {
    /// Shards that were copied to their end.
    pub shards: AtomicU64,
    /// Bytes of keys and values that were sent, those of a copy that was given up included.
    pub bytes: AtomicU64,
    /// For how long each of them was sealed.
    pub sealed: DurationHistogram,
}

impl Router {
    /// See [`CopyCounts`].
    pub fn copy_counts(&self) -> &CopyCounts {
        &self.copy_counts
    }

    /// Copies a source of the reshard in the background, unless that is going on already.
    pub(crate) fn copy_shard(&self, collection: CollectionId, reshard: &Reshard, source: &ShardHandle) {
        let Some(guard) = self.copies.begin(vec![source.shard()]) else { return };
        let (router, reshard, source) = (self.shared(), reshard.clone(), source.clone());
        self.spawner.spawn(Box::pin(async move {
            let id = reshard.id;
            let copied = match Copier::begin(&router, collection, reshard, source).await {
                Ok(Some(copier)) => copier.run().await,
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = copied {
                router.end_copying(collection, id, error).await;
            }
            drop(guard);
            router.unreconciled.notify_one();
        }));
    }

    /// A reshard that cannot be done is given up; anything else is tried again by whoever leads then.
    async fn end_copying(&self, collection: CollectionId, reshard: base::ReshardId, error: Error) {
        if ends_command(&error) || error.code == Code::ILLEGAL_OPERATION {
            tracing::debug!(%error, "the copying of a shard stops here");
            tokio::time::sleep(PENDING_INTERVAL).await;
            return;
        }
        tracing::warn!(%error, "shards cannot be cut anew");
        let step = ReshardStep::Abort { failure: Failure::new(&error) };
        if let Err(error) = self.change_catalog(Command::StepReshard { collection, reshard, step }).await {
            tracing::debug!(%error, "the catalog does not know yet that a reshard was given up");
        }
    }

    /// A shard that notes its changes, perhaps sealed, for a reshard that was given up serves on. `catalog` is as of now.
    pub(crate) async fn reopen_shard(&self, catalog: &Catalog, replica: &ShardHandle) -> Result<()> {
        let Some(noting) = replica.state().noting else { return Ok(()) };
        let Some((record, _)) = catalog.placement(replica.shard()) else { return Ok(()) };
        let is_mapped = record.shard_map.shards.iter().any(|shard| shard.shard == replica.shard());
        let is_under_way = record.reshard.as_ref().is_some_and(|reshard| reshard.id == noting);
        if is_mapped && !is_under_way && noting.get() <= record.reshards {
            replica.write(ShardCommand::Configure(ConfigChange::Reopen(noting))).await?;
            while let ShardReply::NotesPurged { done: false } =
                replica.write(ShardCommand::PurgeNotes { limit: PURGE_NOTES }).await?
            {}
        }
        Ok(())
    }
}

/// One source on its way.
struct Copier<'a> {
    router: &'a Arc<Router>,
    collection: CollectionId,
    reshard: Reshard,
    source: ShardHandle,
    targets: Vec<Place>,
    driver: Driver,
    copy: Copy,
    numbers: Vec<u64>,
    reached: Reached,
}

impl<'a> Copier<'a> {
    /// Has the source note its changes, and asks the targets how far they are. `None` when there is nothing to do.
    async fn begin(
        router: &'a Arc<Router>,
        collection: CollectionId,
        reshard: Reshard,
        source: ShardHandle,
    ) -> Result<Option<Copier<'a>>> {
        // What this node knows of the reshard may be old: its targets may be gone.
        let catalog = router.catalog_now().await?;
        let Some(record) = catalog.collection(collection) else { return Ok(None) };
        let is_current = |now: &&Reshard| now.id == reshard.id && !now.complete.contains(&source.shard());
        let Some(now) = record.reshard.as_deref().filter(is_current) else { return Ok(None) };
        if now.paused {
            return Ok(None);
        }
        let driver = Driver { term: source.term(), run: router.next_request().sequence };
        // It may still note its changes for a reshard that was given up just before this one began.
        router.reopen_shard(&catalog, &source).await?;
        source.write(ShardCommand::Configure(ConfigChange::Note(reshard.id))).await?;
        let (_, state) = source.read_unasked().await?;
        let targets: Vec<Place> =
            reshard.targets.iter().map(|placement| Place::of_placement(record, placement)).collect();
        let ranges = reshard
            .targets
            .iter()
            .map(|target| HashRange { first: target.first_hash(), last: target.last_hash() })
            .collect();
        let shard_key = ShardKey::from(reshard.shard_key.clone());
        let copy = Copy::new(source.shard(), &state, shard_key, ranges);
        let numbers = vec![0; targets.len()];
        let reached = Reached::default();
        let mut copier =
            Copier { router, collection, reshard, source, targets, driver, copy, numbers, reached };
        copier.ask_targets(&state).await?;
        Ok(Some(copier))
    }

    /// Begins at every target, and goes on where the one that is least far stopped.
    async fn ask_targets(&mut self, state: &ShardState) -> Result<()> {
        let nothing = vec![Pairs::new(); self.targets.len()];
        let origins = (0..self.targets.len()).map(|at| self.copy.origins(state, at)).collect();
        let reached = self.deliver(nothing, Reached::default(), origins).await?;
        let least = reached.into_iter().filter(|reached| !reached.complete).min_by(|a, b| {
            (a.all_scanned, &a.scanned, a.followed).cmp(&(b.all_scanned, &b.scanned, b.followed))
        });
        self.reached = match least {
            // Notes are followed from the beginning of a scan, which may have begun behind some of them.
            Some(least) if !least.all_scanned => Reached { followed: Default::default(), ..least },
            Some(least) => least,
            None => Reached { all_scanned: true, ..Reached::default() },
        };
        Ok(())
    }

    async fn run(mut self) -> Result<()> {
        while !self.reached.all_scanned {
            if !self.goes_on() {
                return Ok(());
            }
            let view = self.source.read_unasked().await?.0;
            let piece = self.copy.scan(view.as_ref(), &self.reached, PIECE);
            drop(view);
            let piece = self.router.step(piece)?;
            self.send_at_pace(piece).await?;
        }
        loop {
            let more = self.follow().await?;
            match self.phase() {
                None => return Ok(()),
                Some(ReshardPhase::Sealing) if more <= TAIL_NOTES_MAX => break,
                Some(ReshardPhase::Copying) if !self.goes_on() => return Ok(()),
                Some(_) if more > TAIL_NOTES_MAX => {}
                Some(_) => {
                    self.tell(ReshardStep::CaughtUp { source: self.source.shard() }).await?;
                    let replica = self.router.catalog_replica();
                    let changed = replica.changed(replica.applied_index(), replica.leader());
                    // However the wait ends, there may be notes to follow.
                    let _ = tokio::time::timeout(FOLLOW_INTERVAL, changed).await;
                }
            }
        }
        self.finish().await
    }

    /// Seals the source and sends what is left.
    async fn finish(mut self) -> Result<()> {
        let sealed_at = self.router.clock.monotonic();
        self.seal().await?;
        self.follow_to_the_end().await?;
        let nothing = vec![Pairs::new(); self.targets.len()];
        let reached = Reached { complete: true, ..self.reached.clone() };
        self.send(nothing, reached).await?;
        let step = ReshardStep::Complete { source: self.source.shard() };
        let (collection, reshard) = (self.collection, self.reshard.id);
        self.router.change_catalog(Command::StepReshard { collection, reshard, step }).await?;
        let sealed = self.router.clock.monotonic().since(sealed_at);
        self.router.copy_counts.sealed.record(sealed);
        self.router.copy_counts.shards.fetch_add(1, Ordering::Relaxed);
        let sealed_ms = sealed.as_millis();
        tracing::info!(source = %self.source.shard(), %sealed_ms, "a shard was copied to those that take its place");
        Ok(())
    }

    async fn seal(&self) -> Result<()> {
        #[cfg(feature = "bugs")]
        if self.router.has_bug(Bug::ServeAfterSeal) {
            return Ok(());
        }
        self.source.write(ShardCommand::Configure(ConfigChange::Seal(self.reshard.id))).await.map(drop)
    }

    async fn follow_to_the_end(&mut self) -> Result<()> {
        #[cfg(feature = "bugs")]
        if self.router.has_bug(Bug::TailNotSent) {
            return Ok(());
        }
        while self.follow().await? > 0 {}
        Ok(())
    }

    /// Sends one piece of what has changed. Returns how many notes that were.
    async fn follow(&mut self) -> Result<usize> {
        let view = self.source.read_unasked().await?.0;
        let piece = self.copy.follow(view.as_ref(), &self.reached, PIECE);
        drop(view);
        let piece = self.router.step(piece)?;
        let examined = piece.examined;
        if examined > 0 {
            self.send(piece.pairs, piece.reached).await?;
        }
        Ok(examined)
    }

    async fn send_at_pace(&mut self, piece: Piece) -> Result<()> {
        let (bytes, now) = (bytes_of(&piece.pairs), self.router.clock.monotonic());
        let wait = self.router.copy_pace.wait(bytes, self.router.host.operations(), now);
        tokio::time::sleep(wait).await;
        let started = self.router.clock.monotonic();
        self.send(piece.pairs, piece.reached).await?;
        let taken = self.router.clock.monotonic().since(started);
        tokio::time::sleep(self.router.copy_pace.rest(taken)).await;
        Ok(())
    }

    async fn send(&mut self, pairs: Vec<Pairs>, reached: Reached) -> Result<()> {
        self.numbers.iter_mut().for_each(|number| *number += 1);
        self.router.copy_counts.bytes.fetch_add(bytes_of(&pairs), Ordering::Relaxed);
        let origins = vec![Vec::new(); self.targets.len()];
        #[cfg(feature = "bugs")]
        let pairs = self.router.buggy_pairs(pairs);
        self.deliver(pairs, reached.clone(), origins).await?;
        self.reached = reached;
        Ok(())
    }

    /// Sends each target its batch until all have committed theirs. Returns how far they are.
    async fn deliver(
        &self,
        pairs: Vec<Pairs>,
        reached: Reached,
        origins: Vec<Vec<Origin>>,
    ) -> Result<Vec<Reached>> {
        let batches =
            pairs.into_iter().zip(origins).zip(&self.numbers).map(|((pairs, origins), number)| Batch {
                source: self.source.shard(),
                driver: self.driver,
                number: *number,
                pairs,
                reached: reached.clone(),
                origins,
            });
        let mut waiting: Vec<(usize, Batch)> = batches.enumerate().collect();
        let mut arrived = vec![Reached::default(); self.targets.len()];
        let mut attempts = Attempts::new(self.router);
        let cx = OperationContext::default();
        while !waiting.is_empty() {
            let ask = |(at, batch): &(usize, Batch)| {
                let place = self.targets.get(*at).cloned()?;
                Some(Asked { place, node: None, operation: Operation::Receive(batch.clone()) })
            };
            let asked = waiting.iter().filter_map(ask).collect();
            let answers = self.router.attempt_all(&cx, asked, &mut 0).await;
            let (mut left, mut failed) = (Vec::new(), None);
            for ((at, batch), answer) in waiting.into_iter().zip(answers) {
                match (answer, arrived.get_mut(at)) {
                    (Ok((_, OperationReply::Received(source))), Some(slot)) => *slot = source.reached,
                    (Ok((_, other)), _) => return Err(unexpected(&other)),
                    (Err(error), _) => {
                        left.push((at, batch));
                        failed = Some(error);
                    }
                }
            }
            waiting = left;
            if let Some(error) = failed {
                if self.phase().is_none() {
                    return Err(Error::new(Code::ILLEGAL_OPERATION, "the reshard is over"));
                }
                attempts.again(self.router, &cx, error).await?;
            }
        }
        Ok(arrived)
    }

    async fn tell(&self, step: ReshardStep) -> Result<()> {
        let known = |reshard: &Reshard| reshard.caught_up.contains(&self.source.shard());
        if self.now().is_some_and(|reshard| known(&reshard)) {
            return Ok(());
        }
        let (collection, reshard) = (self.collection, self.reshard.id);
        self.router.change_catalog(Command::StepReshard { collection, reshard, step }).await.map(drop)
    }

    /// The reshard as this node's copy of the catalog has it; `None` when it is over.
    fn now(&self) -> Option<Reshard> {
        let catalog = self.router.catalog_copy();
        let reshard = catalog.collection(self.collection)?.reshard.as_deref()?;
        (reshard.id == self.reshard.id).then(|| reshard.clone())
    }

    fn phase(&self) -> Option<ReshardPhase> {
        self.now().map(|reshard| reshard.phase)
    }

    /// Whether to go on copying: the reshard is neither over nor paused, and this node still leads the source.
    fn goes_on(&self) -> bool {
        self.now().is_some_and(|reshard| !reshard.paused) && self.source.term() == self.driver.term
    }
}

fn bytes_of(pairs: &[Pairs]) -> u64 {
    let bytes = |(key, value): &(bytes::Bytes, Option<bytes::Bytes>)| {
        (key.len() + value.as_ref().map_or(0, bytes::Bytes::len)) as u64
    };
    pairs.iter().flatten().map(bytes).sum()
}
