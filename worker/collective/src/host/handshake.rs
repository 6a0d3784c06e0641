//! The words two ranks exchange before they trust a connection. Pure: no sockets, no clock.
//!
//! ```text
//!  dialler                                   acceptor
//!    Hello: who, where to, nonce  ─────────▶   judges it
//!    checks the proof  ◀─────────  Challenge: its nonce and its proof, or a refusal
//!    its proof  ───────────────────────────▶   checks it
//!    the link is open  ◀──────────────────────  Verdict: welcome, or a refusal
//! ```
//!
//! A proof is a keyed BLAKE3 hash of both nonces and all of the hello, under the generation's
//! secret and a label for the side that speaks: the secret never travels, an old conversation
//! can't be replayed, and a proof can't be sent back to its maker. What follows the handshake is
//! neither encrypted nor signed: run the collectives on a private network.
//!
//! Every message has a fixed length, so a stranger can't make us allocate.

use blake3::Hash;

use super::spec::{Secret, WorldSpec};
use crate::error::{Refusal, VERSION};
use crate::{Rank, wire};

const MAGIC: &[u8; 8] = b"LOCKSTEP";

pub(super) const HELLO_LEN: usize = 8 + 4 + 8 + 4 + 4 + 4 + 4 + 4 + 32 + 32;
pub(super) const VERDICT_LEN: usize = 1 + 8;
pub(super) const CHALLENGE_LEN: usize = VERDICT_LEN + 32 + 32;
pub(super) const PROOF_LEN: usize = 32;

pub(super) type Nonce = [u8; 32];

/// Which side proves that it knows the secret.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Dialler,
    Acceptor,
}

/// The first message: who dials, and whom it expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) version: u32,
    pub(super) generation: u64,
    pub(super) from: Rank,
    pub(super) to: Rank,
    pub(super) channel: u32,
    pub(super) world: u32,
    pub(super) channels: u32,
    /// Hash of the run id.
    pub(super) run: [u8; 32],
    pub(super) nonce: Nonce,
}

impl Hello {
    pub(super) fn new(spec: &WorldSpec, to: Rank, channel: u32, nonce: Nonce) -> Self {
        Self {
            version: VERSION,
            generation: spec.generation,
            from: spec.rank,
            to,
            channel,
            world: spec.world(),
            channels: spec.channels,
            run: run_hash(spec),
            nonce,
        }
    }

    pub(super) fn encode(&self) -> [u8; HELLO_LEN] {
        let mut bytes = [0; HELLO_LEN];
        let mut writer = wire::Writer::new(&mut bytes);
        writer.put(MAGIC);
        writer.put(&self.version.to_le_bytes());
        writer.put(&self.generation.to_le_bytes());
        writer.put(&self.from.0.to_le_bytes());
        writer.put(&self.to.0.to_le_bytes());
        writer.put(&self.channel.to_le_bytes());
        writer.put(&self.world.to_le_bytes());
        writer.put(&self.channels.to_le_bytes());
        writer.put(&self.run);
        writer.put(&self.nonce);
        bytes
    }

    /// `None` where it is not our protocol.
    pub(super) fn decode(bytes: &[u8; HELLO_LEN]) -> Option<Self> {
        let mut reader = wire::Reader::new(bytes);
        if reader.take() != *MAGIC {
            return None;
        }
        Some(Self {
            version: u32::from_le_bytes(reader.take()),
            generation: u64::from_le_bytes(reader.take()),
            from: Rank(u32::from_le_bytes(reader.take())),
            to: Rank(u32::from_le_bytes(reader.take())),
            channel: u32::from_le_bytes(reader.take()),
            world: u32::from_le_bytes(reader.take()),
            channels: u32::from_le_bytes(reader.take()),
            run: reader.take(),
            nonce: reader.take(),
        })
    }

