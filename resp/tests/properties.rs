//! Laws of the codec, over random commands, replies, bytes and ways in which they arrive.

use proptest::collection::vec;
use proptest::prelude::*;
use ringfort_resp::reply::{FrameScanner, array_elements, frame_len, integer, parse};
use ringfort_resp::{
    CommandDecoder, Limits, Protocol, ProtocolError, ReplyWriter, Status, Value, write_command,
};

type Command = Vec<Vec<u8>>;

/// What a connection made of some bytes: its commands, the bytes left over, the error that ended it.
type Outcome = (Vec<Command>, Vec<u8>, Option<ProtocolError>);

/// Small bounds, so that random input passes them often.
const LIMITS: Limits =
    Limits { bulk_bytes_max: 40, args_max: 6, inline_bytes_max: 48, command_bytes_max: 200 };

/// Decodes all commands of `bytes`, which arrive in pieces that end at `cuts`.
fn decode(limits: Limits, bytes: &[u8], cuts: &[usize]) -> Outcome {
    let mut decoder = CommandDecoder::new(limits);
    let (mut buf, mut commands) = (Vec::new(), Vec::new());
    for piece in pieces(bytes, cuts) {
        buf.extend_from_slice(piece);
        loop {
            match decoder.decode(&buf) {
                Ok(Status::Complete { consumed }) => {
                    let args: Command =
                        (0..decoder.args().len()).map(|i| decoder.arg(&buf, i).to_vec()).collect();
                    if !args.is_empty() {
                        commands.push(args);
                    }
                    buf.drain(..consumed);
                }
                Ok(Status::Incomplete) => break,
                // How much of the broken command had arrived is the one thing that may differ.
                Err(error) => return (commands, Vec::new(), Some(error)),
            }
        }
    }
    (commands, buf, None)
}

fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let mut start = 0;
    ends.iter().map(|end| &bytes[std::mem::replace(&mut start, *end)..*end]).collect()
}

fn one_by_one(bytes: &[u8]) -> Vec<usize> {
    (0..bytes.len()).collect()
}

fn encoded(commands: &[Command]) -> Vec<u8> {
    let mut out = Vec::new();
    commands.iter().for_each(|command| write_command(command, &mut out));
    out
}

/// An argument quoted so that any byte may be in it.
fn quoted(arg: &[u8]) -> Vec<u8> {
    let hex: String = arg.iter().map(|b| format!("\\x{b:02x}")).collect();
    format!("\"{hex}\"").into_bytes()
}

fn any_command() -> impl Strategy<Value = Command> {
    vec(vec(any::<u8>(), 0..40), 1..6)
}

/// Bytes that look like the protocol often enough to reach its corners.
fn protocol_like() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        4 => (0..6_i64).prop_map(|n| format!("*{n}\r\n").into_bytes()),
        4 => (-1..45_i64).prop_map(|n| format!("${n}\r\n").into_bytes()),
        1 => any::<i64>().prop_map(|n| format!("${n}\r\n").into_bytes()),
        2 => Just(b"\r\n".to_vec()),
        1 => Just(b"\n".to_vec()),
        1 => Just(b"\r".to_vec()),
        4 => any_command().prop_map(|command| encoded(&[command])),
        2 => "[a-z \t\"'\\\\xn]{0,20}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..60),
        1 => (0..70_usize).prop_map(|n| vec![b'1'; n]),
    ];
    vec(token, 0..12).prop_map(|tokens| tokens.concat())
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        "[^\r\n]{0,12}".prop_map(Value::Simple),
        "[^\r\n]{0,12}".prop_map(Value::Error),
        any::<i64>().prop_map(Value::Integer),
        vec(any::<u8>(), 0..20).prop_map(Value::Bulk),
        any::<f64>().prop_filter("nan is not equal to itself", |n| !n.is_nan()).prop_map(Value::Double),
        any::<bool>().prop_map(Value::Boolean),
        "-?[0-9]{1,40}".prop_map(Value::BigNumber),
        (any::<[u8; 3]>(), vec(any::<u8>(), 0..20)).prop_map(|(format, text)| Value::Verbatim(format, text)),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::Array),
            vec(inner.clone(), 0..6).prop_map(Value::Set),
            vec(inner.clone(), 0..6).prop_map(Value::Push),
            vec((inner.clone(), inner), 0..4).prop_map(Value::Map),
        ]
    })
}

fn written(value: &Value, protocol: Protocol) -> Vec<u8> {
    let mut out = Vec::new();
    value.write(&mut ReplyWriter::new(&mut out, protocol));
    out
}

