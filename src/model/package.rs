//! A model package: a folder with the graph, its manifest, the recipe, golden events and check sums.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::attention::Attention;
use super::cohorts::Cohorts;
use super::golden::{Golden, Mismatch};
use super::graph::{Graph, Signature};
use super::intensity::IntensityGraph;
use super::manifest::Manifest;
use super::probes::{Probes, probe};
use super::step::{Memory, Model};
use super::sums::{self, Checked};
use crate::base::error::{Error, Result};
use crate::base::guard::tried;
use crate::base::limits::MAX_STATE_FLOATS;
use crate::base::number::{index, u32_of};
use crate::data::intensity::Intensities;
use crate::data::outputs::Outputs;

/// Batch sizes that are compared when a package is loaded; the tests compare many more.
const PROBES: [usize; 4] = [1, 2, 7, 64];

/// A package that has passed every check, ready to be given to lanes.
pub struct Package {
    /// Its folder.
    pub folder: PathBuf,
    /// `model.toml`.
    pub manifest: Manifest,
    /// SHA-256 over graphs with their weights, manifest, recipe and cohorts, in hex.
    pub digest: String,
    /// Whether it has a `SHA256SUMS`, with which its files were compared.
    pub has_sums: bool,
    /// Golden events, if the package has them.
    pub golden: Option<Golden>,
    /// How far the graph is from them.
    pub mismatch: Mismatch,
    probes: Probes,
    graph: Graph,
    intensity: Option<IntensityGraph>,
    cohorts: Option<Arc<Cohorts>>,
}

impl Package {
    /// Loads a package and refuses it, with the reason, if it cannot be trusted: files that do not match their check sums, a
    /// frozen batch axis, states whose shapes do not match, NaN or other numbers than the trainer's on golden events,
    /// outputs that depend on the batch they are computed in.
    ///
    /// # Errors
    /// As above, each naming the file and what to do.
    pub fn load(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Error::config("model", "there is no such model package folder")
                .at(folder.display().to_string())
                .help("train one with `meantime fit`, or name the folder in [model] package"));
        }
        let Checked { digest, listed: has_sums } = sums::check(folder)?;
        let manifest = Manifest::load(&folder.join("model.toml"))?;
        check_manifest(&manifest).map_err(|e| e.at(folder.join("model.toml").display().to_string()))?;
        // tract panics at some graphs that it cannot compute, and at others with some rows only.
        let graph = tried(|| Graph::load(&folder.join("model.onnx"), &manifest)).unwrap_or_else(|said| Err(panicked(folder, &said)))?;
        let intensity = tried(|| IntensityGraph::load(folder, &manifest.head)).unwrap_or_else(|said| Err(panicked(folder, &said)))?;
        let cohorts = Cohorts::load(folder, graph.signature.features, graph.signature.state_floats)?.map(Arc::new);
        let path = folder.join("golden.parquet");
        let golden = Golden::load(&path, &manifest, graph.signature.features)?;
        let mismatch = Mismatch::default();
        let probes = Probes::load(folder, graph.signature.features);
        let mut package =
            Package { folder: folder.to_owned(), manifest, digest, has_sums, golden, mismatch, probes, graph, intensity, cohorts };
        package.check_batches(&PROBES)?;
        if let Some(golden) = &package.golden {
            let checked = tried(|| golden.check(&mut package.model()?)).unwrap_or_else(|said| Err(panicked(folder, &said)));
            package.mismatch = checked.map_err(|e| e.at(path.display().to_string()))?;
        }
        Ok(package)
    }

    /// A model for one lane.
    ///
    /// # Errors
    /// tract cannot set up a run.
    pub fn model(&self) -> Result<Model> {
        let mut model = Model::new(&self.graph, &self.manifest)?;
        model.intensity = self.intensity.as_ref().map(IntensityGraph::spawn).transpose()?;
        model.cohorts.clone_from(&self.cohorts);
        Ok(model)
    }

    /// What looks at the attention of one key's events, if the graph has an output for it.
    ///
    /// # Errors
    /// The output that model.toml names is not there, or not [B, n].
    pub fn attention(&self) -> Result<Option<Attention>> {
        tried(|| Attention::load(&self.folder, &self.manifest)).unwrap_or_else(|said| Err(panicked(&self.folder, &said)))
    }

    /// Where states of new keys start, if not all alike.
    #[must_use]
    pub fn cohorts(&self) -> Option<&Cohorts> {
        self.cohorts.as_deref()
    }

    /// What the graph takes and gives.
    #[must_use]
    pub fn signature(&self) -> &Signature {
        &self.graph.signature
    }

    /// Steps the same rows alone and in batches of the given sizes and compares bits; the same with the second graph, if there is one.
    ///
    /// # Errors
    /// Names the first batch size whose outputs or states differ; or the graph cannot be run.
    pub fn check_batches(&self, sizes: &[usize]) -> Result<()> {
        let place = |e: Error| if e.help.is_some() { e } else { e.at(self.folder.display().to_string()).help(self.probes.help()) };
        tried(|| self.compare_batches(sizes)).unwrap_or_else(|said| Err(panicked(&self.folder, &said))).map_err(place)
    }

    fn compare_batches(&self, sizes: &[usize]) -> Result<()> {
        let width = self.graph.signature.features;
        let most = sizes.iter().copied().max().unwrap_or(1);
        let rows = self.probes.rows(most);
        let mut model = self.model()?;
        let hidden = model.initial_hidden().len();
        let mut reference: Option<(Vec<f32>, Vec<f32>, Vec<f32>)> = None;
        for size in sizes {
            let mut memory = ProbeMemory { width: hidden, hidden: model.initial_hidden().repeat(most) };
            let mut after = Vec::new();
            for (step, chunk) in rows.chunks(size * width).enumerate() {
                let n = chunk.len() / width;
                let mut outputs = Outputs::default();
                // Every fifth row is the first of its key, which may start from a cohort's state.
                let gap = |row: usize| crate::base::time::Gap(crate::base::number::i64_of_count(row + 1) * 60_000_000);
                let gaps: Vec<_> = (step * size..step * size + n).map(|row| (row % 5 != 4).then(|| gap(row))).collect();
                let mut shifted = Shifted { memory: &mut memory, by: step * size };
                model.steps(chunk, &gaps, &vec![0; n], &mut shifted, &mut outputs)?;
                after.extend_from_slice(&outputs.after);
            }
            let lambdas = self.intensities(&mut model, &after, *size)?;
            let found = (after, memory.hidden, lambdas);
            match &reference {
                None => reference = Some(found),
                Some(first) if same_bits(&first.0, &found.0) && same_bits(&first.1, &found.1) && same_bits(&first.2, &found.2) => {}
                Some(_) => {
                    return Err(Error::config("model", format!("outputs, states or intensities differ between batches of {} and {size}", sizes.first().copied().unwrap_or(1)))
                        .at(self.folder.display().to_string())
                        .help("the graph mixes rows of a batch (batch norm, softmax over axis 0, a fixed batch size); every row must be computed alone"));
                }
            }
        }
        Ok(())
    }
}

