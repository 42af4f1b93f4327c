//! LCS.

use ringfort_resp::ReplyWriter;

use super::{Done, is_option};
use crate::{VALUE_BYTES_MAX, error::CommandError, keyspace::Reader, number::parse_i64, record::Record};

/// `LCS key1 key2 [LEN] [IDX] [MINMATCHLEN len] [WITHMATCHLEN]`: the longest common subsequence of two values.
///
/// The table takes 4 bytes for each pair of positions, and at most [`VALUE_BYTES_MAX`], as in Redis: O(n m) time.
pub(super) fn lcs(reader: &mut Reader<'_>, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [key_a, key_b, options @ ..] = args else { return Err(CommandError::Arity("lcs")) };
    let options = LcsOptions::parse(options)?;
    let (a, b) = (reader.get(key_a)?, reader.get(key_b)?);
    if !reader.expired.is_empty() {
        return Ok(());
    }
    let table = Table::new(a.map_or(&[], Record::value), b.map_or(&[], Record::value))?;
    if options.is_idx {
        write_matches(&table, &options, reply);
    } else if options.is_len {
        reply.integer(i64::from(table.lcs_len()));
    } else {
        reply.bulk(&table.lcs());
    }
    Ok(())
}

fn write_matches(table: &Table<'_>, options: &LcsOptions, reply: &mut ReplyWriter<'_>) {
    let mut matches = table.matches();
    matches.retain(|found| options.min_match_len <= i64::from(found.len));
    reply.map(2);
    reply.bulk(b"matches");
    reply.array(matches.len());
    for found in matches {
        reply.array(if options.is_with_match_len { 3 } else { 2 });
        for start in [found.a, found.b] {
            reply.array(2);
            reply.integer(start as i64);
            reply.integer(start as i64 + i64::from(found.len) - 1);
        }
        if options.is_with_match_len {
            reply.integer(i64::from(found.len));
        }
    }
    reply.bulk(b"len");
    reply.integer(i64::from(table.lcs_len()));
}

/// The options of LCS.
#[derive(Debug, Default)]
struct LcsOptions {
    is_len: bool,
    is_idx: bool,
    is_with_match_len: bool,
    min_match_len: i64,
}

impl LcsOptions {
    fn parse(args: &[&[u8]]) -> Result<Self, CommandError> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg {
                arg if is_option(arg, "len") => options.is_len = true,
                arg if is_option(arg, "idx") => options.is_idx = true,
                arg if is_option(arg, "withmatchlen") => options.is_with_match_len = true,
                arg if is_option(arg, "minmatchlen") => {
                    let number = parse_i64(args.next().ok_or(CommandError::Syntax)?);
                    options.min_match_len = number.ok_or(CommandError::NotInteger)?;
                }
                _ => return Err(CommandError::Syntax),
            }
        }
        if options.is_len && options.is_idx {
            return Err(CommandError::LcsLenAndIdx);
        }
        Ok(options)
    }
}

/// A run of equal bytes.
#[derive(Debug, Clone, Copy)]
struct Match {
    a: usize,
    b: usize,
    len: u32,
}

/// For each pair of prefixes of `a` and `b` the length of their longest common subsequence, row by row of `a`.
struct Table<'a> {
    a: &'a [u8],
    b: &'a [u8],
    lens: Vec<u32>,
}

impl<'a> Table<'a> {
    fn new(a: &'a [u8], b: &'a [u8]) -> Result<Self, CommandError> {
        let width = b.len() + 1;
        let cells = (a.len() + 1).saturating_mul(width);
        if VALUE_BYTES_MAX < cells.saturating_mul(size_of::<u32>()) {
            return Err(CommandError::LcsTooLarge);
        }
        let mut lens = vec![0; cells];
        for (i, byte_a) in a.iter().enumerate() {
            let (above, row) = lens[i * width..][..2 * width].split_at_mut(width);
            for (j, byte_b) in b.iter().enumerate() {
                row[j + 1] = if byte_a == byte_b { above[j] + 1 } else { above[j + 1].max(row[j]) };
            }
        }
        Ok(Self { a, b, lens })
    }

    /// For the first `i` bytes of `a` and the first `j` of `b`.
    fn len_at(&self, i: usize, j: usize) -> u32 {
        self.lens[i * (self.b.len() + 1) + j]
    }

    fn lcs_len(&self) -> u32 {
        self.len_at(self.a.len(), self.b.len())
    }

    /// The runs of the subsequence that Redis chooses among those of equal length, the last first.
    fn matches(&self) -> Vec<Match> {
        let mut matches: Vec<Match> = Vec::new();
        let (mut i, mut j) = (self.a.len(), self.b.len());
        while 0 < i && 0 < j {
            if self.a[i - 1] == self.b[j - 1] {
                (i, j) = (i - 1, j - 1);
                match matches.last_mut() {
                    Some(last) if last.a == i + 1 && last.b == j + 1 => {
                        *last = Match { a: i, b: j, len: last.len + 1 };
                    }
                    _ => matches.push(Match { a: i, b: j, len: 1 }),
                }
            } else if self.len_at(i, j - 1) < self.len_at(i - 1, j) {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        matches
    }

    fn lcs(&self) -> Vec<u8> {
        let runs = self.matches();
        let bytes = |run: &Match| &self.a[run.a..run.a + run.len as usize];
        runs.iter().rev().flat_map(bytes).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use ringfort_resp::Command;

    use super::super::testing::Session;

    #[test]
    fn lcs_of_the_documentation() {
        Session::new().script(
            "MSET a ohmytext b mynewtext -> +OK
             LCS a b -> $6|mytext
             LCS a b LEN -> :6
             LCS a b IDX -> *4|$7|matches|*2|*2|*2|:4|:7|*2|:5|:8|*2|*2|:2|:3|*2|:0|:1|$3|len|:6
             LCS a b IDX MINMATCHLEN 4 WITHMATCHLEN -> *4|$7|matches|*1|*3|*2|:4|:7|*2|:5|:8|:4|$3|len|:6
             LCS a x -> $0
             LCS x y IDX -> *4|$7|matches|*0|$3|len|:0
             LCS a b IDX LEN -> -ERR If you want both the length and indexes, please just use IDX.
             LCS a b BAD -> -ERR syntax error
             LCS a b MINMATCHLEN -> -ERR syntax error
             LCS a b MINMATCHLEN x -> -ERR value is not an integer or out of range",
        );
    }

    #[test]
    fn memory_is_bounded() {
        let mut session = Session::new();
        // 4 * 2 * 4194304 bytes are the limit.
        session.run_args(Command::Set, &[b"a", b"x"]);
        session.run_args(Command::Set, &[b"b", &vec![b'x'; (1 << 22) - 1]]);
        assert_eq!(session.run("LCS a b LEN"), ":1");
        session.run("APPEND b x");
        let error = "-ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len";
        assert_eq!(session.run("LCS a b LEN"), error);
    }
}
