use std::fs;
use std::sync::Barrier;

use super::*;
use crate::base::error::Kind;

/// What every store must do.
pub(super) fn contract(store: &dyn Objects) {
    assert_eq!(store.list("").unwrap(), []);
    assert_eq!(store.get("a/one").unwrap(), None);
    assert_eq!(store.tail("a/one", 3).unwrap(), None);
    assert_eq!(store.put_new("a/one", b"first").unwrap(), Put::Created);
    assert_eq!(store.put_new("a/one", b"second").unwrap(), Put::Exists);
    assert_eq!(store.get("a/one").unwrap().unwrap(), b"first", "what is there stays");
    store.put("a/one", b"third one").unwrap();
    assert_eq!(store.get("a/one").unwrap().unwrap(), b"third one");
    assert_eq!(store.tail("a/one", 3).unwrap().unwrap(), b"one");
    assert_eq!(store.tail("a/one", 300).unwrap().unwrap(), b"third one");
    let listed = store.list("a/").unwrap().remove(0);
    let range = |from, length| store.range(&listed, from, length).unwrap().unwrap();
    assert_eq!((range(0, 5), range(6, 3), range(6, 300), range(9, 1)), (b"third".to_vec(), b"one".to_vec(), b"one".to_vec(), Vec::new()));
    assert_eq!(store.range(&Entry { name: "a/none".to_owned(), ..listed.clone() }, 0, 1).unwrap_or(None), None);
    store.put("b", b"").unwrap();
    assert_eq!(store.get("b").unwrap().unwrap(), b"");
    assert_eq!(store.tail("b", 3).unwrap().unwrap(), b"");
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, b"from a file").unwrap();
    assert_eq!(store.put_new_file(&file, "a/one").unwrap(), Put::Exists);
    assert_eq!(store.put_new_file(&file, "a/deep/two").unwrap(), Put::Created);
    assert_eq!(store.put_new_file(&file, "a/deep/two").unwrap(), Put::Exists, "also of the same content");
    assert_eq!(store.get("a/deep/two").unwrap().unwrap(), b"from a file");
    let names = |prefix: &str| store.list(prefix).unwrap().into_iter().map(|entry| (entry.name, entry.bytes)).collect::<Vec<_>>();
    assert_eq!(names(""), [("a/deep/two".to_owned(), 11), ("a/one".to_owned(), 9), ("b".to_owned(), 0)]);
    assert_eq!(names("a/deep/"), [("a/deep/two".to_owned(), 11)]);
    store.delete("a/one").unwrap();
    store.delete("a/one").unwrap();
    assert_eq!(store.get("a/one").unwrap(), None);
    assert_eq!(names("a/"), [("a/deep/two".to_owned(), 11)]);
    assert!(store.rename("a/deep/two", "c=1/three").unwrap());
    assert!(!store.rename("a/deep/two", "c=1/three").unwrap(), "it has its new name already");
    store.put("a/four", b"other").unwrap();
    assert!(store.rename("a/four", "c=1/three").unwrap());
    assert_eq!(names(""), [("b".to_owned(), 0), ("c=1/three".to_owned(), 5)]);
    assert_eq!(store.get("c=1/three").unwrap().unwrap(), b"other", "what had the name is replaced");
    for name in ["", "/a", "a/", "../a", "a/../../b", "a//b"] {
        assert!(store.put(name, b"").is_err(), "{name} leaves the store");
    }
}

#[test]
fn a_folder_keeps_the_contract_and_leaves_no_temporary_files() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("not/yet/there");
    contract(&Folder::open(&root).unwrap());
    let left: Vec<_> = fs::read_dir(root.join("a")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["deep"]);
}

#[test]
fn a_disk_in_memory_keeps_the_contract() {
    contract(&MemoryDisk::new());
}

