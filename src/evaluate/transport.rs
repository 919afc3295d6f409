//! Optimal transport distance of two sequences of marked events: what it costs to make one of the other by moving events in time, for as much as they are
//! moved, and by inserting and deleting events, at a price each. An event keeps its mark. Source: H. Mei, G. Qin, J. Eisner, "Imputing missing events in
//! continuous-time event streams", ICML 2019, section 4.1.

/// An event: its mark and its time, in any unit.
pub type Event = (u32, f64);

/// Prices of an insertion or deletion over which the distance is averaged, in the unit of time: those that EasyTPP has (Xue et al., ICLR 2024).
pub const PRICES: [f64; 7] = [0.05, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0];

/// The distance; both sequences in order of time.
#[must_use]
pub fn distance(one: &[Event], other: &[Event], price: f64) -> f64 {
    let mut marks: Vec<u32> = one.iter().chain(other).map(|(mark, _)| *mark).collect();
    marks.sort_unstable();
    marks.dedup();
    let times = |events: &[Event], mark: u32| events.iter().filter(|(own, _)| *own == mark).map(|(_, time)| *time).collect::<Vec<f64>>();
    marks.into_iter().map(|mark| of_one_mark(&times(one, mark), &times(other, mark), price)).sum()
}

/// The cheapest alignment of two ascending sequences. Moving costs a convex function of the way, so that no two moves need to cross: the cheapest one of
/// the first i and j events ends with a deletion, an insertion, or a move of the last of either to the last of the other.
fn of_one_mark(one: &[f64], other: &[f64], price: f64) -> f64 {
    let mut row: Vec<f64> = std::iter::successors(Some(0.0), |cost| Some(cost + price)).take(other.len() + 1).collect();
    for from in one {
        let mut crossed = row.first().copied().unwrap_or(0.0);
        let mut left = crossed + price;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cost, to) in row.iter_mut().skip(1).zip(other) {
            let best = (*cost + price).min(left + price).min(crossed + (from - to).abs());
            (crossed, left) = (*cost, best);
            *cost = best;
        }
    }
    row.last().copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Tries every matching of events of equal marks.
    fn by_force(one: &[Event], other: &[Event], price: f64) -> f64 {
        let Some(((mark, time), rest)) = one.split_first() else { return price * other.len() as f64 };
        let mut best = price + by_force(rest, other, price);
        for i in (0..other.len()).filter(|i| other[*i].0 == *mark) {
            let mut left = other.to_vec();
            let (_, to) = left.remove(i);
            best = best.min((time - to).abs() + by_force(rest, &left, price));
        }
        best
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        prop::collection::vec((0_u32..3, 0.0_f64..10.0), 0..6).prop_map(|mut events| {
            events.sort_by(|a, b| a.1.total_cmp(&b.1));
            events
        })
    }

    proptest! {
        #[test]
        fn the_alignment_is_the_cheapest_of_all(one in events(), other in events(), price in 0.05_f64..4.0) {
            let found = distance(&one, &other, price);
            prop_assert!((found - by_force(&one, &other, price)).abs() < 1e-9);
            prop_assert!((found - distance(&other, &one, price)).abs() < 1e-9, "a distance has no direction");
            prop_assert_eq!(distance(&one, &one, price), 0.0);
        }
    }

    #[test]
    fn an_event_moves_while_that_is_cheaper_than_two_prices() {
        assert_eq!(distance(&[(0, 1.0)], &[(0, 2.5)], 1.0), 1.5);
        assert_eq!(distance(&[(0, 1.0)], &[(0, 4.0)], 1.0), 2.0);
        assert_eq!(distance(&[(0, 1.0)], &[(1, 1.0)], 1.0), 2.0);
        assert_eq!(distance(&[], &[(0, 1.0), (1, 2.0)], 0.5), 1.0);
    }
}
