//! Laws by their hazard, as training needs them: compensator and logarithm of the hazard with their slopes by the parameters. Formulas, names and the
//! ranges that parameters are taken into are those of the served heads (`head/`).

use super::loss::LawKind;
use crate::base::number::f32_of;

/// Logarithms of rates, scales and shapes.
const LOG: (f64, f64) = (-200.0, 200.0);
/// ln of the shape of a Weibull law.
const LOG_SHAPE: (f64, f64) = (-3.0, 3.0);
/// Slope of a Gompertz law.
const SLOPE: (f64, f64) = (-100.0, 100.0);
/// Compensators stay finite.
const HIGHEST: f64 = 1e300;

/// Lambda and ln lambda at a gap, each with its slopes by the parameters.
#[derive(Clone, Debug, Default)]
struct Point {
    compensator: f64,
    by_compensator: Vec<f64>,
    ln_hazard: f64,
    by_hazard: Vec<f64>,
}

/// -ln f(gap) (with a resolution: -ln of the tick's probability), and its gradient, which is added to `gradient`. `None` for a law that has no hazard
/// of this form.
pub fn loss(law: &LawKind, parameters: &[f32], gap: f64, resolution: Option<f64>, gradient: &mut [f32]) -> Option<f64> {
    let Some(width) = resolution else {
        let at = point(law, parameters, gap)?;
        for (slope, (c, h)) in gradient.iter_mut().zip(at.by_compensator.iter().zip(&at.by_hazard)) {
            *slope += bounded(c - h);
        }
        return Some(at.compensator - at.ln_hazard);
    };
    // -ln(S(low) - S(high)) = Lambda(low) - ln(1 - e^-rise).
    let (from, to) = ((gap - 0.5 * width).max(0.0), gap + 0.5 * width);
    let low = point(law, parameters, from)?;
    if let (LawKind::Gompertz(scale), [v, w]) = (law, parameters) {
        return Some(gompertz_tick(&low, (*v, *w, *scale), from, to - from, gradient));
    }
    let high = point(law, parameters, to)?;
    let rise = (high.compensator - low.compensator).max(1e-300);
    for (slope, (l, h)) in gradient.iter_mut().zip(low.by_compensator.iter().zip(&high.by_compensator)) {
        *slope += bounded(l - (h - l) / rise.exp_m1());
    }
    Some(low.compensator - (-(-rise).exp_m1()).ln())
}

/// The same of a Gompertz law, by the logarithm of the rise: where the hazard has died away, compensators are equal to the last digit.
/// rise = e^(v + w from) width g(w width), with g(x) = (e^x - 1) / x.
fn gompertz_tick(low: &Point, (v, w, scale): (f32, f32, f64), from: f64, width: f64, gradient: &mut [f32]) -> f64 {
    let ((v, free_v), (w, free_w)) = (clamped(v, LOG), clamped(f32_of(f64::from(w) * scale), SLOPE));
    let x = w * width;
    // ln g and its slope.
    let (growth, slope) = if x.abs() < 1e-3 {
        (x * (0.5 + x / 24.0), 0.5 + x / 12.0)
    } else if x < 30.0 {
        ((x.exp_m1() / x).ln(), 1.0 / -(-x).exp_m1() - 1.0 / x)
    } else {
        (x - x.ln(), 1.0 - 1.0 / x)
    };
    let ln_rise = v + w * from + width.ln() + growth;
    let rise = ln_rise.min(690.0).exp();
    // rise / (e^rise - 1): 1 where nothing rises.
    let share = if rise < 1e-9 { 1.0 } else { rise / rise.exp_m1() };
    let by_rise = [free_v, free_w * scale * (from + width * slope)];
    for (slope, (l, r)) in gradient.iter_mut().zip(low.by_compensator.iter().zip(by_rise)) {
        *slope += bounded(l - share * r);
    }
    low.compensator - if ln_rise < -25.0 { ln_rise } else { (-(-rise).exp_m1()).ln() }
}

/// A slope beyond all numbers would silence every other one.
fn bounded(slope: f64) -> f32 {
    if slope.is_nan() { 0.0 } else { f32_of(slope.clamp(-1e6, 1e6)) }
}

/// A parameter in its range, and 1 where it is inside and so has a slope.
fn clamped(value: f32, (low, high): (f64, f64)) -> (f64, f64) {
    let raw = f64::from(value);
    let value = raw.clamp(low, high);
    (value, if value == raw { 1.0 } else { 0.0 })
}

