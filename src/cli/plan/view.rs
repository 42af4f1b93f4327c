//! [`Plan`] -> what people read: pure.

use crate::cli::output::{Cell, Column, Paint, Style, bytes, cut, fitted_table, grouped};
use crate::meta::plan::{Difference, MetaMove, NodeChange, NodePlan, Plan};
use ringfort_wire::ClusterMap;
use ringfort_wire::map::Moving;

const COLUMNS: [Column<NodePlan>; 6] = [
    Column { head: "NODE", is_right: false, cell: node },
    Column {
        head: "HOLDS",
        is_right: true,
        cell: |node| change(node.before.replicas, node.after.replicas, |n| grouped(n as u64)),
    },
    Column {
        head: "LEADS",
        is_right: true,
        cell: |node| change(node.before.leaders, node.after.leaders, |n| grouped(n as u64)),
    },
    Column { head: "KEYS", is_right: true, cell: |node| change(node.before.keys, node.after.keys, grouped) },
    Column { head: "BYTES", is_right: true, cell: |node| change(node.before.bytes, node.after.bytes, bytes) },
    Column { head: "PEAK", is_right: true, cell: peak },
];

/// What is left out, one after the other, when the table is wider than the terminal.
const LEFT_OUT: [&str; 2] = ["KEYS", "PEAK"];

/// The whole text; lines are at most `width` wide where that can be had.
pub(super) fn for_people(
    plan: &Plan,
    map: &ClusterMap,
    moving: Moving,
    file: &str,
    style: Style,
    width: usize,
) -> String {
    let mut lines = Vec::new();
    if plan.is_empty() {
        let text = format!("nothing to do: cluster {} is as {file} says (epoch {})", map.name, plan.epoch);
        lines.push(style.paint(Paint::Green, &text));
    } else {
        lines.push(format!(
            "{}  {}",
            style.paint(Paint::Bold, &format!("cluster {}", map.name)),
            style.paint(Paint::Dim, &format!("epoch {}, compared with {file}", plan.epoch))
        ));
        lines.extend(plan.changes.iter().map(|difference| line(difference, style, width)));
        lines.push(String::new());
        lines.push(fitted_table(&COLUMNS, &LEFT_OUT, &plan.nodes, style, width));
        lines.push(String::new());
        lines.extend(
            facts(plan, moving)
                .into_iter()
                .map(|(label, text)| format!("{}{text}", style.paint(Paint::Dim, &format!("{label:<9}")))),
        );
    }
    if !plan.warnings.is_empty() {
        lines.push(String::new());
        lines.push(style.paint(Paint::Bold, "warnings"));
        let line =
            |text: &String| format!("  {}", style.paint(Paint::Yellow, &cut(text, width.saturating_sub(2))));
        lines.extend(plan.warnings.iter().map(line));
    }
    lines.join("\n")
}

/// `+ n4  127.0.0.1:7004`, `- n3  127.0.0.1:7003`, `~ n2  weight 1 -> 2`.
fn line(difference: &Difference, style: Style, width: usize) -> String {
    let Difference { node, key, from, to } = difference;
    let whose = node.as_ref().map_or("cluster", |id| id.0.as_str());
    let (paint, text) = match (from, to) {
        (None, Some(client)) => (Paint::Green, format!("+ {whose}  {client}")),
        (Some(client), None) => (Paint::Red, format!("- {whose}  {client}")),
        (from, to) => {
            let show = |value: &Option<String>| match value.as_deref().unwrap_or_default() {
                "" => "(none)".to_owned(),
                value if *key == "move_rate" => {
                    value.parse().map_or_else(|_| value.to_owned(), |rate| format!("{}/s", bytes(rate)))
                }
                value => value.to_owned(),
            };
            (Paint::Yellow, format!("~ {whose}  {key} {} -> {}", show(from), show(to)))
        }
    };
    format!("  {}", style.paint(paint, &cut(&text, width.saturating_sub(2))))
}

/// What it comes to, each line with its label.
fn facts(plan: &Plan, moving: Moving) -> Vec<(&'static str, String)> {
    let total = |of: fn(&NodePlan) -> usize| plan.nodes.iter().map(of).sum::<usize>();
    let (replicas, partitions) = (total(|node| node.after.replicas), total(|node| node.after.leaders));
    let copies: u64 = plan.nodes.iter().map(|node| node.after.keys).sum();
    let minimum = match (plan.replicas_moved, plan.minimum) {
        (moved, minimum) if moved == minimum => "the minimum".to_owned(),
        (_, minimum) => format!("the least by counting is {minimum}; zones or heavy nodes ask for more"),
    };
    let dropped = plan.moves.iter().filter(|step| step.to.is_none()).count();
    let dropped = if dropped == 0 { String::new() } else { format!("; {} dropped", grouped(dropped as u64)) };
    let mut lines = Vec::new();
    lines.push((
        "replicas",
        match plan.replicas_moved {
            0 => format!("none moves{dropped}"),
            moved => {
                format!("{} of {} move, {minimum}{dropped}", grouped(moved as u64), grouped(replicas as u64))
            }
        },
    ));
    lines.push(("leaders", format!("{} of {partitions} change", plan.leader_changes)));
    if plan.replicas_moved > 0 {
        let (keys, percent) = (grouped(plan.cost.keys), plan.cost.keys_percent);
        lines.push(("keys", format!("{keys} of {} copies change node ({percent:.1} %)", grouped(copies))));
        lines.push((
            "time",
            format!(
                "{} for {}, at {}/s and {} at a time for each node",
                duration(plan.cost.seconds),
                bytes(plan.cost.bytes),
                bytes(moving.bytes_per_s),
                moving.at_once
            ),
        ));
    }
    lines.push((
        "pause",
        match plan.cost.handovers {
            0 => "none".to_owned(),
            count => format!("about {} ms, once for each of {count} partitions", plan.cost.pause_ms),
        },
    ));
    if !plan.meta_moves.is_empty() {
        lines.push(("meta", plan.meta_moves.iter().map(meta).collect::<Vec<_>>().join(", ")));
    }
    lines
}

