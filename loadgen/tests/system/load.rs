//! `fill` and `run`.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringfort_loadgen::load::workload::{Commands, Distribution, Mix, Verb, Workload};
use ringfort_loadgen::load::ycsb::{Form, Letter, Ycsb};
use ringfort_loadgen::load::{self, LoadError, Options};

use crate::server::{Data, Fault, serve, serve_cluster, serve_data};

const KEYS: u64 = 1_000;

pub(crate) fn options(target: String) -> Options {
    Options {
        target,
        clients: 7,
        threads: 2,
        pipeline: 16,
        duration: Duration::from_millis(500),
        rate: None,
        burst: 1,
        is_cluster: false,
        workload: Workload {
            commands: mix("get=1,set=1"),
            distribution: Some(Distribution::Uniform),
            keys: KEYS,
            value_bytes: 10,
            multi_keys: 1,
            seed: 1,
        },
        interval: Duration::from_millis(100),
        progress: false,
    }
}

fn mix(text: &str) -> Commands {
    Commands::Mix(text.parse().expect("a mix"))
}

fn fill_options(target: String) -> Options {
    let mut options = options(target);
    options.workload.commands = Commands::Mix(Mix::only(Verb::Set));
    options
}

fn start(fault: Fault) -> (String, Arc<Mutex<Data>>) {
    let data = Arc::new(Mutex::new(Data::default()));
    (serve_data(Arc::clone(&data), fault), data)
}

fn assert_filled(data: &Mutex<Data>) {
    let data = data.lock().expect("no thread panicked");
    let keys: Vec<_> = (0..KEYS).map(|n| format!("key:{n:012}").into_bytes()).collect();
    assert_eq!(data.values.keys().cloned().collect::<Vec<_>>(), keys);
    assert!(data.values.values().all(|value| value.len() == 10));
}

#[test]
fn fill_writes_every_key_once() {
    let (target, data) = start(Fault::None);
    let summary = load::fill(&fill_options(target)).expect("the server runs");
    assert_eq!((summary.operations, summary.errors, summary.broken), (KEYS, 0, 0), "{summary:?}");
    assert_filled(&data);
    assert_eq!(data.lock().expect("no thread panicked").count, KEYS);
}

#[test]
fn fill_repeats_what_was_refused_or_cut() {
    for fault in [Fault::Refuses, Fault::CutsConnections] {
        let (target, data) = start(fault);
        load::fill(&fill_options(target)).expect("the server runs");
        assert_filled(&data);
    }
}

#[test]
fn fill_ends_when_a_write_will_never_be_taken() {
    let (target, data) = start(Fault::None);
    let mut options = fill_options(target);
    options.workload.commands = mix("mset");
    let Err(LoadError::Fill(problem)) = load::fill(&options) else { panic!("the server has no MSET") };
    assert_eq!(problem.to_string(), "ERR unknown command");
    assert!(data.lock().expect("no thread panicked").values.is_empty());
}

#[test]
fn closed_loop_counts_every_operation() {
    let (target, data) = start(Fault::None);
    let mut options = options(target);
    options.workload.commands = mix("set");
    let summary = load::run(&options).expect("the server runs");
    assert!(summary.operations > 1_000, "{summary:?}");
    assert_eq!(summary.operations, data.lock().expect("no thread panicked").count);
    assert!((1..=5).contains(&summary.timeline.len()), "{summary:?}");
    assert_eq!(summary.operations, summary.timeline.iter().map(|row| row.operations).sum::<u64>());
    assert_eq!((summary.errors, summary.broken), (0, 0), "{summary:?}");
    assert!(summary.latency.p50_us > 0.0 && summary.latency.p50_us <= summary.latency.max_us, "{summary:?}");
}

#[test]
fn in_a_cluster_every_key_is_asked_of_its_node() {
    let data = Arc::new(Mutex::new(Data::default()));
    let [first, second] = serve_cluster(&data);
    let filled = load::fill(&Options { is_cluster: true, ..fill_options(first) }).expect("the nodes run");
    assert_eq!((filled.operations, filled.errors, filled.broken), (KEYS, 0, 0), "{filled:?}");
    assert_filled(&data);

    for rate in [None, Some(2_000.0)] {
        let options = Options { is_cluster: true, rate, ..options(second.clone()) };
        let summary = load::run(&options).expect("the nodes run");
        assert!(summary.operations >= 1_000, "{summary:?}");
        assert_eq!((summary.errors, summary.broken, summary.not_sent), (0, 0, 0), "{summary:?}");
    }
    let not_a_cluster = Options { is_cluster: false, ..options(second) };
    let summary = load::run(&not_a_cluster).expect("the nodes run");
    assert!(summary.first_error.is_some_and(|error| error.starts_with("MOVED")));
}

