//! Schemas of records: of a file, or asked of a registry by the number that each record carries.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::base::clock;
use crate::base::error::{Error, Kind, Result};

const STAGE: &str = "decode";
/// How long a registry may take to answer.
#[cfg(feature = "avro")]
const PATIENCE: Duration = Duration::from_secs(5);
/// Waits between attempts.
const WAITS: [Duration; 5] =
    [Duration::from_millis(200), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// A number that is unknown is asked for again after this time: it may have been registered since.
const AGAIN: Duration = Duration::from_secs(10);
/// Most schemas that one may refer to, directly or not.
const REFERENCES: usize = 64;

/// A schema as it is written, and those that it refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The schema.
    pub text: String,
    /// Those that it refers to.
    pub references: Vec<String>,
}

/// Where the schemas of records are found.
#[derive(Clone, Debug)]
pub enum Schemas {
    /// All records are written by one schema, which is in a file.
    File(Arc<Written>),
    /// Each record begins with the number of its schema.
    Registry(Arc<Registry>),
}

impl PartialEq for Schemas {
    /// Whether they are found at the same place; a registry is one by its addresses and user.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Schemas::File(own), Schemas::File(other)) => own == other,
            (Schemas::Registry(own), Schemas::Registry(other)) => (&own.urls, &own.user) == (&other.urls, &other.user),
            _ => false,
        }
    }
}

impl Schemas {
    /// A schema by its number; `None` if there is none of that number. The schema of a file has any.
    ///
    /// # Errors
    /// The registry cannot be asked.
    pub fn get(&self, id: u32) -> Result<Option<Arc<Written>>> {
        match self {
            Schemas::File(written) => Ok(Some(Arc::clone(written))),
            Schemas::Registry(registry) => registry.get(id),
        }
    }
}

/// A registry with the interface of Confluent's, which others have as well (Redpanda, Karapace, Apicurio). What was found is kept: a number
/// stands for one schema for ever.
pub struct Registry {
    urls: Vec<String>,
    /// User name and password. Never printed.
    user: Option<(String, String)>,
    known: Mutex<HashMap<u32, Answer>>,
}

#[derive(Clone)]
enum Answer {
    Known(Arc<Written>),
    UnknownAt(Instant),
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("urls", &self.urls.len()).finish_non_exhaustive()
    }
}

/// What a server said: the body, or that it knows nothing of the kind.
type Said = std::result::Result<Option<serde_json::Value>, Fault>;

enum Fault {
    /// It may be another time.
    #[cfg_attr(not(feature = "avro"), expect(dead_code, reason = "without a client nothing is asked"))]
    Passing(String),
    /// It will not.
    Lasting(String),
}

impl Registry {
    /// A registry by its addresses, which are tried in turn.
    #[must_use]
    pub fn new(urls: &[String], user: Option<(String, String)>) -> Self {
        let urls = urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        Registry { urls, user, known: Mutex::default() }
    }

