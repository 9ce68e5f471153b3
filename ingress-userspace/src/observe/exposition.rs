//! In which format `/metrics` is answered: text for people and most collectors, Prometheus' own binary format for those
//! that prefer it, because only that has native histograms. Pure.

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    /// OpenMetrics text.
    Text,
    /// Messages `io.prometheus.client.MetricFamily`, each after its length.
    Protobuf,
}

impl Exposition {
    /// What a client with this `Accept` gets (RFC 9110 section 12.5.1): the binary format if it names it and likes nothing
    /// that is text better.
    pub fn wanted(accept: &str) -> Self {
        let (mut binary, mut text) = (0.0, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let parameters: Vec<&str> = parts.collect();
            let has =
                |wanted: &str| parameters.iter().any(|parameter| parameter.eq_ignore_ascii_case(wanted));
            let weight = parameters.iter().find_map(|parameter| parameter.strip_prefix("q="));
            let weight = weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
            if kind.eq_ignore_ascii_case("application/vnd.google.protobuf") {
                if has("proto=io.prometheus.client.MetricFamily") && has("encoding=delimited") {
                    binary = f64::max(binary, weight);
                }
            } else {
                text = f64::max(text, weight);
            }
        }
        if binary > 0.0 && binary >= text { Self::Protobuf } else { Self::Text }
    }

    /// `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_prefers_the_binary_format_gets_it() {
        let proto =
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
        let compact = proto.replace("; ", ";");
        let text = "application/openmetrics-text;version=1.0.0";
        for (accept, wanted) in [
            (String::new(), Exposition::Text),
            ("*/*".to_owned(), Exposition::Text),
            // Prometheus 2.40 and later with native histograms, and without.
            (
                format!("{compact},{text};q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"),
                Exposition::Protobuf,
            ),
            (format!("{text},text/plain;version=0.0.4;q=0.5,*/*;q=0.1"), Exposition::Text),
            // Prometheus 3 as it comes.
            (format!("{text};q=0.6,{compact};q=0.5,*/*;q=0.1"), Exposition::Text),
            (format!("{proto};q=0.7, {text};q=0.6"), Exposition::Protobuf),
            (format!("{proto};q=0"), Exposition::Text),
            (format!("{proto};q=much"), Exposition::Text),
            (proto.replace("delimited", "text"), Exposition::Text),
            ("application/vnd.google.protobuf".to_owned(), Exposition::Text),
        ] {
            assert_eq!(Exposition::wanted(&accept), wanted, "{accept}");
        }
    }
}
