//! The Internet checksum: incremental update (RFC 1624) and, for the few packets that we write ourselves, the whole sum
//! (RFC 1071). All words are native integers as they stand in the packet: the ones' complement sum is the same in either
//! byte order.

/// The checksum field after one 16-bit word that it covers has changed (RFC 1624, equation 3).
#[inline(always)]
pub const fn replace(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = !checksum as u32 & 0xffff;
    fold(sum + (!old as u32 & 0xffff) + new as u32)
}

/// The checksum field over `words`, taken as 16-bit words; a field that is part of them must be zero.
#[inline(always)]
pub fn over(words: impl IntoIterator<Item = u16>) -> u16 {
    fold(sum(words))
}

/// The sum of `words`, to be added to others and folded by [`fold`].
#[inline(always)]
pub fn sum(words: impl IntoIterator<Item = u16>) -> u32 {
    words.into_iter().map(u32::from).sum()
}

/// As [`sum`], over an array. A plain loop: closures that are not inlined give the BPF object type information that the kernel
/// refuses.
#[inline(always)]
pub const fn sum_of<const WORDS: usize>(words: &[u16; WORDS]) -> u32 {
    let (mut sum, mut word) = (0, 0);
    while word < WORDS {
        sum += words[word] as u32;
        word += 1;
    }
    sum
}

/// Folds a sum of at most 65,535 words and takes the complement: the checksum.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slow(words: &[u16]) -> u16 {
        over(words.iter().copied())
    }

    proptest! {
        #[test]
        fn replacing_is_the_same_as_starting_over(mut words: [u16; 10], at in 0_usize..10, new: u16) {
            // An IPv4 header is never all zeroes; that is the one case where the two zeroes of ones' complement differ.
            words[(at + 1) % 10] |= 0x4500;
            let before = slow(&words);
            let old = core::mem::replace(&mut words[at], new);
            prop_assert_eq!(replace(before, old, new), slow(&words));
        }

        #[test]
        fn agrees_with_etherparse(src: [u8; 4], dst: [u8; 4], ttl: u8, len in 0_u16..1400, id: u16) {
            let mut header = etherparse::Ipv4Header::new(len, ttl, etherparse::IpNumber::TCP, src, dst).expect("it fits");
            header.identification = id;
            header.header_checksum = 0;
            let bytes = header.to_bytes();
            let words = bytes.chunks_exact(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]]));
            prop_assert_eq!(u16::from_be(over(words)), header.calc_header_checksum());
        }
    }
}
