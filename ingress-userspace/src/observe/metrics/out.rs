//! Where metrics are written to: prometheus-client's encoder of text, or the messages of `model`. The rest of `metrics` sees
//! no difference.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prost::Message as _;

use super::model;
use super::native::Sparse;
use crate::l7::stats::native::{NativeBuckets, SCHEMA, ZERO_THRESHOLD};
use crate::l7::stats::{Buckets, LATENCY_BOUNDS};

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
                let metrics = values.into_iter().map(|(labels, value)| model::Metric {
                    counter: Some(model::Number { value: value as f64 }),
                    ..labelled(labels.as_labels())
                });
                append(out, &format!("{name}_total"), help, model::MetricType::Counter, metrics);
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
                let metrics = values.into_iter().map(|(labels, value)| model::Metric {
                    gauge: Some(model::Number { value }),
                    ..labelled(labels.as_labels())
                });
                append(out, name, help, model::MetricType::Gauge, metrics);
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
                let metrics = values
                    .into_iter()
                    .map(|of| model::Metric { histogram: Some(histogram(&of)), ..labelled(&[of.label]) });
                append(out, name, help, model::MetricType::Histogram, metrics);
            }
        }
        Ok(())
    }
}

fn histogram(of: &Distribution<'_>) -> model::Histogram {
    let mut cumulative_count = 0;
    let buckets = of.buckets().into_iter().map(|(upper_bound, count)| {
        cumulative_count += count;
        model::Bucket { cumulative_count, upper_bound }
    });
    let classic = model::Histogram {
        count: of.counts.iter().sum(),
        sum: of.seconds,
        buckets: buckets.collect(),
        ..model::Histogram::default()
    };
    let Some(fine) = of.fine else { return classic };
    let Sparse { spans, deltas } = Sparse::of(fine);
    model::Histogram {
        schema: Some(SCHEMA),
        zero_threshold: ZERO_THRESHOLD,
        zero_count: fine.zero,
        positive_spans: spans,
        positive_deltas: deltas,
        ..classic
    }
}

/// A metric without a value.
fn labelled(labels: &Labels<'_>) -> model::Metric {
    let pair =
        |(name, value): &(&str, &str)| model::LabelPair { name: (*name).into(), value: (*value).into() };
    model::Metric { labels: labels.iter().map(pair).collect(), ..model::Metric::default() }
}

/// Appends a family after its length.
fn append(
    out: &mut Vec<u8>,
    name: &str,
    help: &str,
    kind: model::MetricType,
    metrics: impl Iterator<Item = model::Metric>,
) {
    let name = format!("{PREFIX}_{name}");
    let family =
        model::MetricFamily { name, help: help.into(), kind: kind.into(), metrics: metrics.collect() };
    out.extend_from_slice(&family.encode_length_delimited_to_vec());
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
