//! Primaries even over the nodes: first by their number, then by what they have to do.
//!
//! A primary costs more than a secondary, and moving the role costs an election and no data. Always holds: a role goes only to a
//! node that has a replica of the shard and answers; what is done for the sake of operations leaves the numbers as even as they are.

use std::collections::{BTreeMap, VecDeque};

use super::{Action, Model, Proposal};

/// Hands roles over, where need be along several shards, until no node could give one to another that has two fewer: all that
/// takes at once, since a way that is found halfway there might lead back. While replicas move, only where the difference is larger, and from one node to the other: what has arrived may change it all.
pub(super) fn even_primaries(model: &mut Model<'_>) -> Vec<Proposal> {
    let detours = !model.is_moving();
    // Where roles go that are being given up is not known yet; wherever that is, no node must have to give one back.
    let open = model.shards.iter().filter(|shard| shard.is_known && shard.primary.is_none()).count();
    let moving = usize::try_from(model.settings.moves_per_node_max).unwrap_or(usize::MAX);
    let worth = 2 + open + if detours { 0 } else { moving };
    let mut led = led(model);
    // A shard may be on several ways, and goes to the end of the last one at once.
    let mut reasons: BTreeMap<usize, (usize, String)> = BTreeMap::new();
    let mut sources = model.takers();
    let rank = |model: &Model<'_>, node: usize| (model.nodes[node].primaries, usize::MAX - node);
    while let Some(from) = sources.iter().copied().max_by_key(|node| rank(model, *node)) {
        let Some(way) = way_down(model, &led, from, worth, detours) else {
            sources.retain(|node| *node != from);
            continue;
        };
        let last = way.last().map_or(from, |step| step.to);
        let why = format!(
            "{} has {} primaries and {} has {}",
            model.name(last),
            model.nodes[last].primaries,
            model.name(from),
            model.nodes[from].primaries
        );
        for step in way {
            led[step.from].retain(|shard| *shard != step.shard);
            led[step.to].push(step.shard);
            let (before, _) = reasons.remove(&step.shard).unwrap_or((step.from, String::new()));
            reasons.insert(step.shard, (before, why.clone()));
            model.lead(step.shard, step.to);
        }
    }
    let changed = reasons.into_iter().filter_map(|(shard, (before, why))| {
        let to = model.shards[shard].primary.filter(|primary| *primary != before)?;
        Some(transfer(model, shard, to, &why))
    });
    changed.collect()
}

/// The shards that each node leads and could hand over.
fn led(model: &Model<'_>) -> Vec<Vec<usize>> {
    let mut led = vec![Vec::new(); model.nodes.len()];
    for (at, shard) in model.shards.iter().enumerate().filter(|(_, shard)| !shard.is_busy) {
        if let Some(primary) = shard.primary {
            led[primary].push(at);
        }
    }
    led
}

/// One role that goes to another node.
struct Transfer {
    shard: usize,
    from: usize,
    to: usize,
}

/// The shortest way from a node to the one with the fewest primaries that it reaches, if that has `worth` fewer.
fn way_down(
    model: &Model<'_>,
    led: &[Vec<usize>],
    from: usize,
    worth: usize,
    detours: bool,
) -> Option<Vec<Transfer>> {
    let mut came: Vec<Option<(usize, usize)>> = vec![None; model.nodes.len()];
    let mut waiting = VecDeque::from([from]);
    let mut unseen = model.nodes.iter().filter(|node| node.takes).count() - 1;
    let mut best: Option<usize> = None;
    while let Some(node) = waiting.pop_front().filter(|_| unseen > 0) {
        for &shard in &led[node] {
            for &next in &model.shards[shard].replicas {
                if next == from || came[next].is_some() || !model.nodes[next].takes {
                    continue;
                }
                came[next] = Some((node, shard));
                unseen -= 1;
                if detours {
                    waiting.push_back(next);
                }
                if best.is_none_or(|best| model.nodes[next].primaries < model.nodes[best].primaries) {
                    best = Some(next);
                }
            }
        }
    }
    let mut to = best.filter(|best| model.nodes[*best].primaries + worth <= model.nodes[from].primaries)?;
    let mut way = Vec::new();
    while let Some((before, shard)) = came[to] {
        // Each shard is led by one node, so that it is on the way once.
        let shard = best_to_hand_over(model, led, before, to).unwrap_or(shard);
        way.push(Transfer { shard, from: before, to });
        to = before;
    }
    way.reverse();
    Some(way)
}