fn point(law: &LawKind, parameters: &[f32], tau: f64) -> Option<Point> {
    let two = |c: (f64, f64, f64), h: (f64, f64, f64)| Point {
        compensator: c.0.min(HIGHEST),
        by_compensator: vec![c.1, c.2],
        ln_hazard: h.0,
        by_hazard: vec![h.1, h.2],
    };
    Some(match (law, parameters) {
        (LawKind::Exponential, [a]) => {
            let (a, free) = clamped(*a, LOG);
            let compensator = a.exp() * tau;
            Point { compensator, by_compensator: vec![free * compensator], ln_hazard: a, by_hazard: vec![free] }
        }
        (LawKind::Weibull, [a, b]) => {
            let ((a, free_a), (b, free_b)) = (clamped(*a, LOG), clamped(*b, LOG_SHAPE));
            let (shape, ln_tau) = (b.exp(), tau.max(f64::MIN_POSITIVE).ln());
            let ln_compensator = shape * (ln_tau - a);
            let c = if tau > 0.0 { ln_compensator.min(690.0).exp() } else { 0.0 };
            let by_shape = if tau > 0.0 { c * ln_compensator } else { 0.0 };
            two(
                (c, -free_a * shape * c, free_b * by_shape),
                (b + ln_compensator - ln_tau, -free_a * shape, free_b * (1.0 + ln_compensator)),
            )
        }
        (LawKind::Gompertz(scale), [v, w]) => {
            let ((v, free_v), (w, free_w)) = (clamped(*v, LOG), clamped(f32_of(f64::from(*w) * scale), SLOPE));
            let free_w = free_w * scale;
            let x = w * tau;
            // (e^x - 1) / x and its slope, by series where the quotient would cancel.
            let (g, slope) = if x.abs() < 1e-3 {
                (1.0 + x * (0.5 + x * (1.0 / 6.0 + x / 24.0)), 0.5 + x * (1.0 / 3.0 + x * (0.125 + x / 30.0)))
            } else {
                let e = x.min(600.0).exp_m1();
                (e / x, (e + 1.0) / x - e / (x * x))
            };
            let c = v.exp() * tau * g;
            two((c, free_v * c, free_w * v.exp() * tau * tau * slope), (v + x, free_v, free_w * tau))
        }
        (LawKind::GammaPoisson, [a, b]) => {
            let ((a, free_a), (b, free_b)) = (clamped(*a, LOG), clamped(*b, LOG));
            let (shape, rate) = (a.exp(), b.exp());
            let c = shape * (tau / rate).ln_1p();
            let share = rate / (rate + tau);
            two((c, free_a * c, -free_b * shape * (1.0 - share)), (a - (rate + tau).ln(), free_a, -free_b * share))
        }
        (LawKind::Piecewise(edges), hazards) if hazards.len() == edges.len() + 1 => {
            let mut point = Point { by_hazard: vec![0.0; hazards.len()], ..Point::default() };
            let (mut from, mut own) = (0.0, 0);
            for (i, a) in hazards.iter().enumerate() {
                let (a, free) = clamped(*a, LOG);
                let to = edges.get(i).copied().unwrap_or(f64::INFINITY);
                let part = a.exp() * (tau.min(to) - from).max(0.0);
                point.compensator += part;
                point.by_compensator.push(free * part);
                // An edge belongs to the bin that it ends, as `bins` and the served head have it.
                if i == 0 || tau > from {
                    (own, point.ln_hazard) = (i, a);
                }
                from = to;
            }
            if let (Some(slope), Some(a)) = (point.by_hazard.get_mut(own), hazards.get(own)) {
                *slope = clamped(*a, LOG).1;
            }
            point
        }
        _ => return None,
    })
}

/// What a law without history starts training at: a constant rate, or the shares of the gaps in the bins.
#[must_use]
pub fn start(law: &LawKind, gaps: &[f64]) -> Vec<f32> {
    let mean = gaps.iter().sum::<f64>() / crate::base::number::f64_of_count(gaps.len().max(1));
    let ln_mean = mean.max(1e-60).ln();
    let all = match law {
        LawKind::Exponential => vec![-ln_mean],
        LawKind::Weibull => vec![ln_mean, -0.1],
        LawKind::Gompertz(_) => vec![-ln_mean, 0.0],
        // Shape 2: a mean of e^b.
        LawKind::GammaPoisson => vec![2.0_f64.ln(), ln_mean],
        LawKind::Piecewise(edges) => {
            let (counts, exposures) = bins(edges, gaps);
            // Half an event where none ended: nothing that is added to all bins alike would be little both in the first ones, where gaps of heavy tails spend
            // next to no time, and in the last.
            let hazard = |(count, exposure): (&f64, f64)| if exposure > 0.0 { (count.max(0.5) / exposure).ln() } else { -ln_mean };
            counts.iter().zip(exposures).map(hazard).collect()
        }
        LawKind::Mixture(_) | LawKind::Hawkes(_) | LawKind::Intensity { .. } => Vec::new(),
    };
    all.into_iter().map(f32_of).collect()
}

