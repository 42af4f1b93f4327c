//! `ringfort up`: a whole cluster on this machine, watched over by this process.
//!
//! ```text
//! Run --Ctrl-C--> StopProxy --proxy ended--> StopNodes --nodes ended--> exit 0
//!                     \------- Ctrl-C again -------\--> Kill ---------> exit 1
//! ```
//! The phase lies in one `watch` channel: each child's task ([`child::supervise`]) acts when the phase reaches its own.

mod child;
mod decide;
mod follow;
mod news;
mod prepare;
mod ready;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use ringfort_proxy::logging::{self, Format};

use crate::config::Config;

use super::output::{ColorChoice, Style, out};
use super::{default_data_dir, process};
use child::{Child, ChildSpec, Phase};
use follow::Follower;
use ringfort_ring::NodeId;

/// Run a whole cluster on this machine: every node of the file and a proxy, each a process of its own.
///
/// A process that dies is started again. Ctrl-C stops all of them in order; Ctrl-C again kills at once. The data stays, and
/// the next `up` goes on with it.
///
/// It follows the file: a [[node]] block that is added and saved is started, the plan is printed and carried out; a node that
/// is taken out is emptied, then stopped. A file that is wrong changes nothing. To take out several nodes at a time, run
/// `ringfort apply` with --yes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ringfort up                             everything from configs/local.toml
  ringfort up --config my.toml --data-dir /tmp/demo
  redis-cli -p 6379 set greeting hello    in another terminal")]
pub(super) struct Args {
    /// The file that describes the cluster [default: configs/local.toml, or a built-in copy of it]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the data, made when missing; each node has a folder in it [default: data/CLUSTER]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Let `ringfort-loadgen check --nemesis` cut links and fill disks: for tests only
    #[arg(long)]
    faults: bool,
    #[command(flatten)]
    log: process::LogArgs,
}

/// What is run: checked, and with the folder locked.
struct Plan {
    /// What the file asks for, with what makes the cluster the one that it is.
    config: Config,
    /// With what the processes start.
    running: Config,
    /// The user's file. The processes read [`prepare::own_file`].
    file: PathBuf,
    /// What the file was like when it was read.
    stamp: follow::Stamp,
    data_dir: PathBuf,
    /// This program.
    program: PathBuf,
    listen: std::net::SocketAddr,
    /// Whether the children take RINGFORT FAULT.
    faults: bool,
    /// How the children log.
    log: process::LogArgs,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let (config, file, stamp) = prepare::config(args.config, args.data_dir.as_deref())?;
    let listen = config.proxy.as_ref().map(|proxy| proxy.listen).with_context(|| {
        format!("{} has no [proxy] section: add it with listen = \"127.0.0.1:6379\"", file.display())
    })?;
    config.load_tls(&file)?;
    config.load_peer_secret()?;
    let data_dir = args.data_dir.unwrap_or_else(|| default_data_dir(&config.cluster.name));
    let _lock = prepare::lock(&data_dir)?;
    let start = match prepare::newest_map(&data_dir) {
        Some(map) => {
            anyhow::ensure!(
                map.name == config.cluster.name,
                "the data folder {} is of cluster '{}', {} of cluster '{}'",
                data_dir.display(),
                map.name,
                file.display(),
                config.cluster.name
            );
            decide::start(config, &map, prepare::is_taken)
        }
        None => decide::Start { running: config.clone(), file: config, kept: Vec::new() },
    };
    let decide::Start { file: config, running, kept } = start;
    prepare::check_ports(&running, &file)?;
    prepare::write_own_file(&data_dir, &running)?;
    if args.log.format(&config.log) == Format::Json {
        // The supervisor's own lines are among the children's, so they must have the same form.
        args.log.start(&config.log)?;
    }
    follow::say_kept(&file, kept);
    process::raise_open_files();
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let (faults, log) = (args.faults, args.log);
    let plan = Plan { config, running, file, stamp, data_dir, program, listen, faults, log };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(run_cluster(&plan));
    // A probe of the proxy may still wait for its time-out.
    runtime.shutdown_background();
    result
}

async fn run_cluster(plan: &Plan) -> anyhow::Result<()> {
    let mut stop_signals = StopSignals::new().context("cannot watch for signals")?;
    let (phase, phases) = watch::channel(Phase::Run);
    say(&format!(
        "starting {} nodes and a proxy, data in {}",
        plan.running.nodes.len(),
        plan.data_dir.display()
    ));
    let mut follower = Follower::new(plan, phases.clone());
    let proxy = Child::start(proxy_spec(plan), Phase::StopProxy, phases);

    let serve = async {
        announce(plan, follower.children()).await;
        follower.run().await;
    };
    tokio::select! {
        () = stop_signals.next() => {}
        () = serve => {}
    }
    say("stopping the proxy, then the nodes; Ctrl-C again kills them at once");
    let mut killed = false;
    phase.send_replace(Phase::StopProxy);
    killed |= ended(vec![proxy], &mut stop_signals, &phase).await;
    if !killed {
        phase.send_replace(Phase::StopNodes);
    }
    killed |= ended(follower.into_children(), &mut stop_signals, &phase).await;
    anyhow::ensure!(!killed, "killed before all had stopped in order; acknowledged writes are in the logs");
    say(&format!("all stopped; the data is in {}", plan.data_dir.display()));
    Ok(())
}