    /// Whether such a connection belongs to our world; says nothing of the secret yet.
    /// Lower ranks accept, higher ones dial, so that each pair meets once.
    pub(super) fn judge(&self, spec: &WorldSpec) -> Result<(), Refusal> {
        if self.version != VERSION {
            Err(Refusal::Version { theirs: VERSION })
        } else if self.run != run_hash(spec) {
            Err(Refusal::Run)
        } else if self.generation != spec.generation {
            Err(Refusal::Generation { theirs: spec.generation })
        } else if self.fits(spec) {
            Ok(())
        } else {
            Err(Refusal::Place)
        }
    }

    fn fits(&self, spec: &WorldSpec) -> bool {
        (self.world, self.channels, self.to) == (spec.world(), spec.channels, spec.rank)
            && self.channel < self.channels
            && spec.rank < self.from
            && self.from.0 < self.world
    }

    /// The proof that `side` knows the secret. Comparing two takes constant time.
    pub(super) fn proof(&self, secret: &Secret, side: Side, acceptor: &Nonce) -> Hash {
        let mut hasher = blake3::Hasher::new_keyed(secret.bytes());
        hasher.update(match side {
            Side::Dialler => b"dialler ",
            Side::Acceptor => b"acceptor",
        });
        hasher.update(&self.encode());
        hasher.update(acceptor);
        hasher.finalize()
    }
}

fn run_hash(spec: &WorldSpec) -> [u8; 32] {
    *blake3::hash(spec.run_id.as_bytes()).as_bytes()
}

/// The acceptor's answer to a hello that it likes.
pub(super) struct Challenge {
    pub(super) nonce: Nonce,
    pub(super) proof: Hash,
}

impl Challenge {
    /// An answer to a hello: this challenge, or a refusal in the same number of bytes.
    pub(super) fn encode(answer: Result<&Self, Refusal>) -> [u8; CHALLENGE_LEN] {
        let mut bytes = [0; CHALLENGE_LEN];
        let mut writer = wire::Writer::new(&mut bytes);
        writer.put(&encode_verdict(answer.map(|_| ())));
        if let Ok(challenge) = answer {
            writer.put(&challenge.nonce);
            writer.put(challenge.proof.as_bytes());
        }
        bytes
    }

    /// `None` where it is not our protocol.
    pub(super) fn decode(bytes: &[u8; CHALLENGE_LEN]) -> Option<Result<Self, Refusal>> {
        let mut reader = wire::Reader::new(bytes);
        let verdict = decode_verdict(&reader.take())?;
        let (nonce, proof) = (reader.take(), Hash::from_bytes(reader.take()));
        Some(verdict.map(|()| Self { nonce, proof }))
    }
}

/// Welcome, or why not.
pub(super) fn encode_verdict(verdict: Result<(), Refusal>) -> [u8; VERDICT_LEN] {
    let (code, detail) = match verdict {
        Ok(()) => (0, 0),
        Err(Refusal::Version { theirs }) => (1, u64::from(theirs)),
        Err(Refusal::Run) => (2, 0),
        Err(Refusal::Generation { theirs }) => (3, theirs),
        Err(Refusal::Place) => (4, 0),
        Err(Refusal::Secret) => (5, 0),
    };
    let mut bytes = [0; VERDICT_LEN];
    let mut writer = wire::Writer::new(&mut bytes);
    writer.put(&[code]);
    writer.put(&detail.to_le_bytes());
    bytes
}

