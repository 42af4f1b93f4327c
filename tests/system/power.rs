//! Loss of power, on real processes and files.
//!
//! Each node keeps a journal of all that it does to its data folder ([`ringfort::failpoint::note`]). From the journals the
//! folders are built as a loss of power at one moment may leave them: what was synced by then, and of what was not synced
//! nothing, or half of it. Then nodes start on these folders, after another boot of the machine.

use crate::client::Client;
use crate::cluster::{Cluster, Options};
use crate::wait::eventually;
use ringfort::clock::{Clock as _, SystemClock};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Keys that are written, spread over the partitions.
const KEYS: usize = 40;
/// Rounds over all keys; in `buffered` the log is synced once or twice meanwhile.
const ROUNDS: usize = 40;
/// Moments at which the power is lost.
const MOMENTS: usize = 2;
/// Moments that are looked at for one of them.
const CANDIDATES: usize = 20;
/// So that segments change and partitions are compacted meanwhile.
const LIMITS: &str = "limit.segment_bytes=32768\nlimit.compact_bytes_min=8192\n";
const JOURNAL: &str = "limit.journal=1\n";
/// Each value is this, its key, its round, and some more bytes.
const VALUE: &[u8] = b"power-";
const VALUE_BYTES: usize = 100;

/// What becomes of data and names that were not synced.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Unsynced {
    Lost,
    /// Names are there, and half of the bytes.
    Half,
    /// All is there: only the process has ended.
    Kept,
}

/// A file: what is in it, and what of that a sync has made durable.
#[derive(Debug, Default, Clone)]
struct File {
    data: Vec<u8>,
    durable: Vec<u8>,
}

/// The data folder of a node, rebuilt from its journal.
#[derive(Debug, Default, Clone)]
struct Disk {
    files: Vec<File>,
    names: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    /// By their numbers, syncs that have not ended.
    syncs: BTreeMap<String, Sync>,
}

/// What a sync makes durable when it ends: what there was at its begin.
#[derive(Debug, Clone)]
enum Sync {
    File(usize, Vec<u8>),
    Folder(BTreeMap<PathBuf, usize>),
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digit = |d: u8| char::from(d).to_digit(16).expect("hexadecimal") as u8;
    hex.as_bytes().chunks(2).map(|pair| 16 * digit(pair[0]) + digit(pair[1])).collect()
}

