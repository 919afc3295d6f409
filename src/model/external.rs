//! Weights that lie in a file beside their graph, as the dynamo exporter of PyTorch writes them unless it is told otherwise (`model.onnx.data`): they belong to
//! the package as the graph does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path};

use tract_onnx::pb::{GraphProto, NodeProto, TensorProto, tensor_proto::DataLocation};

use super::intensity;
use super::tensors::Onnx;
use crate::base::error::{Error, Result};

/// Most bytes of a graph with its weights in it: what is longer no reader of protobuf takes.
const LONGEST: usize = 0x7fff_ffff;

/// Names of the files in the package's folder that hold weights of its graphs, without those that are graphs themselves.
///
/// # Errors
/// A graph is not ONNX, or names a file that does not lie in the folder beside it.
pub(super) fn names(folder: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for graph in ["model.onnx", intensity::FILE] {
        let path = folder.join(graph);
        if !path.is_file() {
            continue;
        }
        let bytes = fs::read(&path).map_err(|e| Error::io("model", &path, e))?;
        let place = |e: Error| e.at(path.display().to_string());
        let mut onnx = Onnx::of(&bytes).map_err(place)?;
        visit(&mut onnx, &mut |tensor| {
            found.extend(location(tensor)?);
            Ok(())
        })
        .map_err(place)?;
    }
    Ok(found)
}

/// The bytes of a graph of the package in `folder` with all of its weights in them.
///
/// # Errors
/// The graph is not ONNX, a file that it names cannot be read or is too short, or the whole is too long for one file.
pub(super) fn inlined(bytes: Vec<u8>, folder: &Path) -> Result<Vec<u8>> {
    let mut onnx = Onnx::of(&bytes)?;
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    visit(&mut onnx, &mut |tensor| {
        let Some(name) = location(tensor)? else { return Ok(()) };
        if !files.contains_key(&name) {
            let path = folder.join(&name);
            files.insert(name.clone(), fs::read(&path).map_err(|e| Error::io("model", &path, e))?);
        }
        let all = files.get(&name).map(Vec::as_slice).unwrap_or_default();
        let own = part(tensor, all).ok_or_else(|| {
            let text =
                format!("`{name}` has {} bytes; the constant `{}` of the graph should lie in it and does not", all.len(), tensor.name);
            Error::config("model", text).help("graph and weights are of different exports: export the package again")
        })?;
        tensor.raw_data = own.to_vec();
        tensor.external_data.clear();
        tensor.data_location = None;
        Ok(())
    })?;
    if files.is_empty() {
        return Ok(bytes);
    }
    let whole = onnx.to_bytes();
    if whole.len() > LONGEST {
        let text = format!("the graph with its weights has {} bytes; one ONNX file holds at most {LONGEST}", whole.len());
        return Err(Error::config("model", text)
            .help("a copy of a package keeps the weights in the graph's own file: this one is too large for it"));
    }
    Ok(whole)
}

/// The bytes of the file that are the constant's.
fn part<'a>(tensor: &TensorProto, all: &'a [u8]) -> Option<&'a [u8]> {
    let entry = |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.parse::<usize>());
    let start = entry("offset").unwrap_or(Ok(0)).ok()?;
    match entry("length") {
        Some(length) => all.get(start..start.checked_add(length.ok()?)?),
        None => all.get(start..),
    }
}

/// The file that the constant lies in, if it is not the graph's own.
fn location(tensor: &TensorProto) -> Result<Option<String>> {
    if tensor.data_location != Some(DataLocation::External.into()) || !tensor.raw_data.is_empty() {
        return Ok(None);
    }
    let location = tensor.external_data.iter().find(|entry| entry.key == "location").map_or("", |entry| entry.value.as_str());
    let mut parts = Path::new(location).components().filter(|part| *part != Component::CurDir);
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(name)), None) => Ok(name.to_str().map(str::to_owned)),
        _ => Err(Error::config("model", format!("the constant `{}` of the graph lies in `{location}`", tensor.name))
            .help("weights lie in the graph or in a file beside it, in the package's folder: export again with external_data=False")),
    }
}

/// Every constant of the file, wherever it stands.
fn visit(onnx: &mut Onnx, each: &mut dyn FnMut(&mut TensorProto) -> Result<()>) -> Result<()> {
    let model = &mut onnx.model;
    model.functions.iter_mut().try_for_each(|function| in_nodes(&mut function.node, each))?;
    model.graph.iter_mut().try_for_each(|graph| in_graph(graph, each))
}

fn in_graph(graph: &mut GraphProto, each: &mut dyn FnMut(&mut TensorProto) -> Result<()>) -> Result<()> {
    graph.initializer.iter_mut().try_for_each(&mut *each)?;
    for sparse in &mut graph.sparse_initializer {
        sparse.values.iter_mut().chain(&mut sparse.indices).try_for_each(&mut *each)?;
    }
    in_nodes(&mut graph.node, each)
}

