//! CONFIG: settings under Redis's names.

use super::Args;
use super::connection::Outcome;
use ringfort_resp::{CommandSpec, ReplyWriter};

/// What CONFIG GET knows: what clients and benchmarks ask for.
const SETTINGS: [(&str, &str); 5] =
    [("appendonly", "no"), ("databases", "1"), ("maxmemory", "0"), ("save", ""), ("timeout", "0")];

pub(super) fn execute(spec: &'static CommandSpec, args: Args<'_>, out: &mut ReplyWriter<'_>) -> Outcome {
    match spec.short_name() {
        "get" => {
            let is_asked =
                |name: &str| args.iter().skip(2).any(|p| matches(&p.to_ascii_lowercase(), name.as_bytes()));
            let found: Vec<_> = SETTINGS.into_iter().filter(|(name, _)| is_asked(name)).collect();
            out.map(found.len());
            for (name, value) in found {
                out.bulk(name.as_bytes());
                out.bulk(value.as_bytes());
            }
            Ok(())
        }
        _ => Err("ERR CONFIG SET is not supported: settings are in the cluster's config file".to_owned()),
    }
}

/// Whether `text` fits a pattern with `*` and `?`. Linear in both: only the last star is ever tried again.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((star, from)) = retry else { return false };
                retry = Some((star, from + 1));
                p = star + 1;
                t = from + 1;
            }
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, is_match) in [
            ("save", "save", true),
            ("*", "save", true),
            ("", "save", false),
            ("s*e", "save", true),
            ("?ave", "save", true),
            ("*a*", "save", true),
            ("*ax", "save", false),
            ("save*", "save", true),
            ("saves", "save", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), is_match, "{pattern} {text}");
        }
    }
}
