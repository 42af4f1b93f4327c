//! Which partitions a command goes to, and the part of it that each one gets.

use crate::session::{Args, Ask, Slots};
use ringfort_resp::{Command, Protocol, Scope};
use ringfort_ring::{PartitionCount, PartitionId, slot_of};
use ringfort_wire::request::CommandBody;
use std::collections::BTreeMap;

/// Where a command goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// As it is to one partition.
    One(PartitionId),
    /// A part of it to each of several partitions.
    Split(Vec<Part>),
    /// As it is to every partition.
    All,
}

/// What one partition gets of a command that is split.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The partition.
    pub(crate) partition: PartitionId,
    /// The argument indexes of its keys, ascending.
    pub(crate) keys: Vec<usize>,
}

/// Routes a command; the parts are ordered by partition.
pub(crate) fn route(ask: &Ask<'_>, partitions: PartitionCount) -> Route {
    match ask.slots {
        Slots::One(slot) => Route::One(partitions.of(slot)),
        Slots::None if ask.spec.scope == Scope::AllPartitions => Route::All,
        // The session answers what has neither keys nor that scope; partition 0 can refuse it as well as any.
        Slots::None => Route::One(PartitionId(0)),
        Slots::Many => {
            let mut parts: BTreeMap<PartitionId, Vec<usize>> = BTreeMap::new();
            for key in ask.spec.keys(ask.args.len()) {
                parts.entry(partitions.of(slot_of(ask.args.get(key)))).or_default().push(key);
            }
            match parts.first_key_value() {
                Some((partition, _)) if parts.len() == 1 => Route::One(*partition),
                _ => Route::Split(
                    parts.into_iter().map(|(partition, keys)| Part { partition, keys }).collect(),
                ),
            }
        }
    }
}

/// The whole command as a request carries it, in `buffer`, which is empty.
pub(crate) fn encode_whole(ask: &Ask<'_>, buffer: Vec<u8>) -> Vec<u8> {
    encode(ask, ask.args.rest(), buffer)
}

/// RANDOMKEY as a request carries it: with a random number, because a partition has no randomness of its own.
pub fn encode_random_key(protocol: Protocol, random: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let args = [random.to_le_bytes()];
    CommandBody::encode(&mut out, Command::RandomKey as u16, protocol, args.iter());
    out
}

/// One part: its keys, each with what stands behind it up to the next key.
pub(crate) fn encode_part(ask: &Ask<'_>, part: &Part) -> Vec<u8> {
    let args: &Args<'_> = &ask.args;
    let step = usize::from(ask.spec.keys.step.max(1));
    let chosen: Vec<&[u8]> =
        part.keys.iter().flat_map(|key| (*key..*key + step).map(|i| args.get(i))).collect();
    encode(ask, chosen.into_iter(), Vec::new())
}

fn encode<'a>(
    ask: &Ask<'_>,
    args: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
    mut out: Vec<u8>,
) -> Vec<u8> {
    out.reserve_exact(7 + args.clone().map(|arg| 4 + arg.len()).sum::<usize>());
    CommandBody::encode(&mut out, ask.spec.command as u16, ask.protocol, args);
    if ask.is_no_touch {
        CommandBody::mark_no_touch(&mut out);
    }
    out
}
