//! The arguments of unanswered commands, as far as the slow log would show them.

use ringfort_resp::{CommandDecoder, Limits};

/// Arguments that an entry of the slow log shows; of more, the last place tells how many.
const ARGS_MAX: usize = 32;
/// Bytes of one argument that an entry shows; behind them it tells how many more there were.
const ARG_BYTES_MAX: usize = 128;
/// Most bytes kept for one session; the slow log shows only the name of a command beyond it.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// What replaces an argument that nobody must see.
pub(super) const REDACTED: &[u8] = b"(redacted)";

/// Longest command that is kept as it came, bytes: to copy it is cheaper than to look at its arguments.
pub(super) const WHOLE_BYTES_MAX: usize = 512;

/// Where the arguments of one command are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    at: u64,
    len: u32,
    /// Whether it is the command as it came.
    is_whole: bool,
}

/// A queue of bytes: each command as it came, or the number of its arguments, and for each one shown its length and its first
/// bytes.
#[derive(Debug, Default)]
pub(super) struct RecentArgs {
    bytes: Vec<u8>,
    /// Place of the first of `bytes`.
    start: u64,
    /// How many of `bytes` are forgotten.
    forgotten: usize,
}

impl RecentArgs {
    /// Keeps the arguments of a command.
    pub(super) fn push<'a>(&mut self, args: impl ExactSizeIterator<Item = &'a [u8]>) -> Place {
        let mut place = self.next_place();
        if !self.has_room() {
            return place;
        }
        let before = self.bytes.len();
        let count = args.len();
        self.bytes.extend_from_slice(&(count as u32).to_le_bytes());
        for arg in args.take(shown(count)) {
            self.bytes.extend_from_slice(&(arg.len() as u32).to_le_bytes());
            self.bytes.extend_from_slice(&arg[..arg.len().min(ARG_BYTES_MAX)]);
        }
        place.len = (self.bytes.len() - before) as u32;
        place
    }

    /// Keeps the arguments of a command by its bytes, [`WHOLE_BYTES_MAX`] at most.
    pub(super) fn push_whole(&mut self, command: &[u8]) -> Place {
        let place = self.next_place();
        if !self.has_room() {
            return place;
        }
        self.bytes.extend_from_slice(command);
        Place { len: command.len() as u32, is_whole: true, ..place }
    }

    fn next_place(&mut self) -> Place {
        if self.forgotten > KEPT_BYTES_MAX {
            self.bytes.drain(..self.forgotten);
            self.start += self.forgotten as u64;
            self.forgotten = 0;
        }
        Place { at: self.start + self.bytes.len() as u64, ..Place::default() }
    }

    fn has_room(&self) -> bool {
        self.bytes.len() - self.forgotten <= KEPT_BYTES_MAX
    }

    /// The arguments as the slow log shows them; `None` when they were not kept.
    pub(super) fn get(&self, place: Place) -> Option<Vec<Vec<u8>>> {
        let from = usize::try_from(place.at.checked_sub(self.start)?).ok()?;
        let to = from + place.len as usize;
        if place.len == 0 || from < self.forgotten {
            return None;
        }
        let mut rest = self.bytes.get(from..to)?;
        if place.is_whole {
            let mut decoder = CommandDecoder::new(Limits::default());
            decoder.decode(rest).ok()?;
            let count = decoder.args().len();
            let args = decoder.iter(rest).take(shown(count));
            let args = args.map(|arg| shortened(&arg[..arg.len().min(ARG_BYTES_MAX)], arg.len()));
            return Some(with_count(args.collect(), count));
        }
        let count = take_u32(&mut rest)?;
        let mut args = Vec::new();
        for _ in 0..shown(count) {
            let len = take_u32(&mut rest)?;
            let (arg, left) = rest.split_at_checked(len.min(ARG_BYTES_MAX))?;
            rest = left;
            args.push(shortened(arg, len));
        }
        Some(with_count(args, count))
    }

    /// Forgets what was kept before a command.
    pub(super) fn forget_before(&mut self, place: Place) {
        let before = place.at.saturating_sub(self.start).min(self.bytes.len() as u64);
        self.forgotten = self.forgotten.max(before as usize);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.start += self.bytes.len() as u64;
        self.forgotten = 0;
        self.bytes.clear();
    }

    /// Forgets everything and gives the memory back.
    pub(super) fn give_back_buffer(&mut self) {
        self.clear();
        self.bytes = Vec::new();
    }

    /// Bytes of memory that it has.
    #[cfg(test)]
    pub(super) fn buffer_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

