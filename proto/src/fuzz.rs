//! Whatever arrives, no message makes its reader panic, and what is accepted can be passed on unchanged.

use proptest::prelude::*;
use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value,
};

use crate::coordinator_message::CoordinatorMessage;
use crate::run_event::RunEvent;
use crate::status::{RunStatus, WorkerStatus};
use crate::worker_message::WorkerMessage;
use crate::{FILE_DESCRIPTOR_SET, Malformed, wire};

/// Messages inside messages that are made; the deepest real one is a member in a world in a message.
const DEPTH: u32 = 5;

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the build made it"));

/// A text that is accepted where a configuration is wanted.
static CONFIG: LazyLock<String> = LazyLock::new(|| {
    crate::layers::Layers::default().resolve().expect("the defaults are valid").config.to_json()
});

/// Reads bytes as one of the messages. `Ok(false)`: refused, as it should be.
type Reader = fn(&[u8]) -> Result<bool, TestCaseError>;

/// Every message that one side sends on its own; the others are parts of these, or hold only checked names.
const READERS: [(&str, Reader); 5] = [
    ("WorkerMessage", read::<wire::WorkerMessage, WorkerMessage>),
    ("CoordinatorMessage", read::<wire::CoordinatorMessage, CoordinatorMessage>),
    ("Run", read::<wire::Run, RunStatus>),
    ("Worker", read::<wire::Worker, WorkerStatus>),
    ("RunEvent", read::<wire::RunEvent, RunEvent>),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn arbitrary_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for (_, reader) in READERS {
            reader(&bytes)?;
        }
    }

    #[test]
    fn every_message_with_arbitrary_fields_is_read_or_refused(
        which in 0..READERS.len(),
        entropy in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let (name, reader) = READERS[which];
        reader(&made_of(name, &entropy))?;
    }

    #[test]
    fn a_message_that_was_cut_or_changed_on_its_way_is_read_or_refused(
        which in 0..READERS.len(),
        entropy in prop::collection::vec(any::<u8>(), 0..400),
        cut in any::<prop::sample::Index>(),
        change in any::<(prop::sample::Index, u8)>(),
    ) {
        let (name, reader) = READERS[which];
        let mut bytes = made_of(name, &entropy);
        bytes.truncate(cut.index(bytes.len() + 1));
        if !bytes.is_empty() {
            let at = change.0.index(bytes.len());
            bytes[at] ^= change.1;
        }
        reader(&bytes)?;
    }
}

#[test]
fn the_fields_are_arbitrary_but_often_good_enough_to_be_accepted() {
    for (name, reader) in READERS {
        let accepted = (0..500_u32).filter(|seed| {
            let entropy: Vec<_> = (0..400_u32).map(|at| mixed(seed * 401 + at)).collect();
            reader(&made_of(name, &entropy)).unwrap()
        });
        let accepted = accepted.count();
        assert!((1..500).contains(&accepted), "{name}: {accepted} of 500 are accepted");
    }
}

fn mixed(seed: u32) -> u8 {
    (seed.wrapping_mul(0x9E37_79B1) >> 13).to_le_bytes()[0]
}

fn read<W, T>(bytes: &[u8]) -> Result<bool, TestCaseError>
where
    W: Message + Default + From<T>,
    T: TryFrom<W, Error = Malformed>,
{
    let Some(message) = W::decode(bytes).ok().and_then(|wire| T::try_from(wire).ok()) else {
        return Ok(false);
    };
    // As bytes, since a number that is none does not equal itself.
    let once = W::from(message).encode_to_vec();
    let again = T::try_from(W::decode(once.as_slice()).expect("prost reads what it writes"));
    let again = again.map(|message| W::from(message).encode_to_vec());
    prop_assert_eq!(again, Ok(once));
    Ok(true)
}

/// The encoded message `name` with fields that `entropy` chooses; where it ends, with none.
fn made_of(name: &str, entropy: &[u8]) -> Vec<u8> {
    let descriptor = POOL.get_message_by_name(&format!("lockstep.v1.{name}")).expect("it is there");
    Maker(entropy).message(&descriptor, DEPTH).encode_to_vec()
}

/// Takes its choices from bytes.
struct Maker<'a>(&'a [u8]);

impl Maker<'_> {
    fn below(&mut self, limit: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % limit
    }

    fn message(&mut self, descriptor: &MessageDescriptor, depth: u32) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        let alone = descriptor.fields().filter(|field| field.containing_oneof().is_none());
        let chosen = descriptor.oneofs().filter_map(|oneof| {
            let fields: Vec<_> = oneof.fields().collect();
            fields.get(self.below(fields.len() + 1)).cloned()
        });
        let fields: Vec<_> = chosen.collect::<Vec<_>>().into_iter().chain(alone).collect();
        for field in fields {
            if self.below(8) > 0 && !(depth == 0 && matches!(field.kind(), Kind::Message(_))) {
                message.set_field(&field, self.field(&field, depth));
            }
        }
        message
    }

    fn field(&mut self, field: &FieldDescriptor, depth: u32) -> Value {
        if field.full_name() == "lockstep.v1.World.members" {
            let members = POOL.get_message_by_name("lockstep.v1.Members").expect("it is there");
            return Value::Bytes(self.message(&members, depth).encode_to_vec().into());
        }
        if !field.is_list() {
            return self.value(&field.kind(), depth);
        }
        let length = self.below(3);
        Value::List((0..length).map(|_| self.value(&field.kind(), depth)).collect())
    }

    fn value(&mut self, kind: &Kind, depth: u32) -> Value {
        const DOUBLES: [f64; 9] =
            [0.5, 0.0, 1.0, -0.0, -1.0, 1e300, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE];
        let small = self.below(5);
        let number = [small as u64, small as u64, 42, u64::MAX >> self.below(64)][self.below(4)];
        match kind {
            Kind::Double => Value::F64(DOUBLES[self.below(DOUBLES.len())]),
            Kind::Bool => Value::Bool(number % 2 == 1),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(number.to_le_bytes()[0].into()),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(number),
            Kind::Enum(_) => Value::EnumNumber(number.to_le_bytes()[0].into()),
            Kind::String => Value::String(self.text()),
            Kind::Bytes => {
                let length = [32, 128, 128, 31][self.below(4)];
                Value::Bytes(vec![self.below(2).to_le_bytes()[0]; length].into())
            }
            Kind::Message(descriptor) => Value::Message(self.message(descriptor, depth - 1)),
            Kind::Float
            | Kind::Int32
            | Kind::Int64
            | Kind::Sint32
            | Kind::Sint64
            | Kind::Sfixed32
            | Kind::Sfixed64 => unreachable!("no message has a field of this kind yet"),
        }
    }

    fn text(&mut self) -> String {
        match self.below(6) {
            0 => String::new(),
            1 => "é".repeat(self.below(200) * 20),
            2 => "{\"run\":{\"id\":\"x\"}}".into(),
            3 => CONFIG.clone(),
            _ => "127.0.0.1:80".into(),
        }
    }
}
