//! Objects in a bucket: S3 and stores that speak its language, Google Cloud Storage, Azure Blob Storage.
//!
//! The client is asynchronous; it runs on a thread of its own, and callers wait for it. It repeats what may succeed by itself, for
//! three minutes at most.
//!
//! A create-if-absent is one request (`If-None-Match: *`; of Google `x-goog-if-generation-match: 0`), whole or not at all. If its answer is lost, or it was answered by a fault after it had been
//! done, the repeated request finds the name taken, by ourselves. So each attempt notes a number of its own in the object's metadata, and who finds
//! a name taken looks whose it is.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path as Key;
use object_store::{
    Attribute, Attributes, ClientConfigKey, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};
use tokio::runtime::Runtime;

use super::{Cloud, Entry, Objects, Put, check_name};
use crate::base::clock;
use crate::base::error::{Error, Kind, Result};

/// What one request may take, with everything that it sends or receives: a file of some hundred megabytes on a slow line.
const REQUEST: Duration = Duration::from_secs(900);
/// Most bytes that each of the stores takes in one request: Azure 5,000 MiB, the others more.
const MOST: u64 = 5_000 << 20;
/// Attempts at a create-if-absent whose outcome is not known, and time after which there is none more.
const ATTEMPTS: u32 = 4;
const ENOUGH: Duration = Duration::from_secs(60);

/// Objects below a prefix of a bucket.
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    cloud: Cloud,
    bucket: String,
    prefix: String,
    runtime: Runtime,
}

impl Bucket {
    /// Prepares the client; nothing is sent yet. Credentials, region and endpoint come from the variables that other tools read as well: `AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`; `GOOGLE_APPLICATION_CREDENTIALS`, `GOOGLE_SERVICE_ACCOUNT`;
    /// `AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCOUNT_KEY`.
    ///
    /// # Errors
    /// A variable is missing or cannot be read, or the client's thread cannot be started.
    pub fn open(cloud: Cloud, bucket: &str, prefix: &str) -> Result<Self> {
        let own = format!("{}TIMEOUT", cloud.variables());
        // Nobody has set another.
        let timeout = std::env::var_os(own).is_none().then(|| (ClientConfigKey::Timeout, format!("{} s", REQUEST.as_secs())));
        let builder = match cloud {
            Cloud::Amazon => {
                let builder = AmazonS3Builder::from_env();
                Builder::Amazon(timeout.into_iter().fold(builder, |b, (key, time)| b.with_config(AmazonS3ConfigKey::Client(key), time)))
            }
            Cloud::Google => {
                let builder = GoogleCloudStorageBuilder::from_env();
                Builder::Google(timeout.into_iter().fold(builder, |b, (key, time)| b.with_config(GoogleConfigKey::Client(key), time)))
            }
            Cloud::Azure => {
                let builder = MicrosoftAzureBuilder::from_env();
                Builder::Azure(timeout.into_iter().fold(builder, |b, (key, time)| b.with_config(AzureConfigKey::Client(key), time)))
            }
        };
        Self::built(builder, bucket, prefix)
    }

    fn built(builder: Builder, bucket: &str, prefix: &str) -> Result<Self> {
        let cloud = builder.cloud();
        let store = builder.build(bucket).map_err(|e| {
            Error::config("objects", e.to_string())
                .at(format!("{}://{bucket}/{prefix}", cloud.scheme()))
                .help(format!("look at {}", cloud.settings()))
                .caused_by(e)
        })?;
        Self::over(store, cloud, bucket, prefix)
    }

    /// Any store of the library, with a thread of its own for it.
    fn over(store: Arc<dyn ObjectStore>, cloud: Cloud, bucket: &str, prefix: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("objects").enable_all().build();
        let runtime = runtime.map_err(|e| Error::internal("objects", format!("the client's thread cannot be started: {e}")))?;
        Ok(Bucket { store, cloud, bucket: bucket.to_owned(), prefix: prefix.to_owned(), runtime })
    }

