//! The head `intensity`: lambda_k(tau) is whatever the package's second graph says, such as that of a neural Hawkes process, whose state decays between
//! events (Mei and Eisner, "The Neural Hawkes Process", NeurIPS 2017). Its compensator has no closed form.
//!
//! For each row the intensities are asked for at Chebyshev's nodes of panels, [0, 1/4], [1/4, 2], [2, 16] .. up to 2^22 units of the law, each eight times
//! as long as the one before, and interpolated by polynomials of degree 15, whose integral is exact (`panel`). A panel whose last two coefficients are
//! more than 1e-6 of the largest is cut in two, at most `DEPTH` times; what they are then times the width bounds the error of the compensator for
//! intensities that are smooth there. Beyond the last panel each intensity stays as it is at its end.
//!
//! Only as many panels are asked for as the row is going to be asked about (`Reach`), and those of many rows at once: which they are depends on the row
//! alone, and so do the bits.

mod panel;

use super::chances::Chances;
use super::elementary::{exp, ln};
use super::law::{Law, RARELY, Reach, Time, finite};
use crate::base::number::{f32_of, u32_of};
use crate::data::intensity::Intensities;
use panel::{NODES, Panel, Rule, Span};

/// Of a panel, the chances of the marks are computed in parts: of a quarter, over which what is smooth on the panel falls to no less than about e^-3, or shorter
/// ones, over each of which the compensator rises by no more than this.
const RISE: f64 = 1.5;
const QUARTER: f64 = 0.25;
const SHORTEST: f64 = 1.0 / 64.0;
/// Where panels end that are not cut in two.
const EDGES: [f64; 9] = [0.25, 2.0, 16.0, 128.0, 1024.0, 8192.0, 65_536.0, 524_288.0, 4_194_304.0];
/// The last of them, in units of the law: beyond it each intensity stays as it is there.
pub const LAST: f64 = 4_194_304.0;
/// Panels up to here are asked for together: most laws need them.
const TOGETHER: f64 = 2.0;
/// How often a panel may be cut in two.
const DEPTH: usize = 7;
/// A compensator that comes to this leaves a chance of e^-40 that is not looked at closer.
const SURE: f64 = 40.0;

/// A law that is known by its intensities alone.
#[derive(Debug)]
pub(super) struct Tabulated {
    source: Box<dyn Intensities>,
    width: usize,
    rule: Rule,
    /// Those of the rows that were prepared.
    tables: Vec<Table>,
    /// The one of them that is the law now.
    at: usize,
    laws: Vec<f32>,
    asked: Vec<Ask>,
    of: Vec<u32>,
    taus: Vec<f32>,
    found: Vec<f32>,
    chances: Chances,
}

/// The panels of one row, in order, and what is left to ask until they reach far enough.
#[derive(Debug)]
struct Table {
    sound: bool,
    panels: Vec<Panel>,
    /// Intensities beyond the last panel.
    end: Vec<f64>,
    reach: Reach,
    /// Spans that come next, each with how often it was cut.
    pending: Vec<(Span, usize)>,
    /// How many of the edges are behind or among them.
    edge: usize,
    /// Compensator of the panels so far.
    risen: f64,
}

/// Something asked for in one run: the table, and a span of it, or the intensities at the end.
#[derive(Clone, Copy, Debug)]
struct Ask {
    table: usize,
    span: Option<(Span, usize)>,
}

impl Table {
    fn new(reach: Reach, sound: bool) -> Self {
        let mut table = Table { sound, panels: Vec::new(), end: Vec::new(), reach, pending: Vec::new(), edge: 0, risen: 0.0 };
        let most = match reach {
            Reach::Unasked => return table,
            Reach::Gap(gap) => gap,
            Reach::Compensator { gap, .. } => gap.max(TOGETHER),
        };
        while table.covered() < most && table.advance() {}
        // Nothing is asked beyond the gap: a shorter panel is smoother.
        if let (Reach::Gap(gap), Some((last, _))) = (reach, table.pending.last_mut()) {
            last.to = last.to.min(gap);
        }
        table
    }

    /// Where the panels end that are known or asked for.
    fn covered(&self) -> f64 {
        self.edge.checked_sub(1).and_then(|i| EDGES.get(i)).copied().unwrap_or(0.0)
    }

    /// Adds the next panel to what is asked for; `false` if there is none.
    fn advance(&mut self) -> bool {
        let from = self.covered();
        let Some(to) = EDGES.get(self.edge).copied() else { return false };
        self.pending.push((Span { from, to }, 0));
        self.edge += 1;
        true
    }

