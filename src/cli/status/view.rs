//! [`Status`] -> what people read: pure.

use super::health::Health;
use super::merge::{NodeState, NodeStatus, Status};
use super::recovery;
use crate::cli::output::{Cell, Column, Paint, Style, bytes, cut, fitted_table, grouped};

const COLUMNS: [Column<NodeStatus>; 11] = [
    Column { head: "NODE", is_right: false, cell: |node| Cell::plain(&node.id) },
    Column { head: "CLIENT", is_right: false, cell: |node| Cell::plain(&node.client) },
    Column { head: "PEER", is_right: false, cell: peer },
    Column { head: "ZONE", is_right: false, cell: |node| Cell::plain(or_dash(&node.zone)) },
    Column { head: "STATE", is_right: false, cell: state },
    Column { head: "LEADS", is_right: true, cell: |node| Cell::plain(node.leaders) },
    Column { head: "HOLDS", is_right: true, cell: |node| Cell::plain(node.replicas) },
    Column { head: "KEYS", is_right: true, cell: |node| number(node.keys, grouped) },
    Column { head: "BYTES", is_right: true, cell: |node| number(node.bytes, bytes) },
    Column { head: "OPS/S", is_right: true, cell: |node| number(node.ops_per_second, grouped) },
    Column { head: "LAG", is_right: true, cell: |node| number(node.lag, grouped) },
];

/// What is left out, one after the other, when the table is wider than the terminal.
const LEFT_OUT: [&str; 4] = ["PEER", "ZONE", "HOLDS", "LAG"];

/// The whole text; lines are at most `width` wide where that can be had.
pub(super) fn for_people(status: &Status, style: Style, width: usize) -> String {
    let nodes = status.nodes.len();
    let about = format!("epoch {}, {nodes} {}", status.epoch, if nodes == 1 { "node" } else { "nodes" });
    let paint = match status.health {
        Health::Ok => Paint::Green,
        Health::Degraded => Paint::Yellow,
        Health::Down => Paint::Red,
    };
    let mut lines = vec![
        format!(
            "{}  {}",
            style.paint(Paint::Bold, &format!("cluster {}", status.name)),
            style.paint(Paint::Dim, &about)
        ),
        style.paint(paint, &status.summary),
        String::new(),
        fitted_table(&COLUMNS, &LEFT_OUT, &status.nodes, style, width),
        String::new(),
        format!(
            "{} keys, {} (replicas counted once); {}{}",
            grouped(status.keys),
            bytes(status.bytes),
            status.moves,
            if status.learners == 0 {
                String::new()
            } else {
                format!("; new replicas being seeded: {}", status.learners)
            }
        ),
    ];
    if !status.recoveries.is_empty() {
        lines.push(String::new());
        lines.push(style.paint(Paint::Bold, "recovered"));
        let sentences = recovery::sentences(&status.recoveries, status.at_ms);
        lines
            .extend(sentences.iter().map(|sentence| format!("  {}", cut(sentence, width.saturating_sub(2)))));
    }
    if !status.problems.is_empty() {
        lines.push(String::new());
        lines.push(style.paint(Paint::Bold, "problems"));
        let line = |problem| {
            format!("  {}", style.paint(paint_of_problems(status), &cut(problem, width.saturating_sub(2))))
        };
        lines.extend(status.problems.iter().map(|problem| line(problem.as_str())));
    }
    lines.join("\n")
}

fn paint_of_problems(status: &Status) -> Paint {
    if status.health == Health::Down { Paint::Red } else { Paint::Yellow }
}

fn state(node: &NodeStatus) -> Cell {
    let paint = match node.state {
        NodeState::Up => Paint::Green,
        NodeState::Loading | NodeState::Leaving => Paint::Yellow,
        NodeState::Down => Paint::Red,
    };
    match node.state {
        NodeState::Up if node.drained => Cell::painted(Paint::Yellow, "drained"),
        state => Cell::painted(paint, state.as_str()),
    }
}

/// The peer address; only its port when the machine is the one of the client address.
fn peer(node: &NodeStatus) -> Cell {
    let split =
        |address: &str| address.rsplit_once(':').map(|(host, port)| (host.to_owned(), port.to_owned()));
    match (split(&node.client), split(&node.peer)) {
        (Some((client, _)), Some((peer, port))) if client == peer => Cell::plain(format!(":{port}")),
        _ => Cell::plain(&node.peer),
    }
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn number(number: Option<u64>, show: fn(u64) -> String) -> Cell {
    Cell::plain(number.map_or_else(|| "-".to_owned(), show))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::merge::{merge, tests::two_nodes_one_down};

    fn sample() -> Status {
        let (map, answers) = two_nodes_one_down();
        merge(&map, answers).unwrap()
    }

    #[test]
    fn people_see_leaderless_partitions_and_dead_nodes() {
        let expected = "\
cluster demo  epoch 7, 2 nodes
14 of 16 partitions have no leader, 2 have fewer than 2 of 2 replicas

NODE  CLIENT          PEER   ZONE  STATE  LEADS  HOLDS   KEYS    BYTES   OPS/S  LAG
n1    127.0.0.1:7001  :7101  a     up         2     16  1,203  2.3 KiB  12,500    0
n2    127.0.0.1:7002  :7102  b     down       0     16      -        -       -    3

1,200 keys, 2.3 KiB (replicas counted once); no moves

problems
  no leader: partitions 2-15; their keys cannot be read or written
  1 of 2 replicas: partitions 0-1
  n2 does not answer at 127.0.0.1:7002: connection refused";
        assert_eq!(for_people(&sample(), Style::PLAIN, 200), expected);
    }

    #[test]
    fn a_drained_node_says_so_while_it_is_up() {
        let mut status = sample();
        status.nodes.iter_mut().for_each(|node| node.drained = true);
        let text = for_people(&status, Style::PLAIN, 200);
        assert!(text.contains("a     drained      2") && text.contains("b     down         0"), "{text}");
    }

    #[test]
    fn a_narrow_terminal_gets_fewer_columns() {
        let width = |width| {
            let text = for_people(&sample(), Style::PLAIN, width);
            let head = text.lines().find(|line| line.starts_with("NODE")).unwrap().to_owned();
            assert!(width < 72 || text.lines().all(|line| line.chars().count() <= width), "{text}");
            head.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(width(83), "NODE CLIENT PEER ZONE STATE LEADS HOLDS KEYS BYTES OPS/S LAG");
        assert_eq!(width(80), "NODE CLIENT ZONE STATE LEADS HOLDS KEYS BYTES OPS/S LAG");
        assert_eq!(width(60), "NODE CLIENT STATE LEADS KEYS BYTES OPS/S");
        assert_eq!(width(1), "NODE CLIENT STATE LEADS KEYS BYTES OPS/S");
    }

    #[test]
    fn colours_change_no_column() {
        let coloured = for_people(&sample(), Style::COLOURED, 80);
        assert!(coloured.contains("\u{1b}[32mup\u{1b}[0m  "), "{coloured:?}");
        let mut plain = String::new();
        let mut rest = coloured.as_str();
        while let Some((before, after)) = rest.split_once('\u{1b}') {
            plain += before;
            rest = after.split_once('m').unwrap().1;
        }
        assert_eq!(plain + rest, for_people(&sample(), Style::PLAIN, 80));
    }
}
