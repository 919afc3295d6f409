//! What a run prints when it ends.

use std::io::{self, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::base::number::f64_of_count;
use crate::data::flags::Flags;
use crate::run::{Calibration, Counts, PARTS, ShadowCounts};

/// Rate of a count over a time.
#[allow(clippy::cast_precision_loss)]
#[must_use]
pub fn per_second(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64().max(1e-9)
}

/// Writes the summary of a run.
///
/// # Errors
/// The writer fails.
pub fn write(out: &mut dyn Write, counts: &Counts, calibration: Option<&Calibration>, elapsed: Duration) -> io::Result<()> {
    let records = counts.records.load(Relaxed);
    let mut row = |name: &str, value: String| writeln!(out, "  {name:<26} {value}");
    row("records read", grouped(records))?;
    row("forecasts written", grouped(counts.forecasts.load(Relaxed)))?;
    if counts.replayed.load(Relaxed) > 0 {
        row("replayed silently", grouped(counts.replayed.load(Relaxed)))?;
    }
    if counts.before_since.load(Relaxed) > 0 {
        row("left out: before `since`", grouped(counts.before_since.load(Relaxed)))?;
    }
    let reasons: Vec<String> = counts.dead_by_reason().map(|(reason, n)| format!("{reason} {}", grouped(n))).collect();
    let reasons = if reasons.is_empty() { String::new() } else { format!("  ({})", reasons.join(", ")) };
    row("dead letters", format!("{}{reasons}", grouped(counts.dead_letters())))?;
    // That a key is new is no news.
    let flagged = Flags::NAMES.iter().zip(&counts.flagged).filter(|((flag, _), _)| *flag != Flags::COLD_START);
    for ((flag, name), count) in flagged.map(|(flag, count)| (flag, count.load(Relaxed))).filter(|(_, count)| *count > 0) {
        let what = match *flag {
            Flags::LATE_CLAMPED => "earlier than its key's last event, taken with gap 0",
            Flags::UNKNOWN_MARK => "a mark that the model does not know",
            Flags::NOT_FINITE => "the model gave no number: fields are empty",
            _ => "the next state was not finite: the key keeps the one before",
        };
        row(&format!("flagged {name}"), format!("{}  ({what})", grouped(count)))?;
    }
    let (keys, bytes) = (counts.keys.load(Relaxed), counts.bytes.load(Relaxed));
    // Of few keys most of what is allocated is room for more.
    let per_key = bytes.checked_div(keys).filter(|_| keys >= 10_000);
    row("keys", per_key.map_or_else(|| grouped(keys), |per_key| format!("{}  ({per_key} bytes of state each)", grouped(keys))))?;
    row("time", format!("{:.2} s, {} records/s", elapsed.as_secs_f64(), grouped_f(per_second(records, elapsed))))?;
    let Some(calibration) = calibration else { return Ok(()) };
    let mut mean = |name: &str, (sum, n): (f64, usize), note: &str| -> io::Result<()> {
        if n == 0 {
            return Ok(());
        }
        let mean = sum / crate::base::number::f64_of_count(n);
        writeln!(out, "  {name:<26} {mean:.4}{note}")
    };
    mean("mean surprise of time", calibration.surprise_time, " nats per event")?;
    mean("mean surprise of mark", calibration.surprise_mark, " nats per event")?;
    mean("mean surprise of value", calibration.surprise_value, " nats per event")?;
    mean("mean residual", calibration.residual, "  (1 if the law is right)")?;
    mean("mean score", calibration.score, "")?;
    let trust = counts.trust.read();
    if trust.drifts > 0 {
        let (drifts, compared) = (grouped(trust.drifts), grouped(trust.compared));
        writeln!(
            out,
            "  {:<26} {drifts} of {compared} windows of 10,000 events, whose residuals are unlike those of the first settled one",
            "drift"
        )?;
    }
    if let Some(shares) = calibration.shares() {
        writeln!(out, "  calibration: share of next events that came before the forecast quantile")?;
        for (q, share) in calibration.quantiles.iter().zip(shares) {
            writeln!(out, "    q{:<5} {share:.3}", q * 100.0)?;
        }
    }
    shadow(out, &counts.shadow)
}

/// How a second model stands against the first.
fn shadow(out: &mut dyn Write, counts: &ShadowCounts) -> io::Result<()> {
    if counts.runs.load(Relaxed) == 0 {
        return Ok(());
    }
    let judged = counts.judged();
    let rows = grouped(counts.forecasts.load(Relaxed));
    writeln!(out, "  {:<26} {rows} forecasts, {} of them compared with the first model's", "shadow", grouped(judged.events))?;
    let reasons = [("failed", &counts.failed), ("without law", &counts.without_law), ("rejected", &counts.rejected)];
    for (reason, count) in reasons.into_iter().filter(|(_, count)| count.load(Relaxed) > 0) {
        writeln!(out, "    {reason:<24} {}", grouped(count.load(Relaxed)))?;
    }
    for (part, losses) in PARTS.iter().zip(&judged.losses) {
        if let Some((change, error)) = losses.change() {
            let n = f64_of_count(losses.events);
            let (first, shadow) = (losses.first / n, losses.shadow / n);
            writeln!(out, "    nll of {part:<17} {first:.4} first, {shadow:.4} shadow, {change:+.4} (standard error {error:.4})")?;
        }
    }
    for (field, alerts) in &judged.alerts {
        let [both, first, only, none] = [alerts.both, alerts.first, alerts.shadow, alerts.none].map(grouped);
        writeln!(out, "    alerts by {field:<14} {both} both, {first} first alone, {only} shadow alone, {none} none")?;
    }
    Ok(())
}

/// 1234567 as 1,234,567.
#[must_use]
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn grouped_f(value: f64) -> String {
    grouped(value.max(0.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_in_threes() {
        assert_eq!([0, 12, 123, 1234, 1_234_567].map(grouped), ["0", "12", "123", "1,234", "1,234,567"]);
    }
}
