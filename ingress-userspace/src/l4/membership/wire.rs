//! Datagrams as bytes: `magic(4) version(1) flags(1) incarnation(8) sequence(8) body`, integers big-endian. Body of a
//! heartbeat ("XIHB"): `announced(1, top bit: gossips) echo-incarnation(8, 0 = none) sender-name(rest)`; of gossip ("XIGO"):
//! `length(1) sender-name message(rest)`. With a key the body is sealed by AES-256-GCM under
//! a key derived per incarnation (HKDF-SHA256), the sequence is the nonce and the header is authenticated too.
//! Called by `thread`; reads bytes of anybody who can reach the port, so it must refuse everything else quietly.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};

use super::machine::{Announced, Beat, Incarnation};
use super::swim::MAX_MESSAGE;

/// Heartbeats and gossip count their datagrams apart, so each has keys of its own.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Beat,
    Gossip,
}

impl Kind {
    const fn magic(self) -> [u8; 4] {
        match self {
            Self::Beat => *b"XIHB",
            Self::Gossip => *b"XIGO",
        }
    }

    const fn purpose(self) -> &'static [u8] {
        match self {
            Self::Beat => b"xdp-ingress membership v1",
            Self::Gossip => b"xdp-ingress gossip v1",
        }
    }
}

const VERSION: u8 = 1;
const SEALED: u8 = 1;
/// In the byte that says what the sender announces.
const GOSSIPS: u8 = 0x80;
const HEADER: usize = 4 + 1 + 1 + 8 + 8;
/// Names are DNS subdomains (RFC 1123): at most 253 characters.
const MAX_NAME: usize = 253;
/// Longest datagram: header, name, gossip (longer than what a heartbeat has there) and tag.
pub(crate) const MAX_DATAGRAM: usize = HEADER + 1 + MAX_NAME + MAX_MESSAGE + 16;

/// The secret that the nodes of a cluster share.
#[derive(Clone)]
pub struct Key(Vec<u8>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// Fewest bytes that make a key.
    pub const MIN_LEN: usize = 32;

    /// A key of these bytes (the content of the key file); `None` if they are fewer than [`Key::MIN_LEN`].
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= Self::MIN_LEN).then(|| Self(bytes.to_vec()))
    }

    /// Key of the flow hash: the same on all nodes of the cluster, unknown to clients.
    pub(crate) fn hash_key(&self) -> u64 {
        let mut bytes = [0; 8];
        let prk = Salt::new(HKDF_SHA256, b"xdp-ingress").extract(&self.0);
        let filled =
            prk.expand(&[b"xdp-ingress flow hash v1"], HashKeyLen).and_then(|okm| okm.fill(&mut bytes));
        debug_assert!(filled.is_ok(), "eight bytes are within what HKDF gives");
        u64::from_be_bytes(bytes)
    }

    /// The key of one incarnation. Each has its own, so that nonces (sequence numbers) never repeat under one key.
    fn of(&self, kind: Kind, incarnation: Incarnation) -> Option<LessSafeKey> {
        let prk = Salt::new(HKDF_SHA256, &incarnation.0.to_be_bytes()).extract(&self.0);
        let purpose = [kind.purpose()];
        let okm = prk.expand(&purpose, &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(okm)))
    }
}

/// Length of [`Key::hash_key`].
struct HashKeyLen;

impl KeyType for HashKeyLen {
    fn len(&self) -> usize {
        8
    }
}

fn nonce(sequence: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&sequence.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// One datagram.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Datagram {
    Beat(Beat),
    Gossip(Gossip),
}

/// What `swim` sends, with what tells who sent it and when.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Gossip {
    pub(crate) sender: String,
    pub(crate) incarnation: Incarnation,
    /// Counts the gossip of this incarnation, apart from its heartbeats.
    pub(crate) sequence: u64,
    pub(crate) message: Vec<u8>,
}

/// The datagram for `beat`; `None` only if sealing fails.
pub(crate) fn encode(beat: &Beat, key: Option<&Key>) -> Option<Vec<u8>> {
    let mut body = Vec::with_capacity(MAX_DATAGRAM);
    body.push(beat.announced.to_byte() | if beat.gossips { GOSSIPS } else { 0 });
    body.extend_from_slice(&beat.echo.map_or(0, |echo| echo.0).to_be_bytes());
    body.extend_from_slice(beat.sender.as_bytes());
    seal(Kind::Beat, beat.incarnation, beat.sequence, body, key)
}

/// The datagram for `gossip`; `None` if sealing fails or the sender's name is too long.
pub(crate) fn encode_gossip(gossip: &Gossip, key: Option<&Key>) -> Option<Vec<u8>> {
    let mut body = Vec::with_capacity(MAX_DATAGRAM);
    body.push(u8::try_from(gossip.sender.len()).ok()?);
    body.extend_from_slice(gossip.sender.as_bytes());
    body.extend_from_slice(&gossip.message);
    seal(Kind::Gossip, gossip.incarnation, gossip.sequence, body, key)
}

