//! `check` against a server that is correct, or wrong in one way. Each wrong way must be flagged as what it is.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringfort_loadgen::check::{self, CheckError, Options, Report};

use crate::server::{Data, Fault, serve, serve_data};

fn options(target: String) -> Options {
    Options {
        clients: 8,
        duration: Duration::from_secs(2),
        rate: Some(20_000.0),
        keys: 64,
        ..Options::new(target)
    }
}

fn check(fault: Fault) -> Report {
    let report = check::run(&options(serve(fault))).expect("the server runs");
    assert!(report.acknowledged > 1000, "{report}");
    assert!(report.reads > 500, "{report:?}");
    // 20,000 a second for 2 s, and the last batches.
    assert!(report.acknowledged + report.reads <= 40_100, "{report:?}");
    assert_eq!(report.keys_unread, 0);
    assert_eq!(report.is_clean(), report.violations.is_empty(), "{report:?}");
    report
}

#[test]
fn a_correct_server_is_clean() {
    let report = check(Fault::None);
    assert_eq!((report.lost, report.stale, report.duplicated, report.unknown), (0, 0, 0, 0), "{report:?}");
    assert!(report.is_clean());
    let line = report.to_string();
    let start = format!(
        "acknowledged {}, lost 0, stale 0, duplicated 0, unknown 0, longest outage ",
        report.acknowledged
    );
    assert!(line.starts_with(&start) && line.ends_with(" ms"), "{line}");
}

#[test]
fn a_server_that_cuts_connections_is_clean_with_unknown_operations() {
    let report = check(Fault::CutsConnections);
    assert_eq!((report.lost, report.stale, report.duplicated), (0, 0, 0), "{report:?}");
    assert!(report.unknown > 10, "{report:?}");
    assert!(report.connections_broken > 10, "{report:?}");
}

#[test]
fn a_server_that_refuses_writes_is_clean_with_failed_operations() {
    let report = check(Fault::Refuses);
    assert_eq!((report.lost, report.stale, report.duplicated, report.unknown), (0, 0, 0, 0), "{report:?}");
    assert!(report.failed > 10, "{report:?}");
}

#[test]
fn lost_sets_are_flagged() {
    let report = check(Fault::LosesSet);
    // A lost SET is seen as stale until the next one covers it.
    assert!(report.lost + report.stale > 0, "{report:?}");
    assert_eq!(report.duplicated, 0, "{report:?}");
}

#[test]
fn lost_appends_are_flagged() {
    let report = check(Fault::LosesAppend);
    assert!(report.lost > 0, "{report:?}");
    assert_eq!(report.duplicated, 0, "{report:?}");
}

#[test]
fn lost_increments_are_flagged() {
    let report = check(Fault::LosesIncr);
    assert!(report.lost > 0, "{report:?}");
    assert_eq!(report.duplicated, 0, "{report:?}");
}

#[test]
fn appends_done_twice_are_flagged() {
    let report = check(Fault::AppendsTwice);
    assert!(report.duplicated > 0, "{report:?}");
    assert_eq!(report.lost, 0, "{report:?}");
}

#[test]
fn increments_done_twice_are_flagged() {
    let report = check(Fault::IncrementsTwice);
    assert!(report.duplicated > 0, "{report:?}");
    assert_eq!(report.lost, 0, "{report:?}");
}

#[test]
fn a_compare_and_set_that_compares_nothing_is_flagged() {
    let report = check(Fault::ComparesNothing);
    assert!(report.stale > 0, "{report:?}");
    assert!(report.violations.iter().any(|text| text.contains("no order explains")), "{report:?}");
}

#[test]
fn stale_reads_are_flagged() {
    let report = check(Fault::StaleReads);
    assert!(report.stale > 0, "{report:?}");
    assert_eq!((report.lost, report.duplicated), (0, 0), "{report:?}");
}

#[test]
fn writes_that_were_refused_and_done_are_flagged() {
    let report = check(Fault::DoesWhatItRefuses);
    assert!(report.duplicated > 0, "{report:?}");
}

#[test]
fn an_outage_is_timed() {
    // Answers nothing for a while in the middle of the run: the lock of its data is held.
    let data = Arc::new(Mutex::new(Data::default()));
    let address = serve_data(Arc::clone(&data), Fault::None);
    let outage = std::thread::spawn(move || {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while data.lock().expect("no thread panicked").count < 1000 {
            assert!(std::time::Instant::now() < deadline, "no writes arrive");
            std::thread::yield_now();
        }
        let _held = data.lock().expect("no thread panicked");
        // The length of the outage is what is measured, so this sleep is no wait for a condition.
        std::thread::sleep(Duration::from_millis(700));
    });
    let report = check::run(&options(address)).expect("the server runs");
    outage.join().expect("no panic");
    assert!(report.is_clean(), "{report:?}");
    assert!(report.longest_outage_ms >= 650.0, "{report:?}");
}

#[test]
fn no_server_is_an_error() {
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("bound").port()
    };
    let result = check::run(&options(format!("127.0.0.1:{port}")));
    assert!(matches!(result, Err(CheckError::Connect { .. })), "{result:?}");
}

#[test]
fn wrong_options_are_refused() {
    for wrong in [
        Options { clients: 0, ..options("127.0.0.1:1".to_owned()) },
        Options { keys: 5, ..options("127.0.0.1:1".to_owned()) },
        Options { rate: Some(0.0), ..options("127.0.0.1:1".to_owned()) },
        Options { reads_percent: 101, ..options("127.0.0.1:1".to_owned()) },
    ] {
        assert!(matches!(check::run(&wrong), Err(CheckError::Usage(_))), "{wrong:?}");
    }
}
