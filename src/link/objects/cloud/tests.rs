use super::super::double::{Dialect, Double, Fault, KEY};
use super::super::tests::contract;
use super::*;

fn bucket(double: &Double, prefix: &str) -> Bucket {
    of_double(double, double.bucket(), prefix, KEY)
}

#[test]
fn a_bucket_keeps_the_contract_with_and_without_a_prefix() {
    let store: Arc<dyn ObjectStore> = Arc::new(object_store::memory::InMemory::new());
    let below = Bucket::over(Arc::clone(&store), Cloud::Amazon, "bucket", "some/prefix").unwrap();
    contract(&below);
    assert_eq!(below.list("a/").unwrap().len(), 1);
    let whole = Bucket::over(store, Cloud::Amazon, "bucket", "").unwrap();
    assert_eq!(whole.list("").unwrap().len(), below.list("").unwrap().len());
    assert_eq!(whole.get("some/prefix/b").unwrap(), below.get("b").unwrap());
    contract(&Bucket::over(Arc::new(object_store::memory::InMemory::new()), Cloud::Amazon, "bucket", "").unwrap());
}

#[test]
fn a_bucket_keeps_the_contract_over_http_in_each_language() {
    for dialect in Dialect::ALL {
        let double = Double::speaking(dialect, "bucket");
        contract(&bucket(&double, "some/prefix"));
        assert!(double.objects().keys().all(|name| name.starts_with("some/prefix/")), "nothing is written beside the prefix");
        let double = Double::speaking(dialect, "bucket");
        contract(&bucket(&double, ""));
        // Lists come in pages, names with signs that a URL has other uses for.
        let store = bucket(&double, "many");
        let names: Vec<String> = (0..10).map(|i| format!("partition-0/from={i:03}.a b+c.parquet")).collect();
        names.iter().for_each(|name| assert_eq!(store.put_new(name, name.as_bytes()).unwrap(), Put::Created));
        assert_eq!(store.list("partition-0/").unwrap().into_iter().map(|entry| entry.name).collect::<Vec<_>>(), names);
        assert_eq!(store.get(&names[7]).unwrap().unwrap(), names[7].as_bytes());
    }
}

#[test]
fn an_object_that_is_replaced_after_it_was_listed_is_not_read() {
    for dialect in Dialect::ALL {
        let double = Double::speaking(dialect, "bucket");
        let store = bucket(&double, "");
        store.put("x", b"first").unwrap();
        let listed = store.list("").unwrap().remove(0);
        assert_eq!(store.range(&listed, 1, 3).unwrap().unwrap(), b"irs");
        store.put("x", b"other").unwrap();
        assert_eq!(store.range(&listed, 1, 3).unwrap_err().kind, Kind::Retry, "{dialect:?}");
    }
}

#[test]
fn of_a_large_object_only_the_end_is_fetched() {
    for dialect in Dialect::ALL {
        let double = Double::speaking(dialect, "bucket");
        let store = bucket(&double, "");
        let bytes: Vec<u8> = (0..100_000_u32).map(|i| i as u8).collect();
        store.put("large", &bytes).unwrap();
        assert_eq!(store.tail("large", 10).unwrap().unwrap(), &bytes[99_990..]);
        let range = if dialect == Dialect::Azure { "bytes=99990-99999" } else { "bytes=-10" };
        assert_eq!(double.requests().last().unwrap(), &("GET".to_owned(), "large".to_owned(), Some(range.to_owned())));
    }
}