fn seal(
    kind: Kind,
    incarnation: Incarnation,
    sequence: u64,
    mut body: Vec<u8>,
    key: Option<&Key>,
) -> Option<Vec<u8>> {
    let mut header = Vec::with_capacity(MAX_DATAGRAM);
    header.extend_from_slice(&kind.magic());
    header.extend_from_slice(&[VERSION, if key.is_some() { SEALED } else { 0 }]);
    header.extend_from_slice(&incarnation.0.to_be_bytes());
    header.extend_from_slice(&sequence.to_be_bytes());
    if let Some(key) = key {
        key.of(kind, incarnation)?
            .seal_in_place_append_tag(nonce(sequence), Aad::from(&header), &mut body)
            .ok()?;
    }
    header.extend_from_slice(&body);
    Some(header)
}

/// What is in `datagram`; `None` if it is none of ours, of another version, or not sealed with our key (with a key,
/// clear ones are refused; without one, sealed ones).
pub(crate) fn decode(datagram: &[u8], key: Option<&Key>) -> Option<Datagram> {
    let (header, body) = datagram.split_at_checked(HEADER)?;
    let kind = [Kind::Beat, Kind::Gossip].into_iter().find(|kind| header[..4] == kind.magic())?;
    if header[4] != VERSION || (header[5] == SEALED) != key.is_some() {
        return None;
    }
    let incarnation = Incarnation(u64::from_be_bytes(header[6..14].try_into().ok()?));
    let sequence = u64::from_be_bytes(header[14..22].try_into().ok()?);
    let mut body = body.to_vec();
    let body = match key {
        Some(key) => {
            let key = key.of(kind, incarnation)?;
            &*key.open_in_place(nonce(sequence), Aad::from(header), &mut body).ok()?
        }
        None => &body[..],
    };
    let (&first, rest) = body.split_first()?;
    match kind {
        Kind::Beat => {
            let (echo, name) = rest.split_at_checked(8)?;
            let announced = Announced::from_byte(first & !GOSSIPS)?;
            let gossips = first & GOSSIPS != 0;
            let echo = u64::from_be_bytes(echo.try_into().ok()?);
            let echo = (echo != 0).then_some(Incarnation(echo));
            let sender = sender(name)?;
            Some(Datagram::Beat(Beat { sender, incarnation, sequence, announced, echo, gossips }))
        }
        Kind::Gossip => {
            let (name, message) = rest.split_at_checked(first.into())?;
            let message = message.to_vec();
            Some(Datagram::Gossip(Gossip { sender: sender(name)?, incarnation, sequence, message }))
        }
    }
}

fn sender(name: &[u8]) -> Option<String> {
    let is_name = !name.is_empty() && name.len() <= MAX_NAME;
    is_name.then(|| std::str::from_utf8(name).ok().map(str::to_owned)).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Datagram, Gossip, Key, decode, encode, encode_gossip};
    use crate::l4::membership::machine::{Announced, Beat, Incarnation};

    fn beat() -> Beat {
        Beat {
            sender: "node-1.example".into(),
            incarnation: Incarnation(7),
            sequence: 42,
            announced: Announced::Draining,
            echo: Some(Incarnation(9)),
            gossips: true,
        }
    }

    #[test]
    fn what_goes_in_comes_out() {
        let key = Key::new(b"0123456789abcdef0123456789abcdef").unwrap();
        for key in [None, Some(&key)] {
            for announced in [Announced::Joining, Announced::Serving, Announced::Draining, Announced::Leaving]
            {
                for echo in [None, Some(Incarnation(9))] {
                    let beat = Beat { announced, echo, ..beat() };
                    assert_eq!(decode(&encode(&beat, key).unwrap(), key), Some(Datagram::Beat(beat)));
                }
            }
        }
    }

    #[test]
    fn another_key_no_key_or_a_changed_byte_is_refused() {
        let (ours, theirs) = (
            Key::new(b"0123456789abcdef0123456789abcdef").unwrap(),
            Key::new(b"0123456789abcdef0123456789abcdeF").unwrap(),
        );
        let gossip =
            Gossip { sender: "node-1".into(), incarnation: Incarnation(7), sequence: 3, message: vec![1, 2] };
        let sealed = encode_gossip(&gossip, Some(&ours)).unwrap();
        assert!(decode(&sealed, Some(&theirs)).is_none());
        assert_eq!(decode(&sealed, Some(&ours)), Some(Datagram::Gossip(gossip)));
        let sealed = encode(&beat(), Some(&ours)).unwrap();
        assert!(decode(&sealed, Some(&theirs)).is_none());
        assert!(decode(&sealed, None).is_none());
        assert!(decode(&encode(&beat(), None).unwrap(), Some(&ours)).is_none());
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert!(decode(&bad, Some(&ours)).is_none(), "byte {at}");
            assert!(decode(&sealed[..at], Some(&ours)).is_none(), "cut at {at}");
        }
        assert!(!sealed.windows(6).any(|w| w == b"node-1"), "the name is not in the clear");
    }

    #[test]
    fn short_keys_are_no_keys() {
        assert!(Key::new(b"0123456789abcdef0123456789abcde").is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&bytes, None);
            if bytes.len() > 6 {
                for start in [b"XIHB\x01\x00", b"XIGO\x01\x00"] {
                    bytes[..6].copy_from_slice(start);
                    let _ = decode(&bytes, None);
                }
            }
        }
    }
}
