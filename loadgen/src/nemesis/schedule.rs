//! Which fault comes next: pure, the same for the same seed and number of nodes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use crate::rng::Rng;

/// Shortest pause, cut or full disk.
const LENGTH_MIN: Duration = Duration::from_millis(500);
/// Partitions whose leaderships one `transfer` moves.
const TRANSFERS: usize = 8;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// SIGKILL for one node.
    Kill,
    /// SIGKILL for all nodes at once.
    KillAll,
    /// SIGSTOP for one node, SIGCONT some seconds later.
    Pause,
    /// The same for all nodes.
    PauseAll,
    /// Cut links: between nodes, or between the proxy and a node.
    Partition,
    /// One node's disk takes nothing for some seconds.
    DiskFull,
    /// The same for all nodes.
    DiskFullAll,
    /// One node's disk takes seconds for each sync, for some seconds.
    DiskSlow,
    /// SIGTERM for one node: a planned stop.
    Stop,
    /// Some partitions get another preferred leader.
    Transfer,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Kill,
        Self::KillAll,
        Self::Pause,
        Self::PauseAll,
        Self::Partition,
        Self::DiskFull,
        Self::DiskFullAll,
        Self::DiskSlow,
        Self::Stop,
        Self::Transfer,
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::KillAll => "kill-all",
            Self::Pause => "pause",
            Self::PauseAll => "pause-all",
            Self::Partition => "partition",
            Self::DiskFull => "disk-full",
            Self::DiskFullAll => "disk-full-all",
            Self::DiskSlow => "disk-slow",
            Self::Stop => "stop",
            Self::Transfer => "transfer",
        }
    }

    /// Whether the processes must have been started with `--faults`.
    pub const fn needs_faults(self) -> bool {
        matches!(self, Self::Partition | Self::DiskFull | Self::DiskFullAll | Self::DiskSlow)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::as_str).join(", ");
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| format!("expected some of {names}"))
    }
}

/// An end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// A node, by its place in the map.
    Node(usize),
    /// The proxy that is checked.
    Proxy,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Kill(Vec<usize>),
    Pause(Vec<usize>),
    /// Nothing that the second sends arrives at the first.
    Cut(Vec<(End, End)>),
    DiskFull(Vec<usize>),
    DiskSlow(usize),
    Stop(usize),
    /// Partition and which of its replicas, each modulo their number.
    Transfer(Vec<(u16, usize)>),
}

/// A fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    /// For people.
    pub(super) text: String,
    pub(super) action: Action,
    /// How long it lasts, if it does not end by itself.
    pub(super) length: Duration,
}

/// An endless series of faults.
#[derive(Debug)]
pub(super) struct Schedule {
    rng: Rng,
    kinds: Vec<Kind>,
    names: Vec<String>,
    has_proxy: bool,
    length_max: Duration,
}

impl Schedule {
    /// The series of a seed for nodes of these names; faults end well before the next one is due.
    pub(super) fn new(
        seed: u64,
        kinds: &[Kind],
        names: Vec<String>,
        has_proxy: bool,
        every: Duration,
    ) -> Self {
        let length_max = every.mul_f64(0.8).max(LENGTH_MIN);
        Self { rng: Rng::new(seed, u64::MAX - 1), kinds: kinds.to_vec(), names, has_proxy, length_max }
    }

    pub(super) fn next(&mut self) -> Fault {
        let kind = self.kinds[self.rng.index(self.kinds.len())];
        let node = self.rng.index(self.names.len());
        let name = self.names[node].clone();
        let spread = self.length_max.saturating_sub(LENGTH_MIN);
        let length = LENGTH_MIN + spread.mul_f64(self.rng.unit());
        let all = || (0..self.names.len()).collect::<Vec<_>>();
        let (action, text) = match kind {
            Kind::Kill => (Action::Kill(vec![node]), format!("kill {name}")),
            Kind::KillAll => (Action::Kill(all()), "kill all nodes".to_owned()),
            Kind::Pause => (Action::Pause(vec![node]), format!("pause {name}")),
            Kind::PauseAll => (Action::Pause(all()), "pause all nodes".to_owned()),
            Kind::DiskFull => (Action::DiskFull(vec![node]), format!("the disk of {name} is full")),
            Kind::DiskFullAll => (Action::DiskFull(all()), "all disks are full".to_owned()),
            Kind::DiskSlow => (Action::DiskSlow(node), format!("the disk of {name} is slow")),
            Kind::Stop => (Action::Stop(node), format!("stop {name}")),
            Kind::Transfer => self.transfers(),
            Kind::Partition => self.partition(node),
        };
        let lasts =
            matches!(action, Action::Pause(_) | Action::Cut(_) | Action::DiskFull(_) | Action::DiskSlow(_));
        let length = if lasts { length } else { Duration::ZERO };
        let text = if lasts { format!("{text} for {:.1} s", length.as_secs_f64()) } else { text };
        Fault { kind, text, action, length }
    }

