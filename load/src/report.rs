//! What was measured, as people and as programs read it: one list of named figures, printed as a table, a line or a JSON object.
//!
//! A figure has one name, with its unit last (`latency_p99_us`, `deliveries_per_s`); the table says the same without the unit
//! and puts one behind the value that suits its size. So a script and a person never see different figures.

use serde_json::{Value, json};

use crate::histogram::Histogram;

/// The value of a figure; its name says the unit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Figure {
    /// How many.
    Count(u64),
    /// Something that is no whole number: a rate, or a cost of one.
    Number(f64),
    /// Microseconds.
    Micros(f64),
    /// Seconds.
    Seconds(f64),
    /// Bytes.
    Bytes(u64),
    /// Of a hundred.
    Percent(f64),
    /// Yes or no; the table tells only what is so.
    Flag(bool),
    /// A word.
    Text(String),
    /// How many of each.
    Counts(Vec<(String, u64)>),
    /// Microseconds: mean, quantiles and maximum of the same kind of time. The table has them in one row; as JSON each is a figure
    /// of its own.
    Times(Vec<(&'static str, f64)>),
}

/// The figures of a measurement, in the order in which they are told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    figures: Vec<(String, Figure)>,
    warnings: Vec<String>,
}

/// The quantiles that are told of each kind of time, and their names.
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)];

impl Report {
    /// Adds a figure. The name says its unit at the end.
    pub(crate) fn add(&mut self, name: impl Into<String>, figure: Figure) {
        self.figures.push((name.into(), figure));
    }

    pub(crate) fn count(&mut self, name: &str, count: u64) {
        self.add(name, Figure::Count(count));
    }

    /// Adds the quantiles, the mean and the maximum of times, as `NAME_p50_us` and so on; nothing if there were none.
    pub(crate) fn times(&mut self, name: &str, times: &Histogram) {
        if times.count() == 0 {
            return;
        }
        let quantiles = QUANTILES.map(|(quantile, share)| (quantile, times.quantile(share) as f64));
        let mut each = vec![("mean", times.mean())];
        each.extend(quantiles);
        each.push(("max", times.max() as f64));
        let micros = each.into_iter().map(|(which, ns)| (which, ns / 1e3)).collect();
        self.add(name, Figure::Times(micros));
    }

    /// Adds something that a reader of the figures must know.
    pub(crate) fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    /// Moves all of another one behind this.
    pub(crate) fn append(&mut self, other: &mut Report) {
        self.figures.append(&mut other.figures);
        self.warnings.append(&mut other.warnings);
    }

    /// Adds all of another one, with a prefix before each name.
    pub(crate) fn extend_as(&mut self, prefix: &str, other: Report) {
        let figures = other.figures.into_iter();
        self.figures.extend(figures.map(|(name, figure)| (format!("{prefix}_{name}"), figure)));
        self.warnings.extend(other.warnings);
    }

    /// One JSON object, on one line, in the order of the figures.
    pub(crate) fn json(&self) -> String {
        let mut members = Vec::with_capacity(self.figures.len());
        let mut add = |name: &str, value: Value| members.push(format!("{}:{value}", json!(name)));
        for (name, figure) in &self.figures {
            if let Figure::Times(times) = figure {
                for (which, us) in times {
                    add(&format!("{name}_{which}_us"), rounded(*us));
                }
            } else {
                add(name, figure.json());
            }
        }
        if !self.warnings.is_empty() {
            add("warnings", json!(self.warnings));
        }
        format!("{{{}}}", members.join(","))
    }

    /// A table of two columns, and the warnings below it.
    pub(crate) fn table(&self) -> String {
        let rows: Vec<_> = self.rows().collect();
        let width = rows.iter().map(|(label, _)| label.len()).max().unwrap_or_default();
        let mut out = String::new();
        for (label, value) in rows {
            out.push_str(&format!("{label:width$}  {value}\n"));
        }
        for warning in &self.warnings {
            out.push_str(&format!("warning: {warning}\n"));
        }
        out
    }

    /// All of it on one line.
    pub(crate) fn line(&self) -> String {
        let rows = self.rows().map(|(label, value)| format!("{label} {value}"));
        let warnings = self.warnings.iter().map(|warning| format!("warning: {warning}"));
        rows.chain(warnings).collect::<Vec<_>>().join(" · ")
    }

    fn rows(&self) -> impl Iterator<Item = (String, String)> {
        let told = self.figures.iter().filter(|(_, figure)| *figure != Figure::Flag(false));
        told.map(|(name, figure)| (label(name, figure), figure.text()))
    }
}