    fn get(&self, id: u32) -> Result<Option<Arc<Written>>> {
        // One asks, and the other lanes wait for the answer.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&id) {
            Some(Answer::Known(written)) => return Ok(Some(Arc::clone(written))),
            Some(Answer::UnknownAt(then)) if clock::tick().duration_since(*then) < AGAIN => return Ok(None),
            _ => {}
        }
        let Some(found) = self.ask(&format!("schemas/ids/{id}"))? else {
            known.insert(id, Answer::UnknownAt(clock::tick()));
            return Ok(None);
        };
        let written = Arc::new(self.written(&found)?);
        known.insert(id, Answer::Known(Arc::clone(&written)));
        Ok(Some(written))
    }

    /// The newest schema of a subject, if there is one.
    ///
    /// # Errors
    /// The registry cannot be asked.
    pub fn latest(&self, subject: &str) -> Result<Option<Written>> {
        let Some(found) = self.ask(&format!("subjects/{}/versions/latest", escaped(subject)))? else { return Ok(None) };
        self.written(&found).map(Some)
    }

    /// A schema with all that it refers to, which come first.
    fn written(&self, found: &serde_json::Value) -> Result<Written> {
        let text = found.get("schema").and_then(serde_json::Value::as_str).ok_or_else(|| self.wrong("an answer without a schema"))?;
        let (mut references, mut seen) = (Vec::new(), Vec::new());
        let mut open: Vec<serde_json::Value> = referred(found);
        while let Some(reference) = open.pop() {
            let part = |name: &str| reference.get(name).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            let (Some(subject), Some(version)) = (part("subject"), part("version")) else {
                return Err(self.wrong("a reference without subject and version"));
            };
            let path = format!("subjects/{}/versions/{version}", escaped(&subject));
            if seen.contains(&path) {
                continue;
            }
            if seen.len() >= REFERENCES {
                return Err(self.wrong(&format!("a schema with more than {REFERENCES} references")));
            }
            let Some(found) = self.ask(&path)? else {
                return Err(self.wrong(&format!("a reference to {subject}, version {version}, which it does not have")));
            };
            let text = found.get("schema").and_then(serde_json::Value::as_str).ok_or_else(|| self.wrong("an answer without a schema"))?;
            references.push(text.to_owned());
            open.extend(referred(&found));
            seen.push(path);
        }
        Ok(Written { text: text.to_owned(), references })
    }

    fn wrong(&self, what: &str) -> Error {
        Error::new(Kind::Unavailable, STAGE, format!("the schema registry gave {what}")).at(self.place())
    }

    /// The first address, without what may be a secret in it.
    fn place(&self) -> String {
        let first = self.urls.first().map_or("", String::as_str);
        match first.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?.1))) {
            Some((scheme, host)) => format!("{scheme}://{host}"),
            None => first.to_owned(),
        }
    }

    /// Asks, several times if need be; `None` if there is nothing of that name.
    fn ask(&self, path: &str) -> Result<Option<serde_json::Value>> {
        let mut last = String::new();
        for (attempt, wait) in WAITS.iter().map(Some).chain([None]).enumerate() {
            for url in &self.urls {
                match fetch(&format!("{url}/{path}"), self.user.as_ref()) {
                    Ok(said) => return Ok(said),
                    Err(Fault::Lasting(why)) => {
                        return Err(Error::config(STAGE, format!("the schema registry refuses: {why}"))
                            .at(self.place())
                            .help("see url, username and password of [event] registry"));
                    }
                    Err(Fault::Passing(why)) => last = why,
                }
            }
            if attempt == 0 {
                tracing::warn!(registry = self.place(), why = last, "the schema registry cannot be asked, and will be again");
            }
            wait.into_iter().for_each(|wait| std::thread::sleep(*wait));
        }
        Err(Error::new(Kind::Unavailable, STAGE, format!("the schema registry cannot be asked: {last}"))
            .at(self.place())
            .help("is it running, and is the address right? Nothing of these records has been committed"))
    }
}

fn referred(found: &serde_json::Value) -> Vec<serde_json::Value> {
    found.get("references").and_then(serde_json::Value::as_array).cloned().unwrap_or_default()
}

/// A name as a part of a path.
fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(feature = "avro")]
fn fetch(url: &str, user: Option<&(String, String)>) -> Said {
    use base64::Engine;

    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).build().into();
    let mut request = agent.get(url).header("Accept", "application/vnd.schemaregistry.v1+json, application/json");
    if let Some((name, password)) = user {
        let both = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
        request = request.header("Authorization", format!("Basic {both}"));
    }
    let mut answer = request.call().map_err(|e| Fault::Passing(e.to_string()))?;
    let status = answer.status().as_u16();
    let body = answer.body_mut().read_to_string().map_err(|e| Fault::Passing(e.to_string()))?;
    match status {
        200 => serde_json::from_str(&body).map(Some).map_err(|e| Fault::Passing(format!("an answer that is no JSON: {e}"))),
        // A registry says so in words of its own; anything else answers 404 to an address that is wrong.
        404 if is_unknown(&body) => Ok(None),
        400..=499 if status != 408 && status != 429 => {
            Err(Fault::Lasting(format!("status {status}: {}", body.chars().take(200).collect::<String>())))
        }
        _ => Err(Fault::Passing(format!("status {status}"))),
    }
}