/// Waits for the cluster to answer and shows how to use it.
async fn announce<'a>(plan: &Plan, nodes: impl Iterator<Item = &'a Child>) {
    ready::wait(plan.listen, |problem| say(&format!("still waiting for the cluster: {problem}"))).await;
    let pids: Vec<(String, Option<u32>)> = nodes.map(|node| (node.label().to_owned(), node.pid())).collect();
    let banner = ready::Banner {
        config: &plan.config,
        file: &plan.file,
        data_dir: &plan.data_dir,
        listen: plan.listen,
        pids: &pids,
    };
    out(&banner.text(Style::of_stdout(ColorChoice::Auto)));
}

/// Waits until all `children` have ended; a signal meanwhile kills them. Whether that happened.
async fn ended(children: Vec<Child>, stop_signals: &mut StopSignals, phase: &watch::Sender<Phase>) -> bool {
    let all = async {
        for child in children {
            child.ended().await;
        }
    };
    tokio::pin!(all);
    let mut killed = false;
    loop {
        tokio::select! {
            () = &mut all => return killed,
            () = stop_signals.next() => {
                killed = true;
                phase.send_replace(Phase::Kill);
            }
        }
    }
}

fn node_spec(plan: &Plan, id: &NodeId) -> ChildSpec {
    let mut args = arguments("node", plan);
    args.extend(["--id".into(), (&id.0).into(), "--data-dir".into(), plan.data_dir.join(&id.0).into()]);
    // One worker each: the nodes share this machine's cores.
    args.extend(["--workers".into(), "1".into()]);
    ChildSpec { label: id.0.clone(), program: plan.program.clone(), args }
}

fn proxy_spec(plan: &Plan) -> ChildSpec {
    let mut args = arguments("proxy", plan);
    args.extend(["--workers".into(), "1".into()]);
    ChildSpec { label: "proxy".to_owned(), program: plan.program.clone(), args }
}

fn arguments(subcommand: &str, plan: &Plan) -> Vec<OsString> {
    let file = prepare::own_file(&plan.data_dir);
    let mut args = vec![subcommand.into(), "--parent-pipe".into(), "--config".into(), file.into()];
    args.extend(plan.log.arguments());
    if plan.faults {
        args.push("--faults".into());
    }
    args
}

/// Says what the supervisor itself does.
fn say(text: &str) {
    if logging::format() == Some(Format::Json) {
        tracing::info!(process = "up", "{text}");
    } else {
        out(&format!("[up] {text}"));
    }
}

/// Shows a text of several lines.
fn show(text: &str) {
    if logging::format() == Some(Format::Json) { say(text) } else { _ = out(text) }
}

/// Ctrl-C, SIGTERM, and the end of the terminal.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl StopSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

/// `time` for people: `200 ms`, `1.6 s`, `5 s`.
fn readable(time: Duration) -> String {
    match time.as_millis() {
        millis if millis < 1_000 => format!("{millis} ms"),
        millis if millis.is_multiple_of(1_000) => format!("{} s", millis / 1_000),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_told_all_in_separate_arguments() {
        let config = Config::parse(crate::config::LOCAL_TOML, "local.toml").unwrap();
        let plan = Plan {
            running: config.clone(),
            config,
            file: "f.toml".into(),
            stamp: None,
            data_dir: "d".into(),
            program: "/bin/ringfort".into(),
            listen: "127.0.0.1:6379".parse().unwrap(),
            faults: true,
            log: process::LogArgs { log_level: Some("debug".to_owned()), log_format: Some(Format::Json) },
        };
        let n2 = node_spec(&plan, &NodeId("n2".to_owned()));
        assert_eq!(n2.label, "n2");
        let expected = [
            "node",
            "--parent-pipe",
            "--config",
            "d/up.toml",
            "--log-level",
            "debug",
            "--log-format",
            "json",
            "--faults",
            "--id",
            "n2",
            "--data-dir",
            "d/n2",
            "--workers",
            "1",
        ];
        assert_eq!(n2.args, expected);
        assert_eq!(
            proxy_spec(&Plan { faults: false, log: process::LogArgs::default(), ..plan }).args,
            ["proxy", "--parent-pipe", "--config", "d/up.toml", "--workers", "1"]
        );
    }

    #[test]
    fn times_read_well() {
        let of = |millis| readable(Duration::from_millis(millis));
        assert_eq!([of(200), of(1_600), of(5_000)], ["200 ms", "1.6 s", "5 s"]);
    }
}
