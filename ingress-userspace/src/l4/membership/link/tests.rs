//! Frames as bytes, and who gets some.

use ingress_common::abi::Be16;
use proptest::prelude::*;

use super::*;

const OWN: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
const PEER: Mac = Mac::new([2, 0, 0, 0, 0, 2]);
const INTERVAL: Duration = Duration::from_millis(100);

const fn road(vlan: Vlan) -> Road {
    Road { link: 2, vlan, from: OWN, to: PEER }
}

/// As the peer sends it.
const fn head(is_deaf: bool) -> Head {
    Head { to: OWN, from: PEER, is_deaf }
}

/// With the peers "a" and "b", of which "a" is on the link; nothing can be sent.
fn links(now: Instant) -> Links {
    let mut links = Links::new(INTERVAL, 7947);
    links.declare(now, &["a".to_owned(), "b".to_owned()]);
    links.roads = BTreeMap::from([("a".to_owned(), road(Vlan::NONE))]);
    links
}

#[test]
fn a_frame_is_read_as_it_was_written_also_padded() {
    for is_deaf in [false, true] {
        let mut frame = write(&road(Vlan::NONE), is_deaf, b"hello").unwrap();
        assert_eq!(frame[..14], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
        frame.resize(60, 0);
        let expected = Head { to: PEER, from: OWN, is_deaf };
        assert_eq!(read(&frame), Some((expected, &b"hello"[..])));
    }
    let vlan = Vlan::NONE.with(Be16::new(5), false);
    assert_eq!(write(&road(vlan), false, b"hello").unwrap()[12..16], [0x81, 0, 0, 5]);
    assert!(write(&road(vlan), false, &[0; MAX_DATAGRAM]).unwrap().len() <= 1518, "fits into a frame");
}

#[test]
fn a_peer_that_waits_for_answers_is_answered_at_once_and_then_goes_on_to_be() {
    let start = Instant::now();
    let mut links = links(start);
    assert_eq!(links.heard_by_link(start, "a", head(true)), Some(true));
    assert_eq!(links.heard_by_link(start + INTERVAL, "a", head(true)), Some(false));
    assert_eq!(links.heard_by_link(start + INTERVAL, "a", head(false)), Some(false));
    assert_eq!(links.heard_by_link(start + INTERVAL * 30, "a", head(true)), Some(true), "after a pause");
}

#[test]
fn frames_from_elsewhere_are_refused() {
    let start = Instant::now();
    let mut links = links(start);
    let elsewhere = Mac::new([2, 0, 0, 0, 0, 9]);
    assert_eq!(links.heard_by_link(start, "a", Head { from: elsewhere, ..head(true) }), None);
    assert_eq!(links.heard_by_link(start, "a", Head { to: elsewhere, ..head(true) }), None);
    assert_eq!(links.heard_by_link(start, "b", head(true)), None, "not on the link");
    assert_eq!(links.heard_by_link(start, "c", head(true)), None, "not declared");
}

#[test]
fn a_peer_without_udp_is_told_of_until_it_has_it_again() {
    let start = Instant::now();
    let mut links = links(start);
    let late = start + TELL_AFTER;
    links.heard_by_link(late, "a", head(true));
    assert_eq!(links.alone(start + TELL_AFTER / 2), 0, "not yet");
    assert_eq!(links.alone(late), 1);
    links.heard_by_udp(late, "a");
    assert_eq!(links.alone(late), 0);
    links.heard_by_udp(late, "b");
    assert_eq!(links.alone(late + TELL_AFTER), 0, "dead is another thing");
}

proptest! {
    #[test]
    fn no_frame_does_harm(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        if let Some((_, datagram)) = read(&bytes) {
            prop_assert!(datagram.len() + HEADER <= bytes.len());
        }
    }
}
