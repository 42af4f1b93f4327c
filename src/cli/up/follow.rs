//! `ringfort up` follows its file: nodes that come are started and added, nodes that go are emptied and stopped.
//!
//! ```text
//! the file, stable for 500 ms --right--> Due --the cluster agrees--> Underway --nothing left--> Settled
//!      \--wrong: said, once               \--refused: said; the next save tries again---------^
//! ```
//! What is to be done is compared anew at every look ([`decide::todo`]), so a look that fails is made good by the next one.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringfort_ring::NodeId;
use ringfort_wire::ClusterMap;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::child::{Child, Phase};
use super::decide::{self, Kept, Todo};
use super::news::News;
use super::{Plan, node_spec, prepare, say, show};
use crate::cli::apply::{self, PLAN_AGAIN};
use crate::cli::output::{ColorChoice, Style, WIDTH_UNLIMITED, terminal_size};
use crate::cli::plan::{Made, ask_all_of};
use crate::cli::status::{NodeState, Status};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Config, ConfigError, NodeConfig, Place};
use crate::meta::plan::{Refusal, Wanted};
use crate::node::kept_map;

/// Time between two looks at the file.
const POLL: Duration = Duration::from_millis(250);
/// How long the file must stay as it is before it counts: an editor may still be writing.
const STABLE_US: u64 = 500_000;
/// Time between two looks at the cluster while something is to be done.
const LOOK: Duration = Duration::from_millis(500);
/// The same while nothing is: then only what happens by itself is told, and each look wakes every node.
const CALM: Duration = Duration::from_secs(10);
/// Looks for which a refusal that comes from the state of the cluster may pass by itself: replicas catch up.
const ATTEMPTS: u32 = 10;
/// Time between two lines of progress.
const PROGRESS_US: u64 = 2_000_000;
/// Begins the errors of the meta group after which nothing, or all, may be done: the same is asked for again.
const IN_DOUBT: [&str; 2] = ["CLUSTERDOWN", "ERR outcome unknown"];

/// What a cluster was heard to be.
type Heard = (ClusterMap, Status);

/// Keeps the nodes of the file running and the cluster as the file says.
pub(super) struct Follower<'a> {
    up: &'a Plan,
    phase: watch::Receiver<Phase>,
    children: BTreeMap<NodeId, Child>,
    /// The file's last right content, with what cannot change as it is.
    file: Config,
    /// What the processes run with.
    running: Config,
    state: State,
    watch: FileWatch,
    /// Epoch of the newest map that was heard of.
    epoch: u64,
    news: News,
    /// What hinders; the same is said once.
    said: String,
    /// What was wrong with the file last.
    wrong: String,
}

/// How far the cluster is towards the file.
enum State {
    /// It is to be asked for what the file says.
    Due {
        /// How often it was refused.
        attempts: u32,
        /// Whether the plan has been shown.
        is_shown: bool,
        /// Whether it is the file as it was at the start, of which nothing needs to be said if it has nothing new.
        is_first: bool,
    },
    /// The cluster has agreed.
    Underway {
        /// The epoch at which it did.
        epoch: u64,
        started_us: u64,
        /// Bytes that were to be moved.
        bytes: u64,
        /// When progress was told last, and what.
        told_us: u64,
        told: String,
    },
    /// There is nothing to ask for until the file changes.
    Settled {
        /// Whether the cluster is not what the file says.
        is_refused: bool,
    },
}

impl State {
    const DUE: Self = Self::Due { attempts: 0, is_shown: false, is_first: false };
    const REFUSED: Self = Self::Settled { is_refused: true };
    const SETTLED: Self = Self::Settled { is_refused: false };

    fn underway(epoch: u64) -> Self {
        let started_us = SystemClock.now().boot_us;
        Self::Underway { epoch, started_us, bytes: 0, told_us: 0, told: String::new() }
    }
}

