//! TIME, LASTSAVE, LOLWUT, ROLE, WAIT, WAITAOF: what is asked of a server as a whole.

use super::connection::{Outcome, integer, text};
use super::{Args, Host};
use ringfort_resp::{Command, CommandSpec, ReplyWriter};

/// Executes one of them; `wall_us` is the time, µs since 1970.
pub(super) fn execute(
    spec: &'static CommandSpec,
    args: Args<'_>,
    host: &dyn Host,
    wall_us: u64,
    out: &mut ReplyWriter<'_>,
) -> Outcome {
    match spec.command {
        Command::Time => {
            out.array(2);
            out.bulk((wall_us / 1_000_000).to_string().as_bytes());
            out.bulk((wall_us % 1_000_000).to_string().as_bytes());
        }
        // Nothing that was answered waits to be saved.
        Command::LastSave => out.integer((wall_us / 1_000_000).cast_signed()),
        Command::Role => {
            out.array(3);
            out.bulk(b"master");
            out.integer(0);
            out.empty_array();
        }
        Command::Wait => {
            integer(args.get(1)).ok_or("ERR value is not an integer or out of range")?;
            timeout(args.get(2))?;
            out.integer(followers(host));
        }
        Command::WaitAof => return wait_aof(args, host, out),
        _ => text(out, &lolwut(args)),
    }
    Ok(())
}

/// Followers that hold every write that was answered: a majority of a partition's replicas holds it, the leader among it.
fn followers(host: &dyn Host) -> i64 {
    host.map().map_or(0, |map| i64::from(map.replicas / 2))
}

/// What WAIT and WAITAOF say of the time after which they would give up; they need not wait, for the replies to the
/// writes before them go out first.
fn timeout(arg: &[u8]) -> Outcome {
    match integer(arg) {
        None => Err("ERR timeout is not an integer or out of range".to_owned()),
        Some(..0) => Err("ERR timeout is negative".to_owned()),
        Some(0..) => Ok(()),
    }
}

/// `WAITAOF numlocal numreplicas timeout`: the counts of disks that hold what was answered; none in `buffered`.
fn wait_aof(args: Args<'_>, host: &dyn Host, out: &mut ReplyWriter<'_>) -> Outcome {
    let local = integer(args.get(1)).filter(|n| (0..=1).contains(n));
    let local = local.ok_or("ERR value is out of range, must be between 0 and 1")?;
    integer(args.get(2)).filter(|n| *n >= 0).ok_or("ERR value is out of range, must be positive")?;
    timeout(args.get(3))?;
    let is_on_disk = host.map().is_some_and(|map| map.fsync);
    if local > 0 && !is_on_disk {
        return Err("ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.".to_owned());
    }
    out.array(2);
    out.integer(i64::from(is_on_disk));
    out.integer(if is_on_disk { followers(host) } else { 0 });
    Ok(())
}

/// A wall with battlements, as wide as `VERSION n` says.
fn lolwut(args: Args<'_>) -> String {
    let is_version = args.len() > 2 && args.get(1).eq_ignore_ascii_case(b"version");
    let asked = if is_version { integer(args.get(2)) } else { None };
    let towers = asked.unwrap_or(5).clamp(1, 16) as usize;
    let row = |piece: &str| format!("{}\n", piece.repeat(towers));
    let wall: String = ["|^|_|^|  ", "|     |__", "|  n  |  ", "|_____|__"].into_iter().map(row).collect();
    format!("{wall}\nRingfort ver. {}\n", env!("CARGO_PKG_VERSION"))
}
