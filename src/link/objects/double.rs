//! A small object store on a port of this machine, for tests: real HTTP, real conditional puts, and faults on demand. Nothing but the standard library.
//!
//! It holds one bucket, and speaks as S3, as Google's store (its XML interface) or as Azure's: PUT, also only if there is none and as a copy, GET and HEAD, also ranges,
//! LIST in pages, and DELETE of one or many; anything else is answered by 501. Who names another key than `KEY` is refused, whoever names another
//! bucket is told so.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The key that is let in.
pub const KEY: &str = "test-key";
/// Objects of one page of a list: few, so that lists have several.
const PAGE: usize = 3;

/// Whose language it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Amazon's, and of many others.
    S3,
    /// Google's.
    Google,
    /// Microsoft's.
    Azure,
}

impl Dialect {
    /// All.
    pub const ALL: [Dialect; 3] = [Dialect::S3, Dialect::Google, Dialect::Azure];

    /// How its URLs begin.
    pub fn scheme(self) -> &'static str {
        match self {
            Dialect::S3 => "s3",
            Dialect::Google => "gs",
            Dialect::Azure => "az",
        }
    }

    /// What it says to somebody it does not know.
    pub fn stranger(self) -> &'static str {
        match self {
            Dialect::S3 => "InvalidAccessKeyId",
            Dialect::Google => "AccessDenied",
            Dialect::Azure => "AuthenticationFailed",
        }
    }

    /// What it says of a bucket that is not there.
    pub fn no_bucket(self) -> &'static str {
        match self {
            Dialect::S3 | Dialect::Google => "NoSuchBucket",
            Dialect::Azure => "ContainerNotFound",
        }
    }

    fn lets_in(self, headers: &BTreeMap<String, String>) -> bool {
        let said = headers.get("authorization").map(String::as_str).unwrap_or_default();
        match self {
            Dialect::S3 => said.contains(&format!("Credential={KEY}/")),
            // As emulators do: also without a token.
            Dialect::Google => matches!(said, "" | "Bearer") || said == format!("Bearer {KEY}"),
            Dialect::Azure => said.starts_with(&format!("SharedKey {KEY}:")),
        }
    }

    /// Whether a PUT is to replace nothing.
    fn creates(self, headers: &BTreeMap<String, String>) -> bool {
        let (name, value) = if self == Dialect::Google { ("x-goog-if-generation-match", "0") } else { ("if-none-match", "*") };
        headers.get(name).is_some_and(|found| found == value)
    }

    /// What is said to it if there is something.
    fn taken(self) -> Answer {
        if self == Dialect::Azure { Answer::error(409, "BlobAlreadyExists") } else { Answer::error(412, "PreconditionFailed") }
    }

    fn metadata(self) -> &'static str {
        match self {
            Dialect::S3 => "x-amz-meta-",
            Dialect::Google => "x-goog-meta-",
            Dialect::Azure => "x-ms-meta-",
        }
    }
}

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not done; the answer is 503.
    Busy,
    /// It is done, and yet the answer is 503.
    DoneThenBusy,
    /// It is done, and the connection closed without an answer.
    DoneThenGone,
}

#[derive(Clone, Debug, Default)]
struct Object {
    bytes: Vec<u8>,
    metadata: Vec<(String, String)>,
    version: u64,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Object>,
    versions: u64,
    /// Faults of the next requests of a method.
    faults: VecDeque<(String, Fault)>,
    /// Method, key or query, and range of each request.
    requests: Vec<(String, String, Option<String>)>,
}

/// The store. It ends when dropped.
pub struct Double {
    /// `http://127.0.0.1:port`.
    pub endpoint: String,
    /// Whose language it speaks.
    pub dialect: Dialect,
    bucket: String,
    state: Arc<Mutex<State>>,
    ending: Arc<AtomicBool>,
}

impl Double {
    /// Starts with one empty bucket, as S3.
    pub fn start(bucket: &str) -> Double {
        Self::speaking(Dialect::S3, bucket)
    }

