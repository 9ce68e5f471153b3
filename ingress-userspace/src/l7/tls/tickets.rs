//! Session tickets that every node can read: keys are derived from a seed that all nodes have and from the time, so they
//! rotate everywhere at once and nothing is sent around. A client that resumes on another node, or after a restart,
//! saves both sides the costly half of a handshake. Used by `config`; `decrypt` sees an attacker's bytes.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use rustls::server::ProducesTickets;

/// How long a key makes tickets, in seconds. It is accepted for as long again.
const ROTATION: u64 = 12 * 60 * 60;
/// How long a client may keep a ticket, in seconds: the key that made it is still accepted then.
const LIFETIME: u32 = ROTATION as u32;
/// Length of a key's name, the first bytes of a ticket.
const NAME: usize = 16;

/// What keys are derived from; whoever has it can read recorded connections that were resumed by TLS 1.2, so it is as
/// secret as a certificate's key.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed([u8; 32]);

// Written by hand: it must never reach a log.
impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(..)")
    }
}

impl Seed {
    /// The fewest bytes that a seed may be made of.
    pub const MIN_LEN: usize = 32;

    /// From a secret that the nodes share. `purpose` keeps seeds from the same secret apart. `None`: the secret is too
    /// short to be one.
    pub fn derive(purpose: &str, secret: &[u8]) -> Option<Self> {
        if secret.len() < Self::MIN_LEN {
            return None;
        }
        let mut seed = [0; 32];
        expand(secret, &[b"xdp-ingress ticket seed ", purpose.as_bytes()], &mut seed).ok()?;
        Some(Self(seed))
    }

    /// A seed of this process alone: its tickets are good here only.
    pub fn random() -> Result<Self, Unspecified> {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed)?;
        Ok(Self(seed))
    }
}

/// The keys of this moment, shared by all listeners and workers.
#[derive(Debug)]
pub struct Tickets {
    /// The newest first; older ones are accepted only.
    seeds: ArcSwap<Vec<Seed>>,
    ring: ArcSwap<Ring>,
    random: SystemRandom,
}

#[derive(Debug)]
struct Ring {
    epoch: u64,
    /// The first makes tickets, all are accepted: of each seed this epoch's, the one before, and the one after, since
    /// clocks differ.
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    name: [u8; NAME],
    key: LessSafeKey,
}

impl Tickets {
    /// Keys from a seed.
    pub fn new(seed: Seed) -> Result<Arc<Self>, Unspecified> {
        let (seeds, epoch) = (vec![seed], epoch());
        let ring = Ring::new(&seeds, epoch)?;
        Ok(Arc::new(Self {
            seeds: ArcSwap::from_pointee(seeds),
            ring: ArcSwap::from_pointee(ring),
            random: SystemRandom::new(),
        }))
    }

    /// Makes tickets from another seed from now on; those of the one before are still accepted.
    pub fn replace_seed(&self, seed: Seed) -> Result<(), Unspecified> {
        let current = self.seeds.load();
        if current.first() == Some(&seed) {
            return Ok(());
        }
        let seeds: Vec<Seed> = [seed].into_iter().chain(current.first().cloned()).collect();
        self.ring.store(Arc::new(Ring::new(&seeds, epoch())?));
        self.seeds.store(Arc::new(seeds));
        Ok(())
    }

    /// Tickets for listeners whose clients are held to `policy`: nobody can use them under another one.
    pub fn for_policy(self: &Arc<Self>, policy: [u8; 32]) -> Arc<dyn ProducesTickets> {
        Arc::new(Ticketer { tickets: Arc::clone(self), policy })
    }

    fn ring(&self) -> Arc<Ring> {
        let (ring, epoch) = (self.ring.load_full(), epoch());
        if ring.epoch == epoch {
            return ring;
        }
        // Two who do this at once make the same.
        match Ring::new(&self.seeds.load(), epoch) {
            Ok(new) => {
                let new = Arc::new(new);
                self.ring.store(Arc::clone(&new));
                new
            }
            Err(Unspecified) => ring,
        }
    }
}

impl Ring {
    fn new(seeds: &[Seed], epoch: u64) -> Result<Self, Unspecified> {
        let mut keys = Vec::with_capacity(3 * seeds.len());
        for seed in seeds {
            for epoch in [epoch, epoch.saturating_sub(1), epoch + 1] {
                keys.push(Key::new(seed, epoch)?);
            }
        }
        Ok(Self { epoch, keys })
    }
}

