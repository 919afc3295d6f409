//! The figures as a table for people.

use std::io::{self, Write};

use super::next::NextEvents;
use super::report::Report;
use crate::base::number::{f64_of_count, shown};

/// Writes the table.
///
/// # Errors
/// The writer fails.
pub fn write(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    writeln!(out, "{}: model {} {}, {}", report.pipeline, report.model, report.model_version, report.head)?;
    let mut line = format!("  {} events of {} keys, {} of them first ones", report.events, report.keys, report.first);
    if report.late > 0 {
        line.push_str(&format!(", {} late", report.late));
    }
    if report.not_finite > 0 {
        line.push_str(&format!(
            "; for {} the model gave no number, and figures are without them{}",
            report.not_finite,
            if report.time.is_none() { " (a score is to lie between 0 and 1: is its link `logit`?)" } else { "" }
        ));
    }
    if report.rejected > 0 {
        line.push_str(&format!("; {} records could not be used", report.rejected));
    }
    writeln!(out, "{line}")?;
    writeln!(out, "  {:.1} s, {:.0} events/s", report.seconds, report.events_per_s)?;
    if let Some(time) = &report.time {
        let unit = &time.unit;
        let of = if time.coarse { "probabilities of ticks".to_owned() } else { format!("densities per `{unit}`") };
        writeln!(out, "\ntime of the next event ({} events with a law before them; {of})", time.scored)?;
        writeln!(out, "  negative log-likelihood    {:.6} nats per event", time.nll)?;
        if let Some(constant) = time.constant_rate {
            writeln!(out, "  best constant rate         {constant:.6}")?;
        }
        if report.marks.is_some() {
            writeln!(out, "  gap and mark together      {:.6}", time.nll_with_marks)?;
        }
        if let Some(open) = &time.open {
            writeln!(out, "  with {} open last gaps     {:.6}, by all events", open.keys, open.nll_per_event)?;
        }
        let residuals = &time.residuals;
        let verdict = if residuals.ks <= residuals.ks_bound { "within" } else { "beyond" };
        writeln!(
            out,
            "  residuals                  mean {:.4}, KS {:.4}, {verdict} the {:.4} of a true law (19 of 20 times)",
            residuals.mean, residuals.ks, residuals.ks_bound
        )?;
        let next = &time.next_time;
        if next.events > 0 {
            writeln!(out, "  error of the median        mean {}, root mean square {}", span(next.mae_s), span(next.rmse_s))?;
        }
        if !time.quantiles.is_empty() {
            writeln!(out, "\n  {:<12} {:>10} {:>12}", "quantile", "coverage", "laws")?;
            for q in &time.quantiles {
                writeln!(out, "  {:<12} {:>10.4} {:>12}", q.quantile, q.coverage, q.laws)?;
            }
        }
        if !time.horizons.is_empty() {
            writeln!(out, "\n  {:<12} {:>10} {:>12} {:>10} {:>10} {:>12}", "within", "mean p", "came", "Brier", "of rate", "laws")?;
            for h in &time.horizons {
                let cells = [h.mean_p, h.rate, h.brier, h.brier_rate];
                write!(out, "  {:<12} {:>10.4} {:>12.4}", h.horizon, cells[0], cells[1])?;
                writeln!(out, " {:>10.4} {:>10.4} {:>12}", cells[2], cells[3], h.laws)?;
            }
        }
    }
    if let Some(marks) = &report.marks {
        writeln!(out, "\nmark of the next event ({} events)", marks.scored)?;
        writeln!(out, "  log-loss                   {:.6} nats per event", marks.log_loss)?;
        writeln!(out, "  likeliest was right        {:.4}", marks.accuracy)?;
        let judged = marks.by_mark.iter().any(|mark| mark.ks.is_some());
        let heading = if judged { format!(" {:>10}", "KS") } else { String::new() };
        writeln!(out, "\n  {:<20} {:>10} {:>10} {:>10}{heading}", "mark", "events", "log-loss", "recall")?;
        for mark in &marks.by_mark {
            let star = if mark.ks.is_some_and(|ks| ks > mark.ks_bound) { " *" } else { "" };
            let ks = mark.ks.map(|ks| format!(" {ks:>10.4}{star}")).unwrap_or_default();
            writeln!(out, "  {:<20} {:>10} {:>10.4} {:>10.4}{ks}", plain(&mark.mark), mark.events, mark.log_loss, mark.recall)?;
        }
        writeln!(
            out,
            "  {}",
            if judged { "* beyond what a true law has, 19 of 20 times" } else { "KS by mark is left out: the mark depends on the gap" }
        )?;
    }
    if let Some(next) = &report.next {
        several(out, next)?;
    }
    if let Some(value) = &report.value {
        writeln!(out, "\nvalue of `{}` of the next event ({} values with a law before them)", value.field, value.scored)?;
        if value.missing > 0 {
            writeln!(out, "  missing                    {}", value.missing)?;
        }
        writeln!(out, "  negative log-likelihood    {:.6} nats per value, densities in the field's unit", value.nll)?;
        let verdict = if value.ks <= value.ks_bound { "within" } else { "beyond" };
        writeln!(
            out,
            "  share of the law below it  KS {:.4}, {verdict} the {:.4} of a true law (19 of 20 times)",
            value.ks, value.ks_bound
        )?;
        writeln!(out, "  error of the median        mean {}, root mean square {}", shown(value.mae, 6), shown(value.rmse, 6))?;
        if !value.quantiles.is_empty() {
            writeln!(out, "\n  {:<12} {:>10}", "quantile", "coverage")?;
            for q in &value.quantiles {
                writeln!(out, "  {:<12} {:>10.4}", q.quantile, q.coverage)?;
            }
        }
    }
    match &report.score {
        Some(score) => {
            let share = f64_of_count(score.positive) / f64_of_count(score.events);
            let name = if report.time.is_some() { "unusual: surprise against the label" } else { "score" };
            writeln!(out, "\n{name} ({} labelled events, {} positive: {:.4} %)", score.events, score.positive, 100.0 * share)?;
            // How unusual an event is is no probability of its label.
            if report.time.is_none() {
                writeln!(out, "  log-loss                   {:.6} nats; the share alone {:.6}", score.log_loss, score.log_loss_share)?;
                writeln!(out, "  Brier                      {:.6}", score.brier)?;
            }
            writeln!(out, "  average precision          {:.4}", score.average_precision)?;
            writeln!(out, "  area under ROC             {:.4}", score.roc_auc)?;
            let k = score.k;
            writeln!(
                out,
                "  precision, {k:<4} a day       {:.4} of events, {:.4} of keys, {} days",
                score.precision_at_k_per_day, score.key_precision_at_k_per_day, score.days
            )?;
        }
        None if report.time.is_none() => writeln!(out, "\nno event has a label: name its field in [event] label")?,
        None => {}
    }
    Ok(())
}

