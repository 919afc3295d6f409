//! `meantime calibrate --cohorts`: where new keys start, by what their first events are like.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use super::Args;
use crate::base::error::{Error, Kind, Result};
use crate::base::number::f64_of_count;
use crate::cli::evaluate;
use crate::data::flags::Flags;
use crate::data::forecasts::Forecasts;
use crate::data::intensity::Intensities;
use crate::data::law::HeadSpec;
use crate::data::outputs::Outputs;
use crate::evaluate::beginnings::Beginning;
use crate::fit::cohorts::{group, starts};
use crate::head::{Arrivals, Asks, Head};
use crate::model::cohorts::{self, Cohorts};
use crate::model::{Memory, Model, write};
use crate::run::{Stage, check_golden};

/// Events of a key after which its state tells what kind of key it is.
const REACHED: usize = 8;
/// Events of a key that are judged: up to this one.
const JUDGED: usize = 5;
/// Keys that are looked at.
const MOST: usize = 200_000;
/// Seed of the first centres.
const SEED: u64 = 1;

/// Finds cohorts, prints what they are worth for keys that began later, and writes the package with them.
pub(super) fn run(args: &Args, wanted: &evaluate::Args, k: usize) -> Result<()> {
    let (stage, beginnings) = evaluate::beginnings(wanted, REACHED, MOST)?;
    let Some((manifest, recipe)) = &stage.plan.model else { return Err(Error::config("calibrate", "the pipeline names no model")) };
    let calibrated = match &manifest.head {
        HeadSpec::Score { calibration, .. } => calibration.is_some(),
        head => head.law().is_some_and(|law| law.quantile_calibration.is_some()),
    };
    if calibrated || stage.package.cohorts().is_some() {
        let what = if calibrated { "is calibrated" } else { "has cohorts" };
        return Err(Error::config("calibrate", format!("the package {what} already"))
            .help("cohorts change states: find them for the package it was made from, and calibrate afterwards"));
    }
    let mut trial = Trial::new(&stage)?;
    if trial.init().is_empty() {
        return Err(Error::config("calibrate", "the model has no state that a key could start from"));
    }
    let mut all: Vec<&Beginning> = beginnings.all.iter().filter(|beginning| !beginning.events.is_empty()).collect();
    all.sort_by_key(|beginning| beginning.events.first().map(|first| first.time));
    let (earlier, later) = all.split_at(all.len() / 2);
    let (found, shares) = trial.cohorts(earlier, k)?;

    let stdout = |e: std::io::Error| Error::io("calibrate", Path::new("stdout"), e);
    let mut out = std::io::stdout().lock();
    let (earlier_keys, later_keys) = (earlier.len(), later.len());
    writeln!(out, "found in the {earlier_keys} keys that began earlier, judged on the {later_keys} that began later").map_err(stdout)?;
    writeln!(out, "  {:<12}{:>12}{:>24}", "cohort", "later keys", "way to the mean state").map_err(stdout)?;
    let first_row = |beginning: &Beginning| beginning.rows.get(..trial.width).unwrap_or_default().to_vec();
    let members: Vec<Option<usize>> = later.iter().map(|beginning| found.nearest(&first_row(beginning))).collect();
    for (cohort, share) in shares.iter().enumerate() {
        let keys = members.iter().filter(|member| **member == Some(cohort)).count();
        writeln!(out, "  {:<12}{keys:>12}{:>22} %", cohort + 1, 100.0 * share).map_err(stdout)?;
    }
    let (before, after) = (trial.losses(later, None)?, trial.losses(later, Some(&found))?);
    let what = if manifest.head.is_timed() { "negative log-likelihood" } else { "log-loss of the label" };
    writeln!(out, "\n  {:<34}{:>12}{:>12}{:>10}", format!("{what}, nats"), "as it is", "cohorts", "events").map_err(stdout)?;
    for (event, (a, b)) in before.iter().zip(&after).enumerate().filter(|(_, (before, _))| before.1 > 0) {
        let name = format!("event {} of a key", event + 1);
        writeln!(out, "  {name:<34}{:>12.4}{:>12.4}{:>10}", mean(&[*a]), mean(&[*b]), a.1).map_err(stdout)?;
    }
    let (before, after) = (mean(&before), mean(&after));
    writeln!(out, "  {:<34}{before:>12.4}{after:>12.4}", "all of these").map_err(stdout)?;
    if after.is_nan() || after >= before {
        return Err(Error::new(
            Kind::Check,
            "calibrate",
            "the first events of keys that began later are no likelier with cohorts: nothing was written",
        )
        .help("what a first event tells, the model knows already; try another number of --cohorts, or leave it"));
    }

    // What is written may use all keys.
    let (cohorts, _) = trial.cohorts(&all, k)?;
    let mut manifest = manifest.clone();
    manifest.version = format!("{}-cohorts{}", manifest.version, cohorts.cohorts.len());
    let mut files = write::read(&stage.plan.package)?;
    files.insert("model.toml", manifest.to_toml()?.into_bytes());
    files.insert(cohorts::FILE, cohorts.to_toml()?.into_bytes());
    let section = format!(
        "\n## Cohorts\n\nNew keys start from the state of one of {} cohorts, by their first events. {what} of the first {JUDGED} events of {later_keys} keys that \
         were not used for it, nats: {before:.4} before, {after:.4} with cohorts. Golden events are what this package gives.\n",
        cohorts.cohorts.len()
    );
    files.entry("CARD.md").or_insert_with(|| format!("# {}\n", manifest.name).into_bytes()).extend_from_slice(section.as_bytes());
    write::recompute(&mut files, stage.package.golden.as_ref())?;
    write::write(&files, &args.out, |draft| check_golden(&crate::model::Package::load(draft)?, recipe).map(|_| ()))?;
    writeln!(out, "\nfound in all {}: {} (version {})", all.len(), args.out.display(), manifest.version).map_err(stdout)
}