impl Disk {
    /// Follows a journal up to a moment.
    fn follow<'a>(&mut self, journal: &mut Peekable<impl Iterator<Item = &'a str>>, until_us: u64) {
        let is_due = |line: &&str| {
            let at_us = line.split(' ').next().and_then(|word| word.parse::<u64>().ok());
            at_us.expect("a time") <= until_us
        };
        while let Some(line) = journal.next_if(is_due) {
            self.apply(&line.split(' ').skip(1).collect::<Vec<_>>());
        }
    }

    fn apply(&mut self, words: &[&str]) {
        let path = PathBuf::from(words[1]);
        match words[0] {
            "create" => {
                self.files.push(File::default());
                self.names.insert(path, self.files.len() - 1);
            }
            "write" => {
                let offset = words[2].parse().expect("an offset");
                let data = &mut self.file(&path).data;
                data.truncate(offset);
                data.extend(bytes_of(words.get(3).copied().unwrap_or_default()));
            }
            "cut" => self.file(&path).data.truncate(words[2].parse().expect("a length")),
            "rename" => {
                let file = self.names.remove(&path).expect("the file is there");
                self.names.insert(words[2].into(), file);
            }
            "remove" => drop(self.names.remove(&path)),
            "sync" => {
                let file = self.names[&path];
                let begin = Sync::File(file, self.files[file].data.clone());
                self.syncs.insert(words[2].to_owned(), begin);
            }
            "sync-folder" => {
                let begin = Sync::Folder(in_folder(&self.names, &path));
                self.syncs.insert(words[2].to_owned(), begin);
            }
            "synced" | "synced-folder" => match self.syncs.remove(words[2]).expect("its begin") {
                Sync::File(file, data) => self.files[file].durable = data,
                Sync::Folder(names) => {
                    self.durable.retain(|name, _| name.parent() != Some(&path));
                    self.durable.extend(names);
                }
            },
            other => panic!("an unknown operation: {other}"),
        }
    }

    fn file(&mut self, path: &Path) -> &mut File {
        &mut self.files[self.names[path]]
    }

    /// Names and contents after the loss of power.
    fn after(&self, unsynced: Unsynced) -> impl Iterator<Item = (&PathBuf, &[u8])> {
        let names = if unsynced == Unsynced::Lost { &self.durable } else { &self.names };
        names.iter().map(move |(name, file)| {
            let File { data, durable, .. } = &self.files[*file];
            let left = match unsynced {
                Unsynced::Kept => data,
                Unsynced::Half if data.starts_with(durable) => &data[..(durable.len() + data.len()) / 2],
                Unsynced::Half | Unsynced::Lost => durable,
            };
            (name, left)
        })
    }

    /// Makes the folder as it is then.
    fn write(&self, from: &Path, to: &Path, unsynced: Unsynced) {
        let folders: BTreeSet<_> =
            self.names.keys().chain(self.durable.keys()).flat_map(|path| path.parent()).collect();
        let inner = |path: &Path| to.join(path.strip_prefix(from).expect("all is in the data folder"));
        folders.into_iter().for_each(|folder| fs::create_dir_all(inner(folder)).expect("a folder is made"));
        for (name, data) in self.after(unsynced) {
            fs::write(inner(name), data).expect("a file is written");
        }
    }

    /// The last round of each key that is durable.
    fn durable_rounds(&self) -> BTreeMap<usize, usize> {
        let mut rounds: BTreeMap<usize, usize> = BTreeMap::new();
        for (_, data) in self.after(Unsynced::Lost) {
            let values = data.windows(VALUE.len() + 10).filter(|window| window.starts_with(VALUE));
            for value in values {
                let number = |range: std::ops::Range<usize>| {
                    std::str::from_utf8(&value[range]).ok().and_then(|digits| digits.parse().ok())
                };
                if let (Some(key), Some(round)) = (number(6..10), number(10..16)) {
                    let last = rounds.entry(key).or_default();
                    *last = round.max(*last);
                }
            }
        }
        rounds
    }
}

fn in_folder(names: &BTreeMap<PathBuf, usize>, folder: &Path) -> BTreeMap<PathBuf, usize> {
    names.iter().filter(|(name, _)| name.parent() == Some(folder)).map(|(n, f)| (n.clone(), *f)).collect()
}

/// What was acknowledged, and when (µs). Rounds count from 1.
struct Acknowledged {
    at_us: u64,
    key: usize,
    round: usize,
}

fn value(key: usize, round: usize) -> String {
    let tail = VALUE_BYTES - VALUE.len() - 10;
    format!("{}{key:04}{round:06}{:tail$}", String::from_utf8_lossy(VALUE), "").replace(' ', ".")
}

fn write_some(cluster: &Cluster) -> Vec<Acknowledged> {
    let mut client = cluster.client();
    let mut acknowledged = Vec::new();
    for round in 1..=ROUNDS {
        for key in 0..KEYS {
            assert_eq!(client.call(&format!("SET key:{key} {}", value(key, round))), "+OK\r\n");
            acknowledged.push(Acknowledged { at_us: SystemClock.now().boot_us, key, round });
        }
    }
    acknowledged
}

/// The round of which a key's value is; 0: it has none.
fn round_of(client: &mut Client, key: usize) -> Result<usize, String> {
    let reply = client.try_call(&format!("GET key:{key}")).map_err(|error| error.to_string())?;
    match reply.split_once("\r\n") {
        Some(("$-1", _)) => Ok(0),
        Some(("$100", value)) => Ok(value[10..16].parse().expect("a number")),
        _ => Err(reply),
    }
}

/// A moment at which the power is lost: that of an acknowledgement.
struct Moment<'a> {
    at_us: u64,
    /// The data folders as they are then.
    disks: Vec<Disk>,
    /// What was acknowledged until then, in order.
    acknowledged: &'a [Acknowledged],
    /// The last round of each key that is durable on any node.
    durable: BTreeMap<usize, usize>,
}