impl<'a> Follower<'a> {
    /// Starts the nodes.
    pub(super) fn new(up: &'a Plan, phase: watch::Receiver<Phase>) -> Self {
        let start = |node: &NodeConfig| {
            let child = Child::start(node_spec(up, &node.id), Phase::StopNodes, phase.clone());
            (node.id.clone(), child)
        };
        // Read before a node that starts now may write another one.
        let news = News::new(prepare::newest_map(&up.data_dir).as_ref(), SystemClock.now().wall_ms);
        Self {
            up,
            news,
            children: up.running.nodes.iter().map(start).collect(),
            phase,
            file: up.config.clone(),
            running: up.running.clone(),
            state: State::Due { attempts: 0, is_shown: false, is_first: true },
            watch: FileWatch::new(up.file.clone(), up.stamp),
            epoch: 0,
            said: String::new(),
            wrong: String::new(),
        }
    }

    /// The processes, ordered by node.
    pub(super) fn children(&self) -> impl Iterator<Item = &Child> {
        self.children.values()
    }

    /// Ends the following and gives the processes back.
    pub(super) fn into_children(self) -> Vec<Child> {
        self.children.into_values().collect()
    }

    /// Follows the file for as long as it is polled.
    pub(super) async fn run(&mut self) {
        loop {
            let is_busy = self.is_busy();
            tokio::select! {
                () = self.watch.changed() => self.take(),
                () = sleep(LOOK), if is_busy => self.look().await,
                () = sleep(CALM), if !is_busy => self.listen().await,
            }
        }
    }

    /// Whether the cluster is to be looked at: something is to be done, or somebody else may do it.
    fn is_busy(&self) -> bool {
        let is_in_file = |node: &NodeConfig| self.file.node(&node.id).is_some();
        !matches!(self.state, State::Settled { .. }) || !self.running.nodes.iter().all(is_in_file)
    }

    /// Takes the file's new content, if it is right.
    fn take(&mut self) {
        let path = &self.up.file;
        let shown = path.display();
        let read = || -> anyhow::Result<Config> {
            let config = Config::load(path)?;
            config.load_tls(path)?;
            config.load_peer_secret()?;
            Ok(config)
        };
        let config = read();
        if self.watch.has_changed() {
            return; // what was read may be half of it
        }
        let config = match config {
            Ok(config) => config,
            Err(error) => {
                let text = format!("{error:#}");
                if text != self.wrong {
                    text.lines().for_each(say);
                    say(&format!("{shown} cannot be used as it is: nothing is changed"));
                    self.wrong = text;
                }
                return;
            }
        };
        self.wrong.clear();
        self.said.clear();
        let (file, kept) = decide::keep(&self.running, config);
        say_kept(path, kept);
        if file == self.file && matches!(self.state, State::Settled { is_refused: false }) {
            return;
        }
        say(&format!("{shown} has changed"));
        self.running.cluster.clone_from(&file.cluster);
        self.file = file;
        self.state = State::DUE;
    }

    /// Looks only for what is to be told. What hinders now is for whom it hinders.
    async fn listen(&mut self) {
        let _ = self.hear().await;
    }

    /// The newest map and the status; what is new in them is told. `None`: they came from a node that is behind.
    async fn hear(&mut self) -> anyhow::Result<Option<Heard>> {
        let (config, name) = (self.running.clone(), self.file_name());
        let (map, status) = blocking(move || ask_all_of(&config, &name)).await?;
        if map.epoch < self.epoch {
            return Ok(None);
        }
        self.epoch = map.epoch;
        self.news.sentences(&map, status.at_ms).iter().for_each(|sentence| say(sentence));
        Ok(Some((map, status)))
    }

    /// One look at the cluster, and the next step.
    async fn look(&mut self) {
        let (map, status) = match self.hear().await {
            Ok(Some(heard)) => heard,
            Ok(None) => return,
            Err(error) => return self.hindered(&format!("{error:#}")),
        };
        let todo = decide::todo(&self.file, &self.running, &map);
        self.stop(&todo.stop, &map).await;
        match self.state {
            State::Due { .. } => self.propose(todo, (map, status)).await,
            State::Underway { .. } => self.tell_progress(&map, &status),
            State::Settled { .. } => {}
        }
    }

