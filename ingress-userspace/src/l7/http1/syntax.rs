//! Character classes of RFC 9110 section 5.6 and RFC 9112, and the few scans over bytes that all
//! parsers of this engine share. Pure; allocates nothing. Called by the head and chunk parsers, and
//! must stay stricter than any backend: a byte that two parsers could read differently is refused.

/// A range of bytes in the buffer that was parsed.
///
/// Offsets instead of slices, so that the parsed head can be kept while the buffer is read on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The span `start..end`. Heads are limited to far below 4 GiB, so the offsets always fit.
    pub(crate) fn new(start: usize, end: usize) -> Span {
        Span { start: start as u32, end: end as u32 }
    }

    /// The bytes of this span in the buffer that it was made from.
    pub fn of<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        &buffer[self.start as usize..self.end as usize]
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether it spans nothing.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

const TOKEN: u8 = 1;
const TARGET: u8 = 2;
const TEXT: u8 = 4;

const CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0u8; 256];
    let mut i = 0;
    while i < 256 {
        let byte = i as u8;
        if byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            )
        {
            table[i] |= TOKEN;
        }
        // A fragment is never sent (RFC 9112 section 3.2), so `#` is refused rather than cut off.
        // Bytes above ASCII are not allowed either, but curl and old browsers send them; `normalise_path` encodes them.
        if byte > 0x20 && byte != 0x7f && byte != b'#' {
            table[i] |= TARGET;
        }
        if byte == b'\t' || (byte >= 0x20 && byte != 0x7f) {
            table[i] |= TEXT;
        }
        i += 1;
    }
    table
}

/// `tchar` (RFC 9110 section 5.6.2): methods and field names.
pub(crate) fn is_token(byte: u8) -> bool {
    CLASSES[byte as usize] & TOKEN != 0
}

/// What a request target may hold: anything visible but `#`.
pub(crate) fn is_target(byte: u8) -> bool {
    CLASSES[byte as usize] & TARGET != 0
}

/// What a field value or reason phrase may hold: tab, space, visible ASCII, and `obs-text`.
pub(crate) fn is_text(byte: u8) -> bool {
    CLASSES[byte as usize] & TEXT != 0
}

/// Index of the first byte at or after `from` that is not field text; the buffer's length if none is.
///
/// Field values are most of a head, so eight bytes are looked at together while they hold no control
/// character at all.
pub(crate) fn text_end(buffer: &[u8], from: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut at = from;
    loop {
        while let Some(Ok(word)) = buffer.get(at..at + 8).map(<[u8; 8]>::try_from) {
            let word = u64::from_ne_bytes(word);
            let below_space = word.wrapping_sub(ONES * 0x20) & !word;
            let delete = word ^ (ONES * 0x7f);
            let delete = delete.wrapping_sub(ONES) & !delete;
            if (below_space | delete) & HIGH != 0 {
                break;
            }
            at += 8;
        }
        // A tab stops the fast loop too: look at this group one by one, then go on.
        let group = buffer.len().min(at + 8);
        while at < group {
            if !is_text(buffer[at]) {
                return at;
            }
            at += 1;
        }
        if at == buffer.len() {
            return at;
        }
    }
}

/// `buffer[start..end]` without the optional white space at its end.
pub(crate) fn trim_end(buffer: &[u8], start: usize, mut end: usize) -> usize {
    while end > start && matches!(buffer[end - 1], b' ' | b'\t') {
        end -= 1;
    }
    end
}

/// A number written as `1*DIGIT`, nothing else: no sign, no white space, no list; at most 18 digits,
/// so that sums of two never overflow.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0u64, |number, &digit| {
        digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'))
    })
}

/// The elements of a comma-separated list (RFC 9110 section 5.6.1), white space removed, empty ones left out.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// Whether a head may have ended in `buffer`, looking only at bytes from `from` on (and the three before).
///
/// Cheap test before a head that came in pieces is parsed again; a client that sends byte by byte must
/// not make us parse the whole head for each byte.
pub(crate) fn may_have_ended(buffer: &[u8], from: usize) -> bool {
    let start = from.saturating_sub(3);
    memchr::memchr_iter(b'\n', &buffer[start..]).any(|at| {
        let rest = &buffer[start + at + 1..];
        rest.starts_with(b"\r\n") || rest.starts_with(b"\n")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_digits_only() {
        for (text, number) in [
            (&b"0"[..], Some(0)),
            (b"42", Some(42)),
            (b"007", Some(7)),
            (b"999999999999999999", Some(999_999_999_999_999_999)),
            (b"1000000000000000000", None),
            (b"", None),
            (b"+3", None),
            (b"-3", None),
            (b" 3", None),
            (b"3 ", None),
            (b"3,3", None),
            (b"0x3", None),
        ] {
            assert_eq!(decimal(text), number, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn lists_are_split_at_commas() {
        let elements: Vec<_> = list(b" close ,, keep-alive,\tx").collect();
        assert_eq!(elements, [&b"close"[..], b"keep-alive", b"x"]);
    }

    #[test]
    fn an_end_of_head_is_seen_across_reads() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for cut in 1..head.len() {
            assert!(!may_have_ended(&head[..cut], 0), "{cut}");
            assert!(may_have_ended(head, cut.min(head.len() - 1)), "{cut}");
        }
        assert!(may_have_ended(b"a\n\n", 2));
    }

    proptest! {
        #[test]
        fn text_ends_where_the_plain_loop_says(mut bytes in prop::collection::vec(any::<u8>(), 0..80), from in 0usize..80) {
            // Mostly text, so that the fast loop runs.
            for byte in &mut bytes {
                if *byte < 0x18 { *byte = b'\t'; } else if *byte < 0x20 { *byte = b'a' }
            }
            if let Some(last) = bytes.last_mut() { *last = b'\r'; }
            let from = from.min(bytes.len());
            let plain = (from..bytes.len()).find(|&at| !is_text(bytes[at])).unwrap_or(bytes.len());
            prop_assert_eq!(text_end(&bytes, from), plain);
        }
    }
}