impl<'a> Moment<'a> {
    fn new(disks: &[Disk], writes: &'a [Acknowledged]) -> Self {
        let (disks, at_us) = (disks.to_vec(), writes.last().expect("a write").at_us);
        let mut durable: BTreeMap<usize, usize> = BTreeMap::new();
        for (key, round) in disks.iter().flat_map(Disk::durable_rounds) {
            let last = durable.entry(key).or_default();
            *last = round.max(*last);
        }
        Self { at_us, disks, acknowledged: writes, durable }
    }

    /// Acknowledged writes that no disk holds.
    fn exposed(&self) -> usize {
        self.newer_than(&self.durable).len()
    }

    /// Acknowledged writes that came after these rounds of their keys, in order.
    fn newer_than(&self, rounds: &BTreeMap<usize, usize>) -> Vec<&'a Acknowledged> {
        let round = |write: &Acknowledged| rounds.get(&write.key).copied().unwrap_or(0);
        self.acknowledged.iter().filter(|write| round(write) < write.round).collect()
    }
}

/// What is known of a cluster that wrote for a while.
struct Past {
    /// The data folders that it had.
    folders: Vec<PathBuf>,
    journals: Vec<String>,
    acknowledged: Vec<Acknowledged>,
}

/// Starts a cluster, writes for a while, and kills all nodes.
fn live(durability: &'static str) -> (Cluster, Past) {
    let mut cluster = Cluster::prepare(Options { durability, failpoints: true, ..Options::default() });
    let control = format!("{LIMITS}{JOURNAL}");
    (0..3).for_each(|n| fs::write(cluster.control_path(n), &control).expect("the file is written"));
    cluster.start_all();
    cluster.wait_until_whole();
    let acknowledged = write_some(&cluster);
    cluster.kill_all();
    let journal = |n: usize| {
        let mut path = cluster.control_path(n).into_os_string();
        path.push(".journal");
        let journal = fs::read_to_string(path).expect("the node kept a journal");
        journal[..=journal.rfind('\n').expect("a line")].to_owned()
    };
    let journals = (0..3).map(journal).collect();
    (0..3).for_each(|n| fs::write(cluster.control_path(n), LIMITS).expect("the file is written"));
    let folders = (0..3).map(|n| cluster.node_folder(n)).collect();
    (cluster, Past { folders, journals, acknowledged })
}

impl Past {
    /// Moments spread over the time, each the one of several at which the most would be lost.
    fn worst_moments(&self) -> Vec<Moment<'_>> {
        let mut journals: Vec<_> = self.journals.iter().map(|journal| journal.lines().peekable()).collect();
        let mut disks = vec![Disk::default(); journals.len()];
        let mut moment = |end: usize| {
            let writes = &self.acknowledged[..end];
            for (disk, journal) in disks.iter_mut().zip(&mut journals) {
                disk.follow(journal, writes.last().expect("a write").at_us);
            }
            Moment::new(&disks, writes)
        };
        let ends = |i: usize| (self.acknowledged.len() * (i + 1)) / (MOMENTS * CANDIDATES);
        let worst = |i: usize| {
            let candidates = (i * CANDIDATES..(i + 1) * CANDIDATES).map(|i| moment(ends(i)));
            candidates.max_by_key(Moment::exposed).expect("a moment")
        };
        (0..MOMENTS).map(worst).collect()
    }

    /// Has the nodes lose power at a moment, each in its way, and starts them again. Returns the last round of each key
    /// that is there then.
    fn lose_power(
        &self,
        cluster: &mut Cluster,
        moment: &Moment<'_>,
        unsynced: [Unsynced; 3],
    ) -> BTreeMap<usize, usize> {
        cluster.data = cluster.folder.0.join(format!("at-{}", moment.at_us));
        for (n, unsynced) in unsynced.into_iter().enumerate() {
            moment.disks[n].write(&self.folders[n], &cluster.node_folder(n), unsynced);
            if unsynced != Unsynced::Kept {
                fs::write(cluster.node_folder(n).join("boot"), "another boot").expect("written");
            }
            cluster.start_node(n);
        }
        cluster.wait_until_serving();
        rounds(cluster, moment)
    }
}