    fn key(&self, name: &str) -> Result<Key> {
        check_name(name)?;
        let whole = if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) };
        Key::parse(&whole).map_err(|e| Error::internal("objects", format!("`{name}` is not the name of an object: {e}")))
    }

    /// Runs a request on the client's thread and waits for its end.
    fn ask<T: Send + 'static>(
        &self,
        request: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<object_store::Result<T>> {
        let (answer, answered) = crossbeam_channel::bounded(1);
        self.runtime.spawn(async move {
            // Nobody listens any more if the caller's thread has gone.
            let _ = answer.send(request.await);
        });
        answered.recv().map_err(|_| Error::internal("objects", "the client of the object store has ended"))
    }

    /// As `ask`; `None` for an object that is absent.
    fn wait<T: Send + 'static>(
        &self,
        name: &str,
        request: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<Option<T>> {
        let answer = self.ask(request)?;
        self.told(name, answer)
    }

    fn told<T>(&self, name: &str, answer: object_store::Result<T>) -> Result<Option<T>> {
        match answer {
            Ok(value) => Ok(Some(value)),
            Err(error @ object_store::Error::NotFound { .. }) if is_missing(&error.to_string()) => Err(self.fault("", error)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.fault(name, error)),
        }
    }

    /// Creates an object if there is none. What is not known to have happened is looked up.
    fn create(&self, name: &str, bytes: Vec<u8>) -> Result<Put> {
        use object_store::Error as E;
        let most = usize::try_from(MOST).unwrap_or(usize::MAX);
        if bytes.len() > most {
            return Err(Error::config("objects", format!("an object of {} bytes is more than one request may carry", bytes.len()))
                .at(format!("{self}/{name}"))
                .help("write smaller files: --rows-per-file of a backfill, `roll_size` of a live run"));
        }
        let (payload, own) = (PutPayload::from(bytes), attempt());
        let mut attributes = Attributes::new();
        attributes.insert(Attribute::Metadata(self.cloud.writer().into()), own.clone().into());
        let started = clock::tick();
        let mut attempts = 0..ATTEMPTS;
        loop {
            let again = attempts.next().is_some() && started.elapsed() < ENOUGH;
            let (store, key, payload) = (Arc::clone(&self.store), self.key(name)?, payload.clone());
            let options = PutOptions { mode: PutMode::Create, attributes: attributes.clone(), ..PutOptions::default() };
            let unknown = match self.ask(async move { store.put_opts(&key, payload, options).await })? {
                Ok(_) => return Ok(Put::Created),
                // Taken; or two requests at once, of which neither has won yet.
                Err(error @ (E::AlreadyExists { .. } | E::Precondition { .. })) => error,
                // The answer was lost on its way. What the client has repeated for long enough itself is not repeated again.
                Err(error @ E::Generic { .. }) if again => error,
                Err(error) => return Err(self.fault(name, error)),
            };
            match self.writer(name)? {
                Some(writer) => return Ok(if writer == own { Put::Created } else { Put::Exists }),
                None if again => {}
                None => return Err(self.fault(name, unknown)),
            }
        }
    }

    /// Who made an object: empty if it was not one of us. `None` if there is none.
    fn writer(&self, name: &str) -> Result<Option<String>> {
        let (store, key) = (Arc::clone(&self.store), self.key(name)?);
        let found = self.wait(name, async move { store.get_opts(&key, GetOptions::new().with_head(true)).await })?;
        Ok(found.map(|found| {
            found.attributes.get(&Attribute::Metadata(self.cloud.writer().into())).map(|value| value.to_string()).unwrap_or_default()
        }))
    }

    /// The end of an object, of a store that has to be asked for its length first.
    fn end(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let (store, key) = (Arc::clone(&self.store), self.key(name)?);
        let bytes = self.wait(name, async move {
            let found = store.get_opts(&key, GetOptions::new().with_head(true)).await?.meta;
            if found.size == 0 {
                return Ok(Vec::new());
            }
            let range = Some(GetRange::Bounded(found.size.saturating_sub(most)..found.size));
            let options = GetOptions { range, if_match: found.e_tag, ..GetOptions::default() };
            Ok(store.get_opts(&key, options).await?.bytes().await?.into())
        })?;
        Ok(bytes)
    }

    fn fault(&self, name: &str, error: object_store::Error) -> Error {
        use object_store::Error as E;
        let text = error.to_string();
        let (kind, help) = match &error {
            _ if is_missing(&text) => (Kind::Config, "make the bucket, or name another one".to_owned()),
            // Of lists the library does not say that they were refused.
            _ if REFUSED.iter().any(|words| text.contains(words))
                || matches!(error, E::PermissionDenied { .. } | E::Unauthenticated { .. }) =>
            {
                (Kind::Config, format!("look at {}, and at what their user may do in this bucket", self.cloud.credentials()))
            }
            E::NotSupported { .. } | E::NotImplemented { .. } => (Kind::Config, CONDITIONAL.to_owned()),
            _ if text.contains("NotImplemented") => (Kind::Config, CONDITIONAL.to_owned()),
            // Where an instance of a cloud would be asked who it is.
            _ if METADATA.iter().any(|host| text.contains(host)) => {
                (Kind::Config, format!("there are no credentials: set {}", self.cloud.credentials()))
            }
            _ => (Kind::Unavailable, format!("look at the network and the store's endpoint ({})", self.cloud.endpoint())),
        };
        let said = said(&text).unwrap_or(text);
        let place = if name.is_empty() { self.to_string() } else { format!("{self}/{name}") };
        Error { source: None, ..Error::new(kind, "objects", said).at(place).help(help) }
    }
}