fn mean(sums: &[(f64, usize)]) -> f64 {
    let (sum, count) = sums.iter().fold((0.0, 0), |(sum, count), own| (sum + own.0, count + own.1));
    sum / f64_of_count(count)
}

/// Beginnings once more, from other states.
struct Trial<'a> {
    stage: &'a Stage,
    model: Model,
    head: Head,
    /// Floats of a feature row, and of the state tensors.
    width: usize,
    states: usize,
}

/// Hidden floats of each row.
struct Rows {
    width: usize,
    hidden: Vec<f32>,
    /// Which of them the rows of a batch are.
    rows: Vec<usize>,
}

impl Memory for Rows {
    fn hidden(&mut self, row: usize) -> &mut [f32] {
        let place = self.rows.get(row).copied().unwrap_or(usize::MAX / 2 / self.width.max(1));
        self.hidden.get_mut(place * self.width..(place + 1) * self.width).unwrap_or_default()
    }
}

impl<'a> Trial<'a> {
    fn new(stage: &'a Stage) -> Result<Self> {
        let mut model = stage.package.model()?;
        let intensity = model.intensity.take().map(|graph| Box::new(graph) as Box<dyn Intensities>);
        let head = Head::with(&stage.package.manifest.head, Asks::default(), intensity)?;
        let signature = model.signature();
        let (width, states) = (signature.features, signature.state_floats);
        Ok(Trial { stage, model, head, width, states })
    }

    fn init(&self) -> Vec<f32> {
        self.model.initial_hidden().get(..self.states).unwrap_or_default().to_vec()
    }

    /// The cohorts of these keys.
    fn cohorts(&mut self, keys: &[&Beginning], k: usize) -> Result<(Cohorts, Vec<f64>)> {
        let rows: Vec<f32> = keys.iter().flat_map(|key| key.rows.iter().take(self.width).copied()).collect();
        let groups = group(&rows, self.width, k, SEED)?;
        let init = self.init();
        let cohort = |centre: &Vec<f32>| cohorts::Cohort { centre: centre.clone(), state: init.clone() };
        let plain = Cohorts::new(groups.scale.clone(), groups.centres.iter().map(cohort).collect());
        let member: Vec<usize> = rows.chunks_exact(self.width).map(|row| plain.nearest(row).unwrap_or(usize::MAX)).collect();
        let start = vec![init.clone(); keys.len()];
        let mut reached = Vec::new();
        self.run(keys, start, REACHED, &mut |hidden| reached = hidden, &mut |_, _| ())?;
        let reached: Vec<Vec<f32>> =
            reached.chunks_exact(self.model.initial_hidden().len()).map(|all| all.iter().take(init.len()).copied().collect()).collect();
        starts(&groups, &init, &member, &reached, &mut |own, state| {
            let own: Vec<&Beginning> = own.iter().filter_map(|key| keys.get(*key).copied()).collect();
            Ok(mean(&self.from(&own, vec![state.to_vec(); own.len()])?))
        })
    }