    /// Starts with one empty bucket.
    pub fn speaking(dialect: Dialect, bucket: &str) -> Double {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (state, ending) = (Arc::<Mutex<State>>::default(), Arc::<AtomicBool>::default());
        let (own, stop, name) = (Arc::clone(&state), Arc::clone(&ending), bucket.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                let (state, bucket) = (Arc::clone(&own), name.clone());
                if let Ok(stream) = stream {
                    std::thread::spawn(move || serve(stream, &state, (dialect, &bucket)));
                }
            }
        });
        Double { endpoint, dialect, bucket: bucket.to_owned(), state, ending }
    }

    /// The variables that lead a client here.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let endpoint = self.endpoint.clone();
        match self.dialect {
            Dialect::S3 => vec![
                ("AWS_ENDPOINT_URL", endpoint),
                ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
                ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
                ("AWS_REGION", "us-east-1".to_owned()),
                ("AWS_ALLOW_HTTP", "true".to_owned()),
            ],
            Dialect::Google => {
                let account = r#"{"client_email":"","private_key":"","private_key_id":"","disable_oauth":true}"#;
                vec![
                    ("GOOGLE_BASE_URL", endpoint),
                    ("GOOGLE_SERVICE_ACCOUNT_KEY", account.to_owned()),
                    ("GOOGLE_ALLOW_HTTP", "true".to_owned()),
                ]
            }
            Dialect::Azure => vec![
                ("AZURE_STORAGE_ENDPOINT", endpoint),
                ("AZURE_STORAGE_ACCOUNT_NAME", KEY.to_owned()),
                ("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0".to_owned()),
                ("AZURE_ALLOW_HTTP", "true".to_owned()),
            ],
        }
    }

    /// Lets the next request of a method go wrong; several are taken in turn.
    pub fn fail(&self, method: &str, fault: Fault) {
        lock(&self.state).faults.push_back((method.to_owned(), fault));
    }

    /// All objects by name.
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        lock(&self.state).objects.iter().map(|(name, object)| (name.clone(), object.bytes.clone())).collect()
    }

    /// Puts an object as another client would.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut state = lock(&self.state);
        state.versions += 1;
        let version = state.versions;
        state.objects.insert(name.to_owned(), Object { bytes: bytes.to_vec(), metadata: Vec::new(), version });
    }

    /// Removes an object.
    pub fn remove(&self, name: &str) {
        lock(&self.state).objects.remove(name);
    }

    /// Requests so far: method, key or query, range.
    pub fn requests(&self) -> Vec<(String, String, Option<String>)> {
        lock(&self.state).requests.clone()
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        // Wakes the thread that waits for a client.
        let _ = TcpStream::connect(self.endpoint.trim_start_matches("http://"));
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer { status, headers: Vec::new(), body: body.into() }
    }

    fn error(status: u16, code: &str) -> Answer {
        Answer::new(status, format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>it is {code}</Message></Error>"))
    }
}

/// Answers the requests of one connection until it is closed.
fn serve(stream: TcpStream, state: &Mutex<State>, (dialect, bucket): (Dialect, &str)) {
    let Ok(reading) = stream.try_clone() else { return };
    let (mut reader, mut stream) = (BufReader::new(reading), stream);
    while let Some(request) = read(&mut reader) {
        let fault = {
            let mut state = lock(state);
            let at = state.faults.iter().position(|(method, _)| *method == request.method);
            at.and_then(|at| state.faults.remove(at)).map(|(_, fault)| fault)
        };
        let mut answer = if fault == Some(Fault::Busy) { Answer::error(503, "SlowDown") } else { answer(&request, state, dialect, bucket) };
        match fault {
            Some(Fault::DoneThenGone) => return,
            Some(Fault::DoneThenBusy) => answer = Answer::error(503, "SlowDown"),
            _ => {}
        }
        let mut head = format!("HTTP/1.1 {} X\r\n", answer.status);
        if !answer.headers.iter().any(|(name, _)| name == "content-length") {
            answer.headers.push(("content-length".to_owned(), answer.body.len().to_string()));
        }
        answer.headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        head += "\r\n";
        let body = if request.method == "HEAD" { &[][..] } else { &answer.body };
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let query = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(name, value)| (decoded(name), decoded(value))).collect();
    Some(Request { method, path: decoded(path), query, headers, body })
}

