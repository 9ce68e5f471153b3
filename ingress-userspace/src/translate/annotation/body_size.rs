//! `proxy-body-size`: the longest body that a request may have; longer ones get 413.

use std::num::NonZeroU64;

use super::Reader;
use crate::model::Reason;

/// ingress-nginx's `proxy-body-size`: 1m.
pub(in crate::translate) const DEFAULT: Option<NonZeroU64> = NonZeroU64::new(1 << 20);

pub(super) fn read(reader: &mut Reader<'_>) -> Option<NonZeroU64> {
    let Some(text) = reader.values.remove("proxy-body-size") else { return DEFAULT };
    if let Some(bytes) = size(text.trim()) {
        return NonZeroU64::new(bytes);
    }
    let message = format!("`{text}` is not a size; the default of 1m holds");
    reader.problem(
        "proxy-body-size",
        Reason::InvalidValue,
        message,
        "write bytes, or a number and k, m or g; 0: no limit",
    );
    DEFAULT
}

/// nginx's sizes: `8`, `8k`, `1M`, `2g`. (`b` is let through by ingress-nginx's check, but not by nginx.)
pub(super) fn size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [
            ("0", Some(0)),
            ("8", Some(8)),
            ("8k", Some(8192)),
            ("1M", Some(1 << 20)),
            ("2g", Some(2 << 30)),
            ("", None),
            ("k", None),
            ("1.5m", None),
            ("1mb", None),
            ("-1", None),
            ("17179869184g", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(size(text), bytes, "{text}");
        }
    }
}