#[test]
fn a_create_whose_answer_was_lost_is_known_for_ones_own() {
    for (dialect, fault) in
        Dialect::ALL.into_iter().flat_map(|dialect| [Fault::Busy, Fault::DoneThenBusy, Fault::DoneThenGone].map(|fault| (dialect, fault)))
    {
        let double = Double::speaking(dialect, "bucket");
        let (one, other) = (bucket(&double, ""), bucket(&double, ""));
        double.fail("PUT", fault);
        assert_eq!(one.put_new("x", b"same").unwrap(), Put::Created, "{dialect:?} {fault:?}");
        assert_eq!(other.put_new("x", b"same").unwrap(), Put::Exists, "the other's, though of the same bytes");
        assert_eq!(one.put_new("x", b"same").unwrap(), Put::Exists, "and a second time it is not created");
        // What another client has put there bears no writer.
        double.put("y", b"");
        double.fail("PUT", fault);
        assert_eq!(one.put_new("y", b"mine").unwrap(), Put::Exists);
        assert_eq!(double.objects()["y"], b"");
    }
}

#[test]
fn faults_that_pass_are_waited_for() {
    for dialect in Dialect::ALL {
        let double = Double::speaking(dialect, "bucket");
        let store = bucket(&double, "");
        store.put("x", b"1").unwrap();
        for method in ["GET", "PUT", "POST", "DELETE"] {
            (0..2).for_each(|_| double.fail(method, Fault::Busy));
        }
        assert_eq!(store.get("x").unwrap().unwrap(), b"1");
        store.put("x", b"2").unwrap();
        store.delete("x").unwrap();
        assert_eq!(double.objects().len(), 0);
    }
}

#[test]
fn exactly_one_of_many_writers_creates_an_object() {
    for (round, dialect) in Dialect::ALL.into_iter().cycle().take(6).enumerate() {
        let double = Double::speaking(dialect, "bucket");
        let name = format!("from={round}");
        let created = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..6)
                .map(|id: u8| {
                    let (store, name) = (bucket(&double, "p"), &name);
                    scope.spawn(move || (store.put_new(name, &[id; 100]).unwrap() == Put::Created).then_some(id))
                })
                .collect();
            writers.into_iter().filter_map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(created.len(), 1);
        assert_eq!(double.objects()[&format!("p/{name}")], [created[0]; 100]);
    }
}

#[test]
fn what_is_wrong_with_the_settings_is_told_in_the_words_of_the_store() {
    for dialect in Dialect::ALL {
        let double = Double::speaking(dialect, "bucket");
        let stranger = of_double(&double, "bucket", "p", "somebody");
        let missing = of_double(&double, "nowhere", "p", KEY);
        let variable = match dialect {
            Dialect::S3 => "AWS_ACCESS_KEY_ID",
            Dialect::Google => "GOOGLE_APPLICATION_CREDENTIALS",
            Dialect::Azure => "AZURE_STORAGE_ACCOUNT_KEY",
        };
        type Call = fn(&Bucket) -> Result<()>;
        let calls: [Call; 5] = [
            |bucket| bucket.put_new("x", b"").map(drop),
            |bucket| bucket.put("x", b"").map(drop),
            |bucket| bucket.list("").map(drop),
            |bucket| bucket.get("x").map(drop),
            |bucket| bucket.tail("x", 8).map(drop),
        ];
        for (i, call) in calls.into_iter().enumerate() {
            // Of Azure the length is asked for first, whose answer has no text.
            let told = i < 4 || dialect != Dialect::Azure;
            let error = call(&stranger).unwrap_err();
            assert_eq!(error.kind, Kind::Config);
            let text = error.to_string();
            assert!(!told || text.contains(dialect.stranger()), "{text}");
            assert!(text.contains(variable) && text.contains(&format!("{}://bucket/p", dialect.scheme())), "{text}");
            if !told {
                assert!(call(&missing).is_ok(), "as if the object were not there");
                continue;
            }
            let error = call(&missing).unwrap_err();
            assert_eq!(error.kind, Kind::Config);
            let text = error.to_string();
            assert!(text.contains(dialect.no_bucket()) && text.contains("make the bucket"), "{text}");
            assert!(text.contains(&format!("{}://nowhere/p", dialect.scheme())), "{text}");
        }
    }
}