/// Bytes of replies, whole, cut off or damaged.
fn reply_like() -> impl Strategy<Value = Vec<u8>> {
    let damaged = (any_value(), any::<prop::sample::Index>(), any::<u8>(), any::<bool>()).prop_map(
        |(value, index, byte, is_cut)| {
            let mut bytes = written(&value, Protocol::Resp3);
            let at = index.index(bytes.len());
            if is_cut {
                bytes.truncate(at);
            } else {
                bytes[at] = byte;
            }
            bytes
        },
    );
    let header = ("[*%~>|$!=]", -2..9_i64).prop_map(|(kind, n)| format!("{kind}{n}\r\n").into_bytes());
    let token = prop_oneof![
        3 => any_value().prop_map(|value| written(&value, Protocol::Resp3)),
        1 => any_value().prop_map(|value| written(&value, Protocol::Resp2)),
        1 => damaged,
        3 => header,
        1 => vec(any::<u8>(), 0..20),
    ];
    vec(token, 0..8).prop_map(|tokens| tokens.concat())
}

proptest! {
    #[test]
    fn decoding_returns_the_encoded_commands(
        commands in vec(any_command(), 0..5),
        cuts in vec(any::<usize>(), 0..8),
    ) {
        let bytes = encoded(&commands);
        let limits = Limits::default();
        prop_assert_eq!(decode(limits, &bytes, &cuts), (commands.clone(), vec![], None));
        prop_assert_eq!(decode(limits, &bytes, &one_by_one(&bytes)), (commands, vec![], None));
    }

    #[test]
    fn inline_quoting_carries_any_argument(command in any_command(), cuts in vec(any::<usize>(), 0..8)) {
        let words: Vec<Vec<u8>> = command.iter().map(|arg| quoted(arg)).collect();
        let line = [words.join(&b' '), b"\r\n".to_vec()].concat();
        prop_assert_eq!(decode(Limits::default(), &line, &cuts), (vec![command], vec![], None));
    }

    #[test]
    fn pieces_never_change_what_is_decoded(bytes in protocol_like(), cuts in vec(any::<usize>(), 0..8)) {
        let whole = decode(LIMITS, &bytes, &[]);
        prop_assert_eq!(decode(LIMITS, &bytes, &cuts), whole.clone());
        prop_assert_eq!(decode(LIMITS, &bytes, &one_by_one(&bytes)), whole);
    }

    #[test]
    fn what_waits_is_bounded_by_the_limits(bytes in protocol_like()) {
        let (_, waiting, _) = decode(LIMITS, &bytes, &one_by_one(&bytes));
        prop_assert!(waiting.len() <= LIMITS.command_bytes_max + LIMITS.inline_bytes_max + 1);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300), cuts in vec(any::<usize>(), 0..4)) {
        decode(LIMITS, &bytes, &cuts);
        let _ = (frame_len(&bytes), parse(&bytes), array_elements(&bytes), integer(&bytes));
    }

    #[test]
    fn parsing_returns_the_written_value(value in any_value(), rest in vec(any::<u8>(), 0..5)) {
        let mut bytes = written(&value, Protocol::Resp3);
        let len = bytes.len();
        bytes.extend(rest);
        prop_assert_eq!(parse(&bytes), Ok(Some((value, len))));
    }

    #[test]
    fn every_written_reply_is_one_frame(value in any_value()) {
        for protocol in [Protocol::Resp2, Protocol::Resp3] {
            let bytes = written(&value, protocol);
            prop_assert_eq!(frame_len(&bytes), Ok(Some(bytes.len())));
            prop_assert_eq!(frame_len(&bytes[..bytes.len() - 1]), Ok(None));
        }
    }

    #[test]
    fn all_readers_of_replies_agree(bytes in reply_like()) {
        let len = frame_len(&bytes);
        prop_assert_eq!(parse(&bytes).map(|whole| whole.map(|(_, len)| len)), len);

        // The parts of an array are its elements. Compared as text, in which nan equals nan.
        if let (Ok(Some(len)), Some(b'*')) = (len, bytes.first()) {
            let (value, _) = parse(&bytes).unwrap().unwrap();
            let elements = array_elements(&bytes[..len]);
            prop_assert_eq!(elements.is_none(), value == Value::Null);
            if let (Some(elements), Value::Array(values)) = (elements, value) {
                let parsed: Vec<Value> = elements.iter().map(|e| parse(e).unwrap().unwrap().0).collect();
                prop_assert_eq!(format!("{parsed:?}"), format!("{values:?}"));
            }
        }
    }

    #[test]
    fn pieces_never_change_what_is_scanned(bytes in reply_like(), cuts in vec(any::<usize>(), 0..8)) {
        let scan = |cuts: &[usize]| {
            let (mut scanner, mut buf, mut lens) = (FrameScanner::default(), Vec::new(), Vec::new());
            for piece in pieces(&bytes, cuts) {
                buf.extend_from_slice(piece);
                loop {
                    match scanner.scan(&buf) {
                        Ok(Some(len)) => {
                            buf.drain(..len);
                            lens.push(len);
                        }
                        Ok(None) => break,
                        Err(error) => return (lens, Some(error)),
                    }
                }
            }
            (lens, None)
        };
        let whole = scan(&[]);
        prop_assert_eq!(scan(&cuts), whole.clone());
        prop_assert_eq!(scan(&one_by_one(&bytes)), whole);
    }
}
