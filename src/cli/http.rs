//! A small HTTP server for `/metrics` and `/health`: bounded in threads, in bytes and in time, so that nothing a client does can slow the lanes down.
//!
//! Every request gets one answer and the connection is closed. Requests have no use for a body, so none is read.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::base::clock;
use crate::base::error::{Error, Result};

/// Connections that are answered at the same time; more wait in the backlog of the operating system.
const THREADS: usize = 4;
/// Longest head of a request.
const MAX_HEAD: usize = 8 << 10;
/// Most header fields of a request.
const MAX_FIELDS: usize = 64;
/// Longest time for one request to come in, and for its answer to go out.
const LIMIT: Duration = Duration::from_secs(2);

/// What a path answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Media type.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl Answer {
    fn plain(status: u16, text: &str) -> Self {
        Answer { status, content_type: "text/plain; charset=utf-8", body: format!("{text}\n") }
    }
}

/// Answers the path of a GET or HEAD request; `None` if there is no such path.
pub type Routes = dyn Fn(&str) -> Option<Answer> + Send + Sync;

/// An address that has been taken; nobody is served yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    /// The address, with the port that was chosen if port 0 was asked for.
    pub address: SocketAddr,
}

/// Takes an address `host:port`.
///
/// # Errors
/// Configuration: it is not an address of this machine, or its port is in use.
pub fn bind(address: &str) -> Result<Bound> {
    let fault = |e: io::Error| {
        let message = if e.kind() == io::ErrorKind::AddrInUse {
            "the port is in use".to_owned()
        } else {
            "it is not an address that can be listened on".to_owned()
        };
        Error::config("http", message)
            .at(format!("--http {address}"))
            .help("write HOST:PORT such as 127.0.0.1:9464 with a port that is free; port 0 takes any")
            .caused_by(e)
    };
    let candidates = address.to_socket_addrs().map_err(fault)?.collect::<Vec<_>>();
    let listener = TcpListener::bind(&*candidates).map_err(fault)?;
    let address = listener.local_addr().map_err(fault)?;
    Ok(Bound { listener, address })
}

/// A server that is running; it stops when it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    closing: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Bound {
    /// Starts to answer.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn serve(self, routes: Arc<Routes>) -> Result<Server> {
        let closing = Arc::new(AtomicBool::new(false));
        let mut server = Server { address: self.address, closing: Arc::clone(&closing), threads: Vec::new() };
        for _ in 0..THREADS {
            let failed = |e: io::Error| Error::internal("http", "no thread for the HTTP server").caused_by(e);
            let (listener, routes, closing) = (self.listener.try_clone().map_err(failed)?, Arc::clone(&routes), Arc::clone(&closing));
            let thread = thread::Builder::new().name("http".to_owned()).spawn(move || accept(&listener, &*routes, &closing));
            server.threads.push(thread.map_err(failed)?);
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        let mut own = self.address;
        if own.ip().is_unspecified() {
            own.set_ip(if own.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
        }
        // Each thread waits for a connection: give it one. A thread that cannot be woken ends with the process.
        let woken = self.threads.iter().all(|_| TcpStream::connect_timeout(&own, LIMIT).is_ok());
        for thread in self.threads.drain(..).filter(|_| woken) {
            if thread.join().is_err() {
                tracing::warn!("a thread of the HTTP server has panicked");
            }
        }
    }
}

