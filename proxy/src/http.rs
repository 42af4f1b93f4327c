//! A small HTTP/1.1 responder for metrics and health: GET and HEAD, one request on each connection, everything bounded.

use core::convert::Infallible;
use core::time::Duration;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Longest head of a request, bytes; a longer one is answered 431.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// Most connections at a time; further ones wait in the listener's queue.
const CONNECTIONS_MAX: usize = 32;
/// Longest that one connection lives.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of a refused request that are read off, so that the answer is not lost to a reset.
const DRAIN_BYTES_MAX: u64 = 64 << 10;
/// Pause after a failed accept (no file descriptors left), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Such as 200.
    pub status: u16,
    /// The media type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl Response {
    /// A line of text.
    fn text(status: u16, line: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: format!("{line}\n") }
    }
}

/// Answers a path; `None`: there is nothing of that name.
pub type Handler = Arc<dyn Fn(&str) -> Option<Response> + Send + Sync>;

/// Answers requests for as long as it is polled.
pub async fn serve(listener: TcpListener, handler: Handler) -> Infallible {
    serve_within(TIMEOUT, listener, handler).await
}

async fn serve_within(limit: Duration, listener: TcpListener, handler: Handler) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    let handler = Arc::clone(&handler);
                    // Who is too slow is cut.
                    connections.spawn(tokio::time::timeout(limit, exchange(stream, handler)));
                }
                Err(error) => {
                    tracing::warn!(%error, "the metrics port cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Reads one request and answers it.
async fn exchange(mut stream: TcpStream, handler: Handler) -> io::Result<()> {
    let mut head = Vec::new();
    let end = loop {
        if let Some(end) = end_of_head(&head) {
            break Some(end);
        }
        if head.len() >= HEAD_BYTES_MAX {
            break None;
        }
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    };
    let (response, is_head) = match end {
        Some(end) => respond(&head[..end], &*handler),
        None => (Response::text(431, "the head of the request is too long"), false),
    };
    stream.write_all(&encode(&response, is_head)).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(DRAIN_BYTES_MAX), &mut tokio::io::sink()).await?;
    Ok(())
}

/// Where the empty line after the head begins.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n")
}

/// The answer, and whether it is sent without its body.
fn respond(head: &[u8], handler: &dyn Fn(&str) -> Option<Response>) -> (Response, bool) {
    let bad = || (Response::text(400, "this is no HTTP/1.1 request"), false);
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let Ok(line) = core::str::from_utf8(line) else { return bad() };
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, version] = words[..] else { return bad() };
    if !version.starts_with("HTTP/1.") || !target.starts_with('/') {
        return bad();
    }
    let is_head = method == "HEAD";
    if method != "GET" && !is_head {
        return (Response::text(405, "only GET and HEAD"), false);
    }
    let path = target.split('?').next().unwrap_or(target);
    let response =
        handler(path).unwrap_or_else(|| Response::text(404, "nothing here; try /metrics or /health"));
    (response, is_head)
}

fn encode(response: &Response, is_head: bool) -> Vec<u8> {
    let reason = match response.status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        _ => "Service Unavailable",
    };
    let allow = if response.status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
    let mut bytes = format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{allow}Cache-Control: no-store\r\n\
         Connection: close\r\n\r\n",
        response.status,
        response.content_type,
        response.body.len()
    )
    .into_bytes();
    if !is_head {
        bytes.extend_from_slice(response.body.as_bytes());
    }
    bytes
}

/// The answer about health: 200 without a reason, else 503 with it, as JSON.
pub fn health(state: &str, reason: Option<&str>) -> Response {
    let status = if reason.is_some() { 503 } else { 200 };
    let body = match reason {
        None => serde_json::json!({ "status": "ok", "state": state }),
        Some(reason) => serde_json::json!({ "status": "unavailable", "state": state, "reason": reason }),
    };
    Response { status, content_type: "application/json", body: format!("{body}\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handler(path: &str) -> Option<Response> {
        (path == "/a").then(|| health("up", None))
    }

    fn status(request: &str) -> u16 {
        respond(request.as_bytes(), &handler).0.status
    }

    #[test]
    fn only_get_and_head_of_what_is_there() {
        assert_eq!(status("GET /a HTTP/1.1"), 200);
        assert_eq!(status("GET /a?x=y HTTP/1.0"), 200);
        assert_eq!(status("GET /b HTTP/1.1"), 404);
        assert_eq!(status("POST /a HTTP/1.1"), 405);
        for bad in
            ["", "GET", "GET /a", "GET a HTTP/1.1", "GET /a HTTP/2", "GET  /a HTTP/1.1", "*1 $4 PING x"]
        {
            assert_eq!(status(bad), 400, "{bad}");
        }
        assert!(respond(b"HEAD /a HTTP/1.1", &handler).1);
    }

    #[test]
    fn a_head_has_the_length_but_no_body() {
        let response = health("loading", Some("it reads its data"));
        let (whole, head) = (encode(&response, false), encode(&response, true));
        assert!(whole.starts_with(&head) && whole.ends_with(response.body.as_bytes()));
        assert!(String::from_utf8(head).unwrap().starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert_eq!(
            response.body,
            "{\"reason\":\"it reads its data\",\"state\":\"loading\",\"status\":\"unavailable\"}\n"
        );
        let refused = String::from_utf8(encode(&respond(b"PUT /a HTTP/1.1", &handler).0, false)).unwrap();
        assert!(refused.contains("\r\nAllow: GET, HEAD\r\n"));
    }

    #[test]
    fn slow_and_long_requests_are_cut() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let ask = async |limit, request: &[u8]| {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                let server = tokio::spawn(serve_within(limit, listener, Arc::new(handler)));
                stream.write_all(request).await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                server.abort();
                answer
            };
            assert_eq!(ask(Duration::from_millis(20), b"GET /a HTTP/1.1\r\n").await, "");
            let long = [&b"GET /a HTTP/1.1\r\nX: "[..], &[b'x'; 2 * HEAD_BYTES_MAX]].concat();
            assert!(ask(TIMEOUT, &long).await.starts_with("HTTP/1.1 431 "));
            assert!(ask(TIMEOUT, b"GET /a HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 200 OK\r\n"));
        });
    }
}