impl Key {
    fn new(seed: &Seed, epoch: u64) -> Result<Self, Unspecified> {
        let epoch = epoch.to_be_bytes();
        let (mut name, mut key) = ([0; NAME], [0; 32]);
        expand(&seed.0, &[b"name ", &epoch], &mut name)?;
        expand(&seed.0, &[b"key ", &epoch], &mut key)?;
        Ok(Self { name, key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key)?) })
    }
}

/// HKDF-SHA256 (RFC 5869).
fn expand(secret: &[u8], info: &[&[u8]], out: &mut [u8]) -> Result<(), Unspecified> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let length = Length(out.len());
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"xdp-ingress").extract(secret).expand(info, length)?.fill(out)
}

/// Number of the rotation period.
fn epoch() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / ROTATION)
}

/// A ticket: key name, nonce, then the session, encrypted and authenticated together with key name and policy.
#[derive(Debug)]
struct Ticketer {
    tickets: Arc<Tickets>,
    policy: [u8; 32],
}

impl Ticketer {
    fn aad(&self, key: &Key) -> Aad<[u8; NAME + 32]> {
        let mut aad = [0; NAME + 32];
        aad[..NAME].copy_from_slice(&key.name);
        aad[NAME..].copy_from_slice(&self.policy);
        Aad::from(aad)
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let ring = self.tickets.ring();
        let key = ring.keys.first()?;
        let mut nonce = [0; NONCE_LEN];
        self.tickets.random.fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        let nonce_of = Nonce::assume_unique_for_key(nonce);
        key.key.seal_in_place_append_tag(nonce_of, self.aad(key), &mut sealed).ok()?;
        Some([&key.name[..], &nonce, &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let ring = self.tickets.ring();
        let key = ring.keys.iter().find(|key| key.name == *name)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = key.key.open_in_place(nonce, self.aad(key), &mut sealed).ok()?.len();
        sealed.truncate(length);
        Some(sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(byte: u8) -> Seed {
        Seed::derive("test", &[byte; 32]).unwrap()
    }

    #[test]
    fn nodes_with_one_seed_read_each_others_tickets() {
        let (a, b) = (Tickets::new(seed(1)).unwrap(), Tickets::new(seed(1)).unwrap());
        let other = Tickets::new(seed(2)).unwrap();
        let ticket = a.for_policy([0; 32]).encrypt(b"a session").unwrap();
        assert_eq!(b.for_policy([0; 32]).decrypt(&ticket).as_deref(), Some(&b"a session"[..]));
        assert_eq!(other.for_policy([0; 32]).decrypt(&ticket), None);
        assert_eq!(b.for_policy([1; 32]).decrypt(&ticket), None, "another policy");
    }

    #[test]
    fn what_was_tampered_with_is_no_ticket() {
        let tickets = Tickets::new(seed(1)).unwrap().for_policy([0; 32]);
        let ticket = tickets.encrypt(b"a session").unwrap();
        for at in 0..ticket.len() {
            let mut broken = ticket.clone();
            broken[at] ^= 1;
            assert_eq!(tickets.decrypt(&broken), None, "byte {at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn keys_rotate_and_the_neighbours_are_accepted() {
        let now = Ring::new(&[seed(1)], 100).unwrap();
        let names = |epoch| Ring::new(&[seed(1)], epoch).unwrap().keys[0].name;
        for (epoch, accepted) in [(98, false), (99, true), (100, true), (101, true), (102, false)] {
            assert_eq!(now.keys.iter().any(|key| key.name == names(epoch)), accepted, "{epoch}");
        }
        assert_ne!(names(99), names(100));
    }

    #[test]
    fn a_new_seed_leaves_old_tickets_valid() {
        let tickets = Tickets::new(seed(1)).unwrap();
        let old = tickets.for_policy([0; 32]).encrypt(b"old").unwrap();
        tickets.replace_seed(seed(2)).unwrap();
        let new = tickets.for_policy([0; 32]).encrypt(b"new").unwrap();
        assert_ne!(old[..NAME], new[..NAME]);
        assert_eq!(tickets.for_policy([0; 32]).decrypt(&old).as_deref(), Some(&b"old"[..]));
        tickets.replace_seed(seed(3)).unwrap();
        assert_eq!(tickets.for_policy([0; 32]).decrypt(&old), None);
    }

    #[test]
    fn short_secrets_are_refused() {
        assert!(Seed::derive("test", &[0; 31]).is_none());
        assert_eq!(format!("{:?}", seed(1)), "Seed(..)");
    }
}
