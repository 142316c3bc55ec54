//! Whatever bytes come, reading them ends in a value or an error.

use proptest::prelude::*;
use whatap_wire::frame::{Draft, Frame, Step, StepKind, check, seal};
use whatap_wire::message::Message;

fn step() -> impl Strategy<Value = (u8, u8, Option<u16>, u32, i32, [String; 4])> {
    let texts = prop::array::uniform4(".{0,40}");
    (
        any::<u8>(),
        any::<u8>(),
        prop::option::of(0..1000_u16),
        any::<u32>(),
        any::<i32>(),
        texts,
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        steps in prop::collection::vec(step(), 0..20),
        texts in prop::array::uniform4(".{0,200}"),
        position in any::<u64>(),
        id in 1..u64::MAX,
    ) {
        let steps: Vec<Step<'_>> = steps
            .iter()
            .map(|(kind, flags, parent, start_us, value, [a, b, c, d])| Step {
                kind: StepKind(*kind), flags: *flags, parent: *parent, start_us: *start_us, value: *value, a, b, c, d,
                ..Step::default()
            })
            .collect();
        let head = Frame { id, name: &texts[0], path: &texts[1], error_stack: &texts[2], user: &texts[3], ..Frame::default() };
        let draft = Draft { head, steps, attributes: vec![(&texts[3], &texts[0])] };
        let bytes = draft.encode(position);
        prop_assert_eq!(check(&bytes, position), Ok(()));
        let frame = Frame::decode(&bytes).unwrap();
        prop_assert_eq!(frame.steps.iter().collect::<Vec<_>>(), draft.steps);
        prop_assert_eq!(frame.attributes.iter().collect::<Vec<_>>(), draft.attributes);
        prop_assert_eq!((frame.name, frame.path, frame.error_stack), (draft.head.name, draft.head.path, draft.head.error_stack));
    }

    #[test]
    fn a_frame_with_a_valid_checksum_and_any_content_is_read_without_a_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 120..600),
        lengths in prop::array::uniform3(0..700_u32),
    ) {
        bytes[8] = 1;
        bytes[9] = 1;
        bytes[10..12].copy_from_slice(&120_u16.to_le_bytes());
        for (place, length) in [88, 104, 108].into_iter().zip(lengths) {
            bytes[place..place + 4].copy_from_slice(&length.to_le_bytes());
        }
        seal(&mut bytes, 0);
        if let Ok(frame) = Frame::decode(&bytes) {
            prop_assert!(frame.steps.iter().count() <= frame.steps.len());
            prop_assert!(frame.attributes.iter().count() <= frame.attributes.len());
        }
    }

    #[test]
    fn any_packet_is_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(message) = Message::parse(&bytes) {
            prop_assert_eq!(Message::parse(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn a_message_keeps_its_values(values in prop::collection::vec(("[a-z_.]{1,10}", ".{0,60}"), 0..8)) {
        let message = values.iter().fold(Message::new("attach"), |message, (key, value)| message.with(key, value));
        prop_assert_eq!(Message::parse(&message.encode()), Ok(message));
    }
}
