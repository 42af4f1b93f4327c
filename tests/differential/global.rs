//! Commands on all keys, while no connection does anything else.

use crate::Target;
use crate::client::Client;
use crate::generator::Words;
use crate::link::{Disturbed, Link, ask};
use ringfort_resp::reply::{array_elements, integer};
use ringfort_ring::slot_of;

/// Sends one command, or none, and compares; returns its name.
pub(crate) fn compare(
    link: &mut Link,
    target: Target,
    tags: &[String],
) -> Result<Option<&'static str>, Disturbed> {
    match link.generator.random(40) {
        0..=3 => keys(link)?,
        4..=6 => scan(link)?,
        7 | 8 => {
            touch(link, tags)?;
            let (ours, theirs) = link.everywhere(&words("DBSIZE"));
            let sum: i64 = ours.iter().map(|reply| number(reply)).sum::<Result<_, _>>()?;
            let ours = format!(":{sum}\r\n").into_bytes();
            link.assert_equal(&words("DBSIZE"), ours == theirs, &ours, &theirs);
            return Ok(Some("dbsize"));
        }
        9 | 10 => random_key(link)?,
        11 if target == Target::Nodes => slot(link, tags)?,
        12 => {
            flush(link)?;
            return Ok(Some(if link.generator.random(2) == 0 { "flushall" } else { "flushdb" }));
        }
        _ => return Ok(None),
    }
    .map_or(Ok(None), |name| Ok(Some(name)))
}

/// Empties both sides.
pub(crate) fn flush(link: &mut Link) -> Result<(), Disturbed> {
    for name in ["FLUSHALL", "FLUSHDB"] {
        let (ours, theirs) = link.everywhere(&words(name));
        if let Some(other) = ours.iter().find(|reply| **reply != theirs) {
            return Err(disturbed(other));
        }
    }
    Ok(())
}

fn words(line: &str) -> Words {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

fn disturbed(reply: &[u8]) -> Disturbed {
    Disturbed(reply.escape_ascii().to_string())
}

fn number(reply: &[u8]) -> Result<i64, Disturbed> {
    integer(reply).ok_or_else(|| disturbed(reply))
}

fn elements(reply: &[u8]) -> Result<Vec<Vec<u8>>, Disturbed> {
    let elements = array_elements(reply).ok_or_else(|| disturbed(reply))?;
    Ok(elements.into_iter().map(<[u8]>::to_vec).collect())
}

/// Reads every key of all connections, so that what is expired is gone.
fn touch(link: &mut Link, tags: &[String]) -> Result<(), Disturbed> {
    let all: Vec<Words> = tags.iter().map(|tag| link.generator.touch(tag)).collect();
    link.run(&all).map(drop)
}

fn keys(link: &mut Link) -> Result<Option<&'static str>, Disturbed> {
    let command = vec![b"KEYS".to_vec(), link.generator.pattern()];
    let (ours, theirs) = link.everywhere(&command);
    let mut all = Vec::new();
    for reply in &ours {
        all.extend(elements(reply)?);
    }
    compare_sets(link, &command, all, elements(&theirs)?);
    Ok(Some("keys"))
}

fn compare_sets(link: &Link, command: &Words, mut ours: Vec<Vec<u8>>, mut theirs: Vec<Vec<u8>>) {
    ours.sort();
    theirs.sort();
    link.assert_equal(command, ours == theirs, &ours.concat(), &theirs.concat());
}

fn scan(link: &mut Link) -> Result<Option<&'static str>, Disturbed> {
    let mut options = Words::new();
    for option in ["MATCH", "COUNT", "TYPE"] {
        if link.generator.random(2) == 0 {
            let value = match option {
                "MATCH" => link.generator.pattern(),
                "COUNT" => link.generator.one_of(&["1", "7", "100", "100000"]).as_bytes().to_vec(),
                _ => link.generator.one_of(&["string", "STRING", "list", "nosuch"]).as_bytes().to_vec(),
            };
            options.extend([link.generator.cased(option), value]);
        }
    }
    let all = link.doors().map(|door| scan_all(door, &options)).collect::<Result<Vec<_>, _>>()?;
    let (theirs, ours) = all.split_last().expect("the last door is Redis");
    let command: Words = words("SCAN 0").into_iter().chain(options).collect();
    // While nothing changes we give each key once; Redis may give one twice.
    let mut theirs = theirs.clone();
    theirs.sort();
    theirs.dedup();
    compare_sets(link, &command, ours.concat(), theirs);
    Ok(Some("scan"))
}

fn scan_all(door: &mut Client, options: &Words) -> Result<Vec<Vec<u8>>, Disturbed> {
    let (mut cursor, mut keys) = (b"0".to_vec(), Vec::new());
    loop {
        let command = [vec![b"SCAN".to_vec(), cursor], options.clone()].concat();
        let reply = ask(door, &command);
        let parts = elements(&reply)?;
        let [next, batch] = &parts[..] else { return Err(disturbed(&reply)) };
        keys.extend(elements(batch)?);
        cursor =
            next.split(|byte| *byte == b'\n').nth(1).map_or(Vec::new(), |line| line.trim_ascii().to_vec());
        if cursor == b"0" {
            return Ok(keys);
        }
    }
}

fn random_key(link: &mut Link) -> Result<Option<&'static str>, Disturbed> {
    let (ours, theirs) = link.everywhere(&words("RANDOMKEY"));
    let (lists, _) = link.everywhere(&words("KEYS *"));
    for (ours, list) in ours.iter().zip(lists) {
        let keys = elements(&list)?;
        let is_right =
            if keys.is_empty() { !ours.starts_with(b"$") || ours == b"$-1\r\n" } else { keys.contains(ours) };
        link.assert_equal(&words("RANDOMKEY"), is_right, ours, &theirs);
    }
    Ok(Some("randomkey"))
}

/// The questions of one slot: the node that leads it answers as Redis Cluster does, the others see nothing.
fn slot(link: &mut Link, tags: &[String]) -> Result<Option<&'static str>, Disturbed> {
    touch(link, tags)?;
    let tag = &tags[link.generator.random(tags.len() as u64) as usize];
    let slot = slot_of(tag.as_bytes()).0;
    let count = words(&format!("CLUSTER COUNTKEYSINSLOT {slot}"));
    let (ours, theirs) = link.everywhere(&count);
    let sum: i64 = ours.iter().map(|reply| number(reply)).sum::<Result<_, _>>()?;
    let ours = format!(":{sum}\r\n").into_bytes();
    link.assert_equal(&count, ours == theirs, &ours, &theirs);
    let list = words(&format!("CLUSTER GETKEYSINSLOT {slot} 1000"));
    let (ours, theirs) = link.everywhere(&list);
    let ours = ours.iter().map(|reply| elements(reply)).collect::<Result<Vec<_>, _>>()?.concat();
    compare_sets(link, &list, ours, elements(&theirs)?);
    Ok(None)
}