/// Whether an answer says that there is no such subject, version or schema (their codes are 40401, 40402 and 40403).
#[cfg(feature = "avro")]
fn is_unknown(body: &str) -> bool {
    let said = serde_json::from_str::<serde_json::Value>(body).ok();
    said.and_then(|said| said.get("error_code")?.as_i64()).is_some_and(|code| (40401..=40403).contains(&code))
}

#[cfg(not(feature = "avro"))]
fn fetch(_: &str, _: Option<&(String, String)>) -> Said {
    Err(Fault::Lasting("this build knows no registry".to_owned()))
}

#[cfg(all(test, feature = "avro"))]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    const NONE: &str = r#"{"error_code": 40403, "message": "Schema not found"}"#;

    /// A registry over real HTTP that gives these answers in turn, each a status and a body; what it was asked comes back in their order.
    fn registry(answers: Vec<(u16, &str)>, user: Option<(&str, &str)>) -> (Registry, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let answers: Vec<(u16, String)> = answers.into_iter().map(|(status, body)| (status, body.to_owned())).collect();
        let asked = std::thread::spawn(move || {
            answers
                .into_iter()
                .map(|(status, body)| {
                    let (mut stream, _) = listener.accept().unwrap();
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        stream.read_exact(&mut byte).unwrap();
                        head.push(byte[0]);
                    }
                    write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).unwrap();
                    String::from_utf8(head).unwrap()
                })
                .collect()
        });
        let user = user.map(|(name, password)| (name.to_owned(), password.to_owned()));
        (Registry::new(&[url], user), asked)
    }

    fn path(head: &str) -> &str {
        head.split(' ').nth(1).unwrap()
    }

    #[test]
    fn a_schema_is_asked_for_once_and_comes_with_all_that_it_refers_to() {
        let (registry, asked) = registry(
            vec![
                (200, r#"{"schema": "one", "references": [{"name": "b.Key", "subject": "b/Key", "version": 3}]}"#),
                (200, r#"{"schema": "two", "references": [{"name": "c.Id", "subject": "c", "version": 1}]}"#),
                (200, r#"{"schema": "three"}"#),
                (404, NONE),
            ],
            Some(("u", "p")),
        );
        let written = Written { text: "one".to_owned(), references: vec!["two".to_owned(), "three".to_owned()] };
        for _ in 0..3 {
            assert_eq!(registry.get(17).unwrap().as_deref(), Some(&written));
            assert_eq!(registry.get(18).unwrap(), None, "it knows no such schema, and is not asked again at once");
        }
        let asked = asked.join().unwrap();
        assert_eq!(
            asked.iter().map(|head| path(head)).collect::<Vec<_>>(),
            ["/schemas/ids/17", "/subjects/b%2FKey/versions/3", "/subjects/c/versions/1", "/schemas/ids/18"]
        );
        assert!(asked.iter().all(|head| head.to_lowercase().contains("authorization: basic dtpw")), "{asked:?}");
        assert_eq!(format!("{registry:?}"), "Registry { urls: 1, .. }", "nothing that may be a secret");
    }

    #[test]
    fn what_passes_is_tried_again_and_what_does_not_is_an_error_of_the_configuration() {
        let (passing, asked) = registry(vec![(503, ""), (200, "not JSON"), (200, r#"{"schema": "s"}"#)], None);
        assert_eq!(passing.latest("cards-value").unwrap().unwrap().text, "s");
        assert_eq!(path(&asked.join().unwrap()[2]), "/subjects/cards-value/versions/latest");
        // A registry that refuses, and an address at which there is none.
        for answer in [(401, r#"{"error_code": 401}"#), (404, "<html>nothing here</html>"), (404, r#"{"error_code": 404}"#)] {
            let (refusing, asked) = registry(vec![answer], None);
            let error = refusing.get(1).unwrap_err();
            assert_eq!(error.exit_code(), 78, "{error}");
            asked.join().unwrap();
        }
    }
}
