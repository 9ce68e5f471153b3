//! Annotations that tune how nginx works inside and change nothing that a client or a backend of ours could see. They
//! are taken without a word: their authors get what they want.

use super::Reader;
use super::body_size::size;
use crate::model::Reason;

/// The longest head of an answer that the engines take.
const LONGEST_HEAD: u64 = 32 << 10;

/// The names, each with the reason why nothing has to be done.
pub(in crate::translate) const NAMES: [(&str, &str); 10] = [
    ("client-body-buffer-size", "bodies are passed on as they come; nothing is buffered"),
    ("enable-rewrite-log", "there is no rewrite log; the access log has the path as sent"),
    ("http2-push-preload", "no browser takes pushes any more; `Link` goes to the client as it is"),
    (
        "proxy-buffer-size",
        "answers' heads of up to 32 KiB are taken in any case; a greater value is a problem",
    ),
    ("proxy-buffering", "answers are passed on as they come, as by ingress-nginx's default"),
    ("proxy-buffers-number", "answers are passed on as they come; nothing is buffered"),
    ("proxy-busy-buffers-size", "answers are passed on as they come; nothing is buffered"),
    ("proxy-max-temp-file-size", "nothing is ever written to disk"),
    ("relative-redirects", "our redirects name the address that the client asked for"),
    ("proxy-request-buffering", "bodies are passed on as they come, as with `off`"),
];

pub(super) fn read(reader: &mut Reader<'_>) {
    if let Some(text) = reader.values.get("proxy-buffer-size")
        && size(text.trim()).is_none_or(|bytes| bytes > LONGEST_HEAD)
    {
        let message =
            format!("`{text}` is not a size up to 32k; answers whose head is longer than that get 502");
        reader.problem(
            "proxy-buffer-size",
            Reason::Unsupported,
            message,
            "let the backend send fewer or shorter header fields",
        );
    }
    for (name, _) in NAMES {
        reader.values.remove(name);
    }
}