impl Package {
    /// What the second graph gives for rows that were published, so many asked for at once; nothing without such a graph.
    fn intensities(&self, model: &mut Model, laws: &[f32], size: usize) -> Result<Vec<f32>> {
        let (Some(graph), width) = (&mut model.intensity, self.manifest.head.width()) else { return Ok(Vec::new()) };
        let (mut all, mut found) = (Vec::new(), Vec::new());
        let rows = laws.len() / width.max(1);
        for first in (0..rows).step_by(size.max(1)) {
            let of: Vec<u32> = (first..rows.min(first + size)).map(u32_of).collect();
            let taus: Vec<f32> = of.iter().map(|row| probe(index(*row)).abs()).collect();
            graph.at(laws, &of, &taus, &mut found)?;
            all.extend_from_slice(&found);
        }
        Ok(all)
    }
}

/// The error for a graph at which tract panicked.
fn panicked(folder: &Path, said: &str) -> Error {
    Error::config("model", format!("a graph of the package cannot be run: tract says {said}")).at(folder.display().to_string())
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

struct ProbeMemory {
    width: usize,
    hidden: Vec<f32>,
}

impl Memory for ProbeMemory {
    fn hidden(&mut self, row: usize) -> &mut [f32] {
        self.hidden.get_mut(row * self.width..(row + 1) * self.width).unwrap_or_default()
    }
}

struct Shifted<'a> {
    memory: &'a mut ProbeMemory,
    by: usize,
}

impl Memory for Shifted<'_> {
    fn hidden(&mut self, row: usize) -> &mut [f32] {
        self.memory.hidden(row + self.by)
    }
}

fn check_manifest(manifest: &Manifest) -> Result<()> {
    let floats: usize = manifest.states.iter().map(super::manifest::StateSpec::floats).sum();
    if floats > MAX_STATE_FLOATS {
        return Err(Error::config("model", format!("{floats} floats of state per key; allowed are {MAX_STATE_FLOATS}")));
    }
    for (i, state) in manifest.states.iter().enumerate() {
        if manifest.states.iter().take(i).any(|other| other.input == state.input || other.output == state.output) {
            return Err(Error::config("model", format!("state `{}` shares its input or output with another", state.input)));
        }
        if !state.init.is_finite() || state.floats() == 0 {
            return Err(Error::config("model", format!("state `{}`: init must be finite and no axis empty", state.input)));
        }
    }
    let mut inputs = vec![&manifest.input.features];
    for input in manifest.input.gap.iter().chain(manifest.states.iter().map(|state| &state.input)) {
        if inputs.contains(&input) {
            let text = format!("`{input}` stands for two inputs of the graph");
            return Err(
                Error::config("model", text).help("`features` and `gap` of [input] and the `input` of each [[state]] are different inputs")
            );
        }
        inputs.push(input);
    }
    if manifest.head.outputs().is_empty() {
        return Err(Error::config("model", "the head names no outputs"));
    }
    Ok(())
}
