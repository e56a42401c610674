//! Metrics as text in the exposition format 0.0.4 of Prometheus.
//!
//! Filled by `page`. Always holds: a family has a type and a sentence, and its samples differ in one label at most, whose
//! values the code fixes: what clients or operators name is no label.

use base::DurationReading;
use base::histogram::BOUNDS_US;
use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// The media type of the text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The families so far.
#[derive(Default)]
pub(super) struct Exposition {
    families: Vec<MetricFamily>,
}

/// A label of one sample; `None` where a family has one sample only.
type Label<'a> = Option<(&'a str, &'a str)>;

impl Exposition {
    /// A number that only grows.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.family(MetricType::COUNTER, name, help, vec![counter(None, value)]);
    }

    /// As [`Exposition::counter`], for every value of a label.
    pub(super) fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) {
        let samples = values.into_iter().map(|(of, value)| counter(Some((label, of)), value));
        self.family(MetricType::COUNTER, name, help, samples.collect());
    }

    /// A number that rises and falls.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(MetricType::GAUGE, name, help, vec![gauge(None, value)]);
    }

    /// As [`Exposition::gauge`], for every value of a label.
    pub(super) fn gauges<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) {
        let samples = values.into_iter().map(|(of, value)| gauge(Some((label, of)), value));
        self.family(MetricType::GAUGE, name, help, samples.collect());
    }

    /// Durations, in seconds.
    pub(super) fn histogram(&mut self, name: &str, help: &str, reading: &DurationReading) {
        self.family(MetricType::HISTOGRAM, name, help, vec![histogram(None, reading)]);
    }

    /// As [`Exposition::histogram`], for every value of a label.
    pub(super) fn histograms<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, DurationReading)>,
    ) {
        let samples = values.into_iter().map(|(of, reading)| histogram(Some((label, of)), &reading));
        self.family(MetricType::HISTOGRAM, name, help, samples.collect());
    }

    /// The text. Fails with a sentence.
    pub(super) fn finish(self) -> Result<String, String> {
        let text = TextEncoder::new().encode_to_string(&self.families);
        text.map_err(|error| format!("the metrics could not be written: {error}"))
    }

    fn family(&mut self, kind: MetricType, name: &str, help: &str, samples: Vec<Metric>) {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(samples.into());
        self.families.push(family);
    }
}

fn sample(label: Label<'_>) -> Metric {
    let mut metric = Metric::default();
    let pairs = label.map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    });
    metric.set_label(pairs.into_iter().collect());
    metric
}

fn counter(label: Label<'_>, value: f64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = sample(label);
    metric.set_counter(counter);
    metric
}

fn gauge(label: Label<'_>, value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = sample(label);
    metric.set_gauge(gauge);
    metric
}

fn histogram(label: Label<'_>, reading: &DurationReading) -> Metric {
    let mut sum = 0;
    let cumulative = BOUNDS_US.iter().zip(&reading.buckets).map(|(bound, count)| {
        sum += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / 1e6);
        bucket.set_cumulative_count(sum);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(cumulative.collect());
    histogram.set_sample_count(reading.count());
    histogram.set_sample_sum(reading.sum_ns as f64 / 1e9);
    let mut metric = sample(label);
    metric.set_histogram(histogram);
    metric
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base::DurationHistogram;

    use super::*;

    #[test]
    fn counters_and_gauges_are_lines_with_their_type_and_sentence() {
        let mut exposition = Exposition::default();
        exposition.counter("psdb_a_total", "How often a.", 3.0);
        exposition.gauges("psdb_b", "How many b.", "kind", [("x", 0.5), ("y", f64::NAN)]);
        let text = exposition.finish().expect("well formed");
        let wanted = "# HELP psdb_a_total How often a.\n# TYPE psdb_a_total counter\npsdb_a_total 3\n\
                      # HELP psdb_b How many b.\n# TYPE psdb_b gauge\npsdb_b{kind=\"x\"} 0.5\npsdb_b{kind=\"y\"} NaN\n";
        assert_eq!(text, wanted);
    }

    #[test]
    fn buckets_of_a_histogram_are_cumulative_and_in_seconds() {
        let histogram = DurationHistogram::default();
        for micros in [90, 100, 2_000, 20_000_000] {
            histogram.record(Duration::from_micros(micros));
        }
        let mut exposition = Exposition::default();
        exposition.histogram("psdb_c_seconds", "How long c.", &histogram.read());
        let text = exposition.finish().expect("well formed");
        for line in [
            "psdb_c_seconds_bucket{le=\"0.0001\"} 2",
            "psdb_c_seconds_bucket{le=\"0.001\"} 2",
            "psdb_c_seconds_bucket{le=\"0.0025\"} 3",
            "psdb_c_seconds_bucket{le=\"10\"} 3",
            "psdb_c_seconds_bucket{le=\"+Inf\"} 4",
            "psdb_c_seconds_sum 20.00219",
            "psdb_c_seconds_count 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_family_without_samples_is_an_error_and_no_text() {
        let mut exposition = Exposition::default();
        exposition.counters("psdb_a_total", "How often a.", "kind", []);
        assert!(exposition.finish().is_err());
    }
}
