//! How often the paths of a GET and a SET of a present key ask the allocator, in pipelines of 16, at steady state.
#![expect(clippy::print_stdout, reason = "the figures are what one runs it for")]

use allocation_counter::{measure, opt_out};
use ringfort_measure::requests::{PIPELINE, Pipelines, Spread};
use ringfort_measure::{Direct, Proxied};

/// Checks the allocations of a SET and of a GET, on average.
fn check(path: &str, spread: Spread, mut ask: impl FnMut(&[u8], usize), most: [f64; 2]) {
    for (command, pipelines, most) in
        [("SET", Pipelines::set(spread), most[0]), ("GET", Pipelines::get(spread), most[1])]
    {
        let mut round = || pipelines.requests.iter().for_each(|p| ask(p, pipelines.reply_bytes));
        (0..3).for_each(|_| round());
        let count = measure(round).count_total as f64 / (pipelines.requests.len() * PIPELINE) as f64;
        println!("{command} {path}, keys of {spread:?}: {count:.3} allocations");
        assert!(
            count <= most,
            "{command} {path}, keys of {spread:?}: {count:.3} allocations, {most} at most"
        );
    }
}

#[test]
fn of_a_node() {
    for (spread, most) in [(Spread::One, [0.95, 0.07]), (Spread::Many, [5.4, 0.07])] {
        let mut client = Direct::new(1);
        check("on a node", spread, |p, n| client.ask(p, n), most);
    }
}

#[test]
fn of_a_node_behind_a_proxy() {
    for (spread, most) in [(Spread::One, [1.14, 0.52]), (Spread::Many, [5.75, 0.46])] {
        let mut client = Proxied::new(1);
        check(
            "on a node behind a proxy, and on the proxy",
            spread,
            |p, n| client.ask(p, n, |node| node()),
            most,
        );
    }
}

#[test]
fn of_a_proxy() {
    for (spread, most) in [(Spread::One, [0.2, 0.26]), (Spread::Many, [0.34, 0.21])] {
        let mut client = Proxied::new(1);
        check("on a proxy", spread, |p, n| client.ask(p, n, |node| opt_out(node)), most);
    }
}
