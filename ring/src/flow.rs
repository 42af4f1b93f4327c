//! Seats for partitions at the least cost: a minimum-cost flow, solved by shortest augmenting paths.
//!
//! ```text
//! source --R--> partition --(zone: k seats cost 0+1+..+k-1)--> zone of the partition --1, seat cost--> node --load cost--> sink
//! ```
//! Every unit of flow is one seat. All costs are convex, so adding the seats one by one, each along the cheapest
//! path of the residual network, ends at the cheapest assignment of all (successive shortest paths: Ahuja, Magnanti, Orlin,
//! "Network Flows", 1993, sections 9.7 and 14.5). The start is the empty assignment, whose residual network has no
//! negative cost; from then on costs may be negative but no cycle is, which is why Bellman-Ford serves.
//!
//! Difference to the textbook: the network is contracted onto the nodes. For each pair (a, b) only the cheapest
//! partition in which b can take over a's seat matters ([`Solver::handover`]), so a path is a chain of nodes and costs
//! O(nodes^2) instead of O(partitions x nodes). [`Cost::hops`] breaks ties for the shorter chain; a chain that would use one
//! partition's seats twice in a conflicting way always has a shorter one that costs no more, so it is never taken.

use std::ops::{Add, Sub};

/// What an assignment costs, compared field by field: an earlier field outweighs all later ones, whatever their size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    /// Seats above the rounded-up share; the k-th one costs k.
    above: i32,
    /// Seats above the rounded-down share.
    odd: i32,
    /// Pairs of seats of one partition in one zone.
    zone_pairs: i32,
    /// Seats that were not there before.
    moved: i32,
    /// Odd seats away from the nodes with the largest remainders.
    remainder: i32,
    /// Ranks of the nodes in the preference of their partitions.
    rank: i32,
    /// Length of the chain; of paths only.
    hops: i32,
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            above: self.above + other.above,
            odd: self.odd + other.odd,
            zone_pairs: self.zone_pairs + other.zone_pairs,
            moved: self.moved + other.moved,
            remainder: self.remainder + other.remainder,
            rank: self.rank + other.rank,
            hops: self.hops + other.hops,
        }
    }
}

impl Sub for Cost {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            above: self.above - other.above,
            odd: self.odd - other.odd,
            zone_pairs: self.zone_pairs - other.zone_pairs,
            moved: self.moved - other.moved,
            remainder: self.remainder - other.remainder,
            rank: self.rank - other.rank,
            hops: self.hops - other.hops,
        }
    }
}

const HOP: Cost = Cost { above: 0, odd: 0, zone_pairs: 0, moved: 0, remainder: 0, rank: 0, hops: 1 };

/// How many seats a node should hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// Its exact share, rounded down.
    pub(crate) floor: usize,
    /// Its place in the order of remainders, largest first; `None` when the share is a whole number.
    pub(crate) odd: Option<usize>,
}

/// One seat that a node could have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// It has this seat now.
    pub(crate) held: bool,
    /// Its rank in the preference of the partition, 0 = first.
    pub(crate) rank: usize,
}

/// What is to be assigned. Nodes and partitions are indices.
#[derive(Debug)]
pub(crate) struct Problem {
    /// Seats of each partition; each partition has at least as many candidates.
    pub(crate) seats_each: usize,
    /// Zone of each node.
    pub(crate) zones: Vec<usize>,
    /// Share of each node.
    pub(crate) shares: Vec<Share>,
    /// `[partition][node]`: `None` when the node cannot have a seat there.
    pub(crate) candidates: Vec<Vec<Option<Candidate>>>,
}

impl Problem {
    /// The nodes of each partition, ascending.
    ///
    /// Least cost in this order: nodes within floor and ceiling of their shares; fewest pairs of seats of a partition in one
    /// zone; fewest seats that are not held now; odd seats to the largest remainders; best ranks. Deterministic.
    /// Takes O(partitions x seats x nodes^2) in practice.
    pub(crate) fn solve(&self) -> Vec<Vec<usize>> {
        let mut solver = Solver::new(self);
        for partition in 0..self.candidates.len() {
            for _ in 0..self.seats_each {
                solver.add_seat(partition);
            }
        }
        solver.assignment()
    }
}

/// The cheapest hand-over of a seat between two nodes: its cost and its partition.
type Handover = Option<(Cost, usize)>;

/// How a chain reaches a node: from which node (`None`: it starts here), by a seat of which partition.
#[derive(Debug, Clone, Copy)]
struct Step {
    from: Option<usize>,
    partition: usize,
}

/// # Invariants
/// `zone_seats` and `loads` count what `taken` says; `handovers[a][b]` is the least of `handover(p, a, b)` over all p.
struct Solver<'a> {
    problem: &'a Problem,
    nodes: usize,
    /// `[node][partition]`: has the seat.
    taken: Vec<Vec<bool>>,
    /// `[partition][zone]`: seats.
    zone_seats: Vec<Vec<i32>>,
    /// Seats of each node.
    loads: Vec<usize>,
    /// `[a][b]`: the cheapest way in which b takes over one of a's seats.
    handovers: Vec<Vec<Handover>>,
}

