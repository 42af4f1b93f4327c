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
    for command in [
        "up",
        "node",
        "proxy",
        "status",
        "plan",
        "apply",
        "abort",
        "drain",
        "undrain",
        "transfer",
        "log-level",
        "check-config",
        "completions",
        "man",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is missing in {help}");
    }
    assert!(!help.contains("--rebuild"), "{help}");
}

#[test]
fn completions_know_every_subcommand() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = ringfort(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = text(&output.stdout);
        for word in ["check-config", "log-level", "status", "watch", "rebuild"] {
            assert!(script.contains(word), "{shell}: {word} is missing");
        }
    }
    assert_eq!(ringfort(&["completions", "tcsh"]).status.code(), Some(2));
}

#[test]
fn man_writes_a_page_for_every_subcommand() {
    let folder = std::env::temp_dir().join(format!("ringfort-cli-man-{}", std::process::id()));
    let path = folder.to_str().expect("a UTF-8 path");
    let output = ringfort(&["man", path]);
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    let (main, status) = (read("ringfort.1"), read("ringfort-status.1"));
    let _ = std::fs::remove_dir_all(&folder);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(main.contains(".TH ringfort 1") && main.contains("ringfort\\-status"), "{main}");
    assert!(status.contains("\\-\\-watch") && status.contains("ringfort status \\-\\-watch"), "{status}");
    assert_fails(&["man", "/dev/null/x"], &["error: cannot write to /dev/null/x: not a directory"]);
}

#[test]
fn log_options_are_checked() {
    let file = TempFile::new("log", ONE_NODE);
    for args in [&["--log-level", "loud"][..], &["--log-format", "xml"]] {
        let output = ringfort(&[&["proxy", "--config", file.path()], args].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
    let loud = "'loud' is no level: write off, error, warn, info, debug, trace, or MODULE=LEVEL, joined by commas, such \
                as info,ringfort::shard=debug";
    assert_fails(&["log-level", "loud", "--config", file.path()], &[&format!("error: {loud}")]);
    assert_fails(
        &["log-level", "--config", file.path()],
        &["error: n1 at 127.0.0.1:1 does not answer: connection refused"],
    );
    let wrong = TempFile::new(
        "wrong-log",
        &format!("{ONE_NODE}[log]\nlevel = \"loud\"\nformat = \"xml\"\nlevels = 1\n"),
    );
    let at = wrong.path();
    assert_fails(
        &["check-config", at],
        &[
            &format!("error: {at}:9: 'level' in [log] is wrong: {loud}"),
            &format!("error: {at}:10: 'format' in [log] is 'xml': use \"text\" or \"json\""),
            &format!("error: {at}:11: unknown key 'levels' in [log]; did you mean 'level'?"),
        ],
    );
}

#[test]
fn a_json_log_is_json_to_its_last_line() {
    let file = TempFile::new(
        "json",
        &format!("{ONE_NODE}[proxy]\nlisten = \"192.0.2.1:6379\"\n[log]\nformat = \"json\"\n")
            .replace("[cluster]\n", "[cluster]\npeer_secret_file = \"secret\"\n"),
    );
    let output = ringfort(&["proxy", "--config", file.path()]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    let lines: Vec<serde_json::Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    let last = lines.last().expect("an error");
    assert_eq!((&last["level"], &last["target"]), (&"ERROR".into(), &"ringfort::cli".into()), "{said}");
    assert!(
        last["message"]
            .as_str()
            .is_some_and(|m| m.starts_with("the peer secret ") && m.ends_with("no such file or directory")),
        "{said}"
    );
    assert!(last["timestamp"].is_string(), "{said}");
}

#[test]
fn check_config_reads_the_files_of_tls_and_warns_of_one_that_ended() {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let cert = params.self_signed(&key).expect("a certificate");
    let cert = TempFile::new("tls-cert", &cert.pem());
    let key = TempFile::new("tls-key", &key.serialize_pem());
    let of = |cert: &str, key: &str| {
        let tls = format!("[tls]\ncert_file = \"{cert}\"\nkey_file = \"{key}\"\n");
        let address = "client = \"127.0.0.1:1\"\ntls_client = \"127.0.0.1:3\"";
        TempFile::new("tls", &format!("{tls}{}", ONE_NODE.replace("client = \"127.0.0.1:1\"", address)))
    };
    let right = of(cert.path(), key.path());
    let output = ringfort(&["check-config", right.path()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let warning = text(&output.stderr);
    assert!(warning.contains(cert.path()) && warning.contains("expired"), "{warning}");
    drop(right);
    let swapped = of(key.path(), cert.path());
    let line = format!(
        "error: {}:2: 'cert_file' in [tls]: {}: holds no certificate: name a PEM file with BEGIN CERTIFICATE",
        swapped.path(),
        key.path()
    );
    assert_fails(&["check-config", swapped.path()], &[&line]);
}
