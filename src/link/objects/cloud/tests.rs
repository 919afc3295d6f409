use super::super::s3::{Fault, KEY, S3};
use super::super::tests::contract;
use super::*;

fn bucket(s3: &S3, prefix: &str) -> Bucket {
    of_double(s3, s3.bucket(), prefix, KEY)
}

#[test]
fn a_bucket_keeps_the_contract_with_and_without_a_prefix() {
    let store: Arc<dyn ObjectStore> = Arc::new(object_store::memory::InMemory::new());
    let below = Bucket::over(Arc::clone(&store), "bucket", "some/prefix").unwrap();
    contract(&below);
    assert_eq!(below.list("a/").unwrap().len(), 1);
    let whole = Bucket::over(store, "bucket", "").unwrap();
    assert_eq!(whole.list("").unwrap().len(), below.list("").unwrap().len());
    assert_eq!(whole.get("some/prefix/b").unwrap(), below.get("b").unwrap());
    contract(&Bucket::over(Arc::new(object_store::memory::InMemory::new()), "bucket", "").unwrap());
}

#[test]
fn a_bucket_keeps_the_contract_over_http() {
    let s3 = S3::start("bucket");
    contract(&bucket(&s3, "some/prefix"));
    assert!(s3.objects().keys().all(|name| name.starts_with("some/prefix/")), "nothing is written beside the prefix");
    let s3 = S3::start("bucket");
    contract(&bucket(&s3, ""));
    // Lists come in pages, names with signs that a URL has other uses for.
    let store = bucket(&s3, "many");
    let names: Vec<String> = (0..10).map(|i| format!("partition-0/from={i:03}.a b+c.parquet")).collect();
    names.iter().for_each(|name| assert_eq!(store.put_new(name, name.as_bytes()).unwrap(), Put::Created));
    assert_eq!(store.list("partition-0/").unwrap().into_iter().map(|entry| entry.name).collect::<Vec<_>>(), names);
    assert_eq!(store.get(&names[7]).unwrap().unwrap(), names[7].as_bytes());
}

#[test]
fn of_a_large_object_only_the_end_is_fetched() {
    let s3 = S3::start("bucket");
    let store = bucket(&s3, "");
    let bytes: Vec<u8> = (0..100_000_u32).map(|i| i as u8).collect();
    store.put("large", &bytes).unwrap();
    assert_eq!(store.tail("large", 10).unwrap().unwrap(), &bytes[99_990..]);
    assert_eq!(s3.requests().last().unwrap(), &("GET".to_owned(), "large".to_owned(), Some("bytes=-10".to_owned())));
}

#[test]
fn a_create_whose_answer_was_lost_is_known_for_ones_own() {
    for fault in [Fault::Busy, Fault::DoneThenBusy, Fault::DoneThenGone] {
        let s3 = S3::start("bucket");
        let (one, other) = (bucket(&s3, ""), bucket(&s3, ""));
        s3.fail("PUT", fault);
        assert_eq!(one.put_new("x", b"same").unwrap(), Put::Created, "{fault:?}");
        assert_eq!(other.put_new("x", b"same").unwrap(), Put::Exists, "the other's, though of the same bytes");
        assert_eq!(one.put_new("x", b"same").unwrap(), Put::Exists, "and a second time it is not created");
        // What another client has put there bears no writer.
        s3.put("y", b"");
        s3.fail("PUT", fault);
        assert_eq!(one.put_new("y", b"mine").unwrap(), Put::Exists);
        assert_eq!(s3.objects()["y"], b"");
    }
}

#[test]
fn faults_that_pass_are_waited_for() {
    let s3 = S3::start("bucket");
    let store = bucket(&s3, "");
    store.put("x", b"1").unwrap();
    for method in ["GET", "PUT", "POST"] {
        (0..2).for_each(|_| s3.fail(method, Fault::Busy));
    }
    assert_eq!(store.get("x").unwrap().unwrap(), b"1");
    store.put("x", b"2").unwrap();
    store.delete("x").unwrap();
    assert_eq!(s3.objects().len(), 0);
}

#[test]
fn exactly_one_of_many_writers_creates_an_object() {
    let s3 = S3::start("bucket");
    for round in 0..5 {
        let name = format!("from={round}");
        let created = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..6)
                .map(|id: u8| {
                    let (store, name) = (bucket(&s3, "p"), &name);
                    scope.spawn(move || (store.put_new(name, &[id; 100]).unwrap() == Put::Created).then_some(id))
                })
                .collect();
            writers.into_iter().filter_map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(created.len(), 1);
        assert_eq!(s3.objects()[&format!("p/{name}")], [created[0]; 100]);
    }
}

#[test]
fn what_is_wrong_with_the_settings_is_told_in_the_words_of_the_store() {
    let s3 = S3::start("bucket");
    let stranger = of_double(&s3, "bucket", "p", "somebody");
    let missing = of_double(&s3, "nowhere", "p", KEY);
    type Call = fn(&Bucket) -> Result<()>;
    let calls: [Call; 5] = [
        |bucket| bucket.put_new("x", b"").map(drop),
        |bucket| bucket.put("x", b"").map(drop),
        |bucket| bucket.list("").map(drop),
        |bucket| bucket.get("x").map(drop),
        |bucket| bucket.tail("x", 8).map(drop),
    ];
    for call in calls {
        let error = call(&stranger).unwrap_err();
        assert_eq!(error.kind, Kind::Config);
        let text = error.to_string();
        assert!(text.contains("InvalidAccessKeyId") && text.contains("AWS_ACCESS_KEY_ID") && text.contains("s3://bucket/p"), "{text}");
        let error = call(&missing).unwrap_err();
        assert_eq!(error.kind, Kind::Config);
        let text = error.to_string();
        assert!(text.contains("NoSuchBucket") && text.contains("make the bucket") && text.contains("s3://nowhere/p"), "{text}");
    }
}
