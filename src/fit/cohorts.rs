//! Cohorts of keys by their first events, and the state each starts from.
//!
//! First events are grouped by linfa's k-means over their standardised feature rows (S. P. Lloyd, "Least squares quantization in PCM", 1982; the first
//! centres by D. Arthur, S. Vassilvitskii, "k-means++", 2007). The state of a cohort lies on the line from the initial state to the mean of what its keys' states
//! are some events later; where on that line is chosen by the loss of the keys' first events, so that a cohort that would be worse off keeps the initial
//! state.

use std::cmp::Ordering;

use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_clustering::KMeans;
use ndarray::Array2;
use rand_xoshiro::Xoshiro256Plus;
use rand_xoshiro::rand_core::SeedableRng;

use crate::base::error::{Error, Kind, Result};
use crate::base::number::{f32_of, f64_of, f64_of_count, i64_of_count};
use crate::model::cohorts::{Cohort, Cohorts};

/// Fewest keys of a cohort: a mean of fewer is chance.
pub const FEWEST: usize = 30;
/// Rounds of Lloyd's algorithm at most, and how often it is begun anew.
const ROUNDS: u64 = 100;
const RUNS: usize = 3;
/// Places on the line, as shares of the way to the mean.
const SHARES: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];

/// First events in groups.
#[derive(Clone, Debug, PartialEq)]
pub struct Groups {
    /// What each feature counts by.
    pub scale: Vec<f32>,
    /// Centres, one after the other.
    pub centres: Vec<Vec<f32>>,
}

/// Groups rows `[n, width]` into at most `k` groups.
///
/// # Errors
/// There are fewer than thirty rows a group.
pub fn group(rows: &[f32], width: usize, k: usize, seed: u64) -> Result<Groups> {
    let n = rows.len() / width.max(1);
    if n < k * FEWEST {
        let text = format!("{n} keys begin in the events that count; {k} cohorts need at least {}", k * FEWEST);
        return Err(Error::new(Kind::Data, "calibrate", text).help("give more history with --from, or fewer --cohorts"));
    }
    let column = |j: usize| rows.iter().skip(j).step_by(width).map(|value| f64::from(*value));
    let scale = |j: usize| {
        let mean = column(j).sum::<f64>() / f64_of_count(n);
        let variance = column(j).map(|value| (value - mean) * (value - mean)).sum::<f64>() / f64_of_count(n);
        if variance > 1e-12 && variance.is_finite() { f32_of(1.0 / variance.sqrt()) } else { 0.0 }
    };
    let scale: Vec<f32> = (0..width).map(scale).collect();
    let scaled = rows.chunks_exact(width.max(1)).flat_map(|row| row.iter().zip(&scale).map(|(x, s)| f64::from(*x) * f64::from(*s)));
    let scaled: Vec<f64> = scaled.collect();
    let mut centres = centres(scaled, width, k, seed)?;
    // Rows that are all alike give centres that are the same.
    centres.sort_by(|a, b| a.iter().zip(b).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal));
    centres.dedup();
    let unscaled =
        |centre: &Vec<f64>| centre.iter().zip(&scale).map(|(x, s)| if *s > 0.0 { f32_of(x / f64::from(*s)) } else { 0.0 }).collect();
    Ok(Groups { centres: centres.iter().map(unscaled).collect(), scale })
}

/// Centres of rows `[n, width]`, found by linfa.
fn centres(rows: Vec<f64>, width: usize, k: usize, seed: u64) -> Result<Vec<Vec<f64>>> {
    let fault = |why: String| Error::new(Kind::Data, "calibrate", format!("the keys cannot be grouped: {why}"));
    let n = rows.len() / width.max(1);
    let rows = Array2::from_shape_vec((n, width), rows).map_err(|e| fault(e.to_string()).caused_by(e))?;
    let params = KMeans::params_with_rng(k, Xoshiro256Plus::seed_from_u64(seed)).n_runs(RUNS).max_n_iterations(ROUNDS).tolerance(1e-9);
    let found = params.fit(&DatasetBase::from(rows)).map_err(|e| fault(e.to_string()).caused_by(e))?;
    Ok(found.centroids().rows().into_iter().map(|row| row.to_vec()).collect())
}

/// Mean loss of the first events of some keys that start from a state.
pub type Loss<'a> = dyn FnMut(&[usize], &[f32]) -> Result<f64> + 'a;

