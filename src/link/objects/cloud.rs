//! Objects in a bucket: S3 and stores that speak its language.
//!
//! The client is asynchronous; it runs on a thread of its own, and callers wait for it. It repeats what may succeed by itself, for
//! three minutes at most.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectStore, PutMode, PutOptions, PutPayload};
use tokio::runtime::Runtime;

use super::{Entry, Objects, Put, check_name};
use crate::base::error::{Error, Kind, Result};

/// Objects below a prefix of a bucket.
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    bucket: String,
    prefix: String,
    runtime: Runtime,
}

impl Bucket {
    /// Prepares the client; nothing is sent yet. Credentials, region and endpoint come from the `AWS_` variables, as other tools read
    /// them: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP`.
    ///
    /// # Errors
    /// A variable cannot be read, or the client's thread cannot be started.
    pub fn open(bucket: &str, prefix: &str) -> Result<Self> {
        let place = format!("s3://{bucket}/{prefix}");
        let builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_conditional_put(S3ConditionalPut::ETagMatch);
        let store = builder.build().map_err(|e| {
            Error::config("objects", e.to_string())
                .at(place.clone())
                .help("look at AWS_REGION, AWS_ENDPOINT_URL and the other AWS_ variables")
                .caused_by(e)
        })?;
        Self::over(Arc::new(store), bucket, prefix)
    }

    /// Any store of the library, with a thread of its own for it.
    fn over(store: Arc<dyn ObjectStore>, bucket: &str, prefix: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("objects").enable_all().build();
        let runtime = runtime.map_err(|e| Error::internal("objects", format!("the client's thread cannot be started: {e}")))?;
        Ok(Bucket { store, bucket: bucket.to_owned(), prefix: prefix.to_owned(), runtime })
    }

    fn key(&self, name: &str) -> Result<Key> {
        check_name(name)?;
        let whole = if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) };
        Key::parse(&whole).map_err(|e| Error::internal("objects", format!("`{name}` is not the name of an object: {e}")))
    }

    /// Runs a request on the client's thread and waits for its end.
    fn wait<T: Send + 'static>(
        &self,
        name: &str,
        request: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<Option<T>> {
        let (answer, answered) = crossbeam_channel::bounded(1);
        self.runtime.spawn(async move {
            // Nobody listens any more if the caller's thread has gone.
            let _ = answer.send(request.await);
        });
        match answered.recv() {
            Ok(Ok(value)) => Ok(Some(value)),
            Ok(Err(object_store::Error::NotFound { .. })) => Ok(None),
            Ok(Err(error)) => Err(self.fault(name, error)),
            Err(_) => Err(Error::internal("objects", "the client of the object store has ended")),
        }
    }

    fn put_as(&self, name: &str, bytes: Vec<u8>, mode: PutMode) -> Result<Put> {
        let (store, key) = (Arc::clone(&self.store), self.key(name)?);
        let put = self.wait(name, async move {
            match store.put_opts(&key, PutPayload::from(bytes), PutOptions::from(mode)).await {
                Ok(_) => Ok(Put::Created),
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(Put::Exists),
                Err(error) => Err(error),
            }
        })?;
        put.ok_or_else(|| Error::config("objects", "there is no such bucket").at(self.to_string()).help("make it, or name another one"))
    }

    fn fault(&self, name: &str, error: object_store::Error) -> Error {
        use object_store::Error as E;
        let (kind, help) = match &error {
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
                (Kind::Config, "look at the AWS_ variables, and at what their user may do in this bucket")
            }
            E::NotSupported { .. } | E::NotImplemented { .. } => {
                (Kind::Config, "the store must have conditional puts (If-None-Match), as S3, MinIO, R2 and Ceph do")
            }
            _ => (Kind::Unavailable, "look at the network and the store's endpoint (AWS_ENDPOINT_URL)"),
        };
        Error::new(kind, "objects", error.to_string()).at(format!("{self}/{name}")).help(help).caused_by(error)
    }
}

impl Objects for Bucket {
    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<Put> {
        self.put_as(name, bytes.to_vec(), PutMode::Create)
    }

    fn put_new_file(&self, file: &Path, name: &str) -> Result<Put> {
        let bytes = std::fs::read(file).map_err(|e| Error::io("objects", file, e))?;
        let put = self.put_as(name, bytes, PutMode::Create)?;
        if put == Put::Created {
            std::fs::remove_file(file).map_err(|e| Error::io("objects", file, e))?;
        }
        Ok(put)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.put_as(name, bytes.to_vec(), PutMode::Overwrite).map(|_| ())
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let (store, key) = (Arc::clone(&self.store), self.key(name)?);
        let bytes = self.wait(name, async move { store.get_opts(&key, GetOptions::default()).await?.bytes().await })?;
        Ok(bytes.map(Vec::from))
    }

    fn tail(&self, name: &str, most: usize) -> Result<Option<Vec<u8>>> {
        let (store, key) = (Arc::clone(&self.store), self.key(name)?);
        let range = GetRange::Suffix(u64::try_from(most).unwrap_or(u64::MAX));
        let bytes = self.wait(name, async move {
            let options = GetOptions { range: Some(range), ..GetOptions::default() };
            store.get_opts(&key, options).await?.bytes().await
        })?;
        Ok(bytes.map(Vec::from))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        let store = Arc::clone(&self.store);
        let whole = [self.prefix.as_str(), prefix.trim_end_matches('/')].into_iter().filter(|part| !part.is_empty());
        let whole = Key::from(whole.collect::<Vec<_>>().join("/"));
        let skip = if self.prefix.is_empty() { 0 } else { self.prefix.len() + 1 };
        let found = self.wait(prefix, async move {
            use futures_util::TryStreamExt;
            let mut objects = store.list(Some(&whole));
            let mut found = Vec::new();
            while let Some(object) = objects.try_next().await? {
                if let Some(name) = object.location.as_ref().get(skip..) {
                    found.push(Entry { name: name.to_owned(), bytes: object.size });
                }
            }
            Ok(found)
        })?;
        let mut found = found.unwrap_or_default();
        found.sort();
        Ok(found)
    }

    fn delete(&self, name: &str) -> Result<()> {
        use object_store::ObjectStoreExt;
        let (store, key) = (Arc::clone(&self.store), self.key(name)?);
        self.wait(name, async move { store.delete(&key).await }).map(|_| ())
    }
}

impl fmt::Debug for Bucket {
    /// Without the client, which holds credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("bucket", &self.bucket).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_keeps_the_contract_with_and_without_a_prefix() {
        let store: Arc<dyn ObjectStore> = Arc::new(object_store::memory::InMemory::new());
        let below = Bucket::over(Arc::clone(&store), "bucket", "some/prefix").unwrap();
        super::super::tests::contract(&below);
        assert_eq!(below.list("a/").unwrap().len(), 1);
        let whole = Bucket::over(store, "bucket", "").unwrap();
        assert_eq!(whole.list("").unwrap().len(), below.list("").unwrap().len());
        assert_eq!(whole.get("some/prefix/b").unwrap(), below.get("b").unwrap());
        super::super::tests::contract(&Bucket::over(Arc::new(object_store::memory::InMemory::new()), "bucket", "").unwrap());
    }
}
