use super::*;

const NONCE_A: Nonce = [1; NONCE_BYTES];
const NONCE_B: Nonce = [2; NONCE_BYTES];

fn secret(text: &str) -> PeerSecret {
    PeerSecret::new(text.as_bytes()).unwrap()
}

fn hello() -> Hello {
    Hello {
        feature_level: 1,
        channel: Channel::Requests,
        cluster_id: 1 << 100,
        node: "n1".into(),
        store_id: 5,
        worker: 1,
        to_worker: 2,
        nonce: None,
    }
}

fn ack() -> HelloAck {
    HelloAck { feature_level: 1, cluster_id: 2, store_id: 3, workers: 4, node: "n2".into() }
}

/// The frames of `bytes`.
fn frames(bytes: &[u8]) -> Vec<(Kind, Vec<u8>)> {
    let (mut frames, mut at) = (Vec::new(), 0);
    while let Some(frame) = frame::next(&bytes[at..]).unwrap() {
        frames.push((frame.kind, frame.body.to_vec()));
        at += frame.consumed;
    }
    frames
}

/// Both sides to their ends, each frame through `change` (its number, its body).
fn shake(
    secrets: [Option<&PeerSecret>; 2],
    mut change: impl FnMut(usize, &mut Vec<u8>),
) -> [Result<bool, String>; 2] {
    let mut number = 0;
    let mut deliver = |bytes: &mut Vec<u8>| -> Vec<(Kind, Vec<u8>)> {
        let mut frames = frames(&std::mem::take(bytes));
        for (_, body) in &mut frames {
            change(number, body);
            number += 1;
        }
        frames
    };
    let (mut to_node, mut to_caller) = (Vec::new(), Vec::new());
    let mut initiator = Initiator::new(hello(), secrets[0], NONCE_A, &mut to_node);
    let mut responder = Responder::new(secrets[1], NONCE_B);
    let (mut caller, mut node) = (Ok(false), Ok(false));
    loop {
        let coming = deliver(&mut to_node);
        let going_before = to_caller.len();
        for (kind, body) in &coming {
            if node != Ok(false) {
                break;
            }
            match responder.take(*kind, body, &mut to_caller) {
                Ok(Some(_)) => {
                    responder.accept(&ack(), &mut to_caller);
                    node = Ok(true);
                }
                Ok(None) => {}
                Err(error) => node = Err(error),
            }
        }
        if coming.is_empty() && going_before == to_caller.len() {
            return [caller, node];
        }
        for (kind, body) in deliver(&mut to_caller) {
            match initiator.take(kind, &body, &mut to_node) {
                Ok(Some(answer)) => {
                    assert_eq!(answer, ack());
                    caller = Ok(true);
                }
                Ok(None) => {}
                Err(error) => caller = Err(error),
            }
        }
    }
}

fn as_it_is(_: usize, _: &mut Vec<u8>) {}

#[test]
fn hello_round_trips() {
    for nonce in [None, Some(NONCE_A)] {
        let hello = Hello { nonce, ..hello() };
        let mut out = Vec::new();
        hello.encode(&mut out);
        assert_eq!(Hello::decode(&frames(&out)[0].1), Ok(hello));
    }
}

#[test]
fn the_same_secret_or_none_opens_a_link() {
    let (one, same) = (secret("0123456789abcdef"), secret("0123456789abcdef\n"));
    assert_eq!(shake([Some(&one), Some(&same)], as_it_is), [Ok(true), Ok(true)]);
    assert_eq!(shake([None, None], as_it_is), [Ok(true), Ok(true)]);
}

#[test]
fn who_lacks_the_secret_or_has_another_one_is_told() {
    let (one, other) = (secret("0123456789abcdef"), secret("fedcba9876543210"));
    for (secrets, why) in
        [([None, Some(&one)], LACKS), ([Some(&one), None], HAS), ([Some(&one), Some(&other)], DIFFERS)]
    {
        assert_eq!(shake(secrets, as_it_is), [Err(why.to_owned()), Err(why.to_owned())]);
    }
}

#[test]
fn a_node_that_does_not_prove_the_secret_is_refused() {
    let one = secret("0123456789abcdef");
    let mut out = Vec::new();
    let mut initiator = Initiator::new(hello(), Some(&one), NONCE_A, &mut out);
    let mut answer = Vec::new();
    Responder::new(None, NONCE_B).accept(&ack(), &mut answer);
    let (kind, body) = &frames(&answer)[0];
    assert_eq!(initiator.take(*kind, body, &mut out), Err(UNPROVEN.to_owned()), "without a challenge");
    initiator.take(Kind::Challenge, &NONCE_B, &mut out).unwrap();
    assert_eq!(initiator.take(*kind, body, &mut out), Err(UNPROVEN.to_owned()), "without a proof");
    // Its own proof sent back is none of the node's.
    let own = frames(&out).pop().unwrap().1;
    assert_eq!(initiator.take(*kind, &[&body[..], &own].concat(), &mut out), Err(UNPROVEN.to_owned()));
}

#[test]
fn a_changed_byte_anywhere_opens_nothing() {
    let one = secret("0123456789abcdef");
    let mut lengths = Vec::new();
    let ends = shake([Some(&one), Some(&one)], |_, body| lengths.push(body.len()));
    assert_eq!(ends, [Ok(true), Ok(true)]);
    assert_eq!(lengths.len(), 4, "hello, challenge, proof, answer");
    for (number, len) in lengths.into_iter().enumerate() {
        for at in 0..len {
            let ends = shake([Some(&one), Some(&one)], |n, body| {
                if n == number {
                    body[at] ^= 1;
                }
            });
            assert!(ends[0] != Ok(true), "frame {number}, byte {at}: {ends:?}");
            assert!(number == 3 || ends[1] != Ok(true), "frame {number}, byte {at}: {ends:?}");
        }
    }
}

#[test]
fn a_proof_of_another_link_opens_nothing() {
    let one = secret("0123456789abcdef");
    let mut out = Vec::new();
    let mut initiator = Initiator::new(hello(), Some(&one), NONCE_A, &mut out);
    initiator.take(Kind::Challenge, &NONCE_B, &mut out).unwrap();
    let recorded = frames(&out);
    let mut sent = Vec::new();
    let mut responder = Responder::new(Some(&one), [3; NONCE_BYTES]);
    assert_eq!(responder.take(recorded[0].0, &recorded[0].1, &mut sent), Ok(None));
    assert_eq!(responder.take(recorded[1].0, &recorded[1].1, &mut sent), Err(DIFFERS.to_owned()));
}

#[test]
fn nothing_is_taken_before_the_proof() {
    let one = secret("0123456789abcdef");
    for kind in [Kind::Proof, Kind::Challenge, Kind::HelloAck, Kind::Probe, Kind::MapGet, Kind::Raft] {
        let mut out = Vec::new();
        assert!(
            Responder::new(Some(&one), NONCE_B).take(kind, &[0; 32], &mut out).is_err(),
            "{kind:?} first"
        );
        let mut responder = Responder::new(Some(&one), NONCE_B);
        Hello { nonce: Some(NONCE_A), ..hello() }.encode(&mut out);
        let hello = frames(&out).pop().unwrap().1;
        assert_eq!(responder.take(Kind::Hello, &hello, &mut out), Ok(None));
        assert!(responder.take(kind, &[0; 32], &mut out).is_err(), "{kind:?} in place of the proof");
        assert!(responder.take(Kind::Hello, &hello, &mut out).is_err(), "twice");
    }
}