/// The cohorts of these groups: where each starts between `init` and the mean of the states that its keys have reached. `member` says of each key its group,
/// `reached` its state.
///
/// # Errors
/// Whatever `loss` reports.
pub fn starts(groups: &Groups, init: &[f32], member: &[usize], reached: &[Vec<f32>], loss: &mut Loss<'_>) -> Result<(Cohorts, Vec<f64>)> {
    let (mut cohorts, mut shares) = (Vec::new(), Vec::new());
    for (place, centre) in groups.centres.iter().enumerate() {
        let own: Vec<usize> = member.iter().enumerate().filter(|(_, group)| **group == place).map(|(key, _)| key).collect();
        let mean = mean(init.len(), own.iter().filter_map(|key| reached.get(*key)));
        let at = |share: f64| -> Vec<f32> {
            init.iter().zip(&mean).map(|(from, to)| f32_of(f64::from(*from) + share * (to - f64::from(*from)))).collect()
        };
        let mut best = (f64::INFINITY, 0.0);
        // What few keys say of their cohort is chance.
        for share in SHARES.into_iter().filter(|share| *share == 0.0 || own.len() >= FEWEST) {
            let found = if own.is_empty() { 0.0 } else { loss(&own, &at(share))? };
            if found < best.0 {
                best = (found, share);
            }
        }
        shares.push(best.1);
        cohorts.push(Cohort { centre: centre.clone(), state: at(best.1) });
    }
    Ok((Cohorts::new(groups.scale.clone(), cohorts), shares))
}

fn mean<'a>(width: usize, states: impl Iterator<Item = &'a Vec<f32>>) -> Vec<f64> {
    let (mut count, mut sum) = (0_i64, vec![0.0; width]);
    for state in states {
        count += 1;
        sum.iter_mut().zip(state).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    let count = f64_of(count.max(i64_of_count(1)));
    sum.into_iter().map(|sum| sum / count).collect()
}

#[cfg(test)]
mod tests {
    use rand::Rng;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Two features of very different sizes that say which of three groups a row is of, and one that says nothing.
    fn rows() -> Vec<f32> {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut noise = || random.random::<f32>() - 0.5;
        (0..300).flat_map(|i| [[0.0, 8.0, 8.0][i % 3] + noise(), [0.0, 0.0, 800.0][i % 3] + 20.0 * noise(), 5.0]).collect()
    }

    #[test]
    fn rows_are_grouped_as_they_lie_and_the_same_seed_gives_the_same_groups() {
        let groups = group(&rows(), 3, 3, 7).unwrap();
        assert_eq!(groups, group(&rows(), 3, 3, 7).unwrap());
        assert_eq!(groups.scale[2], 0.0, "what is always the same says nothing");
        let cohorts =
            Cohorts::new(groups.scale.clone(), groups.centres.iter().map(|c| Cohort { centre: c.clone(), state: vec![] }).collect());
        let member: Vec<Option<usize>> = rows().chunks(3).map(|row| cohorts.nearest(row)).collect();
        for i in 0..300 {
            assert_eq!(member[i], member[i % 3], "{i}");
        }
        assert_eq!(group(&[1.0; 300], 1, 3, 1).unwrap().centres.len(), 1, "rows that are alike are one group");
        assert!(group(&rows(), 3, 20, 1).unwrap_err().to_string().contains("at least 600"));
    }

    #[test]
    fn a_cohort_starts_where_its_first_events_are_the_likeliest_and_never_worse_than_before() {
        let groups = Groups { scale: vec![1.0], centres: vec![vec![0.0], vec![1.0], vec![2.0]] };
        let member: Vec<usize> = (0..120).map(|key| [0, 1, 1][key % 3]).collect();
        let reached: Vec<Vec<f32>> = (0..120).map(|key| vec![[4.0, 8.0, 12.0][key % 3]]).collect();
        // Group 0 is best half way to its mean, 4; group 1 nowhere but at the beginning; group 2 has no key.
        let mut loss = |keys: &[usize], state: &[f32]| Ok(f64::from((state[0] - if member[keys[0]] == 0 { 2.1 } else { -1.0 }).abs()));
        let (cohorts, shares) = starts(&groups, &[0.0], &member, &reached, &mut loss).unwrap();
        assert_eq!(shares, [0.5, 0.0, 0.0]);
        assert_eq!(cohorts.cohorts.iter().map(|cohort| cohort.state[0]).collect::<Vec<_>>(), [2.0, 0.0, 0.0]);
    }
}
