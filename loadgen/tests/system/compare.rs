//! `compare`.

use std::time::Duration;

use ringfort_loadgen::compare::{self, Options, Target};
use ringfort_loadgen::load::LoadError;

use crate::load::options as load;
use crate::server::{Fault, serve};

fn target(name: &str, address: String) -> Target {
    Target { name: name.to_owned(), address, pids: vec![std::process::id()] }
}

fn options() -> Options {
    let mut load = load(String::new());
    load.duration = Duration::from_millis(100);
    let targets = vec![target("good", serve(Fault::None)), target("bad", serve(Fault::Refuses))];
    Options { load, targets, rounds: 3 }
}

#[test]
fn every_target_has_its_turn_in_every_round() {
    let comparison = compare::run(&options()).expect("the servers run");
    let [good, bad] = &comparison.targets[..] else { panic!("{comparison:?}") };
    assert_eq!((good.name.as_str(), bad.name.as_str()), ("good", "bad"));
    assert_eq!((good.rounds.len(), bad.rounds.len()), (3, 3));
    assert!(good.errors == 0 && bad.errors > 0, "{comparison:?}");
    let of_rounds: Vec<_> = good.rounds.iter().map(|round| round.ops_per_second).collect();
    let spread = good.figures.ops_per_second;
    assert!(of_rounds.contains(&spread.median) && of_rounds.contains(&spread.min), "{comparison:?}");
    assert!(spread.min <= spread.median && spread.median <= spread.max);
    assert!(good.figures.cpu_us.is_some_and(|cpu| cpu.median > 0.0), "{comparison:?}");
    let longest = good.rounds.iter().map(|round| round.latency.max_us).fold(0.0, f64::max);
    assert!((good.latency.max_us - longest).abs() < 1e-9, "all rounds together");

    let [ratio] = &comparison.ratios[..] else { panic!("{comparison:?}") };
    assert_eq!((ratio.of.as_str(), ratio.to.as_str()), ("good", "bad"));
    let first = good.rounds[0].ops_per_second / bad.rounds[0].ops_per_second;
    let spread = ratio.figures.ops_per_second;
    assert!(spread.min <= first && first <= spread.max, "of the same round");
}

#[test]
fn wrong_comparisons_are_refused() {
    let good = options();
    let mut wrong = vec![Options { rounds: 0, ..good.clone() }];
    wrong.push(Options { targets: good.targets[..1].to_vec(), ..good.clone() });
    wrong.push(Options { targets: vec![good.targets[0].clone(); 2], ..good.clone() });
    let mut cluster = good.clone();
    cluster.load.is_cluster = true;
    wrong.push(cluster);
    for wrong in wrong {
        assert!(matches!(compare::run(&wrong), Err(LoadError::Usage(_))), "{wrong:?}");
    }
    let mut gone = good;
    gone.targets[1].pids = vec![u32::MAX];
    assert!(matches!(compare::run(&gone), Err(LoadError::Process { .. })));
}