/// The round of each key's value.
fn rounds(cluster: &Cluster, moment: &Moment<'_>) -> BTreeMap<usize, usize> {
    let mut client = cluster.client();
    let mut read = |key| eventually("a reply", Duration::from_secs(20), || round_of(&mut client, key));
    let keys: BTreeSet<usize> = moment.acknowledged.iter().map(|write| write.key).collect();
    keys.into_iter().map(|key| (key, read(key))).collect()
}

/// Ends a trial: the replicas agree, and what they hold survives a kill of all.
fn finish(cluster: &mut Cluster, moment: &Moment<'_>, found: &BTreeMap<usize, usize>) {
    cluster.wait_until_whole();
    cluster.wait_until_equal();
    cluster.wait_until_digests_are_equal();
    cluster.kill_all();
    (0..3).for_each(|n| cluster.start_node(n));
    cluster.wait_until_serving();
    assert_eq!(rounds(cluster, moment), *found, "after a kill of all");
    cluster.kill_all();
}

#[test]
fn with_fsync_a_loss_of_power_everywhere_loses_nothing() {
    let (mut cluster, past) = live("fsync");
    for (i, moment) in past.worst_moments().iter().enumerate() {
        assert_eq!(moment.exposed(), 0, "an acknowledged write was on no disk");
        let unsynced = if i == 1 { Unsynced::Half } else { Unsynced::Lost };
        let found = past.lose_power(&mut cluster, moment, [unsynced; 3]);
        assert_eq!(moment.newer_than(&found).len(), 0, "{unsynced:?}: {found:?}");
        finish(&mut cluster, moment, &found);
    }
}

/// That something is lost shows that the other trials can fail.
#[test]
fn with_buffered_a_loss_of_power_everywhere_loses_what_no_disk_held_and_says_so() {
    let (mut cluster, past) = live("buffered");
    let mut lost_in_all = 0;
    for (i, moment) in past.worst_moments().iter().enumerate() {
        let unsynced = if i == 1 { Unsynced::Half } else { Unsynced::Lost };
        let found = past.lose_power(&mut cluster, moment, [unsynced; 3]);
        for (key, round) in &moment.durable {
            assert!(round <= &found[key], "key:{key} was durable somewhere: {} of {round}", found[key]);
        }
        let lost = moment.newer_than(&found);
        let oldest_ms = lost.first().map_or(0, |write| (moment.at_us - write.at_us) / 1000);
        println!("{unsynced:?}: {} acknowledged writes lost, of the last {oldest_ms} ms", lost.len());
        lost_in_all += lost.len();
        for n in 0..3 {
            let said =
                "the machine stopped unplanned: up to a second of acknowledged writes may be missing here";
            assert!(cluster.node(n).output().contains(said), "{}", cluster.node(n).output());
        }
        let status = cluster.status();
        let recoveries = status["recoveries"].as_array().expect("the recoveries");
        assert_eq!(recoveries.len(), 16, "{status}");
        assert!(recoveries.iter().all(|r| r["suspects"] == 3 && r["incarnation"] == 2), "{status}");
        finish(&mut cluster, moment, &found);
    }
    assert!(0 < lost_in_all, "no moment was found at which something is lost");
}

#[test]
fn with_buffered_a_loss_of_power_at_one_machine_loses_nothing() {
    let (mut cluster, past) = live("buffered");
    for (i, moment) in past.worst_moments().iter().enumerate() {
        assert!(0 < moment.exposed(), "all was on a disk");
        let mut unsynced = [Unsynced::Kept; 3];
        unsynced[i % 3] = Unsynced::Lost;
        // The process of the others ends as well.
        let found = past.lose_power(&mut cluster, moment, unsynced);
        assert_eq!(moment.newer_than(&found).len(), 0, "n{}: {found:?}", i % 3 + 1);
        finish(&mut cluster, moment, &found);
    }
}