fn in_nodes(nodes: &mut [NodeProto], each: &mut dyn FnMut(&mut TensorProto) -> Result<()>) -> Result<()> {
    for attribute in nodes.iter_mut().flat_map(|node| &mut node.attribute) {
        attribute.t.iter_mut().chain(&mut attribute.tensors).try_for_each(&mut *each)?;
        for sparse in attribute.sparse_tensor.iter_mut().chain(&mut attribute.sparse_tensors) {
            sparse.values.iter_mut().chain(&mut sparse.indices).try_for_each(&mut *each)?;
        }
        attribute.g.iter_mut().chain(&mut attribute.graphs).try_for_each(|graph| in_graph(graph, each))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::StringStringEntryProto;

    use super::*;
    use crate::model::onnx::Graph;
    use crate::model::{Package, write};

    /// A package whose graph says that its weights lie in that file; they lie in `model.onnx.data`.
    fn package(location: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut graph = Graph::new("law");
        graph.input("x", &[1]);
        graph.constant("w", &[1, 300], &[0.5; 300]);
        graph.constant("o", &[300, 1], &[0.25; 300]);
        graph.node("MatMul", &["x", "w"], &["xw"], &[]);
        graph.node("MatMul", &["xw", "o"], &["law"], &[]);
        graph.output("law", &[1]);
        let mut onnx = Onnx::of(&graph.to_bytes()).unwrap();
        let mut data = Vec::new();
        visit(&mut onnx, &mut |tensor| {
            let entry = |key: &str, value: String| StringStringEntryProto { key: key.into(), value };
            let own = std::mem::take(&mut tensor.raw_data);
            tensor.external_data =
                vec![entry("location", location.into()), entry("offset", data.len().to_string()), entry("length", own.len().to_string())];
            tensor.data_location = Some(DataLocation::External.into());
            data.extend(own);
            Ok(())
        })
        .unwrap();
        let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        put("model.onnx", &onnx.to_bytes());
        put("model.onnx.data", &data);
        put(
            "model.toml",
            b"format = 1\nname = \"e\"\nversion = \"1\"\n[input]\nfeatures = \"x\"\n[head]\nkind = \"exponential\"\noutputs = [\"law\"]\ntime_unit = \"s\"\n\
              min_gap = 0.001\n",
        );
        put("features.toml", b"format = 1\n[[column]]\nkind = \"is_first\"\n");
        folder
    }

    #[test]
    fn weights_beside_the_graph_are_in_the_digest_in_the_sums_and_in_copies() {
        let folder = package("model.onnx.data");
        let before = Package::load(folder.path()).unwrap();
        let path = folder.path().join("model.onnx.data");
        let mut data = fs::read(&path).unwrap();
        // A copy has the weights in its graph, where they can be quantised.
        let files = write::read(folder.path()).unwrap();
        let copy = folder.path().join("copy");
        write::write_package(&files, &copy).unwrap();
        let copied = fs::read(copy.join("model.onnx")).unwrap();
        assert!(copied.len() > data.len() && !copy.join("model.onnx.data").exists());
        assert_eq!(Onnx::of(&copied).unwrap().constant("o").unwrap().1, [0.25; 300]);
        assert_eq!(crate::model::quantize::quantize(&copied).unwrap().matrices, 2);

        data[1203] ^= 0x40;
        fs::write(&path, &data).unwrap();
        assert_ne!(Package::load(folder.path()).unwrap().digest, before.digest, "other weights are another model");
        // The list must name them, and what it says must hold.
        let line = |name: &str| format!("{}  {name}\n", super::super::sums::of(&fs::read(folder.path().join(name)).unwrap()));
        let list = ["model.onnx", "model.toml", "features.toml"].map(line).concat();
        let refusal = |list: String| {
            fs::write(folder.path().join("SHA256SUMS"), list).unwrap();
            Package::load(folder.path()).map(|_| ()).map_err(|e| e.to_string())
        };
        assert!(refusal(list.clone()).unwrap_err().contains("does not list model.onnx.data"));
        let whole = list + &line("model.onnx.data");
        refusal(whole.clone()).unwrap();
        data[7] ^= 1;
        fs::write(&path, &data).unwrap();
        let said = refusal(whole).unwrap_err();
        assert!(said.contains("SHA256SUMS says") && said.contains("model.onnx.data"), "{said}");
        // A folder with such weights is a model package and can be replaced.
        fs::remove_dir_all(copy).unwrap();
        write::check_folder(folder.path()).unwrap();
    }

    #[test]
    fn weights_that_are_missing_or_lie_outside_the_folder_are_refused() {
        let folder = package("../elsewhere.data");
        let said = Package::load(folder.path()).err().unwrap().to_string();
        assert!(said.contains("lies in `../elsewhere.data`") && said.contains("model.onnx"), "{said}");
        let folder = package("./model.onnx.data");
        Package::load(folder.path()).unwrap();
        fs::write(folder.path().join("model.onnx.data"), [0; 8]).unwrap();
        assert!(write::read(folder.path()).unwrap_err().to_string().contains("has 8 bytes"));
        fs::remove_file(folder.path().join("model.onnx.data")).unwrap();
        assert!(Package::load(folder.path()).err().unwrap().to_string().contains("model.onnx.data"));
    }
}
