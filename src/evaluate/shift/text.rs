//! The report as a table for people.

use std::fmt::Write as _;

use super::report::{FieldShift, Gain, Report, Side};
use crate::base::number::f64_of_count;

/// The table.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let figures = &report.figures;
    let _ = writeln!(out, "{}\n  before  {}\n  after   {}", report.pipeline, side(&report.before), side(&report.after));
    let range = [("since", &report.since), ("until", &report.until), ("key", &report.key)];
    let range: Vec<String> = range.iter().filter_map(|(name, value)| Some(format!("{name} {}", value.as_ref()?))).collect();
    let range = if range.is_empty() { String::new() } else { format!(", {}", range.join(", ")) };
    let _ = writeln!(out, "  events  {}{range}", figures.events);
    if figures.sampled < figures.events {
        let _ = writeln!(out, "          quantiles and distances are of a sample of {}", figures.sampled);
    }
    for (count, whose) in [(report.events_only_before, "before"), (report.events_only_after, "after")] {
        if count > 0 {
            let _ = writeln!(out, "          {count} events have a forecast only {whose}");
        }
    }
    report.notes.iter().for_each(|note| {
        let _ = writeln!(out, "  note    {note}");
    });

    let losses = &figures.likelihood;
    let losses = [("time", &losses.time), ("mark", &losses.mark), ("log loss of the label", &losses.label)];
    if losses.iter().any(|(_, gain)| gain.is_some()) {
        let _ = writeln!(out, "\nnegative log-likelihood, nats an event (less is better)");
        let _ = writeln!(out, "  {:<24} {:>10} {:>10} {:>10}   {:>9} {:>10}", "", "before", "after", "change", "std error", "events");
        losses.iter().for_each(|(name, gain)| loss(&mut out, name, gain.as_ref()));
    }
    if let Some(decisions) = &figures.decisions {
        let share = |count: usize| 100.0 * f64_of_count(count) / f64_of_count(decisions.events.max(1));
        let flips = decisions.new_alerts + decisions.lost_alerts;
        let _ = writeln!(out, "\nalerts where {} >= {}", decisions.field, decisions.threshold);
        let (before, after) = (decisions.alerts_before, decisions.alerts_after);
        let _ = writeln!(out, "  before {before} ({:.3} %), after {after} ({:.3} %)", share(before), share(after));
        let _ = writeln!(
            out,
            "  decisions that change: {flips} of {} ({:.3} %): {} new alerts, {} lost",
            decisions.events,
            share(flips),
            decisions.new_alerts,
            decisions.lost_alerts
        );
    }
    if !figures.fields.is_empty() {
        let _ = writeln!(out);
        let names = ["mean", "q05", "q25", "q50", "q75", "q95"];
        let heads: String = names.iter().map(|name| format!(" {name:>10}")).collect();
        let _ = writeln!(out, "{:<22} {:<6}{heads} {:>8} {:>8} {:>10}", "field", "", "KS", "PSI", "|change|");
        figures.fields.iter().for_each(|field| shift(&mut out, field));
    }
    for (names, whose) in [(&report.only_before, "before"), (&report.only_after, "after")] {
        if !names.is_empty() {
            let _ = writeln!(out, "only {whose}: {}", names.join(", "));
        }
    }
    if let Some(name) = figures.ranked_by.as_ref().filter(|_| !figures.top.is_empty()) {
        let _ = writeln!(out, "\nkeys that change most, by {name}");
        let width = figures.top.iter().map(|key| key.key.chars().count()).max().unwrap_or(0).max(3);
        let _ = writeln!(out, "  {:<width$} {:>10} {:>10} {:>10}  at", "key", "before", "after", "change");
        for key in &figures.top {
            let (before, after, change) = (number(Some(key.before)), number(Some(key.after)), number(Some(key.change)));
            let _ = writeln!(out, "  {:<width$} {before:>10} {after:>10} {change:>10}  {}", key.key, key.event_time);
        }
    }
    out
}

fn side(side: &Side) -> String {
    let more: Vec<&str> = [side.head.as_str(), side.fingerprint.as_str()].into_iter().filter(|part| !part.is_empty()).collect();
    if more.is_empty() { side.name.clone() } else { format!("{} ({})", side.name, more.join("; ")) }
}

fn loss(out: &mut String, name: &str, gain: Option<&Gain>) {
    let Some(gain) = gain else { return };
    let _ = writeln!(
        out,
        "  {name:<24} {:>10.5} {:>10.5} {:>+10.5}   {:>9.5} {:>10}",
        gain.before, gain.after, gain.change, gain.standard_error, gain.events
    );
}

fn shift(out: &mut String, field: &FieldShift) {
    let unit = if field.unit.is_empty() { String::new() } else { " (s)".to_owned() };
    let name = format!("{}{unit}", field.name);
    for (side, spread) in [("before", &field.before), ("after", &field.after)] {
        let cells = [spread.mean, spread.q05, spread.q25, spread.q50, spread.q75, spread.q95];
        let cells: String = cells.iter().map(|value| format!(" {:>10}", number(*value))).collect();
        let first = side == "before";
        let rest = if first {
            String::new()
        } else {
            format!(" {:>8} {:>8} {:>10}", short(field.ks), short(field.psi), number(field.mean_absolute_change))
        };
        let _ = writeln!(out, "{:<22} {side:<6}{cells}{rest}", if first { name.as_str() } else { "" });
    }
}

fn short(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
}

/// A number in at most ten characters.
fn number(value: Option<f64>) -> String {
    let Some(value) = value else { return "-".to_owned() };
    match value.abs() {
        0.0 => "0".to_owned(),
        size if (0.001..100_000.0).contains(&size) => {
            let digits = if size >= 1000.0 {
                1
            } else if size >= 10.0 {
                3
            } else {
                5
            };
            format!("{value:.digits$}")
        }
        _ => format!("{value:.2e}"),
    }
}