    fn transfers(&mut self) -> (Action, String) {
        let moves = (0..TRANSFERS).map(|_| (self.rng.next_u64() as u16, self.rng.next_u64() as usize));
        (Action::Transfer(moves.collect()), format!("transfer {TRANSFERS} leaderships"))
    }

    /// One node from all, one direction only, a bridge, or the proxy and a node.
    fn partition(&mut self, node: usize) -> (Action, String) {
        let name = &self.names[node];
        let (me, others) = (End::Node(node), (0..self.names.len()).filter(|n| *n != node).map(End::Node));
        let shapes = if self.has_proxy { 6 } else { 4 };
        let (cuts, text): (Vec<_>, _) = match self.rng.index(shapes) {
            0 => (
                others.flat_map(|other| [(me, other), (other, me)]).collect(),
                format!("cut {name} off from the other nodes"),
            ),
            1 => (others.map(|other| (me, other)).collect(), format!("{name} hears no other node")),
            2 => (others.map(|other| (other, me)).collect(), format!("no other node hears {name}")),
            3 => {
                let others: Vec<_> = others.collect();
                match others.get(self.rng.index(others.len())) {
                    Some(&End::Node(other)) => {
                        let other_name = &self.names[other];
                        let other = End::Node(other);
                        (
                            vec![(me, other), (other, me)],
                            format!("cut {name} and {other_name} off from each other"),
                        )
                    }
                    _ => (Vec::new(), "nothing to cut".to_owned()),
                }
            }
            4 => (
                vec![(me, End::Proxy), (End::Proxy, me)],
                format!("cut the proxy and {name} off from each other"),
            ),
            _ => {
                let mut cuts: Vec<_> = others.flat_map(|other| [(me, other), (other, me)]).collect();
                cuts.extend([(me, End::Proxy), (End::Proxy, me)]);
                (cuts, format!("cut {name} off from everybody"))
            }
        };
        (Action::Cut(cuts), text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(seed: u64, kinds: &[Kind]) -> Vec<Fault> {
        let names = ["n1", "n2", "n3"].map(str::to_owned).to_vec();
        let mut schedule = Schedule::new(seed, kinds, names, true, Duration::from_secs(5));
        (0..1000).map(|_| schedule.next()).collect()
    }

    #[test]
    fn a_seed_repeats_its_series() {
        assert_eq!(series(3, &Kind::ALL), series(3, &Kind::ALL));
        assert_ne!(series(3, &Kind::ALL), series(4, &Kind::ALL));
    }

    #[test]
    fn faults_are_of_the_wanted_kinds_and_spare_a_majority() {
        let kinds = [Kind::Kill, Kind::Pause, Kind::Partition, Kind::DiskFull, Kind::DiskSlow, Kind::Stop];
        let mut texts = std::collections::BTreeSet::new();
        for fault in series(1, &kinds) {
            assert!(fault.length <= Duration::from_secs(4), "{fault:?}");
            texts.insert(fault.text.split(" for ").next().unwrap_or_default().to_owned());
            match fault.action {
                Action::Kill(nodes) | Action::Pause(nodes) | Action::DiskFull(nodes) => {
                    assert_eq!(nodes.len(), 1)
                }
                Action::Cut(cuts) => {
                    // Without some one node no cut is left between nodes.
                    let is_between = |end: End, spared| end != End::Proxy && end != End::Node(spared);
                    let spares =
                        |n| cuts.iter().all(|&(at, from)| !is_between(at, n) || !is_between(from, n));
                    assert!(!cuts.is_empty() && (0..3).any(spares), "{cuts:?}");
                }
                Action::DiskSlow(_) | Action::Stop(_) => {}
                Action::Transfer(_) => panic!("nobody asked for a transfer"),
            }
        }
        // Every shape of every node: 5 simple ones, 3 + 3 + 3 + 3 + 3 + 6 of partitions.
        assert_eq!(texts.len(), 3 * 5 + 3 * 5 + 6, "{texts:?}");
    }

    #[test]
    fn kinds_have_names() {
        assert!(Kind::ALL.iter().all(|kind| kind.as_str().parse() == Ok(*kind)));
        assert!("fire".parse::<Kind>().unwrap_err().contains("kill-all"));
    }
}