/// Gaps that end in each bin, and the time that gaps spend in it. A gap that is an edge ends in the bin below it, so that whatever ends in a bin has spent
/// time there.
#[must_use]
pub fn bins(edges: &[f64], gaps: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (mut counts, mut exposures) = (vec![0.0; edges.len() + 1], vec![0.0; edges.len() + 1]);
    for gap in gaps {
        let mut from = 0.0;
        for (i, (count, exposure)) in counts.iter_mut().zip(&mut exposures).enumerate() {
            let to = edges.get(i).copied().unwrap_or(f64::INFINITY);
            *exposure += (gap.min(to) - from).max(0.0);
            *count += f64::from(u8::from(*gap > from || (i == 0 && *gap <= 0.0)) & u8::from(*gap <= to));
            from = to;
        }
    }
    (counts, exposures)
}

/// Edges of so many bins, about as many gaps in each. All are below the longest gap: nothing would be known of a bin that begins there, and its hazard could
/// be anything. With a resolution they lie between ticks.
#[must_use]
pub fn edges(gaps: &[f64], bins: usize, resolution: Option<f64>) -> Vec<f64> {
    let mut sorted: Vec<f64> = gaps.iter().copied().filter(|gap| *gap > 0.0 || resolution.is_some()).collect();
    sorted.sort_by(f64::total_cmp);
    let longest = sorted.last().copied().unwrap_or(0.0);
    let half = 0.5 * resolution.unwrap_or(0.0);
    let place = |i: usize| sorted.get(sorted.len() * i / bins.max(2)).filter(|gap| **gap < longest).map(|gap| gap + half);
    let mut edges: Vec<f64> = (1..bins.max(2)).filter_map(place).collect();
    edges.dedup();
    match edges.is_empty() {
        false => edges,
        true if longest > 0.0 => vec![longest - 0.5 * resolution.unwrap_or(longest).min(longest)],
        true => vec![1.0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten kinds of ties: at the longest gap, among the others, of a coarse clock, all alike.
    fn tied() -> Vec<(Vec<f64>, Option<f64>)> {
        let capped = |cap: f64| (1..400).map(|i| (f64::from(i) * 0.37).min(cap)).collect::<Vec<_>>();
        let whole = |most: i32| (0..400).map(|i| f64::from(i % most)).collect::<Vec<_>>();
        vec![
            (capped(60.0), None),
            (capped(140.0), None),
            (capped(1e9), None),
            (whole(4).iter().map(|gap| gap + 1.0).collect(), None),
            (whole(4).iter().map(|gap| gap + 1.0).collect(), Some(1.0)),
            (whole(3), Some(1.0)),
            (whole(2), Some(0.01)),
            (vec![7.0; 300], None),
            (vec![7.0; 300], Some(0.07)),
            (vec![0.2; 300], Some(1.0)),
        ]
    }

    /// A hazard that has died away by the time of the event, in logarithms and by differences: ln(1 - e^-rise) = v + w from + ln((e^(w width) - 1) / w).
    #[test]
    fn a_gompertz_law_that_has_died_away_is_as_surprised_as_its_formula_says_and_learns_from_it() {
        let (v, width) = (0.3_f32, 0.5_f64);
        for (w, gap) in [(-0.5_f32, 4.0), (-4.0, 8.0), (-4.0, 20.0), (-30.0, 40.0), (-99.0, 300.0), (0.8, 3.0)] {
            let (v64, w64) = (f64::from(v), f64::from(w));
            let low = gap - 0.5 * width;
            let before = v64.exp() / w64 * ((w64 * low).exp() - 1.0);
            let rise = v64 + w64 * low + (((w64 * width).exp() - 1.0) / w64).ln();
            let ln_tick = if rise < -30.0 { rise } else { (1.0 - (-rise.exp()).exp()).ln() };
            let mut slopes = [0f32; 2];
            let trained = loss(&LawKind::Gompertz(1.0), &[v, w], gap, Some(width), &mut slopes).unwrap();
            assert!((trained - (before - ln_tick)).abs() < 1e-9 * trained.abs(), "{w} {gap}: {trained} {}", before - ln_tick);
            // Its slope by w is about -gap there: the tick becomes likelier with a slower decay.
            let by = |step: f32| loss(&LawKind::Gompertz(1.0), &[v, w + step], gap, Some(width), &mut [0f32; 2]).unwrap();
            let step = 2e-3_f32;
            let slope = (by(step) - by(-step)) / f64::from((w + step) - (w - step));
            assert!((f64::from(slopes[1]) - slope).abs() < 1e-3 * slope.abs().max(1.0), "{w} {gap}: {slopes:?} {slope}");
            // The served head says the same.
            let spec = crate::data::law::LawSpec {
                resolution: Some(width),
                ..crate::data::law::LawSpec::new(&["law"], crate::base::time::TimeUnit::Second, 1e-6)
            };
            let mut head = crate::head::Head::new(&crate::data::law::HeadSpec::Gompertz(spec), crate::head::Asks::default()).unwrap();
            let outputs = crate::data::outputs::Outputs { width: 2, before: vec![v, w], after: vec![v, w], kept: Vec::new() };
            let gaps = [Some(crate::base::time::Gap((gap * 1e6) as i64))];
            let arrivals = crate::head::Arrivals { times: &[crate::base::time::EventTime(0)], gaps: &gaps, marks: &[None], values: &[] };
            let mut served = crate::data::forecasts::Forecasts { flags: vec![Default::default()], ..Default::default() };
            head.forecasts(&arrivals, &outputs, &mut served);
            assert!((served.surprise_time[0] - trained).abs() < 1e-9 * trained.abs(), "{w} {gap}: {} {trained}", served.surprise_time[0]);
        }
    }

    #[test]
    fn whatever_ends_in_a_bin_has_spent_time_there_and_no_bin_is_beyond_the_longest_gap() {
        for (gaps, resolution) in tied() {
            for number in [2, 8, 33, 500] {
                let edges = edges(&gaps, number, resolution);
                let (counts, exposures) = bins(&edges, &gaps);
                let context = format!("{resolution:?} {number} {edges:?} {counts:?} {exposures:?}");
                assert!(
                    edges.first().unwrap() > &0.0 && edges.windows(2).all(|two| two[0] < two[1]) && edges.len() < number.max(2),
                    "{context}"
                );
                assert!(exposures.iter().all(|exposure| *exposure > 0.0), "{context}");
                assert_eq!(counts.iter().sum::<f64>(), 1.0 * gaps.len() as f64, "{context}");
            }
        }
    }

    #[test]
    fn training_starts_at_the_shares_of_the_bins_also_where_tails_are_heavy() {
        // Gaps over eight orders of magnitude: the mean is far beyond what nine of ten gaps have seen.
        let gaps: Vec<f64> = (0..800).map(|i| 10f64.powf(f64::from(i) / 100.0)).collect();
        let law = LawKind::Piecewise(edges(&gaps, 16, None));
        let begun = start(&law, &gaps);
        let mut slopes = vec![0f32; begun.len()];
        for gap in &gaps {
            loss(&law, &begun, *gap, None, &mut slopes).unwrap();
        }
        assert!(slopes.iter().all(|slope| slope.abs() < 1e-2), "no step makes them likelier: {slopes:?}");
    }

    #[test]
    fn the_likeliest_hazards_are_counts_over_exposures_and_so_the_likelihood_has_a_bound() {
        for (gaps, _) in tied().into_iter().filter(|(gaps, resolution)| resolution.is_none() && gaps[0] < gaps[gaps.len() - 1]) {
            let edges = edges(&gaps, 16, None);
            let (counts, exposures) = bins(&edges, &gaps);
            let hazards: Vec<f32> =
                counts.iter().zip(&exposures).map(|(count, exposure)| f32_of((count / exposure).max(1e-9).ln())).collect();
            let law = LawKind::Piecewise(edges);
            let mut slopes = vec![0f32; hazards.len()];
            for gap in &gaps {
                loss(&law, &hazards, *gap, None, &mut slopes).unwrap();
            }
            assert!(slopes.iter().all(|slope| slope.abs() < 1e-2), "no step makes them likelier: {slopes:?}");
        }
    }
}