    /// After an answer: whether there is more to ask.
    fn goes_on(&mut self) -> bool {
        if !self.sound {
            return false;
        }
        if !self.pending.is_empty() {
            return true;
        }
        match self.reach {
            Reach::Unasked | Reach::Gap(_) => false,
            Reach::Compensator { target, .. } => {
                // The sum is one of other order than that which is searched later.
                let enough = self.risen >= target * (1.0 + 1e-9) + 1e-12;
                let lasts = self.end.iter().sum::<f64>() > 0.0;
                !(enough && lasts) && self.advance()
            }
        }
    }

    fn close(&mut self) {
        self.panels.sort_by(|a, b| a.span.from.total_cmp(&b.span.from));
        let mut before = 0.0;
        for panel in &mut self.panels {
            panel.before = before;
            before += panel.rise;
        }
        if self.end.is_empty()
            && let Some(last) = self.panels.last()
        {
            self.end = last.intensities(last.span.to).collect();
        }
        self.sound &= !self.panels.is_empty();
    }

    fn panel(&self, tau: f64) -> Option<&Panel> {
        self.panels.get(self.panels.partition_point(|panel| panel.span.to < tau))
    }

    /// Where the panels end, the compensator there, and the hazard from there on.
    fn tail(&self) -> (f64, f64, f64) {
        let (to, before) = self.panels.last().map_or((0.0, 0.0), |last| (last.span.to, last.before + last.rise));
        (to, before, self.end.iter().sum())
    }
}

impl Tabulated {
    /// For rows of so many floats.
    pub(super) fn new(source: Box<dyn Intensities>, width: usize) -> Self {
        Tabulated {
            source,
            width,
            rule: Rule::new(),
            tables: Vec::new(),
            at: 0,
            laws: Vec::new(),
            asked: Vec::new(),
            of: Vec::new(),
            taus: Vec::new(),
            found: Vec::new(),
            chances: Chances::default(),
        }
    }

    fn ask(&mut self, table: usize, span: Option<(Span, usize)>) {
        match span {
            Some((span, _)) => self.taus.extend(self.rule.taus(span)),
            None => self.taus.push(f32_of(LAST)),
        }
        self.of.resize(self.taus.len(), u32_of(table));
        self.asked.push(Ask { table, span });
    }

    /// Asks for all panels that are needed, of all tables together.
    fn fill(&mut self) {
        let mut tables = std::mem::take(&mut self.tables);
        let mut first = true;
        loop {
            self.asked.clear();
            self.of.clear();
            self.taus.clear();
            for (i, table) in tables.iter_mut().enumerate() {
                if first && table.sound && matches!(table.reach, Reach::Compensator { .. }) {
                    self.ask(i, None);
                }
                if table.goes_on() {
                    table.pending.drain(..).for_each(|span| self.ask(i, Some(span)));
                }
            }
            if self.asked.is_empty() {
                break;
            }
            first = false;
            if let Err(error) = self.source.at(&self.laws, &self.of, &self.taus, &mut self.found) {
                tracing::warn!(%error, "the intensities cannot be computed");
                tables.iter_mut().for_each(|table| table.sound = false);
                break;
            }
            // One that grows without end leaves single precision long after an event has come for certain.
            self.found.iter_mut().filter(|lambda| **lambda == f32::INFINITY).for_each(|lambda| *lambda = f32::MAX);
            self.answer(&mut tables);
        }
        tables.iter_mut().for_each(Table::close);
        self.tables = tables;
    }

    /// Hands the answers to the tables that asked.
    fn answer(&self, tables: &mut [Table]) {
        let marks = self.source.marks();
        let mut rest = self.found.as_slice();
        for ask in &self.asked {
            let count = if ask.span.is_some() { NODES * marks } else { marks };
            let (values, after) = rest.split_at_checked(count).unwrap_or((&[], &[]));
            rest = after;
            let Some(table) = tables.get_mut(ask.table) else { continue };
            table.sound &= values.len() == count && values.iter().all(|lambda| lambda.is_finite() && *lambda >= 0.0);
            match ask.span {
                _ if !table.sound => {}
                None => table.end = values.iter().map(|lambda| f64::from(*lambda)).collect(),
                Some((span, depth)) => {
                    let panel = self.rule.panel(span, values, marks);
                    if depth < DEPTH && !panel.is_smooth() {
                        table.pending.extend(span.halves().map(|half| (half, depth + 1)));
                    } else {
                        table.risen += panel.rise;
                        table.panels.push(panel);
                    }
                }
            }
        }
    }

    fn table(&self) -> Option<&Table> {
        self.tables.get(self.at)
    }
}

