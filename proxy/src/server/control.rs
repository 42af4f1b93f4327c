//! Fetching the cluster map.

use super::Shared;
use super::link::{hello, read_frame, shake_hands};
use core::time::Duration;
use ringfort_wire::hello::Channel;
use ringfort_wire::{ClusterMap, Kind, frame};
use std::io;
use std::sync::Arc;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use tokio::time::timeout;

/// How often a node is asked for a newer map.
const MAP_INTERVAL: Duration = Duration::from_secs(1);
/// Least time between two questions, however much a worker wishes for a map.
const MAP_INTERVAL_MIN: Duration = Duration::from_millis(50);
/// How long a node may take to answer.
const MAP_TIMEOUT: Duration = Duration::from_secs(1);

type Maps = watch::Sender<Option<Arc<ClusterMap>>>;

/// Asks one node after the other for maps, each as long as it answers. Never ends.
pub(super) async fn fetch_maps(shared: &Shared, maps: &Maps) {
    let mut turn = 0;
    loop {
        let addresses = addresses(shared, maps);
        let address = &addresses[turn % addresses.len()];
        turn += 1;
        let error = fetch_from(address, shared, maps).await;
        if maps.borrow().is_none() {
            tracing::info!(node = %address, %error, "no cluster map yet");
        } else {
            tracing::debug!(node = %address, %error, "this node gives no map");
        }
        tokio::time::sleep(MAP_INTERVAL_MIN).await;
    }
}

/// Where nodes may be: as the map says, then as the options say.
fn addresses(shared: &Shared, maps: &Maps) -> Vec<String> {
    let map = maps.borrow();
    let members = map.iter().flat_map(|map| map.nodes.iter().map(|node| node.peer.clone()));
    let mut addresses: Vec<String> = members.collect();
    for seed in &shared.options.seeds {
        if !addresses.contains(seed) {
            addresses.push(seed.clone());
        }
    }
    addresses
}

/// Asks one node until it fails; returns how.
async fn fetch_from(address: &str, shared: &Shared, maps: &Maps) -> io::Error {
    match try_fetch_from(address, shared, maps).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn try_fetch_from(
    address: &str,
    shared: &Shared,
    maps: &Maps,
) -> io::Result<core::convert::Infallible> {
    let cluster_id = maps.borrow().as_ref().map_or(0, |map| map.cluster_id);
    let hello = hello(Channel::Control, cluster_id, 0, 0);
    let (mut stream, _) = timeout(MAP_TIMEOUT, shake_hands(address, &hello)).await??;
    let mut buffer = Vec::new();
    loop {
        let epoch = maps.borrow().as_ref().map_or(0, |map| map.epoch);
        let mut out = Vec::new();
        frame::put(&mut out, Kind::MapGet, |out| out.extend_from_slice(&epoch.to_le_bytes()));
        stream.write_all(&out).await?;
        let (kind, body) = timeout(MAP_TIMEOUT, read_frame(&mut stream, &mut buffer)).await??;
        if kind != Kind::Map {
            return Err(io::Error::other("the node did not answer with a map"));
        }
        if !body.is_empty() {
            take_map(&body, maps)?;
        } else if epoch == 0 {
            return Err(io::Error::other("the node is in no cluster yet"));
        }
        tokio::time::sleep(MAP_INTERVAL_MIN).await;
        tokio::select! {
            () = tokio::time::sleep(MAP_INTERVAL - MAP_INTERVAL_MIN) => {}
            () = shared.map_wish.notified() => {}
        }
    }
}

/// Publishes a map if it is newer than the one known.
fn take_map(body: &[u8], maps: &Maps) -> io::Result<()> {
    let map = ClusterMap::from_json(body).map_err(io::Error::other)?;
    let (is_other_cluster, is_newer) = match &*maps.borrow() {
        None => (false, true),
        Some(known) => {
            let is_other = known.cluster_id != map.cluster_id || known.partitions != map.partitions;
            (is_other, known.epoch < map.epoch)
        }
    };
    if is_other_cluster {
        return Err(io::Error::other("the node belongs to another cluster"));
    }
    if is_newer {
        tracing::info!(epoch = map.epoch, nodes = map.nodes.len(), "cluster map");
        maps.send_replace(Some(Arc::new(map)));
    }
    Ok(())
}
