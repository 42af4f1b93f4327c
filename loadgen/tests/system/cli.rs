//! The built binary.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::server::{Fault, serve};

fn loadgen(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringfort-loadgen"));
    command.args(args).args(["--quiet", "--clients", "3", "--keys", "100"]);
    command.output().expect("the binary runs")
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("UTF-8")
}

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringfort-loadgen-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder for temporary files");
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").to_owned()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).expect("the file was written")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is the system's to clean.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_run_writes_what_it_is_asked_for() {
    let (target, folder) = (serve(Fault::None), Folder::new("run"));
    let filled = loadgen(&["fill", "--target", &target, "--workload", "ycsb-f"]);
    assert!(filled.status.success(), "{filled:?}");
    let (json, csv, html) = (folder.path("run.json"), folder.path("run.csv"), folder.path("run.html"));
    let run = ["run", "--target", &target, "--workload", "ycsb-f", "--duration", "500ms", "--rate", "1000"];
    let run = loadgen(&[&run[..], &["--json", &json, "--timeline", &csv, "--html", &html]].concat());
    assert_eq!(run.status.code(), Some(0), "{run:?}");
    assert!(
        text(run.stdout)
            .starts_with("run ycsb-f (strings) scrambled:0.99, 100 keys, 100 B, 3 clients, rate 1000/s -> ")
    );

    let json: serde_json::Value = serde_json::from_str(&folder.read("run.json")).expect("JSON");
    let operations = json["operations"].as_u64().expect("a number");
    assert!(operations >= 500, "{json}");
    let csv = folder.read("run.csv");
    let mut lines = csv.lines();
    let names: Vec<_> = lines.next().expect("names").split(',').collect();
    let at = names.iter().position(|name| *name == "operations").expect("a column");
    let of_rows =
        lines.map(|line| line.split(',').nth(at).and_then(|n| n.parse::<u64>().ok()).expect("a number"));
    assert_eq!(of_rows.sum::<u64>(), operations, "{csv}");
    assert!(folder.read("run.html").contains("ycsb-f (strings)"));
}

#[test]
fn a_timeline_without_a_file_follows_the_summary() {
    let target = serve(Fault::None);
    let run = loadgen(&["run", "--target", &target, "--duration", "300ms", "--timeline"]);
    assert_eq!(run.status.code(), Some(0), "{run:?}");
    let said = text(run.stdout);
    let rows = said.lines().skip_while(|line| !line.starts_with("at_s,")).count();
    assert!(rows >= 2, "{said}");
}

#[test]
fn a_comparison_names_its_targets_everywhere() {
    let (a, b) = (format!("first={}", serve(Fault::None)), format!("second={}", serve(Fault::None)));
    let folder = Folder::new("compare");
    let (json, lines, html) = (folder.path("c.json"), folder.path("c.jsonl"), folder.path("c.html"));
    let compare = ["compare", "--a", &a, "--b", &b, "--rounds", "2", "--duration", "200ms"];
    let compare =
        loadgen(&[&compare[..], &["--json", &json, "--timeline", &lines, "--html", &html]].concat());
    assert_eq!(compare.status.code(), Some(0), "{compare:?}");
    let printed = text(compare.stdout);
    assert!(printed.contains("first / second"), "{printed}");
    let json: serde_json::Value = serde_json::from_str(&folder.read("c.json")).expect("JSON");
    assert_eq!(json["targets"][1]["rounds"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["ratios"][0]["of"], "first");
    assert!(
        folder
            .read("c.jsonl")
            .lines()
            .last()
            .is_some_and(|row| row.starts_with(r#"{"target":"second","round":2,"#))
    );
    assert!(folder.read("c.html").contains("<h3>second</h3>"));
}

#[test]
fn usage_and_no_connection_are_2_and_failure_is_1() {
    let target = serve(Fault::None);
    let code = |args: &[&str]| loadgen(args).status.code();
    assert_eq!(code(&["run", "--target", "127.0.0.1:1"]), Some(2));
    assert_eq!(code(&["run", "--target", &target, "--workload", "ycsb-g"]), Some(2));
    assert_eq!(code(&["run", "--target", &target, "--workload", "ycsb-e", "--cluster"]), Some(2));
    assert_eq!(code(&["compare", "--a", &target, "--b", &target, "--pids", "c=1"]), Some(2));
    let nowhere = ["run", "--target", &target, "--duration", "10ms", "--html", "/nowhere/x.html"];
    assert_eq!(code(&nowhere), Some(1));
    // The server has no MSET: every reply is an error.
    assert_eq!(code(&["run", "--target", &target, "--mix", "mset", "--duration", "10ms"]), Some(1));
}