impl Law for Tabulated {
    fn width(&self) -> usize {
        self.width
    }

    fn read(&mut self, row: &[f32]) -> bool {
        self.prepare(&mut std::iter::once((row, Reach::Compensator { target: f64::INFINITY, gap: LAST })));
        self.take(0, row)
    }

    fn prepare(&mut self, rows: &mut dyn Iterator<Item = (&[f32], Reach)>) {
        self.laws.clear();
        self.tables.clear();
        for (row, reach) in rows {
            let sound = row.len() == self.width && row.iter().all(|value| value.is_finite());
            self.laws.extend_from_slice(if sound { row } else { &[] });
            self.laws.resize((self.tables.len() + 1) * self.width, 0.0);
            self.tables.push(Table::new(reach, sound));
        }
        self.fill();
    }

    fn take(&mut self, place: usize, _row: &[f32]) -> bool {
        self.at = place;
        self.table().is_some_and(|table| table.sound)
    }

    fn compensator(&self, time: Time) -> f64 {
        let Some(table) = self.table() else { return 0.0 };
        table.panel(time.tau).map_or_else(
            || {
                let (to, before, hazard) = table.tail();
                (before + hazard * (time.tau - to)).min(f64::MAX)
            },
            |panel| panel.compensator(time.tau),
        )
    }

    fn ln_hazard(&self, time: Time) -> f64 {
        let hazard = self.table().map_or(0.0, |table| table.panel(time.tau).map_or_else(|| table.tail().2, |panel| panel.hazard(time.tau)));
        finite(ln(hazard))
    }

    fn when(&self, target: f64) -> f64 {
        let Some(table) = self.table().filter(|_| target > 0.0) else { return 0.0 };
        let at = table.panels.partition_point(|panel| panel.before + panel.rise < target);
        match table.panels.get(at) {
            Some(panel) => panel.when(target),
            None => {
                let (to, before, hazard) = table.tail();
                if hazard > 0.0 { to + (target - before) / hazard } else { f64::INFINITY }
            }
        }
    }

    fn total(&self) -> f64 {
        let (_, before, hazard) = self.table().map_or((0.0, 0.0, 0.0), Table::tail);
        if hazard > 0.0 { f64::INFINITY } else { before }
    }

    fn intensities(&self, time: Time, into: &mut Vec<f64>) -> bool {
        into.clear();
        if let Some(table) = self.table() {
            match table.panel(time.tau) {
                Some(panel) => into.extend(panel.intensities(time.tau)),
                None => into.extend(&table.end),
            }
        }
        true
    }

    fn chances(&mut self) -> Option<&[f64]> {
        let mut chances = std::mem::take(&mut self.chances);
        chances.clear(self.source.marks());
        let never = self.p_never();
        if let Some(table) = self.table() {
            let (mut before, mut last) = (1.0, 0.0);
            for panel in table.panels.iter().take_while(|panel| exp(-panel.before) >= RARELY) {
                // Not too much at once of what comes in the panel.
                let Span { mut from, to } = panel.span;
                let (mut step, least) = (QUARTER * (to - from), SHORTEST * (to - from));
                while from < to && before >= RARELY {
                    let end = if from + 1.5 * step < to { from + step } else { to };
                    let risen = panel.compensator(end) - panel.compensator(from);
                    if risen > RISE && step > least {
                        step *= 0.5;
                        continue;
                    }
                    let after = exp(-panel.compensator(end));
                    chances.add((from, end), (before, after), |tau, into| {
                        into.clear();
                        into.extend(panel.intensities(tau));
                        panel.compensator(tau)
                    });
                    (from, before) = (end, after);
                    // Where the hazard has fallen longer parts will do.
                    step = if 4.0 * risen < RISE { 2.0 * step } else { step };
                }
                last = panel.span.to;
            }
            // Where panels end the intensities stay or, where they were not asked for further, next to no event is left.
            if before > never {
                let at_last = table.panel(last).filter(|_| before < RARELY);
                match at_last {
                    Some(panel) => chances.add_rest(before - never, panel.intensities(last)),
                    None => chances.add_rest(before - never, table.end.iter().copied()),
                }
            }
        }
        self.chances = chances;
        Some(self.chances.sums())
    }

    fn reach_of_samples(&self) -> Reach {
        Reach::Compensator { target: SURE, gap: 0.0 }
    }

