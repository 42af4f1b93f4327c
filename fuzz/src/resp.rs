//! Client bytes -> commands.
//!
//! - The commands, and the error that ends them, do not depend on how the bytes are cut.
//! - What waits for more bytes is bounded by the limits, not by announced lengths.
//! - A command that is written again is decoded again, whatever its arguments are.
//! - Every command has row, arity and key positions that can be asked for.

use ringfort_resp::{CommandDecoder, Limits, ProtocolError, Status, commands, write_command};

use super::input::{Input, pieces};

/// Small bounds, so that inputs pass them.
const SMALL: Limits =
    Limits { bulk_bytes_max: 40, args_max: 6, inline_bytes_max: 48, command_bytes_max: 200 };

/// The commands of a connection, and the error that ended it.
type Outcome = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

/// Runs the target. Layout: limits (1), seed of the pieces (1), the client's bytes.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let limits = if input.u8().is_multiple_of(2) { SMALL } else { Limits::default() };
    let seed = input.u8();
    let bytes = input.rest();
    let whole = decode(limits, [bytes]);
    assert_eq!(decode(limits, pieces(bytes, seed)), whole, "cut into pieces");
    assert_eq!(decode(limits, bytes.chunks(1)), whole, "byte by byte");
    for command in &whole.0 {
        let mut again = Vec::new();
        write_command(command, &mut again);
        let expected = (vec![command.clone()], None);
        assert_eq!(decode(Limits::default(), pieces(&again, seed)), expected, "written again");
        describe(command);
    }
}

fn decode<'a>(limits: Limits, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut decoder = CommandDecoder::new(limits);
    let (mut buf, mut commands) = (Vec::new(), Vec::new());
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match decoder.decode(&buf) {
                Ok(Status::Complete { consumed }) => {
                    assert!(0 < consumed && consumed <= buf.len(), "a command takes bytes that are there");
                    let args: Vec<Vec<u8>> = decoder.iter(&buf).map(<[u8]>::to_vec).collect();
                    assert!(args.len() <= limits.args_max.max(limits.inline_bytes_max));
                    commands.extend((!args.is_empty()).then_some(args));
                    buf.drain(..consumed);
                }
                Ok(Status::Incomplete) => {
                    let bound = limits.command_bytes_max + limits.inline_bytes_max + 1;
                    assert!(buf.len() <= bound, "{} bytes wait", buf.len());
                    break;
                }
                Err(error) => return (commands, Some(error)),
            }
        }
    }
    (commands, None)
}

fn describe(command: &[Vec<u8>]) {
    let Some(spec) = commands::lookup(&command[0]) else {
        let args = command[1..].iter().map(Vec::as_slice);
        assert!(!commands::unknown_command_error(&command[0], args).contains(['\r', '\n']));
        return;
    };
    if let Ok(row) = spec.judge(command[1..].iter().map(Vec::as_slice)) {
        assert!(row.keys(command.len()).all(|at| at < command.len()), "a key is an argument");
    }
}
