//! Fetching the cluster map.

use super::link::hello;
use super::{Shared, peer};
use core::time::Duration;
use ringfort_wire::hello::Channel;
use ringfort_wire::{ClusterMap, Kind, frame};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long a node may hold a question for a map until there is a newer one, ms.
const MAP_WAIT_MS: u32 = 500;
/// Least time between two questions.
const MAP_INTERVAL_MIN: Duration = Duration::from_millis(50);
/// How long a node may take to answer, beyond what it may wait.
const MAP_TIMEOUT: Duration = Duration::from_secs(1);

/// The newest map, for all workers.
pub(super) type Maps = watch::Sender<Option<Arc<ClusterMap>>>;

/// Asks one node after the other for maps, each as long as it answers. Never ends.
pub(super) async fn fetch_maps(shared: &Shared) {
    let mut turn = 0;
    // What was said of each address last: the same is not said again.
    let mut said = BTreeMap::new();
    loop {
        let addresses = addresses(shared);
        let address = &addresses[turn % addresses.len()];
        turn += 1;
        let error = fetch_from(address, shared).await;
        let is_news = said.insert(address.clone(), error.to_string()) != Some(error.to_string());
        if is_news && peer::is_refusal(&error) {
            tracing::warn!(node = %address, %error, "this node refuses the proxy");
        } else if is_news && shared.maps.borrow().is_none() {
            tracing::info!(node = %address, %error, "no cluster map yet");
        } else {
            tracing::debug!(node = %address, %error, "this node gives no map");
        }
        tokio::time::sleep(MAP_INTERVAL_MIN).await;
    }
}

/// Where nodes may be: as the map says, then as the options say.
fn addresses(shared: &Shared) -> Vec<String> {
    let map = shared.maps.borrow();
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
async fn fetch_from(address: &str, shared: &Shared) -> io::Error {
    match try_fetch_from(address, shared).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn try_fetch_from(address: &str, shared: &Shared) -> io::Result<core::convert::Infallible> {
    let cluster_id = shared.maps.borrow().as_ref().map_or(0, |map| map.cluster_id);
    let hello = hello(Channel::Control, cluster_id, 0, 0);
    let (mut stream, _) =
        timeout(MAP_TIMEOUT, peer::connect(address, hello, shared.options.secret.as_ref())).await??;
    let mut body = Vec::new();
    loop {
        let epoch = shared.maps.borrow().as_ref().map_or(0, |map| map.epoch);
        let wait_ms = if epoch == 0 { 0 } else { MAP_WAIT_MS };
        let mut out = Vec::new();
        frame::put_map_get(&mut out, epoch, wait_ms);
        stream.write_all(&out).await?;
        let time = MAP_TIMEOUT + Duration::from_millis(wait_ms.into());
        let kind = tokio::select! {
            kind = timeout(time, peer::read_frame(&mut stream, &mut body)) => kind??,
            () = shared.map_wish.notified(), if epoch != 0 => {
                return Err(io::Error::other("another node knows more than this one"));
            }
        };
        if kind != Kind::Map {
            return Err(io::Error::other("the node did not answer with a map"));
        }
        if !body.is_empty() {
            take_map(ClusterMap::from_json(&body).map_err(io::Error::other)?, &shared.maps)?;
        } else if epoch == 0 {
            return Err(io::Error::other("the node is in no cluster yet"));
        }
        tokio::time::sleep(MAP_INTERVAL_MIN).await;
    }
}

/// Publishes a map if it is newer than the one known.
///
/// # Errors
/// It is another cluster's.
pub(super) fn take_map(map: ClusterMap, maps: &Maps) -> io::Result<()> {
    let mut is_other_cluster = false;
    maps.send_if_modified(|known| {
        let is_newer = known.as_ref().is_none_or(|known| {
            is_other_cluster = known.cluster_id != map.cluster_id || known.partitions != map.partitions;
            !is_other_cluster && known.epoch < map.epoch
        });
        if is_newer {
            let ids = |map: &ClusterMap| map.nodes.iter().map(|node| node.id.clone()).collect::<Vec<_>>();
            // A change of the members is hundreds of maps; who takes part is news.
            if known.as_deref().map(ids) == Some(ids(&map)) {
                tracing::debug!(epoch = map.epoch, "cluster map");
            } else {
                tracing::info!(epoch = map.epoch, nodes = map.nodes.len(), "cluster map");
            }
            *known = Some(Arc::new(map));
        }
        is_newer
    });
    if is_other_cluster {
        return Err(io::Error::other("the node belongs to another cluster"));
    }
    Ok(())
}