    /// By thinning (Lewis and Shedler 1979; Ogata 1981), panel by panel: candidates come at the panel's bound, which no value of its polynomial passes.
    fn sample(&self, uniform: &mut dyn FnMut() -> f64) -> f64 {
        let Some(table) = self.table() else { return f64::INFINITY };
        for panel in table.panels.iter().filter(|panel| panel.bound > 0.0) {
            let mut tau = panel.span.from;
            loop {
                tau -= ln(1.0 - uniform()) / panel.bound;
                if tau >= panel.span.to {
                    break;
                }
                if uniform() * panel.bound < panel.hazard(tau) {
                    return tau;
                }
            }
        }
        let (to, _, hazard) = table.tail();
        if hazard > 0.0 { to - ln(1.0 - uniform()) / hazard } else { f64::INFINITY }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::base::error::Result;
    use crate::head::hawkes::Hawkes;

    /// A Hawkes process by its intensities: mu, then e, then d of each mark.
    #[derive(Debug)]
    pub(in crate::head) struct Known(pub(in crate::head) usize);

    impl Intensities for Known {
        fn marks(&self) -> usize {
            self.0
        }

        fn at(&mut self, laws: &[f32], of: &[u32], taus: &[f32], into: &mut Vec<f32>) -> Result<()> {
            into.clear();
            let n = self.0;
            for (row, tau) in of.iter().zip(taus) {
                let law = &laws[*row as usize * 3 * n..][..3 * n];
                into.extend((0..n).map(|k| law[k] + law[n + k] * (-law[2 * n + k] * tau).exp()));
            }
            Ok(())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn quadrature_agrees_with_the_closed_form_of_a_hawkes_process(row in prop::collection::vec(0.05_f32..3.0, 6), target in 0.01_f64..5.0) {
            let (mut closed, mut table) = (Hawkes::new(2, 1), Tabulated::new(Box::new(Known(2)), 6));
            prop_assert!(closed.read(&row) && table.read(&row));
            for i in -12..10 {
                let time = Time::of(1.7_f64.powi(i));
                let (a, b) = (closed.compensator(time), table.compensator(time));
                prop_assert!((a - b).abs() <= 1e-5 * a.max(1e-3), "{} at {}: {}", a, time.tau, b);
                prop_assert!((closed.ln_hazard(time) - table.ln_hazard(time)).abs() < 1e-5);
            }
            prop_assert!((closed.when(target) / table.when(target) - 1.0).abs() < 1e-5);
            let (mut a, mut b) = (Vec::new(), Vec::new());
            closed.intensities(Time::of(0.7), &mut a);
            table.intensities(Time::of(0.7), &mut b);
            prop_assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5 * a));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]

        #[test]
        fn rows_that_are_prepared_together_are_what_they_are_alone(
            rows in prop::collection::vec((prop::collection::vec(0.01_f32..5.0, 6), 0.001_f64..50.0, 0.01_f64..6.0), 1..20)
        ) {
            let reaches = |i: usize| {
                let (_, gap, target) = rows[i];
                match i % 3 {
                    0 => Reach::Gap(gap),
                    1 => Reach::Compensator { target, gap: 0.5 },
                    _ => Reach::Unasked,
                }
            };
            let mut together = Tabulated::new(Box::new(Known(2)), 6);
            together.prepare(&mut rows.iter().enumerate().map(|(i, (row, ..))| (row.as_slice(), reaches(i))));
            for (i, (row, gap, target)) in rows.iter().enumerate() {
                let mut alone = Tabulated::new(Box::new(Known(2)), 6);
                alone.prepare(&mut std::iter::once((row.as_slice(), reaches(i))));
                prop_assert_eq!(together.take(i, row), i % 3 != 2);
                prop_assert_eq!(alone.take(0, row), i % 3 != 2);
                let mut closed = Hawkes::new(2, 1);
                prop_assert!(closed.read(row));
                match i % 3 {
                    0 => {
                        let (a, b) = (together.at(Time::of(*gap)), alone.at(Time::of(*gap)));
                        prop_assert_eq!((a.compensator.to_bits(), a.ln_density.to_bits()), (b.compensator.to_bits(), b.ln_density.to_bits()));
                        let expected = closed.compensator(Time::of(*gap));
                        prop_assert!((a.compensator - expected).abs() <= 1e-5 * expected.max(1e-3));
                    }
                    1 => {
                        prop_assert_eq!(together.when(*target).to_bits(), alone.when(*target).to_bits());
                        prop_assert!((together.when(*target) / closed.when(*target) - 1.0).abs() < 1e-5);
                    }
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn drawn_gaps_and_marks_have_the_law_of_the_closed_form() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        for row in [[0.3, 0.1, 2.0, 0.5, 4.0, 0.3], [0.0, 0.2, 30.0, 1.0, 25.0, 0.7]] {
            let (mut closed, mut table) = (Hawkes::new(2, 1), Tabulated::new(Box::new(Known(2)), 6));
            assert!(closed.read(&row));
            table.prepare(&mut std::iter::once((&row[..], table.reach_of_samples())));
            assert!(table.take(0, &row));
            let mut gaps: Vec<f64> = (0..20_000).map(|_| table.sample(&mut || random.random::<f64>())).collect();
            gaps.sort_by(f64::total_cmp);
            let n = gaps.len() as f64;
            let off = gaps.iter().enumerate().fold(0.0_f64, |off, (i, tau)| {
                let f = closed.below(Time::of(*tau));
                off.max((f - i as f64 / n).abs()).max((f - (i + 1) as f64 / n).abs())
            });
            // Passed by 1 in 1000 of a true law.
            assert!(off < 1.95 / n.sqrt(), "{off}");
        }
    }

    #[test]
    fn a_flat_intensity_costs_few_questions() {
        #[derive(Debug)]
        struct Counted(Known, std::sync::Arc<std::sync::atomic::AtomicUsize>);
        impl Intensities for Counted {
            fn marks(&self) -> usize {
                self.0.marks()
            }
            fn at(&mut self, laws: &[f32], of: &[u32], taus: &[f32], into: &mut Vec<f32>) -> Result<()> {
                self.1.fetch_add(taus.len(), std::sync::atomic::Ordering::Relaxed);
                self.0.at(laws, of, taus, into)
            }
        }
        let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let mut table = Tabulated::new(Box::new(Counted(Known(1), std::sync::Arc::clone(&count))), 3);
        // A gap of one mean gap: two panels; the median and nine tenths: two or three.
        table.prepare(&mut std::iter::once((&[0.2_f32, 0.8, 1.0][..], Reach::Gap(1.0))));
        assert_eq!(count.swap(0, std::sync::atomic::Ordering::Relaxed), 2 * NODES);
        table.prepare(&mut std::iter::once((&[0.2_f32, 0.8, 1.0][..], Reach::Compensator { target: 2.3, gap: 1.0 })));
        let asked = count.load(std::sync::atomic::Ordering::Relaxed);
        assert!(asked <= 1 + 7 * NODES, "{asked}");
    }

    /// e^(a + tau) of one mark (Gompertz): beyond single precision 88 units on.
    #[derive(Debug)]
    struct Growing;

    impl Intensities for Growing {
        fn marks(&self) -> usize {
            1
        }

        fn at(&mut self, laws: &[f32], of: &[u32], taus: &[f32], into: &mut Vec<f32>) -> Result<()> {
            into.clear();
            into.extend(of.iter().zip(taus).map(|(row, tau)| (laws[*row as usize] + tau).exp()));
            Ok(())
        }
    }

    #[test]
    fn an_intensity_that_leaves_all_numbers_behind_when_an_event_has_come_for_certain_is_a_law() {
        let mut table = Tabulated::new(Box::new(Growing), 1);
        for reach in [Reach::Compensator { target: 2.5, gap: 1.0 }, Reach::Compensator { target: 2.5, gap: 720.0 }] {
            table.prepare(&mut std::iter::once((&[-3.0_f32][..], reach)));
            assert!(table.take(0, &[-3.0]), "{reach:?}");
            // Lambda(tau) = e^-3 (e^tau - 1).
            let median = (1.0 + 0.5_f64.ln().abs() * 3.0_f64.exp()).ln();
            assert!((table.when(0.5_f64.ln().abs()) - median).abs() < 1e-5, "{}", table.when(0.5_f64.ln().abs()));
            assert!((table.below(Time::of(median)) - 0.5).abs() < 1e-6 && table.p_never() == 0.0);
        }
        assert_eq!(table.below(Time::of(720.0)), 1.0);
    }

    #[test]
    fn an_intensity_that_dies_out_leaves_a_chance_of_never_and_bad_ones_are_refused() {
        let mut table = Tabulated::new(Box::new(Known(1)), 3);
        assert!(table.read(&[0.0, 2.0, 1.0]));
        assert!((table.p_never() - (-2.0_f64).exp()).abs() < 1e-6, "{}", table.p_never());
        assert_eq!(table.when(2.5), f64::INFINITY);
        assert!(!table.read(&[-1.0, 0.5, 1.0]) && !table.read(&[f32::NAN, 1.0, 1.0]) && !table.read(&[1.0, 1.0]));
        assert!(table.read(&[1.0, 0.5, 1.0]) && table.total() == f64::INFINITY);
        assert!((table.compensator(Time::of(1e5)) / (1e5 + 0.5) - 1.0).abs() < 1e-6);
    }
}