impl<'a> Solver<'a> {
    fn new(problem: &'a Problem) -> Self {
        let (nodes, partitions) = (problem.zones.len(), problem.candidates.len());
        let zones = problem.zones.iter().max().map_or(0, |zone| zone + 1);
        Self {
            problem,
            nodes,
            taken: vec![vec![false; partitions]; nodes],
            zone_seats: vec![vec![0; zones]; partitions],
            loads: vec![0; nodes],
            handovers: vec![vec![None; nodes]; nodes],
        }
    }

    /// Gives `partition` one more seat, along the cheapest chain of hand-overs.
    fn add_seat(&mut self, partition: usize) {
        let chain = self.cheapest_chain(partition);
        let Some(last) = chain.last() else { return };
        self.loads[last.0] += 1;
        for (node, step) in &chain {
            if let Some(from) = step.from {
                self.set(step.partition, from, false);
            }
            self.set(step.partition, *node, true);
        }
        self.refresh(&chain);
    }

    /// The nodes of the chain, each with the step to it; the last one ends up with a seat more. Empty: no candidate is left.
    fn cheapest_chain(&self, partition: usize) -> Vec<(usize, Step)> {
        let mut best: Vec<Option<(Cost, Step)>> = vec![None; self.nodes];
        let mut queue = Vec::new();
        for (node, slot) in best.iter_mut().enumerate() {
            if let Some(cost) = self.entry(partition, node) {
                *slot = Some((cost + HOP, Step { from: None, partition }));
                queue.push(node);
            }
        }
        // Bellman-Ford, a round a length of chain. No cycle is negative, so as many rounds as nodes are enough.
        for _ in 0..self.nodes {
            let mut improved = vec![false; self.nodes];
            for from in std::mem::take(&mut queue) {
                let Some((so_far, _)) = best[from] else { continue };
                for (to, handover) in self.handovers[from].iter().enumerate() {
                    let Some((cost, partition)) = *handover else { continue };
                    let total = so_far + cost + HOP;
                    if best[to].is_none_or(|(known, _)| total < known) {
                        best[to] = Some((total, Step { from: Some(from), partition }));
                        improved[to] = true;
                    }
                }
            }
            queue.extend((0..self.nodes).filter(|node| improved[*node]));
            if queue.is_empty() {
                break;
            }
        }
        let end = (0..self.nodes)
            .filter_map(|node| best[node].map(|(cost, _)| (cost + self.next_seat(node), node)))
            .min()
            .map(|(_, node)| node);
        let mut chain = Vec::new();
        let mut next = end;
        while let Some((node, (_, step))) = next.and_then(|node| Some((node, best[node]?))) {
            assert!(
                chain.len() < self.nodes,
                "a chain visits no node twice: some cycle of hand-overs is negative"
            );
            chain.push((node, step));
            next = step.from;
        }
        chain.reverse();
        chain
    }

    /// What one more seat on `node` costs, wherever it is.
    fn next_seat(&self, node: usize) -> Cost {
        let Share { floor, odd } = self.problem.shares[node];
        let load = self.loads[node];
        match odd {
            _ if load < floor => Cost::default(),
            Some(order) if load == floor => Cost { odd: 1, remainder: small(order), ..Cost::default() },
            _ => Cost { above: small(load - floor) + 1, ..Cost::default() },
        }
    }

    /// What a new seat of `partition` on `node` costs, the node's load left aside; `None` when it can have none.
    fn entry(&self, partition: usize, node: usize) -> Option<Cost> {
        let candidate = self.problem.candidates[partition][node]?;
        if self.taken[node][partition] {
            return None;
        }
        let zone_pairs = self.zone_seats[partition][self.problem.zones[node]];
        Some(Cost { zone_pairs, ..seat(candidate) })
    }

    /// What it costs that node `to` takes over the seat of node `from` in `partition`; `None` when it cannot.
    fn handover(&self, partition: usize, from: usize, to: usize) -> Option<Cost> {
        if !self.taken[from][partition] {
            return None;
        }
        let gain = self.entry(partition, to)?;
        let (old_zone, new_zone) = (self.problem.zones[from], self.problem.zones[to]);
        let left = self.zone_seats[partition][old_zone] - 1;
        let zone_pairs = if old_zone == new_zone { 0 } else { gain.zone_pairs - left };
        let loss = self.problem.candidates[partition][from].map(seat).unwrap_or_default();
        Some(Cost { zone_pairs, ..gain - loss })
    }

    fn set(&mut self, partition: usize, node: usize, taken: bool) {
        self.taken[node][partition] = taken;
        self.zone_seats[partition][self.problem.zones[node]] += if taken { 1 } else { -1 };
    }

