//! The figures as one page that needs nothing else.

use std::fmt::Write;

use super::history::KeyHistory;
use super::plot::{Plot, escape};
use super::report::{Report, TimeLaw, ValueLaw};
use super::text;
use crate::base::number::f64_of_count;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1040px;margin:2em auto;padding:0 1em;color:#1b1f24}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}pre{background:#f5f6f8;padding:1em;overflow-x:auto;font-size:13px}\
svg{margin:0 1em 1em 0}.title{font-weight:600;font-size:14px}.tick{font-size:11px;fill:#57606a}.axis{font-size:12px;fill:#57606a}\
.grid{stroke:#e4e7eb}.ideal{stroke:#8c959f;stroke-dasharray:5 4;fill:none}.one{stroke:#0b62c4;stroke-width:2;fill:none}\
.two{stroke:#c4510b;stroke-width:2;fill:none}.dot{fill:#0b62c4}.bar{fill:#7fb2e8}.other{fill:#e8a87f;opacity:.7}.heat{fill:#0b3d91}.event{stroke:#1b1f24;stroke-width:1;opacity:.55}\
p.note{color:#57606a}";

/// A page for models side by side: their table, and the loss of each over its cost, points (ns an event, loss, name).
#[must_use]
pub fn comparison(pipeline: &str, table: &str, loss: &str, points: &[(f64, f64, String)]) -> String {
    let title = escape(&format!("{pipeline}: models compared"));
    let range =
        |values: &mut dyn Iterator<Item = f64>| values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    let wider = |(low, high): (f64, f64)| (low - 0.05 * (high - low), high + 0.05 * (high - low));
    let costs: Vec<f64> = points.iter().map(|(ns, ..)| ns.log10()).collect();
    let x = wider(range(&mut costs.iter().copied()));
    let y = wider(range(&mut points.iter().map(|(_, loss, _)| *loss)));
    let mut plot = Plot::new("Loss over cost: better is lower, cheaper is left", ("log10 of nanoseconds an event", x), (loss, y), 2.0);
    let mut legend = String::new();
    for (number, ((_, loss, name), cost)) in (1..).zip(points.iter().zip(costs)) {
        plot = plot.dots("dot", &[(cost, *loss)]).label(cost, *loss, &number.to_string());
        let _ = writeln!(legend, "{number:>3}  {}", escape(name));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n<pre>{}</pre>\n{}\n<pre>{legend}</pre>\n</body></html>\n",
        escape(table),
        plot.close()
    )
}

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let mut html = String::new();
    let title = format!("{}: {} {}", report.pipeline, report.model, report.model_version);
    let mut table = Vec::new();
    // Writing to memory cannot fail.
    let _ = text::write(&mut table, report);
    let table = String::from_utf8_lossy(&table).into_owned();
    let _ = write!(
        html,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title><style>{STYLE}</style></head><body>\n<h1>{}</h1>\n<pre>{}</pre>\n",
        escape(&title),
        escape(&title),
        escape(&table)
    );
    if let Some(time) = &report.time {
        html.push_str("<h2>Is the law of time right?</h2>\n");
        html.push_str("<p class=\"note\">The dashed lines are what a true law gives, up to chance.</p>\n");
        html.push_str(&residuals(time));
    }
    if let Some(transport) = report.next.as_ref().and_then(|next| next.transport.as_ref()) {
        html.push_str("<h2>Next events, several at once</h2>\n");
        let end = transport.by_price.iter().map(|(price, _)| *price).fold(0.0, f64::max);
        let highest = transport.by_price.iter().map(|(_, distance)| *distance).fold(0.0, f64::max);
        let title = "Transport distance of a continuation to what came";
        let plot = Plot::new(title, ("price of an event, mean gaps", (0.0, end)), ("distance, mean gaps", (0.0, 1.1 * highest)), 1.0);
        html.push_str(&plot.line("one", &transport.by_price).dots("dot", &transport.by_price).close());
    }
    if let Some(value) = &report.value {
        html.push_str("<h2>Is the law of the value right?</h2>\n");
        html.push_str(&of_value(value));
    }
    if let Some(score) = &report.score {
        html.push_str("<h2>Score</h2>\n");
        let [negative, positive] = &score.histogram;
        let highest = negative.iter().chain(positive).copied().fold(0.0, f64::max);
        let plot =
            Plot::new("Scores of negatives (blue) and positives (orange)", ("score", (0.0, 1.0)), ("share of each", (0.0, highest)), 1.0);
        html.push_str(&plot.bars("bar", negative).bars("other", positive).close());
    }
    if let Some(history) = report.history.as_ref().filter(|history| history.events.len() > 1) {
        html.push_str("<h2>One key</h2>\n");
        html.push_str(&key(history, report.time.as_ref().map_or("", |time| &time.unit)));
    }
    html.push_str("</body></html>\n");
    html
}

fn of_value(value: &ValueLaw) -> String {
    let coverage: Vec<(f64, f64)> = value.quantiles.iter().map(|q| (q.quantile, q.coverage)).collect();
    let calibration = Plot::new("Calibration of the value", ("quantile", (0.0, 1.0)), ("share of values below", (0.0, 1.0)), 1.0)
        .line("ideal", &[(0.0, 0.0), (1.0, 1.0)])
        .dots("dot", &coverage)
        .close();
    calibration + &pit(&value.pit, "share of the law below the value")
}

/// A histogram that is even if the law is right.
fn pit(shares: &[f64], of: &str) -> String {
    #[allow(clippy::cast_precision_loss)]
    let even = 1.0 / shares.len().max(1) as f64;
    let highest = shares.iter().copied().fold(2.0 * even, f64::max);
    Plot::new("Probability integral transform", (of, (0.0, 1.0)), ("share", (0.0, highest)), 1.0)
        .bars("bar", shares)
        .line("ideal", &[(0.0, even), (1.0, even)])
        .close()
}

fn residuals(time: &TimeLaw) -> String {
    let ideal = [(0.0, 0.0), (1.0, 1.0)];
    let calibration = Plot::new("Calibration", ("probability that the law gave", (0.0, 1.0)), ("share of gaps below", (0.0, 1.0)), 1.0)
        .line("ideal", &ideal)
        .line("one", &time.residuals.calibration)
        .dots("dot", &time.quantiles.iter().map(|q| (q.quantile, q.coverage)).collect::<Vec<_>>())
        .close();
    let histogram = pit(&time.residuals.pit, "1 - e^-residual");
    let end = time.residuals.qq.iter().flat_map(|(a, b)| [*a, *b]).fold(1.0, f64::max);
    let qq = Plot::new("Residuals against Exp(1)", ("quantile of Exp(1)", (0.0, end)), ("quantile of the residuals", (0.0, end)), 1.0)
        .line("ideal", &[(0.0, 0.0), (end, end)])
        .dots("dot", &time.residuals.qq)
        .close();
    let mut all = calibration + &histogram + &qq;
    for horizon in &time.horizons {
        let points: Vec<(f64, f64)> = horizon.reliability.iter().map(|(p, rate, _)| (*p, *rate)).collect();
        let name = format!("An event within {}", horizon.horizon);
        let plot = Plot::new(&name, ("mean probability", (0.0, 1.0)), ("share that came", (0.0, 1.0)), 1.0);
        all.push_str(&plot.line("ideal", &ideal).line("one", &points).dots("dot", &points).close());
    }
    all
}

fn key(history: &KeyHistory, unit: &str) -> String {
    let end = history.events.last().map_or(1.0, |event| event.hour);
    let stems: Vec<(f64, String)> = history
        .events
        .iter()
        .map(|event| {
            let mark = event.mark.as_ref().map(|mark| format!(", {mark}")).unwrap_or_default();
            (event.hour, format!("{}{mark}, surprise {:.2}", event.time, event.surprise))
        })
        .collect();
    let intensity: Vec<(f64, f64)> = history.curve.iter().map(|moment| (moment.hour, moment.intensity)).collect();
    // A peak right after an event would flatten all the rest.
    let mut heights: Vec<f64> = intensity.iter().map(|(_, y)| *y).filter(|y| y.is_finite()).collect();
    heights.sort_by(f64::total_cmp);
    let high = heights.get(heights.len().saturating_sub(1 + heights.len() / 20)).copied().unwrap_or(1.0) * 1.2;
    let title = format!("Intensity between the events of `{}` (upright lines)", history.key);
    let first = Plot::new(&title, ("hours", (0.0, end)), (&format!("intensity per {unit}"), (0.0, high)), 2.2)
        .stems("event", &stems)
        .line("one", &intensity)
        .close();
    let survival: Vec<(f64, f64)> = history.curve.iter().map(|moment| (moment.hour, moment.survival)).collect();
    let second = Plot::new("Probability that none has come since the last one", ("hours", (0.0, end)), ("survival", (0.0, 1.0)), 2.2)
        .stems("event", &stems)
        .line("two", &survival)
        .close();
    first + &second + &attention(history)
}

fn attention(history: &KeyHistory) -> String {
    let Some(places) = history.attention.iter().map(Vec::len).max().filter(|places| *places > 0) else { return String::new() };
    let (places, rows) = (f64_of_count(places), f64_of_count(history.attention.len()));
    let time = |row: usize| history.events.get(row).map(|event| event.time.clone()).unwrap_or_default();
    let said = |row: usize, column: usize, weight: f32| {
        let back = history.attention.get(row).map_or(0, Vec::len).saturating_sub(column + 1);
        let whom = match (back, row.checked_sub(back)) {
            (0, _) => "itself".to_owned(),
            (_, Some(seen)) => format!("the event of {}", time(seen)),
            (back, None) => format!("the event {back} before"),
        };
        format!("{}: {weight:.3} on {whom}", time(row))
    };
    let y = ("event, the last one at the bottom", (rows, 0.0));
    let plot = Plot::new("Attention: what each event looks at", ("events before it", (places - 1.0, 0.0)), y, 2.2);
    plot.cells(&history.attention, &said).close()
}