/// The first bytes of an argument, and how many more it has.
fn shortened(first: &[u8], len: usize) -> Vec<u8> {
    match len - first.len() {
        0 => first.to_vec(),
        more => [first, format!("... ({more} more bytes)").as_bytes()].concat(),
    }
}

/// The arguments that are shown, and how many more there are.
fn with_count(mut args: Vec<Vec<u8>>, count: usize) -> Vec<Vec<u8>> {
    if args.len() < count {
        args.push(format!("... ({} more arguments)", count - args.len()).into_bytes());
    }
    args
}

fn shown(count: usize) -> usize {
    if count > ARGS_MAX { ARGS_MAX - 1 } else { count }
}

fn take_u32(bytes: &mut &[u8]) -> Option<usize> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*first) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_commands_are_shortened_as_redis_does() {
        let mut recent = RecentArgs::default();
        let long = [b'x'; 200];
        let first = recent.push([&b"SET"[..], b"k", &long, &long[..128]].into_iter());
        let many = vec![&b"a"[..]; 41];
        let second = recent.push(many.iter().copied());
        let third = recent.push(many[..32].iter().copied());
        let args = recent.get(first).unwrap();
        assert_eq!(args[2], [&long[..128], b"... (72 more bytes)"].concat());
        assert_eq!((args.len(), args[3].len()), (4, 128));
        recent.forget_before(second);
        assert_eq!(recent.get(first), None);
        let args = recent.get(second).unwrap();
        assert_eq!((args.len(), &args[31][..]), (32, &b"... (10 more arguments)"[..]));
        assert_eq!(recent.get(third).unwrap().len(), 32);
        recent.clear();
        assert_eq!(recent.get(third), None);
        let fourth = recent.push([&b""[..]].into_iter());
        assert_eq!(recent.get(fourth).unwrap(), [b""]);
    }

    #[test]
    fn a_command_that_is_kept_whole_is_shown_as_one_that_is_not() {
        let long = vec![b'x'; 200];
        let many = vec![&b"a"[..]; 41];
        let inline: (&[u8], &[&[u8]]) = (b"SET \"a b\" c\r\n", &[b"SET", b"a b", b"c"]);
        let mut commands = vec![(inline.0.to_vec(), inline.1.to_vec())];
        for args in [vec![&b"SET"[..], b"k", &long], many, vec![b"PING"]] {
            let mut whole = Vec::new();
            ringfort_resp::write_command(&args, &mut whole);
            commands.push((whole, args));
        }
        let mut recent = RecentArgs::default();
        for (whole, args) in commands {
            assert!(whole.len() <= WHOLE_BYTES_MAX);
            let places = [recent.push_whole(&whole), recent.push(args.iter().copied())];
            let [as_whole, by_args] = places.map(|place| recent.get(place).unwrap());
            assert_eq!(as_whole, by_args);
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut recent = RecentArgs::default();
        let long = [b'x'; 1000];
        let places: Vec<_> = (0..1000).map(|_| recent.push([&long[..]].into_iter())).collect();
        assert!(recent.bytes.len() <= KEPT_BYTES_MAX + 136);
        assert!(recent.get(places[400]).is_some() && recent.get(places[999]).is_none());
    }

    #[test]
    fn what_is_forgotten_makes_room() {
        let mut recent = RecentArgs::default();
        let mut before = recent.push([&b"first"[..]].into_iter());
        for i in 0..10_000_u32 {
            let place = recent.push([&i.to_le_bytes()[..], &[b'x'; 100]].into_iter());
            recent.forget_before(place);
            assert_eq!(recent.get(before), None);
            assert_eq!(recent.get(place).unwrap()[0], i.to_le_bytes());
            assert!(recent.bytes.len() <= KEPT_BYTES_MAX + 300);
            before = place;
        }
    }
}