/// A name as people read it: the unit is behind the value.
fn label(name: &str, figure: &Figure) -> String {
    let unit = match figure {
        Figure::Micros(_) => "_us",
        Figure::Seconds(_) => "_s",
        Figure::Bytes(_) => "_bytes",
        Figure::Percent(_)
        | Figure::Times(_)
        | Figure::Count(_)
        | Figure::Number(_)
        | Figure::Flag(_)
        | Figure::Text(_)
        | Figure::Counts(_) => "",
    };
    name.strip_suffix(unit).unwrap_or(name).replace('_', " ")
}

impl Figure {
    fn json(&self) -> Value {
        match self {
            Figure::Count(value) | Figure::Bytes(value) => json!(value),
            Figure::Number(value)
            | Figure::Micros(value)
            | Figure::Seconds(value)
            | Figure::Percent(value) => rounded(*value),
            Figure::Flag(value) => json!(value),
            Figure::Text(text) => json!(text),
            Figure::Counts(counts) => {
                let counts = counts.iter().map(|(name, count)| (name.clone(), json!(count)));
                Value::Object(counts.collect())
            }
            Figure::Times(times) => Value::Object(
                times.iter().map(|(which, us)| ((*which).to_owned(), rounded(*us))).collect(),
            ),
        }
    }

    fn text(&self) -> String {
        match self {
            Figure::Count(value) => grouped(*value),
            Figure::Number(value) if *value >= 100.0 => grouped(value.round() as u64),
            Figure::Number(value) => format!("{value:.2}"),
            Figure::Micros(value) => micros(*value),
            Figure::Times(times) => {
                let each = times.iter().map(|(which, us)| format!("{which} {}", micros(*us)));
                each.collect::<Vec<_>>().join("  ")
            }
            Figure::Seconds(value) => format!("{value:.2} s"),
            Figure::Bytes(value) => bytes(*value),
            Figure::Percent(value) => format!("{value:.1}"),
            Figure::Flag(value) => if *value { "yes" } else { "no" }.to_owned(),
            Figure::Text(text) => text.clone(),
            Figure::Counts(counts) if counts.is_empty() => "none".to_owned(),
            Figure::Counts(counts) => {
                let each =
                    counts.iter().map(|(name, count)| format!("{name}: {}", grouped(*count)));
                each.collect::<Vec<_>>().join(", ")
            }
        }
    }
}

/// Three digits behind the point: all below is noise.
fn rounded(value: f64) -> Value {
    json!((value * 1000.0).round() / 1000.0)
}

fn micros(value: f64) -> String {
    match value {
        _ if value >= 1e6 => format!("{:.2} s", value / 1e6),
        _ if value >= 1e3 => format!("{:.2} ms", value / 1e3),
        _ => format!("{value:.1} µs"),
    }
}

/// A number with commas.
pub(crate) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn bytes(value: u64) -> String {
    const KIB: f64 = 1024.0;
    let value = value as f64;
    match value {
        _ if value < KIB => format!("{value} B"),
        _ if value < KIB * KIB => format!("{:.1} KiB", value / KIB),
        _ if value < KIB * KIB * KIB => format!("{:.1} MiB", value / KIB / KIB),
        _ => format!("{:.2} GiB", value / KIB / KIB / KIB),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn report() -> Report {
        let mut times = Histogram::default();
        times.record(1_500_000);
        let mut report = Report::default();
        report.count("connections", 1_234_567);
        report.times("latency", &times);
        report.add("deliveries_per_s", Figure::Number(12_345.678_9));
        report.add("server_rss_bytes", Figure::Bytes(5 << 20));
        report.add("limited_by_generator", Figure::Flag(false));
        report.add("statuses", Figure::Counts(vec![("200".into(), 1000), ("503".into(), 2)]));
        report.warn("odd");
        report
    }

    #[test]
    fn programs_get_names_with_units() {
        let text = report().json();
        assert!(text.starts_with("{\"connections\":1234567,\"latency_mean_us\":1500.0,"), "{text}");
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["connections"], 1_234_567);
        assert_eq!(json["latency_max_us"], 1500.0);
        assert_eq!(json["deliveries_per_s"], 12_345.679);
        assert_eq!(json["limited_by_generator"], false);
        assert_eq!(json["statuses"]["503"], 2);
        assert_eq!(json["warnings"][0], "odd");
    }

    #[test]
    fn people_get_a_table() {
        let table = report().table();
        for line in [
            "connections       1,234,567\n",
            "latency           mean 1.50 ms  p50 1.50 ms  p90 1.50 ms  p99 1.50 ms  max 1.50 ms\n",
            "deliveries per s  12,346\n",
            "server rss        5.0 MiB\n",
            "statuses          200: 1,000, 503: 2\n",
            "warning: odd\n",
        ] {
            assert!(table.contains(line), "{line}{table}");
        }
        assert!(!table.contains("limited"));
        assert!(!report().line().contains('\n'));
    }

    #[test]
    fn numbers_have_commas() {
        for (value, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_000_000, "1,000,000")] {
            assert_eq!(grouped(value), text);
        }
    }
}
