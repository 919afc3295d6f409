//! How far two samples of one number are apart.

use crate::base::number::{count_of, f64_of_count};

/// Smallest share that a bin counts with: an empty one would make the index infinite.
const LEAST: f64 = 1e-4;
/// Bins of the index: tenths of the sample before.
const BINS: usize = 10;

/// A quantile of sorted values: straight lines between the order statistics (R's type 7). NaN without values.
#[must_use]
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = q * f64_of_count(last);
    let below = count_of(place).min(last);
    let (low, high) = (sorted.get(below), sorted.get((below + 1).min(last)));
    match (low, high) {
        (Some(low), Some(high)) => low + (high - low) * (place - f64_of_count(below)),
        _ => f64::NAN,
    }
}

/// Kolmogorov and Smirnov's distance of two sorted samples: the largest difference of the shares that lie at or below a value. NaN if one is empty.
#[must_use]
pub fn distance(before: &[f64], after: &[f64]) -> f64 {
    if before.is_empty() || after.is_empty() {
        return f64::NAN;
    }
    let (n, m) = (f64_of_count(before.len()), f64_of_count(after.len()));
    let (mut i, mut j, mut largest) = (0, 0, 0.0_f64);
    while let (Some(a), Some(b)) = (before.get(i), after.get(j)) {
        // All that are equal to the smaller of the two are passed together on both sides.
        let at = a.min(*b);
        while before.get(i).is_some_and(|value| *value <= at) {
            i += 1;
        }
        while after.get(j).is_some_and(|value| *value <= at) {
            j += 1;
        }
        largest = largest.max((f64_of_count(i) / n - f64_of_count(j) / m).abs());
    }
    largest
}

/// The population stability index over tenths of the sample before: sum of (q - p) ln(q / p), p and q the shares of a bin before and after. Both samples are
/// sorted. Below 0.1 is usually called small, above 0.25 large. NaN if one is empty.
/// Source: N. Siddiqi, "Credit Risk Scorecards", 2006.
#[must_use]
pub fn stability(before: &[f64], after: &[f64]) -> f64 {
    if before.is_empty() || after.is_empty() {
        return f64::NAN;
    }
    let mut edges: Vec<f64> = (1..BINS).map(|i| quantile(before, f64_of_count(i) / f64_of_count(BINS))).collect();
    // A value that many events share is one edge.
    edges.dedup();
    let shares = |sorted: &[f64]| {
        let mut ends: Vec<usize> = edges.iter().map(|edge| sorted.partition_point(|value| value <= edge)).collect();
        ends.push(sorted.len());
        let mut start = 0;
        let shares = ends.into_iter().map(|end| {
            let share = f64_of_count(end - start) / f64_of_count(sorted.len());
            start = end;
            share.max(LEAST)
        });
        shares.collect::<Vec<f64>>()
    };
    shares(before).into_iter().zip(shares(after)).map(|(p, q)| (q - p) * (q / p).ln()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sorted(mut values: Vec<f64>) -> Vec<f64> {
        values.sort_by(f64::total_cmp);
        values
    }

    #[test]
    fn figures_of_small_samples_are_those_worked_out_by_hand() {
        let before = [1.0, 2.0, 3.0, 4.0];
        assert_eq!((quantile(&before, 0.0), quantile(&before, 0.5), quantile(&before, 1.0)), (1.0, 2.5, 4.0));
        assert!(quantile(&[], 0.5).is_nan() && distance(&[], &before).is_nan() && stability(&before, &[]).is_nan());
        assert_eq!(distance(&before, &[3.0, 4.0, 5.0, 6.0]), 0.5);
        assert_eq!(distance(&before, &[9.0]), 1.0);
        // Half of what was spread evenly over ten bins is in the first one now.
        let before: Vec<f64> = (0..1000).map(f64::from).collect();
        let after: Vec<f64> = (0..1000).map(|i| if i % 2 == 0 { 0.5 } else { f64::from(i) }).collect();
        let expected = (0.55_f64 - 0.1) * (5.5_f64).ln() + 9.0 * (0.05_f64 - 0.1) * (0.5_f64).ln();
        assert!((stability(&before, &sorted(after)) - expected).abs() < 1e-9);
        // All the same before: one edge, two bins.
        assert!(stability(&[0.0; 50], &[0.0; 50]).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn the_distance_is_that_of_the_distribution_functions(
            before in prop::collection::vec(0u8..20, 1..60), after in prop::collection::vec(0u8..20, 1..60)
        ) {
            let share = |of: &[u8], at: u8| of.iter().filter(|value| **value <= at).count() as f64 / of.len() as f64;
            let slow = (0..20).map(|at| (share(&before, at) - share(&after, at)).abs()).fold(0.0, f64::max);
            let sort = |of: &[u8]| sorted(of.iter().map(|value| f64::from(*value)).collect());
            let (before, after) = (sort(&before), sort(&after));
            prop_assert!((distance(&before, &after) - slow).abs() < 1e-12);
            prop_assert_eq!(distance(&before, &before), 0.0);
            prop_assert!(stability(&before, &after) >= 0.0 && stability(&before, &before).abs() < 1e-12);
        }
    }
}
