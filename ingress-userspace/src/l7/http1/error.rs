//! Why a message is refused: one variant per cause, each with the status it is answered with and one
//! plain sentence for the client and the log. Made by the parsers, answered by the exchange; a refused
//! message always ends its connection, since nobody knows where the next one would begin.

/// Why a request of a client is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request line is not `method SP target SP HTTP/1.x`.
    #[error("the request line is malformed")]
    RequestLine,
    /// A byte in the request target that no URI may hold.
    #[error("the request target holds a byte that is not allowed there")]
    Target,
    /// Neither origin-form nor absolute-form nor `OPTIONS *` (RFC 9112 section 3.2).
    #[error("the request target has a form that does not belong to this method")]
    TargetForm,
    /// Another major version, or an unknown minor one.
    #[error("only HTTP/1.0 and HTTP/1.1 are spoken here")]
    Version,
    /// A line of the head that ends with a bare LF, or a CR without LF.
    #[error("a line does not end with CR LF")]
    LineEnd,
    /// A line that begins with white space (RFC 9112 section 5.2, `obs-fold`).
    #[error("a header line begins with white space")]
    Folding,
    /// An empty field name, or one with white space or another byte that is no `tchar`.
    #[error("a header name is malformed")]
    FieldName,
    /// A control character in a field value.
    #[error("a header value holds a control character")]
    FieldValue,
    /// HTTP/1.1 without `Host`.
    #[error("the Host header is missing")]
    HostMissing,
    /// More than one `Host`.
    #[error("there is more than one Host header")]
    HostRepeated,
    /// `Content-Length` twice, as a list, signed, or no number.
    #[error("Content-Length is not exactly one number")]
    ContentLength,
    /// `Transfer-Encoding` other than exactly `chunked`, or in HTTP/1.0.
    #[error("Transfer-Encoding is not exactly one `chunked`")]
    TransferEncoding,
    /// Both framings at once (RFC 9112 section 6.3).
    #[error("Content-Length and Transfer-Encoding are both there")]
    BothFramings,
    /// A chunk's size line, extension or end, or the trailer section.
    #[error("the chunked body is malformed")]
    Chunk,
    /// The request line is longer than the limit.
    #[error("the request target is too long")]
    TargetTooLong,
    /// More headers, or a bigger head, than the limit.
    #[error("the request head is too large")]
    HeadTooLarge,
    /// `CONNECT`: this is no forward proxy.
    #[error("CONNECT is not served here")]
    Connect,
    /// An `Expect` other than `100-continue` (RFC 9110 section 10.1.1).
    #[error("the expectation is not known")]
    Expectation,
    /// The head did not arrive in time.
    #[error("the request did not arrive in time")]
    TooSlow,
}

impl Refusal {
    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Refusal::Version => 505,
            Refusal::TargetTooLong => 414,
            Refusal::HeadTooLarge => 431,
            Refusal::Connect => 405,
            Refusal::Expectation => 417,
            Refusal::TooSlow => 408,
            _ => 400,
        }
    }
}

/// Why an answer of a backend is refused; the client gets 502.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// Not `HTTP/1.x SP 3DIGIT [SP reason]`.
    #[error("the status line is malformed")]
    StatusLine,
    /// A line that does not end with CR LF, folding, or a byte that is not allowed.
    #[error("a header line is malformed")]
    Field,
    /// The head is larger than the limit.
    #[error("the head is too large")]
    HeadTooLarge,
    /// `Content-Length` that is not exactly one number.
    #[error("Content-Length is not exactly one number")]
    ContentLength,
    /// `Transfer-Encoding` other than exactly `chunked`, or in HTTP/1.0, or beside `Content-Length`.
    #[error("Transfer-Encoding is not exactly one `chunked`, or stands beside Content-Length")]
    TransferEncoding,
    /// The chunked body broke its own framing.
    #[error("the chunked body is malformed")]
    Chunk,
    /// 101 to a request that asked for no upgrade.
    #[error("it switches protocols without having been asked")]
    Upgrade,
    /// It closed before the message was complete.
    #[error("the connection ended before the message did")]
    Truncated,
    /// Bytes behind the end of the answer.
    #[error("there are bytes behind the end of the answer")]
    Excess,
}
