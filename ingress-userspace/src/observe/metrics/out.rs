//! Where metrics are written to: prometheus-client's encoder of text, or messages `io.prometheus.client.MetricFamily`
//! (`client_model`'s metrics.proto, whose field numbers stand here). The rest of `metrics` sees no difference.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::native::Sparse;
use crate::l7::stats::native::{NativeBuckets, SCHEMA, ZERO_THRESHOLD};
use crate::l7::stats::{Buckets, LATENCY_BOUNDS};
use crate::observe::protobuf::Message;

/// What all names begin with.
pub(super) const PREFIX: &str = "xdp_ingress";

pub(super) type Labels<'a> = [(&'a str, &'a str)];

/// No labels.
pub(super) const NONE: &Labels<'static> = &[];

/// One of the two formats.
pub(super) enum Out<'a, 'e> {
    Text(&'a mut DescriptorEncoder<'e>),
    /// Whole families, each after its length.
    Protobuf(&'a mut Vec<u8>),
}

/// One histogram of a family.
pub(super) struct Distribution<'a> {
    pub(super) label: (&'a str, &'a str),
    /// By `LATENCY_BOUNDS`.
    pub(super) counts: Buckets<u64>,
    /// The same in the buckets of a native histogram.
    pub(super) fine: Option<&'a NativeBuckets>,
    /// The sum.
    pub(super) seconds: f64,
}

impl Distribution<'_> {
    /// The classic buckets: upper bounds in seconds, and counts that are not cumulative.
    fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = LATENCY_BOUNDS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
        bounds.zip(self.counts).collect()
    }
}

impl Out<'_, '_> {
    /// `name` without `_total`.
    pub(super) fn counter<L: AsLabels>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        match self {
            Self::Text(encoder) => {
                let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
                for (labels, value) in values {
                    match labels.as_labels() {
                        [] => family.encode_counter::<LabelSet<'_>, u64, u64>(&value, None)?,
                        labels => {
                            ConstCounter::new(value).encode(family.encode_family(&LabelSet(labels))?)?;
                        }
                    }
                }
            }
            Self::Protobuf(out) => {
                let mut family = Family::new(&format!("{name}_total"), help, 0);
                for (labels, value) in values {
                    let mut counter = Message::default();
                    counter.double(1, value as f64);
                    family.add(labels.as_labels(), 3, &counter);
                }
                family.end(out);
            }
        }
        Ok(())
    }

    pub(super) fn gauge<L: AsLabels>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        match self {
            Self::Text(encoder) => {
                let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                for (labels, value) in values {
                    match labels.as_labels() {
                        [] => family.encode_gauge(&value)?,
                        labels => {
                            ConstGauge::new(value).encode(family.encode_family(&LabelSet(labels))?)?;
                        }
                    }
                }
            }
            Self::Protobuf(out) => {
                let mut family = Family::new(name, help, 1);
                for (labels, value) in values {
                    let mut gauge = Message::default();
                    gauge.double(1, value);
                    family.add(labels.as_labels(), 2, &gauge);
                }
                family.end(out);
            }
        }
        Ok(())
    }

    /// Classic histograms, and native ones where there are fine buckets and the format has them.
    pub(super) fn histogram<'a>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = Distribution<'a>>,
    ) -> fmt::Result {
        match self {
            Self::Text(encoder) => {
                let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
                for of in values {
                    let count = of.counts.iter().sum();
                    family.encode_family(&LabelSet(&[of.label]))?.encode_histogram::<LabelSet<'_>>(
                        of.seconds,
                        count,
                        &of.buckets(),
                        None,
                    )?;
                }
            }
            Self::Protobuf(out) => {
                let mut family = Family::new(name, help, 4);
                for of in values {
                    family.add(&[of.label], 7, &histogram(&of));
                }
                family.end(out);
            }
        }
        Ok(())
    }
}

/// A message `Histogram`.
fn histogram(of: &Distribution<'_>) -> Message {
    let mut histogram = Message::default();
    histogram.uint(1, of.counts.iter().sum()).double(2, of.seconds);
    let mut cumulative = 0;
    for (bound, count) in of.buckets() {
        cumulative += count;
        let mut bucket = Message::default();
        bucket.uint(1, cumulative).double(2, bound);
        histogram.message(3, &bucket);
    }
    if let Some(fine) = of.fine {
        let sparse = Sparse::of(fine);
        // A zero threshold that is not zero marks a native histogram also where nothing was counted yet.
        histogram.sint(5, SCHEMA.into()).double(6, ZERO_THRESHOLD).uint(7, fine.zero);
        for (offset, length) in sparse.spans {
            let mut span = Message::default();
            span.sint(1, offset.into()).uint(2, length.into());
            histogram.message(12, &span);
        }
        histogram.sints(13, &sparse.deltas);
    }
    histogram
}

/// A message `MetricFamily` in the making.
struct Family(Message);

impl Family {
    /// `kind` is one of `MetricType`.
    fn new(name: &str, help: &str, kind: u64) -> Self {
        let mut family = Message::default();
        family.bytes(1, format!("{PREFIX}_{name}")).bytes(2, help).uint(3, kind);
        Self(family)
    }

    /// Adds a message `Metric` with `value` as its field `field`.
    fn add(&mut self, labels: &Labels<'_>, field: u32, value: &Message) {
        let mut metric = Message::default();
        for (name, value) in labels {
            let mut pair = Message::default();
            pair.bytes(1, name).bytes(2, value);
            metric.message(1, &pair);
        }
        metric.message(field, value);
        self.0.message(4, &metric);
    }

    fn end(&self, out: &mut Vec<u8>) {
        self.0.append_delimited(out);
    }
}

/// Arrays and slices of label pairs.
pub(super) trait AsLabels {
    fn as_labels(&self) -> &Labels<'_>;
}

impl AsLabels for &Labels<'_> {
    fn as_labels(&self) -> &Labels<'_> {
        self
    }
}

impl<const N: usize> AsLabels for [(&str, &str); N] {
    fn as_labels(&self) -> &Labels<'_> {
        self
    }
}

#[derive(Debug)]
struct LabelSet<'a>(&'a Labels<'a>);

impl EncodeLabelSet for LabelSet<'_> {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}
