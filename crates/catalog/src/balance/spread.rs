//! Replicas apart in zones, and even over the nodes: first by their number, then by their bytes.
//!
//! Always holds: no move puts more of a shard's replicas together in a zone than there were, and no move for the sake of bytes
//! makes the numbers of replicas less even, or takes one of them away from the mean.

use std::ops::RangeInclusive;

use super::primaries::{Exchange, Weighed};
use super::{Model, Proposal};

/// Moves replicas to zones that have two fewer of their shard than the zone in which they are. Says whether some of them wait for
/// a node that is busy moving.
pub(super) fn separate_zones(model: &mut Model<'_>) -> (Vec<Proposal>, bool) {
    let (mut proposals, mut waits) = (Vec::new(), false);
    for shard in 0..model.shards.len() {
        match separate(model, shard) {
            Some(Separation::Now(proposal)) => proposals.push(proposal),
            Some(Separation::Waits) => waits = true,
            None => {}
        }
    }
    (proposals, waits)
}

/// What becomes of a shard whose replicas could be further apart.
enum Separation {
    Now(Proposal),
    Waits,
}

fn separate(model: &mut Model<'_>, shard: usize) -> Option<Separation> {
    if model.shards[shard].is_busy {
        return None;
    }
    let crowd_at = |node: &usize| model.crowd(shard, model.nodes[*node].zone, None);
    let held = &model.shards[shard].replicas;
    let most = held.iter().map(crowd_at).max().filter(|most| *most > 1)?;
    let primary = model.shards[shard].primary;
    // Of those that stand together the fullest node gives one up, the primary's last; one that is busy moving if all are.
    let from = held.iter().copied().filter(|node| crowd_at(node) == most);
    let rank = |node: &usize| (!model.is_full(*node), primary != Some(*node), model.nodes[*node].replicas);
    let from = from.max_by_key(rank)?;
    let to = model.best_node(shard, Some(from), true)?;
    if crowd_at(&to) + 2 > most {
        return None;
    }
    if model.is_full(from) || model.is_full(to) {
        return Some(Separation::Waits);
    }
    let why = format!("{most} replicas of it are in one zone, and {} is in another", model.name(to));
    Some(Separation::Now(model.move_replica(shard, from, to, &why)))
}

/// Moves replicas from full nodes to empty ones until no two differ by more than one, as far as zones allow.
pub(super) fn even_replicas(model: &mut Model<'_>) -> Vec<Proposal> {
    let mut pairs = Pairs::new(model);
    let mut proposals = Vec::new();
    while let Some((shard, from, to)) = pairs.next_move(model) {
        let count = |node: usize| replicas_text(model.nodes[node].replicas);
        let why = format!(
            "{} holds {} and {} holds {}",
            model.name(to),
            count(to),
            model.name(from),
            model.nodes[from].replicas
        );
        proposals.push(model.move_replica(shard, from, to, &why));
    }
    proposals
}

fn replicas_text(count: usize) -> String {
    match count {
        0 => "no replica".to_owned(),
        1 => "1 replica".to_owned(),
        more => format!("{more} replicas"),
    }
}

/// Which nodes have nothing to give to which: found out once, since moves only make that rarer.
struct Pairs {
    nodes: Vec<usize>,
    closed: Vec<bool>,
    /// How many replicas a node ends with; moves do not change that.
    even: RangeInclusive<usize>,
}

impl Pairs {
    fn new(model: &Model<'_>) -> Pairs {
        let nodes = model.takers();
        let even = even_count(model, &nodes);
        Pairs { nodes, closed: vec![false; model.nodes.len() * model.nodes.len()], even }
    }

    /// A shard and between which nodes it moves: from the fullest to the emptiest. A node that is busy moving is waited for,
    /// but those that are on the same side of the mean need not wait with it: what they move would move anyway.
    fn next_move(&mut self, model: &Model<'_>) -> Option<(usize, usize, usize)> {
        let count = |node: usize| model.nodes[node].replicas;
        self.nodes.sort_by_key(|node| (count(*node), *node));
        let (low, high) = (*self.even.start(), *self.even.end());
        let mut waits_for_fuller = false;
        for &from in self.nodes.iter().rev() {
            if model.is_full(from) {
                waits_for_fuller = true;
                continue;
            }
            if waits_for_fuller && count(from) <= high {
                return None;
            }
            let mut waits_for_emptier = false;
            for &to in self.nodes.iter().take_while(|to| count(**to) + 2 <= count(from)) {
                if model.is_full(to) {
                    waits_for_emptier = true;
                    continue;
                }
                if waits_for_emptier && count(to) >= low {
                    break;
                }
                let pair = from * model.nodes.len() + to;
                if self.closed[pair] {
                    continue;
                }
                if let Some(shard) = best_to_move(model, from, to) {
                    return Some((shard, from, to));
                }
                self.closed[pair] = true;
            }
        }
        None
    }
}