    /// Stops the processes of nodes that are no members.
    async fn stop(&mut self, ids: &[NodeId], map: &ClusterMap) {
        for id in ids {
            let folder = self.up.data_dir.join(&id.0);
            let why =
                if map.former_nodes.contains(id) { "has left the cluster" } else { "is not in the cluster" };
            say(&format!(
                "{id} {why}: its process is stopped; its data stays in {} and can be deleted",
                folder.display()
            ));
            self.end(id).await;
            self.running.nodes.retain(|node| node.id != *id);
            if let Err(error) = self.write_own_file() {
                say(&format!("{error:#}"));
            }
        }
    }

    /// Has the cluster become what the file says: processes first, then addresses, then all else at once.
    async fn propose(&mut self, todo: Todo, heard: Heard) {
        if let Some(id) = self.left_over(&heard.0) {
            let folder = self.up.data_dir.join(&id.0);
            self.end(&id).await;
            self.running.nodes.retain(|node| node.id != id);
            return self.refused(&format!(
                "{id} was in the cluster before, and cannot join it with the data that it had: delete {}",
                folder.display()
            ));
        }
        if let Err(error) = self.start(todo.start) {
            return self.refused(&format!("{error:#}"));
        }
        if let Some(node) = todo.readdress {
            return self.readdress(node, heard).await;
        }
        let State::Due { attempts, is_shown, is_first } = self.state else { return };
        let (config, name) = (self.file.clone(), self.file_name());
        let made = blocking(move || Ok(Made::new(config, &name, heard))).await;
        let made = match made {
            Ok(Ok(made)) => made,
            Ok(Err(refusals)) => {
                // What no key of the file causes, the state of the cluster does.
                let may_pass = refusals.iter().all(|refusal| refusal.place == Place::File);
                if may_pass && attempts < ATTEMPTS {
                    self.state = State::Due { attempts: attempts + 1, is_shown, is_first };
                    return;
                }
                return self.refused(&lines_of(&self.up.file, refusals));
            }
            Err(error) => return self.refused(&format!("{error:#}")),
        };
        if made.plan.is_empty() {
            if made.map.change.is_some() {
                self.state = State::underway(made.map.planned_epoch);
                return;
            }
            if !is_first {
                let map = &made.map;
                say(&format!("cluster {} is as {} says, at epoch {}", map.name, self.file_name(), map.epoch));
            }
            self.state = State::SETTLED;
            return;
        }
        if !is_shown {
            let (width, _) = terminal_size().unwrap_or((WIDTH_UNLIMITED, 0));
            show(&made.text(Style::of_stdout(ColorChoice::Auto), width));
            self.state = State::Due { attempts, is_shown: true, is_first };
        }
        let removed = made.removed();
        if removed.len() > 1 {
            let (file, ids) = (self.file_name(), removed.join(", "));
            say(&format!(
                "{file} lacks {} nodes of the cluster ({ids}): if all of them are to leave, run `ringfort apply {file} --yes`",
                removed.len()
            ));
            self.state = State::REFUSED;
            return;
        }
        match blocking(move || apply::propose(&made)).await {
            Ok(Ok(epoch)) => {
                self.epoch = self.epoch.max(epoch);
                self.state = State::underway(epoch);
            }
            Ok(Err(error)) if error.contains(PLAN_AGAIN) => {}
            Ok(Err(error)) if IN_DOUBT.iter().any(|start| error.starts_with(start)) => self.hindered(&error),
            Ok(Err(error)) => self.refused(&error),
            Err(error) => self.refused(&format!("{error:#}")),
        }
    }

    /// A node that is to be added, and whose folder is of a change that was given up.
    fn left_over(&self, map: &ClusterMap) -> Option<NodeId> {
        let mut new = self.file.nodes.iter().map(|node| &node.id);
        let is_left_over = |id: &&NodeId| {
            let can_come = map.node(id).is_none() && !map.former_nodes.contains(*id);
            can_come && kept_map(&self.up.data_dir.join(&id.0)).is_some()
        };
        new.find(is_left_over).cloned()
    }

