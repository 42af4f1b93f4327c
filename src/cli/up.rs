//! `ringfort up`: a whole cluster on this machine, watched over by this process.
//!
//! ```text
//! Run --Ctrl-C--> StopProxy --proxy ended--> StopNodes --nodes ended--> exit 0
//!                     \------- Ctrl-C again -------\--> Kill ---------> exit 1
//! ```
//! The phase lies in one `watch` channel: each child's task ([`child::supervise`]) acts when the phase reaches its own.

mod child;
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

/// Run a whole cluster on this machine: every node of the file and a proxy, each a process of its own.
///
/// A process that dies is started again. Ctrl-C stops all of them in order; Ctrl-C again kills at once. The data stays, and
/// the next `up` goes on with it.
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
    config: Config,
    /// The file that the children read.
    file: PathBuf,
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
    let (config, file) = prepare::config(args.config, args.data_dir.as_deref())?;
    let listen = config.proxy.as_ref().map(|proxy| proxy.listen).with_context(|| {
        format!("{} has no [proxy] section: add it with listen = \"127.0.0.1:6379\"", file.display())
    })?;
    config.load_tls(&file)?;
    config.load_peer_secret()?;
    let data_dir = args.data_dir.unwrap_or_else(|| default_data_dir(&config.cluster.name));
    let _lock = prepare::lock(&data_dir)?;
    prepare::check_ports(&config, &file)?;
    if args.log.format(&config.log) == Format::Json {
        // The supervisor's own lines are among the children's, so they must have the same form.
        args.log.start(&config.log)?;
    }
    process::raise_open_files();
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let plan = Plan { config, file, data_dir, program, listen, faults: args.faults, log: args.log };
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
        plan.config.nodes.len(),
        plan.data_dir.display()
    ));
    let nodes: Vec<Child> = node_specs(plan)
        .into_iter()
        .map(|spec| Child::start(spec, Phase::StopNodes, phases.clone()))
        .collect();
    let proxy = Child::start(proxy_spec(plan), Phase::StopProxy, phases);

    tokio::select! {
        () = stop_signals.next() => {}
        () = announce(plan, &nodes) => {}
    }
    say("stopping the proxy, then the nodes; Ctrl-C again kills them at once");
    let mut killed = false;
    phase.send_replace(Phase::StopProxy);
    killed |= ended(vec![proxy], &mut stop_signals, &phase).await;
    if !killed {
        phase.send_replace(Phase::StopNodes);
    }
    killed |= ended(nodes, &mut stop_signals, &phase).await;
    anyhow::ensure!(!killed, "killed before all had stopped in order; acknowledged writes are in the logs");
    say(&format!("all stopped; the data is in {}", plan.data_dir.display()));
    Ok(())
}

/// Waits for the cluster to answer, shows how to use it, and never returns.
async fn announce(plan: &Plan, nodes: &[Child]) {
    ready::wait(plan.listen, |problem| say(&format!("still waiting for the cluster: {problem}"))).await;
    let pids: Vec<(String, Option<u32>)> =
        nodes.iter().map(|node| (node.label().to_owned(), node.pid())).collect();
    let banner = ready::Banner {
        config: &plan.config,
        file: &plan.file,
        data_dir: &plan.data_dir,
        listen: plan.listen,
        pids: &pids,
    };
    out(&banner.text(Style::of_stdout(ColorChoice::Auto)));
    std::future::pending().await
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

fn node_specs(plan: &Plan) -> Vec<ChildSpec> {
    let spec = |node: &crate::config::NodeConfig| {
        let id = &node.id.0;
        let mut args = arguments("node", plan);
        args.extend(["--id".into(), id.into(), "--data-dir".into(), plan.data_dir.join(id).into()]);
        // One worker each: the nodes share this machine's cores.
        args.extend(["--workers".into(), "1".into()]);
        ChildSpec { label: id.clone(), program: plan.program.clone(), args }
    };
    plan.config.nodes.iter().map(spec).collect()
}

fn proxy_spec(plan: &Plan) -> ChildSpec {
    let mut args = arguments("proxy", plan);
    args.extend(["--workers".into(), "1".into()]);
    ChildSpec { label: "proxy".to_owned(), program: plan.program.clone(), args }
}

fn arguments(subcommand: &str, plan: &Plan) -> Vec<OsString> {
    let mut args = vec![subcommand.into(), "--parent-pipe".into(), "--config".into(), (&plan.file).into()];
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
        let plan = Plan {
            config: Config::parse(crate::config::LOCAL_TOML, "local.toml").unwrap(),
            file: "f.toml".into(),
            data_dir: "d".into(),
            program: "/bin/ringfort".into(),
            listen: "127.0.0.1:6379".parse().unwrap(),
            faults: true,
            log: process::LogArgs { log_level: Some("debug".to_owned()), log_format: Some(Format::Json) },
        };
        let nodes = node_specs(&plan);
        assert_eq!(nodes.len(), 3);
        assert_eq!(nodes[1].label, "n2");
        let expected = [
            "node",
            "--parent-pipe",
            "--config",
            "f.toml",
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
        assert_eq!(nodes[1].args, expected);
        assert_eq!(
            proxy_spec(&Plan { faults: false, log: process::LogArgs::default(), ..plan }).args,
            ["proxy", "--parent-pipe", "--config", "f.toml", "--workers", "1"]
        );
    }

    #[test]
    fn times_read_well() {
        let of = |millis| readable(Duration::from_millis(millis));
        assert_eq!([of(200), of(1_600), of(5_000)], ["200 ms", "1.6 s", "5 s"]);
    }
}
