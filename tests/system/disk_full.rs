//! A disk that fills up: others lead meanwhile; if none has room writes are refused, reads go on, and writes return with the
//! room.

use crate::cluster::{Cluster, Options};
use crate::wait::eventually;
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A memory disk; `None` where this user may not mount.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).expect("the folder is made");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", "size=400m", "tmpfs"]).arg(at).output();
        match output {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            _ => None,
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    let mut cluster = Cluster::prepare(Options::default());
    let data = cluster.folder.0.join("disk");
    let Some(_disk) = Tmpfs::mount(&data) else {
        println!("skipped: this user may not mount a tmpfs");
        return;
    };
    cluster.data = data.clone();
    cluster.start_all();
    let mut client = cluster.client();
    assert_eq!(client.call("SET k before"), "+OK\r\n");
    // Fewer than 256 MiB are left.
    fs::write(data.join("filler"), vec![1_u8; 200 << 20]).expect("the filler fits");
    // Who notices first hands over to who has not.
    eventually("all notice", Duration::from_secs(10), || {
        let has_noticed = |n: usize| cluster.node(n).output().contains("the disk is almost full");
        if (0..3).all(has_noticed) { Ok(()) } else { Err("not all".to_owned()) }
    });
    eventually("MISCONF", Duration::from_secs(10), || match client.call("SET k after") {
        reply if reply.starts_with("-MISCONF") => Ok(()),
        reply => Err(reply),
    });
    // What the refusals said is so: the last acknowledged value stands.
    let value = client.call("GET k");
    assert!(value == "$6\r\nbefore\r\n" || value == "$5\r\nafter\r\n", "{value}");
    assert!(client.call("SET k never").starts_with("-MISCONF"));
    assert!(client.call("INCR n").starts_with("-MISCONF"));
    assert_eq!(client.call("GET k"), value);
    assert_eq!(client.call("GET n"), "$-1\r\n");
    assert!(cluster.node_client(cluster.leader_of("k")).call("SET k never").starts_with("-MISCONF"));
    // Full to the last byte.
    fs::write(data.join("more"), vec![1_u8; 200 << 20]).expect_err("no room for so much");
    assert_eq!(client.call("GET k"), value);
    // An election in which nobody can write down a vote: no leader until there is room, and no harm.
    let leader = cluster.leader_of("k");
    cluster.node(leader).signal(Signal::STOP);
    let _ = client.call("GET k");
    cluster.node(leader).signal(Signal::CONT);
    fs::remove_file(data.join("more")).expect("removed");
    fs::remove_file(data.join("filler")).expect("removed");
    eventually("writes", Duration::from_secs(20), || match client.call("SET k again") {
        reply if reply == "+OK\r\n" => Ok(()),
        reply => Err(reply),
    });
    assert_eq!(client.call("GET k"), "$5\r\nagain\r\n");
    cluster.wait_until_equal();
    // The node lives on what it wrote meanwhile.
    cluster.kill_all();
    cluster.start_all();
    assert_eq!(cluster.client().call("GET k"), "$5\r\nagain\r\n");
}

#[track_caller]
fn wait_until_it_leads(cluster: &Cluster) {
    eventually("a node that leads", Duration::from_secs(20), || match cluster.leads(0)? {
        0 => Err("it leads nothing".to_owned()),
        _ => Ok(()),
    });
}

#[test]
fn a_leader_whose_disk_is_almost_full_hands_over_to_others_that_have_room() {
    let mut cluster = Cluster::prepare(Options::default());
    let Some(_disk) = Tmpfs::mount(&cluster.node_folder(0)) else {
        println!("skipped: this user may not mount a tmpfs");
        return;
    };
    cluster.start_all();
    wait_until_it_leads(&cluster);
    // Fewer than 256 MiB are left, and nothing that the node writes itself finds no room.
    let filler = cluster.node_folder(0).join("filler");
    fs::write(&filler, vec![1_u8; 200 << 20]).expect("the filler fits");
    cluster.wait_until_its_disk_has_it_lead_nothing(0, "full");
    let mut client = cluster.client();
    for key in 0..200 {
        assert_eq!(client.call(&format!("SET k{key} v")), "+OK\r\n");
    }
    assert!(!cluster.node(0).output().contains("the disk is full"), "a write failed");
    fs::remove_file(filler).expect("removed");
    wait_until_it_leads(&cluster);
    cluster.wait_until_equal();
}