    /// Sums and counts of the losses by the place of the event, with or without cohorts.
    fn losses(&mut self, keys: &[&Beginning], cohorts: Option<&Cohorts>) -> Result<Vec<(f64, usize)>> {
        let init = self.init();
        let start = |key: &&Beginning| {
            let row = key.rows.get(..self.width).unwrap_or_default();
            cohorts.and_then(|cohorts| cohorts.start(row)).map_or_else(|| init.clone(), <[f32]>::to_vec)
        };
        self.from(keys, keys.iter().map(start).collect())
    }

    fn from(&mut self, keys: &[&Beginning], start: Vec<Vec<f32>>) -> Result<Vec<(f64, usize)>> {
        let mut sums = vec![(0.0, 0); JUDGED];
        self.run(keys, start, JUDGED, &mut |_| (), &mut |event, loss| {
            if let Some(sum) = sums.get_mut(event).filter(|_| !loss.is_nan()) {
                *sum = (sum.0 + loss, sum.1 + 1);
            }
        })?;
        Ok(sums)
    }

    /// Steps the first `events` events of each key from the given states. `end` is given all hidden floats, `each` the place of each event and its loss:
    /// surprise of gap, mark and value, or log-loss of the label.
    fn run(
        &mut self,
        keys: &[&Beginning],
        start: Vec<Vec<f32>>,
        events: usize,
        end: &mut dyn FnMut(Vec<f32>),
        each: &mut dyn FnMut(usize, f64),
    ) -> Result<()> {
        let law = self.model.initial_hidden().get(self.states..).unwrap_or_default().to_vec();
        let hidden = start.into_iter().flat_map(|state| [state, law.clone()].concat()).collect();
        let mut memory = Rows { width: self.model.initial_hidden().len(), hidden, rows: Vec::new() };
        let mut outputs = Outputs::default();
        for event in 0..events {
            let own: Vec<(usize, &Beginning)> = keys.iter().copied().enumerate().filter(|(_, key)| key.events.len() > event).collect();
            let firsts: Vec<_> = own.iter().filter_map(|(_, key)| key.events.get(event)).collect();
            let at = event * self.width;
            let rows: Vec<f32> = own.iter().flat_map(|(_, key)| key.rows.iter().skip(at).take(self.width).copied()).collect();
            memory.rows = own.iter().map(|(place, _)| *place).collect();
            let gaps: Vec<_> = firsts.iter().map(|first| first.gap).collect();
            self.model.steps(&rows, &gaps, &vec![0; own.len()], &mut memory, &mut outputs)?;
            let mut forecasts = Forecasts { flags: vec![Flags::NONE; own.len()], ..Forecasts::new(Arc::clone(&self.stage.identity)) };
            let (times, marks): (Vec<_>, Vec<_>) = firsts.iter().map(|first| (first.time, first.mark)).unzip();
            let values: Vec<f64> = firsts.iter().map(|first| first.value).collect();
            self.head.forecasts(&Arrivals { times: &times, gaps: &gaps, marks: &marks, values: &values }, &outputs, &mut forecasts);
            for (row, first) in firsts.iter().enumerate() {
                let value = |column: &[f64]| column.get(row).copied().unwrap_or(f64::NAN);
                let (time, mark, score) = (value(&forecasts.surprise_time), value(&forecasts.surprise_mark), value(&forecasts.score));
                let further: f64 = [mark, value(&forecasts.surprise_value)].iter().filter(|nats| !nats.is_nan()).sum();
                let p = score.clamp(1e-9, 1.0 - 1e-9);
                let label = -(first.label * p.ln() + (1.0 - first.label) * (-p).ln_1p());
                each(event, if time.is_nan() { label } else { time + further });
            }
        }
        end(memory.hidden);
        Ok(())
    }
}