fn accept(listener: &TcpListener, routes: &Routes, closing: &AtomicBool) {
    loop {
        let accepted = listener.accept();
        if closing.load(Ordering::Acquire) {
            return;
        }
        match accepted {
            Ok((stream, _)) => {
                if let Err(error) = converse(stream, routes) {
                    tracing::debug!(%error, "http connection");
                }
            }
            Err(error) => {
                // Out of file descriptors, most likely: trying again at once would only burn a core.
                tracing::debug!(%error, "http accept");
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn converse(mut stream: TcpStream, routes: &Routes) -> io::Result<()> {
    let deadline = clock::tick() + LIMIT;
    let answer = match read_head(&mut stream, deadline)? {
        Ok(head) => respond(&head, routes),
        Err(status) => (Answer::plain(status, reason(status)), true),
    };
    write_answer(&mut stream, &answer.0, answer.1)?;
    drain(&mut stream)
}

/// Reads a little of what still comes in: closing with unread bytes would make the operating system reset the connection, and the
/// client might lose the answer.
fn drain(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut chunk = [0_u8; 4096];
    for _ in 0..8 {
        if stream.read(&mut chunk)? == 0 {
            break;
        }
    }
    Ok(())
}

/// Reads up to the empty line behind the head. An inner error is the status that says what is wrong with it.
fn read_head(stream: &mut TcpStream, deadline: Instant) -> io::Result<std::result::Result<Vec<u8>, u16>> {
    let mut head = Vec::new();
    let mut chunk = [0_u8; 1024];
    loop {
        // A deadline for the whole head: a time-out per read would let a client send a byte a second for hours.
        let left = deadline.saturating_duration_since(clock::tick());
        if left.is_zero() {
            return Ok(Err(408));
        }
        stream.set_read_timeout(Some(left))?;
        let read = match stream.read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => return Ok(Err(408)),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        head.extend_from_slice(chunk.get(..read).unwrap_or_default());
        if head.windows(4).any(|end| end == b"\r\n\r\n") {
            return Ok(Ok(head));
        }
        if head.len() > MAX_HEAD {
            return Ok(Err(431));
        }
    }
}

/// The answer to a head, and whether its body is to be sent.
fn respond(head: &[u8], routes: &Routes) -> (Answer, bool) {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let status = match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => None,
        Ok(httparse::Status::Partial) => Some(400),
        Err(httparse::Error::TooManyHeaders) => Some(431),
        Err(_) => Some(400),
    };
    if let Some(status) = status {
        return (Answer::plain(status, reason(status)), true);
    }
    let method = request.method.unwrap_or_default();
    let path = request.path.unwrap_or_default().split('?').next().unwrap_or_default();
    let answer = routes(path);
    match (answer, method) {
        (None, _) => (Answer::plain(404, "not found: there are /metrics, /health/live and /health/ready"), method != "HEAD"),
        (Some(answer), "GET" | "HEAD") => (answer, method == "GET"),
        (Some(_), _) => (Answer::plain(405, "only GET and HEAD"), true),
    }
}

fn write_answer(stream: &mut TcpStream, answer: &Answer, with_body: bool) -> io::Result<()> {
    let mut text = format!("HTTP/1.1 {} {}\r\nContent-Type: {}\r\n", answer.status, reason(answer.status), answer.content_type);
    if answer.status == 405 {
        text.push_str("Allow: GET, HEAD\r\n");
    }
    text.push_str(&format!("Content-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n", answer.body.len()));
    if with_body {
        text.push_str(&answer.body);
    }
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Server {
        let routes = |path: &str| match path {
            "/a" => Some(Answer { status: 200, content_type: "text/plain", body: "hello".to_owned() }),
            "/b" => Some(Answer { status: 503, content_type: "text/plain", body: "no".to_owned() }),
            _ => None,
        };
        bind("127.0.0.1:0").unwrap().serve(Arc::new(routes)).unwrap()
    }

    fn ask(server: &Server, request: &str) -> String {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn paths_methods_and_nonsense_get_their_statuses() {
        let server = server();
        let hello = ask(&server, "GET /a?x=1 HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(hello.starts_with("HTTP/1.1 200 OK\r\n") && hello.ends_with("\r\n\r\nhello"), "{hello}");
        assert!(hello.contains("Content-Length: 5\r\n"), "{hello}");
        let head = ask(&server, "HEAD /a HTTP/1.1\r\n\r\n");
        assert!(head.contains("Content-Length: 5\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        for (request, status) in [
            ("GET /b HTTP/1.0\r\n\r\n", 503),
            ("GET /c HTTP/1.1\r\n\r\n", 404),
            ("POST /c HTTP/1.1\r\n\r\n", 404),
            ("POST /a HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
            ("nonsense\r\n\r\n", 400),
        ] {
            let answer = ask(&server, request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        }
        assert!(ask(&server, "DELETE /a HTTP/1.1\r\n\r\n").contains("Allow: GET, HEAD\r\n"));
    }

    #[test]
    fn a_head_without_end_is_refused_and_a_slow_one_does_not_hold_a_thread() {
        let server = server();
        let long = format!("GET /a HTTP/1.1\r\nX: {}", "x".repeat(MAX_HEAD));
        assert!(ask(&server, &long).starts_with("HTTP/1.1 431 "));
        let many = format!("GET /a HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAX_FIELDS + 1));
        assert!(ask(&server, &many).starts_with("HTTP/1.1 431 "));
        // As many silent clients as there are threads: the next one is served once their time is over.
        let silent: Vec<TcpStream> = (0..THREADS).map(|_| TcpStream::connect(server.address).unwrap()).collect();
        assert!(ask(&server, "GET /a HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 "));
        for mut stream in silent {
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
        }
    }

    #[test]
    fn a_port_in_use_and_an_address_that_is_none_are_configuration_errors() {
        let taken = bind("127.0.0.1:0").unwrap();
        let error = bind(&taken.address.to_string()).unwrap_err();
        assert_eq!(error.exit_code(), 78);
        assert!(error.to_string().contains("the port is in use") && error.to_string().contains(&taken.address.to_string()), "{error}");
        for address in ["9464", "127.0.0.1", "127.0.0.1:port", ""] {
            assert_eq!(bind(address).unwrap_err().exit_code(), 78, "{address}");
        }
    }

    #[test]
    fn a_dropped_server_frees_its_port() {
        let server = server();
        let address = server.address;
        drop(server);
        drop(bind(&address.to_string()).unwrap());
    }
}