/// How the client tells that the store does not let it in.
const REFUSED: [&str; 2] = ["401 Unauthorized", "403 Forbidden"];
/// Who tells a machine of a cloud its credentials.
const METADATA: [&str; 2] = ["169.254.169.254", "metadata.google.internal"];
const CONDITIONAL: &str = "the store must have conditional puts (If-None-Match), as S3, MinIO, R2, Ceph, Google and Azure do";

/// Whether the store says that there is no such bucket.
fn is_missing(text: &str) -> bool {
    ["NoSuchBucket", "ContainerNotFound"].iter().any(|code| text.contains(code))
}

/// A client that is being set up.
enum Builder {
    Amazon(AmazonS3Builder),
    Google(GoogleCloudStorageBuilder),
    Azure(MicrosoftAzureBuilder),
}

impl Builder {
    fn cloud(&self) -> Cloud {
        match self {
            Builder::Amazon(_) => Cloud::Amazon,
            Builder::Google(_) => Cloud::Google,
            Builder::Azure(_) => Cloud::Azure,
        }
    }

    fn build(self, bucket: &str) -> object_store::Result<Arc<dyn ObjectStore>> {
        Ok(match self {
            Builder::Amazon(builder) => {
                Arc::new(builder.with_bucket_name(bucket).with_conditional_put(S3ConditionalPut::ETagMatch).build()?)
            }
            Builder::Google(builder) => Arc::new(builder.with_bucket_name(bucket).build()?),
            Builder::Azure(builder) => Arc::new(builder.with_container_name(bucket).build()?),
        })
    }
}

impl Cloud {
    /// How the names of its variables begin.
    fn variables(self) -> &'static str {
        match self {
            Cloud::Amazon => "AWS_",
            Cloud::Google => "GOOGLE_",
            Cloud::Azure => "AZURE_",
        }
    }

    fn settings(self) -> &'static str {
        match self {
            Cloud::Amazon => "AWS_REGION, AWS_ENDPOINT_URL and the other AWS_ variables",
            Cloud::Google => "GOOGLE_APPLICATION_CREDENTIALS and the other GOOGLE_ variables",
            Cloud::Azure => "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY and the other AZURE_ variables",
        }
    }

    fn credentials(self) -> &'static str {
        match self {
            Cloud::Amazon => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            Cloud::Google => "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT",
            Cloud::Azure => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
        }
    }

    fn endpoint(self) -> &'static str {
        match self {
            Cloud::Amazon => "AWS_ENDPOINT_URL",
            Cloud::Google => "GOOGLE_BASE_URL",
            Cloud::Azure => "AZURE_STORAGE_ENDPOINT",
        }
    }

    /// Name of the metadata that tells who made an object. Azure takes names of programs only.
    fn writer(self) -> &'static str {
        if self == Cloud::Azure { "meantime_writer" } else { "meantime-writer" }
    }

    /// A version in a list as requests name it: lists of Azure leave out its quotes.
    fn quoted(self, version: String) -> String {
        if self != Cloud::Azure || version.ends_with('"') { version } else { format!("\"{version}\"") }
    }
}

/// What the store itself says in the text of an error: code and message of its XML.
fn said(text: &str) -> Option<String> {
    let between = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        rest.split_once(&format!("</{tag}>")).map(|(inner, _)| inner.to_owned())
    };
    let (code, message) = (between("Code")?, between("Message").unwrap_or_default());
    Some(if message.is_empty() { format!("the store says {code}") } else { format!("the store says {code}: {message}") })
}

/// A text that no other attempt of any process has.
fn attempt() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // The keys of a hash map come from the operating system's random numbers.
    format!("{:016x}{:016x}", RandomState::new().hash_one(count), RandomState::new().hash_one(std::process::id()))
}

impl Objects for Bucket {
    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<Put> {
        self.create(name, bytes.to_vec())
    }

    fn put_new_file(&self, file: &File, name: &str) -> Result<Put> {
        self.create(name, super::content(file)?)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (store, key, payload) = (Arc::clone(&self.store), self.key(name)?, PutPayload::from(bytes.to_vec()));
        let put = self.wait(name, async move { store.put_opts(&key, payload, PutOptions::from(PutMode::Overwrite)).await })?;
        put.map(|_| ()).ok_or_else(|| Error::new(Kind::Unavailable, "objects", "the store does not take the object").at(self.to_string()))
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let (store, key) = (Arc::clone(&self.store), self.key(name)?);
        let bytes = self.wait(name, async move { store.get_opts(&key, GetOptions::default()).await?.bytes().await })?;
        Ok(bytes.map(Vec::from))
    }