    /// Brings the hand-overs up to date after the seats of the chain's partitions changed.
    fn refresh(&mut self, chain: &[(usize, Step)]) {
        for from in 0..self.nodes {
            for to in 0..self.nodes {
                let known = self.handovers[from][to];
                let stale = known.is_some_and(|(_, p)| chain.iter().any(|(_, step)| step.partition == p));
                self.handovers[from][to] = if stale {
                    self.cheapest(0..self.problem.candidates.len(), from, to)
                } else {
                    let changed = self.cheapest(chain.iter().map(|(_, step)| step.partition), from, to);
                    known.into_iter().chain(changed).min()
                };
            }
        }
    }

    fn cheapest(&self, partitions: impl Iterator<Item = usize>, from: usize, to: usize) -> Handover {
        partitions.filter_map(|p| self.handover(p, from, to).map(|cost| (cost, p))).min()
    }

    fn assignment(&self) -> Vec<Vec<usize>> {
        let partitions = 0..self.problem.candidates.len();
        partitions.map(|p| (0..self.nodes).filter(|node| self.taken[*node][p]).collect()).collect()
    }
}

fn seat(candidate: Candidate) -> Cost {
    Cost { moved: i32::from(!candidate.held), rank: small(candidate.rank), ..Cost::default() }
}

/// Counts here are of nodes and partitions, some thousands at most.
fn small(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Problem {
        /// The cost of a whole assignment, summed straight from the definition.
        fn cost(&self, assignment: &[Vec<usize>]) -> Cost {
            let mut total = Cost::default();
            for (row, nodes) in self.candidates.iter().zip(assignment) {
                for (index, node) in nodes.iter().enumerate() {
                    total = total + row[*node].map(seat).expect("only candidates have seats");
                    let same_zone = |other: &&usize| self.zones[**other] == self.zones[*node];
                    total.zone_pairs += small(nodes[..index].iter().filter(same_zone).count());
                }
            }
            for (node, share) in self.shares.iter().enumerate() {
                let load = assignment.iter().filter(|nodes| nodes.contains(&node)).count();
                let ceiling = share.floor + usize::from(share.odd.is_some());
                total.above += (1..=load.saturating_sub(share.floor)).map(small).sum::<i32>();
                if let Some(order) = share.odd.filter(|_| load >= ceiling) {
                    total = total + Cost { above: -1, odd: 1, remainder: small(order), ..Cost::default() };
                }
            }
            total
        }

        /// The least cost over all assignments, by trying each.
        fn least(&self, fixed: &mut Vec<Vec<usize>>) -> Cost {
            if fixed.len() == self.candidates.len() {
                return self.cost(fixed);
            }
            let allowed = self.candidates[fixed.len()].iter().map(Option::is_some).collect::<Vec<_>>();
            let choices =
                (0_usize..1 << allowed.len()).filter(|set| set.count_ones() as usize == self.seats_each);
            let mut least: Option<Cost> = None;
            for set in choices {
                let nodes: Vec<usize> = (0..allowed.len()).filter(|node| set >> node & 1 == 1).collect();
                if nodes.iter().all(|node| allowed[*node]) {
                    fixed.push(nodes);
                    let cost = self.least(fixed);
                    fixed.pop();
                    least = Some(least.map_or(cost, |known| known.min(cost)));
                }
            }
            least.expect("each partition has enough candidates")
        }
    }

    fn problem(nodes: usize, partitions: usize, seats_each: usize) -> impl Strategy<Value = Problem> {
        let share = (0..=partitions, any::<bool>());
        let candidate = (0..8_u8, any::<bool>(), 0..4_usize);
        let row = proptest::collection::vec(candidate, nodes);
        (
            proptest::collection::vec(0..3_usize, nodes),
            proptest::collection::vec(share, nodes),
            proptest::collection::vec(row, partitions),
        )
            .prop_map(move |(zones, shares, rows)| Problem {
                seats_each,
                zones,
                shares: (0..)
                    .zip(shares)
                    .map(|(order, (floor, is_odd))| Share { floor, odd: is_odd.then_some(order) })
                    .collect(),
                candidates: rows.into_iter().map(|row| row_of(row, seats_each)).collect(),
            })
    }

    /// About one node in eight cannot have a seat, except the first few, so that there are enough.
    fn row_of(row: Vec<(u8, bool, usize)>, seats_each: usize) -> Vec<Option<Candidate>> {
        let candidate = |(node, (forbid, held, rank)): (usize, (u8, bool, usize))| {
            (node < seats_each || forbid > 0).then_some(Candidate { held, rank })
        };
        row.into_iter().enumerate().map(candidate).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn no_assignment_is_cheaper(problem in (3..=5_usize, 1..=4_usize, 1..=3_usize)
            .prop_flat_map(|(nodes, partitions, seats)| problem(nodes, partitions, seats)))
        {
            let assignment = problem.solve();
            prop_assert_eq!(problem.cost(&assignment), problem.least(&mut Vec::new()));
        }
    }
}