/// Several next events at once.
fn several(out: &mut dyn Write, next: &NextEvents) -> io::Result<()> {
    let gap = next.mean_gap_s;
    writeln!(out, "\nnext {} events ({} continuations of each of {} points, seed {})", next.events, next.paths, next.points, next.seed)?;
    if !next.missing.is_empty() {
        writeln!(out, "  drawn without fields       {}: they are taken as missing", next.missing.join(", "))?;
    }
    if next.ended > 0.0 {
        writeln!(out, "  ended early                {:.4} of the continuations: no event comes any more", next.ended)?;
    }
    match &next.transport {
        Some(transport) => {
            writeln!(
                out,
                "  transport distance         {:.4}, in mean gaps of {}, {} points",
                transport.distance,
                span(gap),
                transport.points
            )?;
            let prices: Vec<String> = transport.by_price.iter().map(|(price, distance)| format!("{price}: {distance:.4}")).collect();
            writeln!(out, "    by price of an event     {}", prices.join("  "))?;
        }
        None => writeln!(out, "  transport distance         none: no point has {} events behind it", next.events)?,
    }
    match &next.precision {
        Some(precision) => {
            let (within, near) = (span(precision.horizon_s), span(precision.tolerance_s));
            writeln!(
                out,
                "  T-mAP                      {:.4}, within {within}, matched within {near}, {} points",
                precision.mean, precision.points
            )?;
            writeln!(out, "    continuations that reach {:.4}", precision.covered)?;
            if precision.cut > 0 {
                let most = super::next::MOST * next.events;
                writeln!(out, "    points cut               {}: more than {most} events came, the first {most} count", precision.cut)?;
            }
            if precision.by_mark.iter().any(|mark| !mark.mark.is_empty()) {
                writeln!(out, "\n  {:<20} {:>10} {:>18}", "mark", "events", "average precision")?;
                for mark in &precision.by_mark {
                    writeln!(out, "  {:<20} {:>10} {:>18.4}", plain(&mark.mark), mark.events, mark.average_precision)?;
                }
            }
        }
        None => writeln!(out, "  T-mAP                      none: no horizon of a point lies within the data and has an event")?,
    }
    Ok(())
}

/// Seconds as people say them.
#[must_use]
pub fn span(seconds: f64) -> String {
    match seconds {
        s if s.is_nan() => "-".to_owned(),
        s if s < 1e-3 => format!("{:.2} us", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s if s < 120.0 => format!("{s:.2} s"),
        s if s < 7200.0 => format!("{:.2} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.2} h", s / 3600.0),
        s => format!("{:.2} d", s / 86_400.0),
    }
}

/// A text of the data that leaves the terminal and the table as they are.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_times_and_figures_keep_their_digits() {
        assert_eq!([3.4e-5, 0.02, 5.0].map(span), ["34.00 us", "20.0 ms", "5.00 s"]);
        assert_eq!([0.0, 1e-9, 0.5, -2.0, 1e300].map(|value| shown(value, 3)), ["0.000", "1.000e-9", "0.500", "-2.000", "1.000e300"]);
        assert_eq!(plain("a\u{1b}[2J\nb"), "a\u{fffd}[2J\u{fffd}b");
    }
}