    /// Starts the processes of nodes that run from now on.
    fn start(&mut self, nodes: Vec<NodeConfig>) -> anyhow::Result<()> {
        if nodes.is_empty() {
            return Ok(());
        }
        for node in &nodes {
            prepare::check_node_ports(node, None, &self.up.file)?;
        }
        let before = self.running.clone();
        self.running.nodes.extend(nodes.iter().cloned());
        if let Err(error) = self.write_own_file() {
            self.running = before;
            return Err(error);
        }
        for NodeConfig { id, .. } in &nodes {
            say(&format!("starting {id}, data in {}", self.up.data_dir.join(&id.0).display()));
            self.begin(id);
        }
        Ok(())
    }

    /// Moves a node to its new addresses: nothing else may be missing meanwhile, and the next one has to wait.
    async fn readdress(&mut self, node: NodeConfig, heard: Heard) {
        let id = node.id.clone();
        let Some(old) = self.running.node(&id).cloned() else { return };
        if let Some(lacking) = lacking(&heard.1, &id) {
            return self.hindered(&format!("{id} stays at its addresses for now: {lacking}"));
        }
        if let Err(error) = prepare::check_node_ports(&node, Some(&old), &self.up.file) {
            return self.refused(&format!("{error:#}"));
        }
        let (map, _) = &heard;
        let mut wanted = Wanted::of_map(map);
        if let Some(member) = wanted.nodes.get_mut(&id) {
            member.client = node.client.to_string();
            member.peer = node.peer.to_string();
        }
        // The others can agree without it, unless the meta group is on few nodes.
        let is_told_first = map.meta.replica_on(&id).is_some() && map.meta.seats.len() < 3;
        let (config, name) = (self.running.clone(), self.file_name());
        let made = match blocking(move || Ok(Made::with(config, wanted, &name, heard))).await {
            Ok(Ok(made)) => made,
            Ok(Err(refusals)) => return self.refused(&lines_of(&self.up.file, refusals)),
            Err(error) => return self.refused(&format!("{error:#}")),
        };
        say(&format!(
            "{id} moves from {} to {} (peer {} to {}): it stops, the cluster is told, it starts again",
            old.client, node.client, old.peer, node.peer
        ));
        let tell = || blocking(move || if made.plan.is_empty() { Ok(Ok(0)) } else { apply::propose(&made) });
        let told = match is_told_first {
            true => {
                let told = tell().await;
                self.end(&id).await;
                told
            }
            false => {
                self.end(&id).await;
                tell().await
            }
        };
        let told = told.and_then(|told| told.map_err(anyhow::Error::msg));
        if told.is_ok() {
            self.running.nodes.iter_mut().filter(|running| running.id == id).for_each(|running| {
                (running.client, running.peer) = (node.client, node.peer);
            });
        }
        let written = self.write_own_file();
        self.begin(&id);
        match told.and_then(|epoch| written.map(|()| epoch)) {
            Ok(epoch) => {
                self.epoch = self.epoch.max(epoch);
                self.state = State::DUE;
            }
            Err(error) => self.refused(&format!("{error:#}")),
        }
    }

    /// Says how far the cluster is.
    fn tell_progress(&mut self, map: &ClusterMap, status: &Status) {
        let file = self.file_name();
        let State::Underway { epoch, started_us, bytes, told_us, told } = &mut self.state else { return };
        if map.planned_epoch < *epoch {
            return;
        }
        let now_us = SystemClock.now().boot_us;
        let seconds = now_us.saturating_sub(*started_us) as f64 / 1e6;
        if map.planned_epoch != *epoch {
            say(&format!(
                "somebody else has changed the cluster since (`ringfort apply`, `abort`): it is not as {file} says; save the \
                 file again to ask for that"
            ));
            self.state = State::REFUSED;
            return;
        }
        if map.change.is_none() {
            say(&format!(
                "done in {seconds:.1} s: cluster {} is as {file} says, at epoch {}",
                map.name, map.epoch
            ));
            self.state = State::SETTLED;
            return;
        }
        *bytes = (*bytes).max(status.moves.bytes_left);
        let sent = bytes.saturating_sub(status.moves.bytes_left);
        let line = apply::progress(&status.moves, sent, seconds, &apply::waits(map));
        if line != *told && *told_us + PROGRESS_US <= now_us {
            say(&line);
            (*told, *told_us) = (line, now_us);
        }
    }