#[test]
fn exactly_one_of_many_writers_creates_an_object() {
    let folder = tempfile::tempdir().unwrap();
    let barrier = Barrier::new(8);
    for round in 0..20 {
        let name = format!("from={round}");
        let created = std::thread::scope(|scope| {
            let writer = |id: usize| {
                let (barrier, name) = (&barrier, &name);
                let store = Folder::open(folder.path()).unwrap();
                scope.spawn(move || {
                    barrier.wait();
                    (store.put_new(name, &[id as u8; 1000]).unwrap() == Put::Created).then_some(id)
                })
            };
            let writers: Vec<_> = (0..8).map(writer).collect();
            writers.into_iter().filter_map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(created.len(), 1);
        assert_eq!(Folder::open(folder.path()).unwrap().get(&name).unwrap().unwrap(), [created[0] as u8; 1000]);
    }
}

#[test]
fn what_a_crashed_writer_left_is_removed_and_what_is_being_written_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("p")).unwrap();
    fs::create_dir(at("_delta_log")).unwrap();
    for name in ["p/.x.1-0-7.tmp", "p/.y.1-1-8.tmp", "p/z", "_delta_log/.00000000000000000001.json.1-0-7.tmp"] {
        fs::write(at(name), "part").unwrap();
    }
    let old = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
    for name in ["p/.x.1-0-7.tmp", "p/z", "_delta_log/.00000000000000000001.json.1-0-7.tmp"] {
        fs::File::options().write(true).open(at(name)).unwrap().set_times(old).unwrap();
    }
    let store = Folder::open(folder.path()).unwrap();
    assert!(!at("p/.x.1-0-7.tmp").exists() && at("p/.y.1-1-8.tmp").exists());
    assert_eq!(fs::read_dir(at("_delta_log")).unwrap().count(), 0, "the log of a table is a folder as the others are");
    assert_eq!(store.list("").unwrap().len(), 1, "temporary files are no objects");
}

#[test]
fn a_folder_that_cannot_be_one_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let error = Folder::open(&folder.path().join("file/below")).unwrap_err();
    assert_eq!(error.kind, Kind::Config);
    assert!(error.to_string().contains("a file is where a folder should be"), "{error}");
}

#[test]
fn after_a_crash_at_any_step_an_object_is_the_old_one_or_the_new_one() {
    let seen = |skip: bool| {
        let mut seen = std::collections::BTreeSet::new();
        for steps in 0..6 {
            for seed in 0..40 {
                let disk = MemoryDisk::new();
                disk.put("x", b"old").unwrap();
                disk.skip_sync(skip);
                disk.crash_after(steps);
                let put = disk.put("x", b"new and longer");
                disk.restart(seed);
                let found = disk.get("x").unwrap().unwrap();
                assert!(skip || put.is_err() || found == b"new and longer", "what was confirmed is there");
                seen.insert(found);
            }
        }
        seen
    };
    assert_eq!(seen(false).into_iter().collect::<Vec<_>>(), [b"new and longer".to_vec(), b"old".to_vec()]);
    assert!(seen(true).len() > 2, "without the sync an object may be torn: {:?}", seen(true));
}

#[test]
fn places_are_read_and_what_cannot_be_reached_is_refused() {
    let folder = Path::new("/pipelines/cards");
    let folder_at = |path: &str| Place::Folder(PathBuf::from(path));
    assert_eq!(Place::parse("snapshots", folder).unwrap(), folder_at("/pipelines/cards/snapshots"));
    assert_eq!(Place::parse("/var/lib/x", folder).unwrap(), folder_at("/var/lib/x"));
    assert_eq!(Place::parse("file:///var/lib/x", folder).unwrap(), folder_at("/var/lib/x"));
    for wrong in ["file://var/lib", "abfss://c@account/x", "ftp://bucket/x", "s3://"] {
        assert!(Place::parse(wrong, folder).is_err(), "{wrong}");
    }
    for (url, cloud) in [("s3", Cloud::Amazon), ("gs", Cloud::Google), ("az", Cloud::Azure)] {
        let place = Place::parse(&format!("{url}://bucket/some/prefix/"), folder);
        if cfg!(feature = "cloud") {
            let place = place.unwrap();
            assert_eq!(place, Place::Bucket { cloud, bucket: "bucket".to_owned(), prefix: "some/prefix".to_owned() });
            assert_eq!(place.join("x").to_string(), format!("{url}://bucket/some/prefix/x"));
        } else {
            assert!(place.unwrap_err().to_string().contains("--features cloud"));
        }
    }
}
