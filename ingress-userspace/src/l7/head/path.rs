//! Path normalisation, done once: what is matched is what is forwarded, so no backend sees a path that the router
//! understood differently. Called by both protocol engines on the target's path (without the query).
//!
//! Rules (RFC 3986 6.2.2, and stricter where backends are known to differ): unreserved characters are decoded, other
//! escapes get upper-case digits, characters that no URI may hold are encoded, `//` becomes `/`, `.` and `..` elements
//! are resolved. Refused: broken escapes, `%00`, `..` above the root, and `.`/`..` that only a backend which decodes
//! `%2F`, `%5C` or `\`, or cuts `;parameters`, would see.

use std::borrow::Cow;

/// Why a path is refused (400).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not start with `/`.
    #[error("the path does not start with a slash")]
    NotAbsolute,
    /// `%` without two hexadecimal digits.
    #[error("the path has a broken percent-encoding")]
    BrokenEscape,
    /// A control character, encoded or not.
    #[error("the path has a control character")]
    Control,
    /// `#`, which never goes over the wire.
    #[error("the path has a fragment")]
    Fragment,
    /// More `..` than there are elements.
    #[error("the path leads above the root")]
    AboveRoot,
    /// A hidden `.` or `..`.
    #[error("the path hides a dot segment")]
    HiddenDotSegment,
}

/// Normalises a path. Borrows it if it is in normal form, as nearly all are.
pub fn normalise_path(path: &str) -> Result<Cow<'_, str>, PathError> {
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    if is_plain(path.as_bytes()) {
        Ok(Cow::Borrowed(path))
    } else {
        normalise(path.as_bytes()).map(Cow::Owned)
    }
}

/// Whether the path is in normal form for sure: nothing but [`plain`] characters, and no `/` followed by `/` or `.`.
fn is_plain(path: &[u8]) -> bool {
    let mut after_slash = false;
    for &byte in path {
        if !PLAIN[byte as usize] || (after_slash && matches!(byte, b'/' | b'.')) {
            return false;
        }
        after_slash = byte == b'/';
    }
    true
}

/// Characters that never need a second look (but for `/` and `.` right after a slash).
static PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        table[byte] = !matches!(
            byte as u8,
            b'%' | b'#' | b'?' | b';' | b'\\' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}'
        );
        byte += 1;
    }
    table
};

fn normalise(path: &[u8]) -> Result<String, PathError> {
    let mut out = String::with_capacity(path.len() + 8);
    let mut elements = path[1..].split(|&b| b == b'/').peekable();
    let mut element = String::new();
    while let Some(raw) = elements.next() {
        let last = elements.peek().is_none();
        element.clear();
        normalise_element(raw, &mut element)?;
        match element.as_str() {
            // An empty element is a doubled slash, but for the last one, which is a trailing slash.
            "" | "." if !last => {}
            "" | "." => out.push('/'),
            ".." => {
                let parent = out.rfind('/').ok_or(PathError::AboveRoot)?;
                out.truncate(parent);
                if last {
                    out.push('/');
                }
            }
            other => {
                if hides_dot_segment(other) {
                    return Err(PathError::HiddenDotSegment);
                }
                out.push('/');
                out.push_str(other);
            }
        }
    }
    if out.is_empty() {
        out.push('/');
    }
    Ok(out)
}

fn normalise_element(raw: &[u8], out: &mut String) -> Result<(), PathError> {
    let mut rest = raw;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match *byte {
            b'%' => {
                let [high, low, tail @ ..] = rest else { return Err(PathError::BrokenEscape) };
                let (Some(high), Some(low)) = (hex_value(*high), hex_value(*low)) else {
                    return Err(PathError::BrokenEscape);
                };
                rest = tail;
                match high << 4 | low {
                    decoded if decoded.is_ascii_control() => return Err(PathError::Control),
                    decoded if is_unreserved(decoded) => out.push(char::from(decoded)),
                    decoded => push_escape(decoded, out),
                }
            }
            b'#' => return Err(PathError::Fragment),
            control if control.is_ascii_control() => return Err(PathError::Control),
            plain if plain.is_ascii() && (PLAIN[plain as usize] || matches!(plain, b';' | b'\\')) => {
                out.push(char::from(plain));
            }
            other => push_escape(other, out),
        }
    }
    Ok(())
}

