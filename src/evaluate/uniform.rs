//! Numbers that should be uniform in (0, 1), counted in fine bins: how far from uniform they are, and where.

use crate::base::number::{count_of, f64_of_count};

/// A histogram of (0, 1).
#[derive(Clone, Debug)]
pub struct Uniform {
    bins: Vec<u32>,
    count: usize,
}

impl Uniform {
    /// With so many bins: the distance of `distance` is exact to one bin's width.
    #[must_use]
    pub fn new(bins: usize) -> Self {
        Uniform { bins: vec![0; bins.max(1)], count: 0 }
    }

    /// Counts a number; NaN is left out, what lies outside counts at the end.
    pub fn add(&mut self, u: f64) {
        if u.is_nan() {
            return;
        }
        let last = self.bins.len() - 1;
        if let Some(bin) = self.bins.get_mut(count_of(u * f64_of_count(last + 1)).min(last)) {
            *bin += 1;
            self.count += 1;
        }
    }

    /// How many were counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Kolmogorov and Smirnov's distance: the largest difference between the share of numbers below a point and the point. NaN without numbers.
    #[must_use]
    pub fn distance(&self) -> f64 {
        let (n, width) = (f64_of_count(self.count), 1.0 / f64_of_count(self.bins.len()));
        let (mut below, mut largest) = (0.0, 0.0_f64);
        for (i, bin) in self.bins.iter().enumerate() {
            below += f64::from(*bin);
            largest = largest.max((below / n - f64_of_count(i + 1) * width).abs());
        }
        if self.count == 0 { f64::NAN } else { largest }
    }

    /// Share of the numbers in each of `bars` equal parts of (0, 1); as many bins must be a multiple of that.
    #[must_use]
    pub fn shares(&self, bars: usize) -> Vec<f64> {
        let per_bar = (self.bins.len() / bars.max(1)).max(1);
        let sum = |bins: &[u32]| bins.iter().map(|bin| f64::from(*bin)).sum::<f64>() / f64_of_count(self.count.max(1));
        self.bins.chunks(per_bar).map(sum).collect()
    }

    /// The number below which a share of the numbers lies, to one bin's width.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        let target = share * f64_of_count(self.count);
        let mut below = 0.0;
        for (i, bin) in self.bins.iter().enumerate() {
            let own = f64::from(*bin);
            if below + own >= target && own > 0.0 {
                return (f64_of_count(i) + ((target - below) / own).clamp(0.0, 1.0)) / f64_of_count(self.bins.len());
            }
            below += own;
        }
        1.0
    }
}

/// The distance that a true law passes once in twenty times, for many numbers: 1.358 / sqrt n (Kolmogorov 1933).
#[must_use]
pub fn distance_bound(count: usize) -> f64 {
    1.358 / f64_of_count(count).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_numbers_have_no_distance_and_uneven_ones_theirs() {
        let (mut even, mut half) = (Uniform::new(100_000), Uniform::new(100_000));
        for i in 0..1000 {
            even.add((f64::from(i) + 0.5) / 1000.0);
            half.add((f64::from(i) + 0.5) / 2000.0);
        }
        assert!(even.distance() < 1.1e-3, "{}", even.distance());
        assert!((half.distance() - 0.5).abs() < 1e-3);
        assert_eq!(half.shares(4), [0.5, 0.5, 0.0, 0.0]);
        assert!((half.quantile(0.5) - 0.25).abs() < 1e-3 && (even.quantile(0.9) - 0.9).abs() < 1e-3);
        even.add(f64::NAN);
        even.add(1.0);
        assert_eq!(even.len(), 1001);
        assert!(Uniform::new(10).distance().is_nan());
    }
}
