//! A strict reader of the exposition format 0.0.4 of Prometheus, as far as a node uses it: every line is checked.

use std::collections::BTreeMap;

/// One metric with all its samples.
pub(crate) struct Family {
    /// `counter`, `gauge` or `histogram`.
    pub(crate) kind: String,
    /// What it means.
    pub(crate) help: String,
    /// The label that its samples differ in, if they do.
    pub(crate) label: Option<String>,
    /// What comes after the name, with the labels as they are written; and the value.
    pub(crate) samples: BTreeMap<(String, String), f64>,
}

impl Family {
    /// The value of the sample with exactly these labels.
    pub(crate) fn value(&self, labels: &str) -> f64 {
        self.sample("", labels)
    }

    /// The value of a sample of a histogram.
    pub(crate) fn sample(&self, suffix: &str, labels: &str) -> f64 {
        let found = self.samples.get(&(suffix.to_owned(), labels.to_owned()));
        *found.unwrap_or_else(|| panic!("no sample {suffix}{{{labels}}} among {:?}", self.samples))
    }
}

/// Reads a page. Panics on anything that is not as the format and the conventions for names have it.
pub(crate) fn parse(page: &str) -> BTreeMap<String, Family> {
    assert!(page.ends_with('\n'), "the last line ends");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        let (name, help) = comment(line, "# HELP ");
        let (typed, kind) = comment(lines.next().expect("a type follows"), "# TYPE ");
        assert_eq!(name, typed);
        let mut family =
            Family { kind: kind.to_owned(), help: help.to_owned(), label: None, samples: BTreeMap::new() };
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            sample(name, line, &mut family);
        }
        check(name, &family);
        assert!(families.insert(name.to_owned(), family).is_none(), "{name} comes once");
    }
    families
}

fn comment<'l>(line: &'l str, start: &str) -> (&'l str, &'l str) {
    let rest = line.strip_prefix(start).unwrap_or_else(|| panic!("'{line}' does not start with '{start}'"));
    rest.split_once(' ').unwrap_or_else(|| panic!("'{line}' ends early"))
}

fn sample(name: &str, line: &str, family: &mut Family) {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("'{line}' has no value"));
    let value: f64 = value.parse().unwrap_or_else(|_| panic!("'{line}' has no number"));
    let (series, labels) = match series.split_once('{') {
        Some((series, labels)) => (series, labels.strip_suffix('}').expect("the labels end")),
        None => (series, ""),
    };
    let suffix = series.strip_prefix(name).unwrap_or_else(|| panic!("'{line}' is among those of {name}"));
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (label, quoted) = label.split_once('=').expect("a label has a value");
        let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).expect("a quoted value");
        assert!(!inner.is_empty() && !inner.contains(['"', '\\']), "{line}");
        if label != "le" {
            family.label = Some(label.to_owned());
        }
    }
    let before = family.samples.insert((suffix.to_owned(), labels.to_owned()), value);
    assert!(before.is_none(), "'{line}' comes once");
    if suffix == "_bucket" {
        let previous = family.samples.get(&("_last".to_owned(), others(labels))).copied().unwrap_or(0.0);
        assert!(value >= previous, "'{line}' counts less than the bucket before");
        family.samples.insert(("_last".to_owned(), others(labels)), value);
    }
}

/// The labels of a bucket without its bound.
fn others(labels: &str) -> String {
    let others: Vec<&str> = labels.split(',').filter(|label| !label.starts_with("le=")).collect();
    others.join(",")
}

fn check(name: &str, family: &Family) {
    assert!(name.starts_with("psdb_") || name.starts_with("process_"), "{name}");
    assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
    assert!(family.help.ends_with('.') && !family.samples.is_empty(), "{name}");
    assert_eq!(family.kind == "counter", name.ends_with("_total"), "{name} is a {}", family.kind);
    match family.kind.as_str() {
        "counter" | "gauge" => assert!(family.samples.keys().all(|(suffix, _)| suffix.is_empty()), "{name}"),
        "histogram" => check_histogram(name, family),
        other => panic!("{name} is of the unknown type {other}"),
    }
}

fn check_histogram(name: &str, family: &Family) {
    assert!(name.ends_with("_seconds"), "{name}");
    let counts = family.samples.iter().filter(|((suffix, _), _)| suffix == "_count");
    for ((_, labels), count) in counts {
        let comma = if labels.is_empty() { "" } else { "," };
        let all = family.sample("_bucket", &format!("{labels}{comma}le=\"+Inf\""));
        assert_eq!(all, *count, "{name}{{{labels}}}: the last bucket has all");
        assert_eq!(family.sample("_last", labels), all, "{name}{{{labels}}}: it comes last");
        assert!(family.sample("_sum", labels) >= 0.0, "{name}");
    }
}