/// The shard that also makes the operations of two nodes most even.
fn best_to_hand_over(model: &Model<'_>, led: &[Vec<usize>], from: usize, to: usize) -> Option<usize> {
    let wanted = model.nodes[from].operations.saturating_sub(model.nodes[to].operations) / 2;
    let shards = led[from].iter().copied().filter(|shard| model.shards[*shard].replicas.contains(&to));
    shards.min_by_key(|shard| (model.shards[*shard].load.operations_per_s.abs_diff(wanted), *shard))
}

fn transfer(model: &mut Model<'_>, shard: usize, to: usize, why: &str) -> Proposal {
    model.shards[shard].is_busy = true;
    let reason = format!("{why}: the primary of {} shall be on {}", model.title(shard), model.name(to));
    let (shard, to) = (model.shards[shard].placement.shard, model.nodes[to].record.id);
    Proposal { action: Action::TransferPrimary { shard, to }, reason }
}

/// Hands roles over, or exchanges them two by two, from nodes with much to do to nodes with little.
pub(super) fn even_operations(model: &mut Model<'_>) -> Vec<Proposal> {
    let mut nodes = model.takers();
    let total = nodes.iter().map(|node| model.nodes[*node].operations).sum::<u64>();
    // Less than that is not worth an election: load changes all the time.
    let tolerated = (total / nodes.len().max(1) as u64 / 5).max(model.settings.split_operations_per_s / 10);
    let led = led(model);
    let mut proposals = Vec::new();
    nodes.sort_by_key(|node| (model.nodes[*node].operations, *node));
    for &from in nodes.iter().rev() {
        for &to in &nodes {
            let difference = model.nodes[from].operations.saturating_sub(model.nodes[to].operations);
            if difference <= tolerated {
                break;
            }
            let Some(exchange) = exchange_roles(model, &led, from, to, difference) else { continue };
            let why = format!(
                "{} has {difference} operations a second more than {} as a primary",
                model.name(from),
                model.name(to)
            );
            let given = [(exchange.give, to)].into_iter().chain(exchange.take.map(|take| (take, from)));
            for (shard, to) in given {
                model.lead(shard, to);
                proposals.push(transfer(model, shard, to, &why));
            }
            // One exchange of a node at a time: the load that follows from it is not known yet.
            break;
        }
    }
    proposals
}

fn exchange_roles(
    model: &Model<'_>,
    led: &[Vec<usize>],
    from: usize,
    to: usize,
    difference: u64,
) -> Option<Exchange> {
    let weighed = |giver: usize, taker: usize| {
        let shards = led[giver].iter().copied().filter(|&shard| {
            let held = &model.shards[shard];
            !held.is_busy && held.primary == Some(giver) && held.replicas.contains(&taker)
        });
        shards
            .map(|shard| Weighed { shard, weight: model.shards[shard].load.operations_per_s })
            .collect::<Vec<_>>()
    };
    let has_more = model.nodes[from].primaries > model.nodes[to].primaries;
    Exchange::choose(&weighed(from, to), &weighed(to, from), difference, has_more)
}

/// A shard that a node could give to another, with what it weighs.
pub(super) struct Weighed {
    pub(super) shard: usize,
    pub(super) weight: u64,
}

/// What one node gives to another, and what it takes for it.
pub(super) struct Exchange {
    pub(super) give: usize,
    pub(super) take: Option<usize>,
}

impl Exchange {
    /// The exchange that makes two nodes most even which differ by `difference`: a shard for nothing when the giver has more
    /// of them, else a heavy one for the lightest. None that leaves most of the difference: it would not be worth it.
    pub(super) fn choose(
        given: &[Weighed],
        taken: &[Weighed],
        difference: u64,
        has_more: bool,
    ) -> Option<Exchange> {
        let light =
            if has_more { None } else { Some(taken.iter().min_by_key(|taken| (taken.weight, taken.shard))?) };
        let back = light.map_or(0, |light| light.weight);
        let (least, most) = (difference / 8, difference - difference / 8);
        let moved = |given: &Weighed| given.weight.saturating_sub(back);
        let enough = given.iter().filter(|given| (least.max(1)..=most).contains(&moved(given)));
        let best = enough.min_by_key(|given| (moved(given).abs_diff(difference / 2), given.shard))?;
        Some(Exchange { give: best.shard, take: light.map(|light| light.shard) })
    }
}