    fn begin(&mut self, id: &NodeId) {
        let child = Child::start(node_spec(self.up, id), Phase::StopNodes, self.phase.clone());
        self.children.insert(id.clone(), child);
    }

    async fn end(&mut self, id: &NodeId) {
        if let Some(child) = self.children.get(id) {
            child.dismiss();
            child.ended().await;
        }
        self.children.remove(id);
    }

    fn write_own_file(&self) -> anyhow::Result<()> {
        prepare::write_own_file(&self.up.data_dir, &self.running)
    }

    fn file_name(&self) -> String {
        self.up.file.display().to_string()
    }

    /// Something is in the way that may pass by itself.
    fn hindered(&mut self, problem: &str) {
        if problem != self.said {
            say(&format!("waiting: {problem}"));
            problem.clone_into(&mut self.said);
        }
    }

    fn refused(&mut self, problem: &str) {
        problem.lines().for_each(say);
        say(&format!(
            "the cluster is not as {} says; it is tried again when the file is saved",
            self.file_name()
        ));
        self.state = State::REFUSED;
    }
}

/// Says what of the file at `path` does not count.
pub(super) fn say_kept(path: &Path, kept: Vec<Kept>) {
    ConfigError::at(path, kept).lines().iter().for_each(|line| say(line));
}

fn lines_of(path: &Path, refusals: Vec<Refusal>) -> String {
    ConfigError::at(path, refusals.into_iter().map(|refusal| (refusal.place, refusal.text))).to_string()
}

/// Why node `id` may not be stopped now.
fn lacking(status: &Status, id: &NodeId) -> Option<String> {
    let down = status.nodes.iter().find(|node| node.id != *id && node.state != NodeState::Up);
    let thin = status.partitions.iter().find(|partition| {
        partition.leader.is_none() || partition.lagging.iter().any(|lagging| lagging != id)
    });
    let of_node = down.map(|node| format!("{} is {}", node.id, node.state.as_str()));
    of_node.or_else(|| Some(format!("partition {} is not whole", thin?.id.0)))
}

/// Does what blocks beside everything else.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    spawn_blocking(work).await?
}

/// What tells one content of a file from another without reading it; `None`: there is none.
pub(super) type Stamp = Option<[i64; 6]>;

/// Looks at a file.
pub(super) fn stamp(path: &Path) -> Stamp {
    let about = std::fs::metadata(path).ok()?;
    let (ino, size) = (about.ino().cast_signed(), about.size().cast_signed());
    Some([about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec(), ino, size])
}

/// Notices that a file has another content, and has had it for a while. Polling sees what editors do to a file, such as
/// another one in its place, on every file system.
struct FileWatch {
    path: PathBuf,
    seen: Stamp,
    since_us: u64,
    taken: Stamp,
}

impl FileWatch {
    /// `taken` is what it was when it was read last.
    fn new(path: PathBuf, taken: Stamp) -> Self {
        Self { path, seen: taken, since_us: 0, taken }
    }

    /// Returns when the file is another one than it was, and stable.
    ///
    /// # Cancel safety
    /// Nothing is lost: what was seen is kept.
    async fn changed(&mut self) {
        loop {
            let (now_us, stamp) = (SystemClock.now().boot_us, stamp(&self.path));
            if stamp != self.seen {
                (self.seen, self.since_us) = (stamp, now_us);
            }
            if self.seen != self.taken && STABLE_US <= now_us.saturating_sub(self.since_us) {
                self.taken = self.seen;
                return;
            }
            sleep(POLL).await;
        }
    }

    /// Whether it has changed since [`Self::changed`] returned.
    fn has_changed(&self) -> bool {
        stamp(&self.path) != self.taken
    }
}