/// The shards that can move from one node to another.
fn movable<'m>(model: &'m Model<'_>, from: usize, to: usize) -> impl Iterator<Item = usize> + 'm {
    model.nodes[from].hosted.iter().copied().filter(move |&shard| {
        !model.shards[shard].is_busy && model.can_take(shard, to) && model.keeps_zones(shard, from, to)
    })
}

/// The one whose move also makes the bytes most even; no primary if that can be avoided, since it would have to be handed over.
fn best_to_move(model: &Model<'_>, from: usize, to: usize) -> Option<usize> {
    let wanted = model.nodes[from].bytes.saturating_sub(model.nodes[to].bytes) / 2;
    movable(model, from, to).min_by_key(|&shard| {
        let held = &model.shards[shard];
        (held.primary == Some(from), held.load.bytes.abs_diff(wanted), held.placement.shard)
    })
}

/// Moves replicas, or exchanges them two by two, from nodes with many bytes to nodes with few.
pub(super) fn even_bytes(model: &mut Model<'_>) -> Vec<Proposal> {
    let mut nodes = model.takers();
    let mean = nodes.iter().map(|node| model.nodes[*node].bytes).sum::<u64>() / nodes.len().max(1) as u64;
    // Less than that is not worth a move: sizes change all the time.
    let tolerated = (mean / 5).max(model.settings.split_bytes / 2);
    let even = even_count(model, &nodes);
    let mut proposals = Vec::new();
    nodes.sort_by_key(|node| (model.nodes[*node].bytes, *node));
    for &from in nodes.iter().rev() {
        for &to in &nodes {
            let difference = model.nodes[from].bytes.saturating_sub(model.nodes[to].bytes);
            if model.is_full(from) || difference <= tolerated {
                break;
            }
            if !model.is_full(to) {
                proposals.extend(exchange_bytes(model, from, to, difference, &even));
            }
        }
    }
    proposals
}

/// How many replicas each of the nodes has when no two differ by more than one.
fn even_count(model: &Model<'_>, nodes: &[usize]) -> RangeInclusive<usize> {
    let total: usize = nodes.iter().map(|node| model.nodes[*node].replicas).sum();
    let count = nodes.len().max(1);
    total / count..=total.div_ceil(count)
}

fn exchange_bytes(
    model: &mut Model<'_>,
    from: usize,
    to: usize,
    difference: u64,
    even: &RangeInclusive<usize>,
) -> Vec<Proposal> {
    let weighed = |giver: usize, taker: usize| {
        let shards = movable(model, giver, taker);
        shards.map(|shard| Weighed { shard, weight: model.shards[shard].load.bytes }).collect::<Vec<_>>()
    };
    let (given, taken) = (weighed(from, to), weighed(to, from));
    let (full, empty) = (model.nodes[from].replicas, model.nodes[to].replicas);
    let why = format!("{} holds {difference} bytes more than {}", model.name(from), model.name(to));
    // Several moves for nothing may concern one node: the next round must not have to take one of them back.
    let for_nothing = full > empty && full > *even.start() && empty < *even.end();
    match Exchange::choose(&given, &taken, difference, for_nothing) {
        Some(Exchange { give, take: None }) => vec![model.move_replica(give, from, to, &why)],
        // An exchange makes two moves of each node, also where else only one is allowed at a time.
        Some(Exchange { give, take: Some(take) })
            if [from, to]
                .iter()
                .all(|&node| model.nodes[node].moves + 2 <= model.settings.moves_per_node_max.max(2)) =>
        {
            let first = model.move_replica(give, from, to, &why);
            let why = format!("{why}, and gets a smaller shard for a larger one");
            vec![first, model.move_replica(take, to, from, &why)]
        }
        _ => Vec::new(),
    }
}
