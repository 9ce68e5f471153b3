//! `proxy-connect-timeout`, `proxy-read-timeout`, `proxy-send-timeout` (whole seconds), and `proxy-next-upstream` with
//! `-tries` and `-timeout`. Has no twin among the filters: the engines act on it while a request is with its backend.

use std::time::Duration;

use super::Reader;
use crate::model::{Forwarding, Reason, Retry, RetryOn};

pub(super) fn read(reader: &mut Reader<'_>) -> Forwarding {
    Forwarding {
        connect_timeout: timeout(reader, "proxy-connect-timeout"),
        read_timeout: timeout(reader, "proxy-read-timeout"),
        send_timeout: timeout(reader, "proxy-send-timeout"),
        retry: retry(reader),
    }
}

fn timeout(reader: &mut Reader<'_>, name: &'static str) -> Option<Duration> {
    match reader.number(name)? {
        // nginx takes 0 for "at once": every request would fail.
        0 => {
            let message = "0 seconds would let every request fail; it is as if it were absent";
            reader.problem(name, Reason::InvalidValue, message, "write whole seconds, 1 or more");
            None
        }
        seconds => Some(Duration::from_secs(u64::from(seconds))),
    }
}

fn retry(reader: &mut Reader<'_>) -> Retry {
    let on =
        reader.values.remove("proxy-next-upstream").map(|text| conditions(reader, text)).unwrap_or_default();
    let tries = reader.number("proxy-next-upstream-tries").unwrap_or(Retry::default().tries);
    let seconds = reader.number("proxy-next-upstream-timeout").unwrap_or_default();
    Retry { on, tries, timeout: (seconds > 0).then(|| Duration::from_secs(u64::from(seconds))) }
}

fn conditions(reader: &mut Reader<'_>, text: &str) -> RetryOn {
    let mut on = RetryOn::OFF;
    for word in text.split_ascii_whitespace() {
        let known = match word {
            "error" => set(&mut on.error),
            "timeout" => set(&mut on.timeout),
            "invalid_header" => set(&mut on.invalid_header),
            "non_idempotent" => set(&mut on.non_idempotent),
            "off" => return RetryOn::OFF,
            other => other
                .strip_prefix("http_")
                .and_then(|status| status.parse().ok())
                .is_some_and(|status| on.statuses.insert(status)),
        };
        if !known {
            let message = format!("`{word}` is no condition; the default, `error timeout`, holds");
            let hint = "write some of error timeout invalid_header http_500 http_502 http_503 http_504 http_403 http_404 http_429 non_idempotent, or off";
            reader.problem("proxy-next-upstream", Reason::InvalidValue, message, hint);
            return RetryOn::default();
        }
    }
    on
}

fn set(flag: &mut bool) -> bool {
    *flag = true;
    true
}