#[test]
fn workloads_of_ycsb_run_on_the_records_that_fill_wrote() {
    for letter in [Letter::A, Letter::B, Letter::C, Letter::D, Letter::E, Letter::F] {
        for (form, rate) in [(Form::String, None), (Form::Hash, None), (Form::Hash, Some(2_000.0))] {
            let (target, data) = start(Fault::None);
            let mut options = Options { rate, duration: Duration::from_millis(200), ..options(target) };
            options.workload.commands = Commands::Ycsb(Ycsb { letter, form });
            options.workload.distribution = None;
            let filled = load::fill(&options).expect("the server runs");
            assert_eq!((filled.errors, filled.broken), (0, 0), "{filled:?}");
            let names: Vec<_> = (0..KEYS).map(|n| format!("user:{n:012}").into_bytes()).collect();
            let records = || data.lock().expect("no thread panicked").values.clone();
            assert!(records().keys().eq(&names));

            let summary = load::run(&options).expect("the server runs");
            assert!(summary.operations > 10, "{letter:?} {form:?} {summary:?}");
            assert_eq!((summary.errors, summary.broken), (0, 0), "{letter:?} {form:?} {summary:?}");
            let after = records();
            let is_same = match form {
                Form::String => after.values().all(|record| record.len() == 100),
                Form::Hash => after.values().all(|writes| writes.len() == 1),
            };
            let has_updates = matches!(letter, Letter::A | Letter::B | Letter::F);
            assert_eq!(is_same, form == Form::String || !has_updates, "{letter:?} {form:?}");
            let has_inserts = matches!(letter, Letter::D | Letter::E);
            assert_eq!(after.len() > names.len(), has_inserts, "{letter:?} {form:?}");
        }
    }
}

#[test]
fn broken_connections_and_errors_are_counted_and_the_run_goes_on() {
    for rate in [None, Some(5_000.0)] {
        let summary =
            load::run(&Options { rate, ..options(serve(Fault::CutsConnections)) }).expect("the server runs");
        assert!(summary.broken > 0 && summary.operations > 200, "{summary:?}");
        let summary =
            load::run(&Options { rate, ..options(serve(Fault::Refuses)) }).expect("the server runs");
        assert!(summary.errors > 0 && summary.operations > summary.errors, "{summary:?}");
        assert_eq!(summary.first_error.as_deref(), Some("TRYAGAIN later"));
    }
}

#[test]
fn open_loop_keeps_its_schedule_and_counts_a_stall_in_full() {
    let (target, data) = start(Fault::None);
    let stall = std::thread::spawn(move || {
        let deadline = Instant::now() + Duration::from_secs(10);
        while data.lock().expect("no thread panicked").values.len() < 10 {
            assert!(Instant::now() < deadline, "no writes arrive");
            std::thread::yield_now();
        }
        let _held = data.lock().expect("no thread panicked");
        // The length of the stall is what is measured, so this sleep is no wait for a condition.
        std::thread::sleep(Duration::from_millis(400));
    });
    let options = Options { rate: Some(1_000.0), duration: Duration::from_secs(1), ..options(target) };
    let summary = load::run(&options).expect("the server runs");
    stall.join().expect("no panic");
    // Each of the two threads rounds its share up.
    assert!((1_000..=1_002).contains(&summary.operations), "{summary:?}");
    assert_eq!((summary.broken, summary.not_sent), (0, 0), "{summary:?}");
    // 400 of the 1,000 requests were due within the stall and waited 200 ms on average; a closed loop of 7 clients would
    // have seen 7 slow ones.
    assert!(summary.latency.p90_us > 200_000.0, "{summary:?}");
    // And the timeline has them: rows without answers while more and more wait, then the latencies of all.
    let stalled: Vec<_> = summary.timeline.iter().filter(|row| row.is_outage()).collect();
    assert!(stalled.is_sorted_by_key(|row| row.waiting), "{summary:?}");
    assert!(stalled.last().is_some_and(|row| row.waiting > 100), "{summary:?}");
    assert!(summary.timeline.iter().any(|row| row.max_us > 350_000.0), "{summary:?}");
    assert_eq!(summary.timeline.last().map(|row| row.waiting), Some(0));
}

#[test]
fn bursts_of_an_open_loop_are_whole_and_keep_its_rate() {
    let (target, data) = start(Fault::None);
    let options = Options {
        rate: Some(1_000.0),
        burst: 50,
        threads: 1,
        workload: Workload { commands: mix("incr=1"), ..options(String::new()).workload },
        ..options(target)
    };
    let summary = load::run(&options).expect("the server runs");
    // One is due every 50 ms, the first at once.
    assert_eq!((summary.operations, summary.errors, summary.not_sent), (500, 0, 0), "{summary:?}");
    assert!(!data.lock().expect("no thread panicked").values.is_empty());
}

#[test]
fn wrong_options_and_no_server_are_refused() {
    let good = options("127.0.0.1:1".to_owned());
    for wrong in [
        Options { clients: 0, ..good.clone() },
        Options { rate: Some(-1.0), ..good.clone() },
        Options { rate: Some(1.0), burst: 0, ..good.clone() },
    ] {
        assert!(matches!(load::run(&wrong), Err(LoadError::Usage(_))), "{wrong:?}");
    }
    assert!(matches!(load::run(&good), Err(LoadError::Connect { .. })));
}