/// Percent signs and what follows them as bytes.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first == b'%'
            && let Some((hex, tail)) = tail.split_at_checked(2)
            && let Ok(byte) = u8::from_str_radix(&String::from_utf8_lossy(hex), 16)
        {
            bytes.push(byte);
            rest = tail;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn answer(request: &Request, state: &Mutex<State>, dialect: Dialect, bucket: &str) -> Answer {
    let mut state = lock(state);
    let (named, key) = request.path.trim_start_matches('/').split_once('/').unwrap_or((request.path.trim_start_matches('/'), ""));
    let what = if key.is_empty() { request.query.get("prefix").cloned().unwrap_or_default() } else { key.to_owned() };
    state.requests.push((request.method.clone(), what, request.headers.get("range").cloned()));
    if !dialect.lets_in(&request.headers) {
        return Answer::error(403, dialect.stranger());
    }
    if named != bucket {
        return Answer::error(404, dialect.no_bucket());
    }
    let asks = |name: &str, value: &str| request.query.get(name).is_some_and(|found| found == value);
    match request.method.as_str() {
        "PUT" if !key.is_empty() => put(request, &mut state, dialect, key),
        // Azure gives no ends of unknown length.
        "GET" if dialect == Dialect::Azure && request.headers.get("range").is_some_and(|range| range.starts_with("bytes=-")) => {
            Answer::error(400, "InvalidHeaderValue")
        }
        "GET" | "HEAD" if !key.is_empty() => get(request, &state, key),
        "GET" if dialect == Dialect::Azure && asks("comp", "list") => blobs(request, &state),
        "GET" if dialect != Dialect::Azure && asks("list-type", "2") => list(request, &state),
        "DELETE" if !key.is_empty() && dialect != Dialect::Azure => match state.objects.remove(key) {
            None if dialect == Dialect::Google => Answer::error(404, "NoSuchKey"),
            _ => Answer::new(204, ""),
        },
        "POST" if dialect == Dialect::S3 && request.query.contains_key("delete") => {
            let text = String::from_utf8_lossy(&request.body).into_owned();
            let keys: Vec<&str> = text.split("<Key>").skip(1).filter_map(|rest| Some(rest.split_once("</Key>")?.0)).collect();
            keys.iter().for_each(|key| drop(state.objects.remove(*key)));
            let deleted = keys.iter().map(|key| format!("<Deleted><Key>{key}</Key></Deleted>")).collect::<String>();
            Answer::new(200, format!("<DeleteResult>{deleted}</DeleteResult>"))
        }
        "POST" if dialect == Dialect::Azure && asks("comp", "batch") => {
            let text = String::from_utf8_lossy(&request.body).into_owned();
            let paths = text.lines().filter_map(|line| line.strip_prefix("DELETE /")?.strip_suffix(" HTTP/1.1"));
            let keys = paths.filter_map(|path| Some(decoded(path).split_once('/')?.1.to_owned()));
            let parts = keys.enumerate().map(|(id, key)| {
                let status = if state.objects.remove(&key).is_some() { "202 Accepted" } else { "404 BlobNotFound" };
                format!(
                    "--part\r\nContent-Type: application/http\r\nContent-ID: {id}\r\n\r\nHTTP/1.1 {status}\r\nx-ms-version: 1\r\n\r\n\r\n"
                )
            });
            let mut answer = Answer::new(202, parts.collect::<String>() + "--part--\r\n");
            answer.headers.push(("content-type".to_owned(), "multipart/mixed; boundary=part".to_owned()));
            answer
        }
        _ => Answer::error(501, "NotImplemented"),
    }
}

fn put(request: &Request, state: &mut State, dialect: Dialect, key: &str) -> Answer {
    if dialect.creates(&request.headers) && state.objects.contains_key(key) {
        return dialect.taken();
    }
    let source = ["x-amz-copy-source", "x-goog-copy-source", "x-ms-copy-source"].iter().find_map(|name| request.headers.get(*name));
    if let Some(source) = source {
        // A bucket and a key; of Azure an address, with the account before them.
        let source = decoded(source);
        let path = source.split_once("://").and_then(|(_, rest)| rest.splitn(3, '/').nth(2)).unwrap_or(&source);
        let key_from = path.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key);
        let Some(mut object) = state.objects.get(key_from).cloned() else { return Answer::error(404, "NoSuchKey") };
        state.versions += 1;
        object.version = state.versions;
        state.objects.insert(key.to_owned(), object);
        let version = state.versions;
        return Answer::new(200, format!("<CopyObjectResult><ETag>\"{version}\"</ETag></CopyObjectResult>"));
    }
    if dialect == Dialect::Azure && request.headers.get("x-ms-blob-type").is_none_or(|kind| kind != "BlockBlob") {
        return Answer::error(400, "MissingRequiredHeader");
    }
    state.versions += 1;
    let own = request.headers.iter().filter(|(name, _)| name.starts_with(dialect.metadata()));
    let metadata: Vec<_> = own.map(|(name, value)| (name.clone(), value.clone())).collect();
    // Azure takes names of programs only.
    if dialect == Dialect::Azure && metadata.iter().any(|(name, _)| name.trim_start_matches(dialect.metadata()).contains('-')) {
        return Answer::error(400, "InvalidMetadata");
    }
    let version = state.versions;
    state.objects.insert(key.to_owned(), Object { bytes: request.body.clone(), metadata, version });
    let mut answer = Answer::new(if dialect == Dialect::Azure { 201 } else { 200 }, "");
    answer.headers.push(("etag".to_owned(), format!("\"{version}\"")));
    // Google's.
    answer.headers.push(("x-goog-generation".to_owned(), version.to_string()));
    answer
}

