//! The binary's command line: exit codes, and errors as one clear line each on stderr.

use std::path::PathBuf;
use std::process::{Command, Output};

fn ringfort(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringfort")).args(args).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

/// Asserts a failure with exit code 1, nothing on stdout and exactly these lines on stderr.
fn assert_fails(args: &[&str], lines: &[&str]) {
    let output = ringfort(args);
    assert_eq!(text(&output.stderr).lines().collect::<Vec<_>>(), lines, "{args:?}");
    assert_eq!(text(&output.stdout), "", "{args:?}");
    assert_eq!(output.status.code(), Some(1), "{args:?}");
}

/// A file of its own for each test; removed at the end.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringfort-cli-{name}-{}.toml", std::process::id()));
        std::fs::write(&path, content).expect("the temporary folder can be written");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a UTF-8 path")
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

const ONE_NODE: &str = "\
[cluster]
name = \"one\"
replicas = 1
[[node]]
id = \"n1\"
client = \"127.0.0.1:1\"
peer = \"127.0.0.1:2\"
";

#[test]
fn check_config_accepts_every_file_under_configs() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/configs");
    for entry in std::fs::read_dir(folder).expect("configs/ is there") {
        let path = entry.expect("an entry").path().display().to_string();
        let output = ringfort(&["check-config", &path]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(
            text(&output.stdout).starts_with(&format!("{path}: ok: cluster \"")),
            "{}",
            text(&output.stdout)
        );
    }
}

#[test]
fn check_config_prints_each_problem_on_its_line() {
    let file = TempFile::new(
        "wrong",
        &ONE_NODE.replace("peer =", "peeer =").replace("replicas = 1", "replicas = 4"),
    );
    let at = file.path();
    assert_fails(
        &["check-config", at],
        &[
            &format!(
                "error: {at}:3: 'replicas' in [cluster] is 4: use 1 (no copy) or 3 (survives the loss of a node)"
            ),
            &format!("error: {at}:4: key 'peer' is missing in [[node]]"),
            &format!("error: {at}:7: unknown key 'peeer' in [[node]]; did you mean 'peer'?"),
        ],
    );
}

#[test]
fn a_missing_file_is_one_line() {
    assert_fails(
        &["check-config", "/no/such.toml"],
        &["error: /no/such.toml: cannot be read: no such file or directory"],
    );
    assert_fails(
        &["up", "--config", "/no/such.toml"],
        &["error: /no/such.toml: cannot be read: no such file or directory"],
    );
}

#[test]
fn status_says_what_to_do_when_nobody_answers() {
    let file = TempFile::new("status", ONE_NODE);
    let at = file.path();
    let expected =
        format!("error: no node of {at} answers; is the cluster running? start it with `ringfort up`");
    assert_fails(&["status", "--config", at], &[&expected]);
    assert_fails(
        &["status", "--at", "127.0.0.1:1"],
        &[
            "error: 127.0.0.1:1 does not answer: connection refused; is the cluster running? start it with `ringfort up`",
        ],
    );
}

#[test]
fn node_and_proxy_refuse_what_the_file_does_not_have() {
    let file = TempFile::new("node", ONE_NODE);
    let at = file.path();
    assert_fails(
        &["node", "--config", at, "--id", "n2"],
        &[&format!("error: no node 'n2' in {at}; its nodes are n1")],
    );
    assert_fails(&["proxy", "--config", at], &[&format!("error: {at} has no [proxy] section")]);
    assert_fails(
        &["up", "--config", at],
        &[&format!("error: {at} has no [proxy] section: add it with listen = \"127.0.0.1:6379\"")],
    );
}

#[test]
fn up_refuses_a_folder_it_cannot_make() {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/local.toml");
    assert_fails(
        &["up", "--config", config, "--data-dir", "/dev/null/data"],
        &["error: cannot make the data folder /dev/null/data: not a directory"],
    );
}

#[test]
fn wrong_usage_exits_with_2() {
    for args in [&["stauts"][..], &["status", "--jsno"], &["node"], &["node", "--workers", "0"], &[]] {
        assert_eq!(ringfort(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn help_shows_only_what_exists() {
    let output = ringfort(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    for command in ["up", "node", "proxy", "status", "check-config"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is missing in {help}");
    }
    for later in ["plan", "apply", "abort", "drain", "transfer", "completions", "--rebuild", "--watch"] {
        assert!(!help.contains(&format!("  {later} ")), "{later} is shown in {help}");
    }
}
