//! Changes of the cluster map: finding the meta group's leader and asking it.

use super::peer::{self, invalid};
use core::cell::Cell;
use core::time::Duration;
use ringfort_wire::hello::Hello;
use ringfort_wire::map::MapNode;
use ringfort_wire::{ClusterMap, Kind, MetaAnswer, MetaWrite, PeerSecret, frame};
use std::collections::VecDeque;
use std::io;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

/// How long one node may take before another is asked: a paused process keeps its connections.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);
/// First pause after a failed attempt; it doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(10);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(100);

const UNREACHABLE: &str =
    "CLUSTERDOWN the leader of the meta group cannot be reached in time: nothing was changed; try again";
const IN_DOUBT: &str = "ERR outcome unknown: the meta group did not confirm the change in time; it may or may not be made. \
                        Asking for the same again does no harm";

/// Has the meta group's leader make a change, wherever it is, and returns a map that shows it.
///
/// It is asked again for as long as `time` allows; a [`MetaWrite`] that is made twice is made once.
///
/// # Errors
/// The text of the error reply: the change was refused, or the leader did not confirm it in time.
pub async fn write(
    map: &ClusterMap,
    hello: &Hello,
    secret: Option<&PeerSecret>,
    write: &MetaWrite,
    time: Duration,
) -> Result<ClusterMap, String> {
    let mut question = Vec::new();
    frame::put(&mut question, Kind::MetaWrite, |out| out.extend_from_slice(&write.to_json()));
    let asker = Asker { map, hello, secret, question, is_in_doubt: Cell::new(false) };
    match timeout(time, asker.ask_all()).await {
        Ok(outcome) => outcome,
        Err(_) if asker.is_in_doubt.get() => Err(IN_DOUBT.to_owned()),
        Err(_) => Err(UNREACHABLE.to_owned()),
    }
}

struct Asker<'a> {
    map: &'a ClusterMap,
    hello: &'a Hello,
    secret: Option<&'a PeerSecret>,
    /// The frame.
    question: Vec<u8>,
    /// Whether a question was sent whose answer did not say that nothing was done.
    is_in_doubt: Cell<bool>,
}

impl Asker<'_> {
    /// Asks the nodes of the meta group in turn, and at once the one that an answer names.
    async fn ask_all(&self) -> Result<ClusterMap, String> {
        let map = self.map;
        let mut nodes: VecDeque<&MapNode> =
            map.meta.nodes().into_iter().filter_map(|id| map.node(id)).collect();
        nodes.make_contiguous().sort_by_key(|node| node.id != *map.meta.wanted_leader());
        let mut pause = PAUSE;
        let mut was_named = false;
        loop {
            let Some(node) = nodes.front().copied() else { return Err(UNREACHABLE.to_owned()) };
            nodes.rotate_left(1);
            let answer = timeout(ATTEMPT_TIMEOUT, self.ask(&node.peer)).await;
            match answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(MetaAnswer::Done(map)) => {
                    return ClusterMap::from_json(&map).map_err(|error| format!("ERR {error}"));
                }
                // An earlier question may have done it all the same.
                Ok(MetaAnswer::Refused(_)) if self.is_in_doubt.get() => return Err(IN_DOUBT.to_owned()),
                Ok(MetaAnswer::Refused(error)) => return Err(error),
                Ok(MetaAnswer::NotLeader(leader)) => {
                    let place = nodes.iter().position(|n| n.id.0 == leader && n.id != node.id);
                    if let Some(place) = place {
                        nodes.swap(0, place);
                    }
                    // Two nodes that name each other must not be asked without a pause.
                    was_named = place.is_some() && !was_named;
                    if was_named {
                        continue;
                    }
                }
                Ok(MetaAnswer::Again) => {}
                Err(error) => {
                    tracing::debug!(node = %node.id, %error, "a node of the meta group does not answer");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn ask(&self, address: &str) -> io::Result<MetaAnswer> {
        let (mut stream, ack) = peer::connect(address, self.hello.clone(), self.secret).await?;
        if ack.cluster_id != self.map.cluster_id {
            return Err(invalid("the node is not in this cluster"));
        }
        let was_in_doubt = self.is_in_doubt.replace(true);
        stream.write_all(&self.question).await?;
        let mut body = Vec::new();
        if peer::read_frame(&mut stream, &mut body).await? != Kind::MetaAnswer {
            return Err(invalid("the node did not answer the change"));
        }
        let answer = MetaAnswer::decode(&body).map_err(invalid)?;
        if matches!(answer, MetaAnswer::NotLeader(_) | MetaAnswer::Refused(_)) {
            self.is_in_doubt.set(was_in_doubt);
        }
        Ok(answer)
    }
}