/// `None` where it is not our protocol.
pub(super) fn decode_verdict(bytes: &[u8; VERDICT_LEN]) -> Option<Result<(), Refusal>> {
    let mut reader = wire::Reader::new(bytes);
    let [code] = reader.take();
    let detail = u64::from_le_bytes(reader.take());
    match code {
        0 => Some(Ok(())),
        1 => Some(Err(Refusal::Version { theirs: u32::try_from(detail).ok()? })),
        2 => Some(Err(Refusal::Run)),
        3 => Some(Err(Refusal::Generation { theirs: detail })),
        4 => Some(Err(Refusal::Place)),
        5 => Some(Err(Refusal::Secret)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn spec() -> WorldSpec {
        WorldSpec {
            run_id: "run".into(),
            generation: 7,
            rank: Rank(1),
            peers: vec!["127.0.0.1:1".parse().unwrap(); 3],
            secret: [9; 32].into(),
            connect_deadline: Duration::ZERO,
            op_deadline: Duration::ZERO,
            channels: 2,
        }
    }

    fn hello() -> Hello {
        Hello { from: Rank(2), ..Hello::new(&spec(), Rank(1), 1, [5; 32]) }
    }

    #[test]
    fn a_hello_of_the_right_world_is_welcome_and_each_wrong_field_has_its_reason() {
        let good = hello();
        assert_eq!(good.judge(&spec()), Ok(()));
        let cases = [
            (Hello { version: 99, ..good }, Refusal::Version { theirs: VERSION }),
            (Hello { run: [0; 32], ..good }, Refusal::Run),
            (Hello { generation: 6, ..good }, Refusal::Generation { theirs: 7 }),
            (Hello { from: Rank(1), ..good }, Refusal::Place),
            (Hello { from: Rank(3), ..good }, Refusal::Place),
            (Hello { to: Rank(0), ..good }, Refusal::Place),
            (Hello { channel: 2, ..good }, Refusal::Place),
            (Hello { world: 4, ..good }, Refusal::Place),
            (Hello { channels: 3, ..good }, Refusal::Place),
        ];
        for (hello, refusal) in cases {
            assert_eq!(hello.judge(&spec()), Err(refusal), "{hello:?}");
        }
    }

    #[test]
    fn a_proof_depends_on_the_secret_the_side_and_both_nonces() {
        let (secret, other) = (Secret::from([1; 32]), Secret::from([2; 32]));
        let proof = hello().proof(&secret, Side::Dialler, &[3; 32]);
        assert_eq!(proof, hello().proof(&secret, Side::Dialler, &[3; 32]));
        assert_ne!(proof, hello().proof(&other, Side::Dialler, &[3; 32]));
        assert_ne!(proof, hello().proof(&secret, Side::Acceptor, &[3; 32]));
        assert_ne!(proof, hello().proof(&secret, Side::Dialler, &[4; 32]));
        let later = Hello { nonce: [6; 32], ..hello() };
        assert_ne!(proof, later.proof(&secret, Side::Dialler, &[3; 32]));
    }

    #[test]
    fn a_secret_does_not_appear_in_a_log() {
        assert!(!format!("{:?}", spec()).contains("9, 9"));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_to_a_message_or_to_nothing(
            hello in any::<[u8; 32]>(), verdict in any::<[u8; VERDICT_LEN]>(), magic in any::<bool>(),
            proof in any::<[u8; 32]>(),
        ) {
            let mut challenge = [0; CHALLENGE_LEN];
            challenge[..VERDICT_LEN].copy_from_slice(&verdict);
            for (byte, random) in challenge[VERDICT_LEN..].iter_mut().zip(proof.iter().cycle()) {
                *byte = *random;
            }
            if let Some(Ok(known)) = Challenge::decode(&challenge) {
                prop_assert_eq!(known.nonce, proof);
                prop_assert_eq!(Challenge::encode(Ok(&known))[VERDICT_LEN..].to_vec(), challenge[VERDICT_LEN..].to_vec());
            }
            let mut bytes = [0; HELLO_LEN];
            for (byte, random) in bytes.iter_mut().zip(hello.iter().cycle()) {
                *byte = *random;
            }
            if magic {
                bytes[..MAGIC.len()].copy_from_slice(MAGIC);
            }
            if let Some(hello) = Hello::decode(&bytes) {
                prop_assert_eq!(hello.encode(), bytes);
            }
            if let Some(known) = decode_verdict(&verdict) {
                prop_assert_eq!(decode_verdict(&encode_verdict(known)), Some(known));
            }
        }
    }
}