/// Whether a backend that takes `%2F`, `%5C` or `\` for a slash, or that cuts `;parameters`, would see `.` or `..`.
fn hides_dot_segment(element: &str) -> bool {
    if !element.contains(['%', '\\', ';']) {
        return false;
    }
    let opened = element.replace("%2F", "/").replace("%5C", "/").replace('\\', "/");
    opened.split('/').any(|part| {
        let name = part.split(';').next().unwrap_or(part);
        name == "." || name == ".."
    })
}

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn push_escape(byte: u8, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn normal_paths_are_borrowed() {
        for path in ["/", "/foo", "/foo/", "/foo/bar.html", "/a~b/c_d-e", "/x:y@z!$&'()*+,=", "/foo/.."] {
            let normal = normalise_path(path).unwrap();
            assert_eq!(matches!(normal, Cow::Borrowed(_)), path != "/foo/..", "{path}");
        }
    }

    #[test]
    fn rewrites_to_normal_form() {
        for (path, normal) in [
            ("//", "/"),
            ("//foo", "/foo"),
            ("/foo//bar", "/foo/bar"),
            ("/foo///", "/foo/"),
            ("/./foo", "/foo"),
            ("/foo/.", "/foo/"),
            ("/foo/./bar", "/foo/bar"),
            ("/foo/../bar", "/bar"),
            ("/foo/..", "/"),
            ("/foo/bar/..", "/foo/"),
            ("/foo//../bar", "/bar"),
            ("/%66oo", "/foo"),
            ("/a%2fb", "/a%2Fb"),
            ("/%2e%2E/".trim_start_matches('x'), ""),
            ("/foo/%2e%2e/bar", "/bar"),
            ("/foo/%2e", "/foo/"),
            ("/.well-known/acme", "/.well-known/acme"),
            ("/..foo/...", "/..foo/..."),
            ("/b\u{fc}cher", "/b%C3%BCcher"),
            ("/a b", "/a%20b"),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/a\"<>", "/a%22%3C%3E"),
            ("/%7Euser", "/~user"),
            ("/a%3fb", "/a%3Fb"),
            ("/100%25", "/100%25"),
        ] {
            if normal.is_empty() {
                assert_eq!(normalise_path(path), Err(PathError::AboveRoot), "{path}");
            } else {
                assert_eq!(normalise_path(path).unwrap(), normal, "{path}");
            }
        }
    }

    #[test]
    fn refuses_what_backends_read_differently() {
        use PathError::{AboveRoot, BrokenEscape, Control, Fragment, HiddenDotSegment, NotAbsolute};
        for (path, error) in [
            ("", NotAbsolute),
            ("foo", NotAbsolute),
            ("/..", AboveRoot),
            ("/foo/../..", AboveRoot),
            ("/%", BrokenEscape),
            ("/%4", BrokenEscape),
            ("/%zz", BrokenEscape),
            ("/%+1", BrokenEscape),
            ("/a%00b", Control),
            ("/a%0d%0ab", Control),
            ("/a\u{1}", Control),
            ("/a#b", Fragment),
            ("/foo/..%2fadmin", HiddenDotSegment),
            ("/foo/..%5Cadmin", HiddenDotSegment),
            ("/foo/..\\admin", HiddenDotSegment),
            ("/foo/..;/admin", HiddenDotSegment),
            ("/foo/.;x/admin", HiddenDotSegment),
            ("/foo/a%2F..", HiddenDotSegment),
        ] {
            assert_eq!(normalise_path(path), Err(error), "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn normal_form_is_final(path in "/[a-c/.%2eEfF;]{0,24}") {
            if let Ok(once) = normalise_path(&path) {
                prop_assert_eq!(normalise_path(&once).unwrap(), once.as_ref());
                prop_assert!(once.starts_with('/') && !once.contains("//"));
                prop_assert!(once.split('/').all(|element| element != "." && element != ".."));
            }
        }
    }
}
