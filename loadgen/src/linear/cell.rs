//! What one string key does when one command after the other takes effect: the sequential specification.

/// A value; `None`: the key does not exist.
pub type Value = Option<Vec<u8>>;

/// A command on one string key, as in Redis (DELIFEQ and IFEQ: as in Valkey).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// `GET`.
    Get,
    /// `SET value`.
    Set(Vec<u8>),
    /// `SETNX value`.
    SetNx(Vec<u8>),
    /// `SET value IFEQ expected`: a compare-and-set.
    SetIfEq {
        /// What the key must hold.
        expected: Vec<u8>,
        /// What it then holds.
        value: Vec<u8>,
    },
    /// `GETSET value`.
    GetSet(Vec<u8>),
    /// `GETDEL`.
    GetDel,
    /// `DEL`.
    Del,
    /// `DELIFEQ expected`.
    DelIfEq(Vec<u8>),
    /// `INCR`.
    Incr,
    /// `APPEND bytes`.
    Append(Vec<u8>),
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// `+OK`.
    Ok,
    /// A number.
    Integer(i64),
    /// A value, or that there is none.
    Value(Value),
    /// An INCR of what is no number, or is too large: nothing was done.
    NotInteger,
}

impl Op {
    /// Whether it can change anything.
    pub fn is_write(&self) -> bool {
        *self != Self::Get
    }

    /// Whether a call that was answered so has changed nothing, whenever it took effect.
    pub(super) fn is_idle(&self, answer: &Answer) -> bool {
        match self {
            Self::Get => true,
            Self::SetIfEq { .. } | Self::GetDel => *answer == Answer::Value(None),
            Self::SetNx(_) | Self::Del | Self::DelIfEq(_) => *answer == Answer::Integer(0),
            Self::Incr => *answer == Answer::NotInteger,
            Self::Set(_) | Self::GetSet(_) | Self::Append(_) => false,
        }
    }

    /// The command's name and its arguments after the key.
    pub fn words(&self) -> (&'static str, Vec<&[u8]>) {
        match self {
            Self::Get => ("GET", vec![]),
            Self::Set(value) => ("SET", vec![value]),
            Self::SetNx(value) => ("SETNX", vec![value]),
            Self::SetIfEq { expected, value } => ("SET", vec![value, b"IFEQ", expected]),
            Self::GetSet(value) => ("GETSET", vec![value]),
            Self::GetDel => ("GETDEL", vec![]),
            Self::Del => ("DEL", vec![]),
            Self::DelIfEq(expected) => ("DELIFEQ", vec![expected]),
            Self::Incr => ("INCR", vec![]),
            Self::Append(bytes) => ("APPEND", vec![bytes]),
        }
    }

    /// Takes effect on `before`: the value after it, and the answer.
    pub fn apply(&self, before: &Value) -> (Value, Answer) {
        let exists = i64::from(before.is_some());
        let is_equal = |expected: &Vec<u8>| before.as_ref() == Some(expected);
        match self {
            Self::Get => (before.clone(), Answer::Value(before.clone())),
            Self::Set(value) => (Some(value.clone()), Answer::Ok),
            Self::SetNx(value) => {
                (before.clone().or_else(|| Some(value.clone())), Answer::Integer(1 - exists))
            }
            Self::SetIfEq { expected, value } if is_equal(expected) => (Some(value.clone()), Answer::Ok),
            Self::SetIfEq { .. } => (before.clone(), Answer::Value(None)),
            Self::GetSet(value) => (Some(value.clone()), Answer::Value(before.clone())),
            Self::GetDel => (None, Answer::Value(before.clone())),
            Self::Del => (None, Answer::Integer(exists)),
            Self::DelIfEq(expected) if is_equal(expected) => (None, Answer::Integer(1)),
            Self::DelIfEq(_) => (before.clone(), Answer::Integer(0)),
            Self::Incr => match integer(before).and_then(|n| n.checked_add(1)) {
                Some(n) => (Some(n.to_string().into_bytes()), Answer::Integer(n)),
                None => (before.clone(), Answer::NotInteger),
            },
            Self::Append(bytes) => {
                let mut value = before.clone().unwrap_or_default();
                value.extend_from_slice(bytes);
                let len = value.len() as i64;
                (Some(value), Answer::Integer(len))
            }
        }
    }
}

/// The number that a value stands for: 0 for none; only its one shortest form counts.
fn integer(value: &Value) -> Option<i64> {
    let Some(bytes) = value else { return Some(0) };
    let number: i64 = std::str::from_utf8(bytes).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == bytes).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answers are Redis's: a real server gives the same ones (`tests/differential`).
    #[test]
    fn commands_do_what_redis_does() {
        let v = |text: &str| text.as_bytes().to_vec();
        let some = |text: &str| Answer::Value(Some(v(text)));
        let mut value = None;
        for (op, answer) in [
            (Op::Get, Answer::Value(None)),
            (Op::SetIfEq { expected: v(""), value: v("1") }, Answer::Value(None)),
            (Op::DelIfEq(v("")), Answer::Integer(0)),
            (Op::SetNx(v("7")), Answer::Integer(1)),
            (Op::SetNx(v("8")), Answer::Integer(0)),
            (Op::Incr, Answer::Integer(8)),
            (Op::SetIfEq { expected: v("7"), value: v("9") }, Answer::Value(None)),
            (Op::SetIfEq { expected: v("8"), value: v("9") }, Answer::Ok),
            (Op::GetSet(v("a")), some("9")),
            (Op::Incr, Answer::NotInteger),
            (Op::Append(v("bc")), Answer::Integer(3)),
            (Op::DelIfEq(v("ab")), Answer::Integer(0)),
            (Op::GetDel, some("abc")),
            (Op::Del, Answer::Integer(0)),
            (Op::Append(v("07")), Answer::Integer(2)),
            (Op::Incr, Answer::NotInteger),
            (Op::Set(v("9223372036854775807")), Answer::Ok),
            (Op::Incr, Answer::NotInteger),
            (Op::DelIfEq(v("9223372036854775807")), Answer::Integer(1)),
            (Op::Incr, Answer::Integer(1)),
            (Op::Del, Answer::Integer(1)),
        ] {
            let (after, told) = op.apply(&value);
            assert_eq!(told, answer, "{op:?} of {value:?}");
            value = after;
        }
    }
}