const DATE: &str = "Thu, 01 Oct 2026 00:00:00 GMT";

fn get(request: &Request, state: &State, key: &str) -> Answer {
    let Some(object) = state.objects.get(key) else { return Answer::error(404, "NoSuchKey") };
    if request.headers.get("if-match").is_some_and(|version| *version != format!("\"{}\"", object.version)) {
        return Answer::error(412, "PreconditionFailed");
    }
    let whole = object.bytes.len();
    let range = request.headers.get("range").and_then(|range| {
        let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some(match (from.parse::<usize>(), to.parse::<usize>()) {
            (Err(_), Ok(last)) => whole.saturating_sub(last)..whole,
            (Ok(from), Ok(to)) => from..(to + 1).min(whole),
            (Ok(from), Err(_)) => from..whole,
            (Err(_), Err(_)) => 0..whole,
        })
    });
    let mut answer = match range {
        Some(range) if range.is_empty() => return Answer::error(416, "InvalidRange"),
        Some(range) => {
            let mut answer = Answer::new(206, object.bytes[range.clone()].to_vec());
            let value = format!("bytes {}-{}/{whole}", range.start, range.end - 1);
            answer.headers.push(("content-range".to_owned(), value));
            answer
        }
        None => Answer::new(200, object.bytes.clone()),
    };
    answer.headers.push(("etag".to_owned(), format!("\"{}\"", object.version)));
    answer.headers.push(("last-modified".to_owned(), DATE.to_owned()));
    answer.headers.extend(object.metadata.iter().cloned());
    answer
}

fn list(request: &Request, state: &State) -> Answer {
    let of = |name: &str| request.query.get(name).cloned().unwrap_or_default();
    let (prefix, after) = (of("prefix"), of("continuation-token"));
    let found: Vec<_> = state.objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after).collect();
    let entries = found.iter().take(PAGE).map(|(key, object)| {
        let (bytes, version) = (object.bytes.len(), object.version);
        format!(
            "<Contents><Key>{key}</Key><LastModified>2026-10-01T00:00:00.000Z</LastModified><ETag>\"{version}\"</ETag><Size>{bytes}</Size></Contents>"
        )
    });
    let more =
        found.get(PAGE - 1).filter(|_| found.len() > PAGE).map(|(key, _)| format!("<NextContinuationToken>{key}</NextContinuationToken>"));
    let (entries, truncated) = (entries.collect::<String>(), more.is_some());
    let text = format!("<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{}{entries}</ListBucketResult>", more.unwrap_or_default());
    Answer::new(200, text)
}

/// A list as Azure gives it: versions stand there without their quotes.
fn blobs(request: &Request, state: &State) -> Answer {
    let of = |name: &str| request.query.get(name).cloned().unwrap_or_default();
    let (prefix, after) = (of("prefix"), of("marker"));
    let found: Vec<_> = state.objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after).collect();
    let entries = found.iter().take(PAGE).map(|(key, object)| {
        let (bytes, version) = (object.bytes.len(), object.version);
        format!(
            "<Blob><Name>{key}</Name><Properties><Last-Modified>{DATE}</Last-Modified><Content-Length>{bytes}</Content-Length>\
             <Content-Type>x</Content-Type><Etag>{version}</Etag></Properties></Blob>"
        )
    });
    let more = found.get(PAGE - 1).filter(|_| found.len() > PAGE).map(|(key, _)| format!("<NextMarker>{key}</NextMarker>"));
    let entries = entries.collect::<String>();
    Answer::new(200, format!("<EnumerationResults><Blobs>{entries}</Blobs>{}</EnumerationResults>", more.unwrap_or_default()))
}