    fn tail(&self, name: &str, most: usize) -> Result<Option<Vec<u8>>> {
        let (store, key) = (Arc::clone(&self.store), self.key(name)?);
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        if self.cloud == Cloud::Azure {
            return self.end(name, most);
        }
        let range = GetRange::Suffix(most);
        let asked = self.ask(async move {
            let options = GetOptions { range: Some(range), ..GetOptions::default() };
            store.get_opts(&key, options).await?.bytes().await
        })?;
        match asked {
            // An empty object has no end that could be asked for.
            Err(error) if error.to_string().contains("InvalidRange") => Ok(Some(Vec::new())),
            asked => Ok(self.told(name, asked)?.map(Vec::from)),
        }
    }

    fn range(&self, entry: &Entry, from: u64, length: usize) -> Result<Option<Vec<u8>>> {
        let (store, key) = (Arc::clone(&self.store), self.key(&entry.name)?);
        let end = from.saturating_add(u64::try_from(length).unwrap_or(u64::MAX)).min(entry.bytes);
        if from >= end {
            return Ok(Some(Vec::new()));
        }
        let options = GetOptions { range: Some(GetRange::Bounded(from..end)), if_match: entry.version.clone(), ..GetOptions::default() };
        let asked = self.ask(async move { store.get_opts(&key, options).await?.bytes().await })?;
        match asked {
            Err(object_store::Error::Precondition { .. }) => {
                Err(Error::new(Kind::Retry, "objects", "the object has been replaced since it was listed")
                    .at(format!("{self}/{}", entry.name))
                    .help("begin again when nobody writes there any more"))
            }
            asked => Ok(self.told(&entry.name, asked)?.map(Vec::from)),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        let (store, cloud) = (Arc::clone(&self.store), self.cloud);
        let whole = [self.prefix.as_str(), prefix.trim_end_matches('/')].into_iter().filter(|part| !part.is_empty());
        let whole = Key::from(whole.collect::<Vec<_>>().join("/"));
        let skip = if self.prefix.is_empty() { 0 } else { self.prefix.len() + 1 };
        let found = self.wait(prefix, async move {
            use futures_util::TryStreamExt;
            let mut objects = store.list(Some(&whole));
            let mut found = Vec::new();
            while let Some(object) = objects.try_next().await? {
                if let Some(name) = object.location.as_ref().get(skip..) {
                    found.push(Entry {
                        name: name.to_owned(),
                        bytes: object.size,
                        version: object.e_tag.map(|version| cloud.quoted(version)),
                    });
                }
            }
            Ok(found)
        })?;
        let mut found = found.unwrap_or_default();
        found.sort();
        Ok(found)
    }

    fn delete(&self, name: &str) -> Result<()> {
        let (store, key) = (Arc::clone(&self.store), self.key(name)?);
        self.wait(name, async move { store.delete(&key).await }).map(|_| ())
    }

    /// The store copies it itself: nothing of it passes through this machine.
    fn rename(&self, from: &str, to: &str) -> Result<bool> {
        let (store, source, target) = (Arc::clone(&self.store), self.key(from)?, self.key(to)?);
        let copied = self.wait(from, async move { store.copy(&source, &target).await })?;
        copied.map_or(Ok(false), |()| self.delete(from).map(|()| true))
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
        let separator = if self.prefix.is_empty() { "" } else { "/" };
        write!(f, "{}://{}{separator}{}", self.cloud.scheme(), self.bucket, self.prefix)
    }
}

/// A bucket of the store that tests start.
#[cfg(test)]
pub fn of_double(double: &super::double::Double, bucket: &str, prefix: &str, key: &str) -> Bucket {
    use super::double::Dialect;
    use object_store::StaticCredentialProvider;
    let endpoint = double.endpoint.clone();
    let builder = match double.dialect {
        Dialect::S3 => {
            let builder = AmazonS3Builder::new().with_endpoint(endpoint).with_allow_http(true).with_region("us-east-1");
            Builder::Amazon(builder.with_access_key_id(key).with_secret_access_key("secret"))
        }
        Dialect::Google => {
            let token = object_store::gcp::GcpCredential { bearer: key.to_owned() };
            let builder =
                GoogleCloudStorageBuilder::new().with_base_url(&endpoint).with_credentials(Arc::new(StaticCredentialProvider::new(token)));
            Builder::Google(builder.with_config(GoogleConfigKey::Client(ClientConfigKey::AllowHttp), "true"))
        }
        Dialect::Azure => {
            let builder = MicrosoftAzureBuilder::new().with_endpoint(endpoint).with_allow_http(true);
            Builder::Azure(builder.with_account(key).with_access_key("c2VjcmV0"))
        }
    };
    Bucket::built(builder, bucket, prefix).unwrap()
}

#[cfg(test)]
mod tests;