fn meta(step: &MetaMove) -> String {
    match (&step.from, &step.to) {
        (Some(from), Some(to)) => format!("{to} in place of {from}"),
        (None, Some(to)) => format!("{to} comes"),
        (Some(from), None) => format!("{from} goes"),
        (None, None) => String::new(),
    }
}

fn node(node: &NodePlan) -> Cell {
    match node.change {
        NodeChange::Kept => Cell::plain(&node.id),
        NodeChange::Added => Cell::painted(Paint::Green, format!("{} (new)", node.id)),
        NodeChange::Removed => Cell::painted(Paint::Red, format!("{} (leaves)", node.id)),
    }
}

fn change<T: PartialEq + Copy>(before: T, after: T, show: fn(T) -> String) -> Cell {
    match before == after {
        true => Cell::plain(show(after)),
        false => Cell::painted(Paint::Bold, format!("{} -> {}", show(before), show(after))),
    }
}

fn peak(node: &NodePlan) -> Cell {
    match node.peak_extra_bytes {
        0 => Cell::plain("-"),
        extra => Cell::plain(format!("+{}", bytes(extra))),
    }
}

/// `12 s`, `5 min`, `1 h 10 min`.
fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("about {seconds} s"),
        120..7_200 => format!("about {} min", seconds.div_ceil(60)),
        _ => format!("about {} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::form::tests::sample_map;
    use crate::meta::plan::tests::{add, facts_of};
    use crate::meta::plan::{Wanted, plan};

    fn text(change: impl FnOnce(&mut Wanted), style: Style, width: usize) -> String {
        let map = sample_map();
        let mut wanted = Wanted::of_map(&map);
        change(&mut wanted);
        let plan = plan(&map, &wanted, &facts_of(&map, 1000, 3 << 20)).expect("it is not refused");
        for_people(&plan, &map, wanted.moving, "demo.toml", style, width)
    }

    #[test]
    fn nothing_to_do_is_one_line() {
        assert_eq!(
            text(|_| (), Style::PLAIN, 100),
            "nothing to do: cluster demo is as demo.toml says (epoch 1)"
        );
    }

    #[test]
    fn an_added_node_reads_as_before_and_after() {
        let expected = "\
cluster demo  epoch 1, compared with demo.toml
  + n4  127.0.0.1:7004

NODE         HOLDS     LEADS              KEYS                   BYTES        PEAK
n1        64 -> 48  22 -> 16  64,000 -> 48,000  192.0 MiB -> 144.0 MiB           -
n2        64 -> 48  21 -> 16  64,000 -> 48,000  192.0 MiB -> 144.0 MiB           -
n3        64 -> 48  21 -> 16  64,000 -> 48,000  192.0 MiB -> 144.0 MiB           -
n4 (new)   0 -> 48   0 -> 16       0 -> 48,000        0 B -> 144.0 MiB  +144.0 MiB

replicas 48 of 192 move, the minimum
leaders  16 of 64 change
keys     48,000 of 192,000 copies change node (25.0 %)
time     about 6 s for 142.9 MiB, at 64.0 MiB/s and 2 at a time for each node
pause    about 50 ms, once for each of 16 partitions";
        assert_eq!(text(|wanted| add(wanted, 4, ""), Style::PLAIN, 200), expected);
    }

    #[test]
    fn values_and_nodes_that_go_are_told() {
        let shown = text(
            |wanted| {
                add(wanted, 4, "d");
                wanted.nodes.remove(&ringfort_ring::NodeId("n3".to_owned()));
                wanted.moving.bytes_per_s = 2 << 20;
                if let Some(n1) = wanted.nodes.values_mut().next() {
                    n1.zone.clear();
                }
            },
            Style::COLOURED,
            200,
        );
        for part in [
            "\x1b[33m~ cluster  move_rate 64.0 MiB/s -> 2.0 MiB/s\x1b[0m\n",
            "\x1b[33m~ n1  zone a -> (none)\x1b[0m\n",
            "\x1b[31m- n3  127.0.0.1:7003\x1b[0m\n",
            "\x1b[32m+ n4  127.0.0.1:7004\x1b[0m\n",
            "\x1b[31mn3 (leaves)\x1b[0m",
            "n4 in place of n3",
        ] {
            assert!(shown.contains(part), "{part:?} is missing in\n{shown}");
        }
    }

    #[test]
    fn a_narrow_terminal_gets_fewer_columns() {
        let head = |width| {
            let text = text(|wanted| add(wanted, 4, ""), Style::PLAIN, width);
            let line = text.lines().find(|line| line.starts_with("NODE")).expect("a head").to_owned();
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(head(100), "NODE HOLDS LEADS KEYS BYTES PEAK");
        assert_eq!(head(80), "NODE HOLDS LEADS BYTES PEAK");
        assert_eq!(head(60), "NODE HOLDS LEADS BYTES");
    }

    #[test]
    fn times_read_well() {
        let read = [0, 119, 121, 7_199, 7_260].map(duration);
        assert_eq!(read, ["about 0 s", "about 119 s", "about 3 min", "about 120 min", "about 2 h 1 min"]);
    }
}
