//! Replicas that are missing, that were on nodes which are gone, or are on nodes that are to be emptied.
//!
//! The first rules of a plan, and the only ones that the catalog alone decides. Always holds: those shards come first that
//! have the fewest replicas left.

use super::{Action, Model, Proposal};

pub(super) fn plan(model: &mut Model<'_>) -> Vec<Proposal> {
    let mut proposals = rebuild(model);
    for node in 0..model.nodes.len() {
        if model.nodes[node].is_draining() && !model.nodes[node].record.dead {
            drain(model, node, &mut proposals);
        }
    }
    proposals
}

/// Shards with too few replicas, or with replicas on nodes that are gone.
fn rebuild(model: &mut Model<'_>) -> Vec<Proposal> {
    let live = |model: &Model<'_>, shard: usize| {
        model.shards[shard].replicas.iter().filter(|node| !model.nodes[**node].record.dead).count()
    };
    let factor = model.factor();
    let lacks = |shard: &usize| {
        let held = &model.shards[*shard].replicas;
        held.len() < factor || held.iter().any(|node| model.nodes[*node].record.dead)
    };
    let mut short: Vec<usize> = (0..model.shards.len()).filter(lacks).collect();
    short.sort_by_key(|shard| (live(model, *shard), model.shards[*shard].placement.shard));
    let mut proposals = Vec::new();
    for shard in short {
        let held = &model.shards[shard].replicas;
        match held.iter().copied().find(|node| model.nodes[*node].record.dead) {
            Some(dead) => proposals.extend(replace_dead(model, shard, dead)),
            None => proposals.extend(place_missing(model, shard)),
        }
    }
    proposals
}

fn replace_dead(model: &mut Model<'_>, shard: usize, dead: usize) -> Option<Proposal> {
    let to = model.best_node(shard, Some(dead), false).filter(|node| !model.is_full(*node))?;
    let why = format!("{} is gone, and its replicas are rebuilt elsewhere", model.name(dead));
    Some(model.move_replica(shard, dead, to, &why))
}

fn place_missing(model: &mut Model<'_>, shard: usize) -> Option<Proposal> {
    let node = model.best_node(shard, None, false).filter(|node| !model.is_full(*node))?;
    let reason = format!(
        "{} has {} of {} replicas: one more is placed on {}",
        model.title(shard),
        model.shards[shard].replicas.len(),
        model.factor(),
        model.name(node)
    );
    model.place(shard, node);
    let (shard, node) = (model.shards[shard].placement.shard, model.nodes[node].record.id);
    Some(Proposal { action: Action::PlaceReplica { shard, node }, reason })
}

/// Gives the node's replicas away, as many as may move at a time: first those that can go where fewest are, so that nothing
/// has to move a second time for the sake of evenness.
fn drain(model: &mut Model<'_>, node: usize, proposals: &mut Vec<Proposal>) {
    while !model.is_full(node) {
        // One replica of a shard at a time; whether its other nodes answer does not matter here.
        let hosted = model.nodes[node].hosted.iter().copied();
        let settled = hosted.filter(|shard| model.shards[*shard].leaving.is_empty());
        // The best node is worth waiting for.
        let choices = settled.filter_map(|shard| Some((shard, model.best_node(shard, Some(node), true)?)));
        let free = choices.filter(|(_, to)| !model.is_full(*to));
        let rank =
            |(shard, to): &(usize, usize)| (model.nodes[*to].replicas, model.shards[*shard].placement.shard);
        let Some((shard, to)) = free.min_by_key(rank) else { break };
        let why = format!("{} is being drained", model.name(node));
        proposals.push(model.move_replica(shard, node, to, &why));
    }
    for shard in model.nodes[node].hosted.clone() {
        let is_settled = model.shards[shard].leaving.is_empty();
        if is_settled && !model.is_full(node) && model.best_node(shard, Some(node), true).is_none() {
            proposals.extend(retire(model, shard, node));
        }
    }
}

/// No other node can take the replica. It goes without a successor if what remains is what there shall be.
fn retire(model: &mut Model<'_>, shard: usize, node: usize) -> Option<Proposal> {
    let lasting = model.shards[shard].replicas.iter().filter(|other| model.nodes[**other].takes).count();
    let wanted = model.catalog.replicas_wanted();
    if lasting < wanted.max(1) {
        return None;
    }
    let reason = format!(
        "{} is being drained, and {} has {lasting} replicas on all the nodes that remain: the one on {} goes",
        model.name(node),
        model.title(shard),
        model.name(node)
    );
    model.unplace(shard, node);
    let (shard, node) = (model.shards[shard].placement.shard, model.nodes[node].record.id);
    Some(Proposal { action: Action::RetireReplica { shard, node }, reason })
}
