//! HTTP/2 without TLS, by a client that knows beforehand that the server speaks it.

use futures::stream;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::pin::Pin;
use tests::{PASSWORD, Server, email};
use tokio::net::TcpStream;

type Body = StreamBody<Pin<Box<dyn futures::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>>;

/// The body in pieces, without a length beforehand.
fn pieces(size: usize, times: usize) -> Body {
    let piece = Bytes::from(vec![b' '; size]);
    StreamBody::new(Box::pin(stream::iter((0..times).map(move |_| Ok(Frame::data(piece.clone()))))))
}

fn whole(text: String) -> Body {
    StreamBody::new(Box::pin(stream::once(async { Ok(Frame::data(text.into())) })))
}

struct Client<'s> {
    server: &'s Server,
    sender: SendRequest<Body>,
}

impl<'s> Client<'s> {
    async fn connect(server: &'s Server) -> Self {
        let address = server.base();
        let stream = TcpStream::connect(address.strip_prefix("http://").expect("an address")).await;
        let io = TokioIo::new(stream.expect("connects"));
        let (sender, connection) = handshake(TokioExecutor::new(), io).await.expect("it speaks HTTP/2");
        tokio::spawn(connection);
        Self { server, sender }
    }

    async fn send(&mut self, method: &str, path: &str, token: &str, body: Body) -> Response<Incoming> {
        let request = Request::builder()
            .method(method)
            .uri(self.server.url(path))
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {token}"))
            .body(body)
            .expect("a request");
        self.sender.ready().await.expect("the connection is open");
        let response = self.sender.send_request(request).await.expect("an answer");
        assert_eq!(response.version(), Version::HTTP_2);
        assert!(response.headers().get("connection").is_none());
        response
    }
}

async fn json_of(response: Response<Incoming>) -> Value {
    let body = response.into_body().collect().await.expect("a whole body").to_bytes();
    serde_json::from_slice(&body).expect("JSON")
}

#[tokio::test]
async fn all_of_a_session_on_one_connection() {
    let server = Server::start().await;
    let mut client = Client::connect(&server).await;
    let login = json!({"email": email("ada"), "password": PASSWORD}).to_string();
    let registered = client.send("POST", "/auth/register", "", whole(login.clone())).await;
    assert_eq!(registered.status(), StatusCode::CREATED);
    let access = json_of(registered).await["access_token"].as_str().expect("a token").to_owned();
    let me = client.send("GET", "/auth/me", &access, whole(String::new())).await;
    assert_eq!(me.status(), StatusCode::OK);
    let refused = client.send("GET", "/auth/me", "x", whole(String::new())).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert!(refused.headers()["www-authenticate"].as_bytes().starts_with(b"Bearer error=\"invalid_token\""));
    // Requests beside each other, and a live stream that goes on meanwhile.
    let key = server.platform_key();
    let request = Request::get(server.url("/v1/events"))
        .header("authorization", format!("Bearer {key}"))
        .header("accept", "text/event-stream")
        .header("accept-encoding", "gzip, br, zstd")
        .body(whole(String::new()))
        .expect("a request");
    let mut live = client.sender.send_request(request).await.expect("an answer");
    assert_eq!(live.status(), StatusCode::OK);
    assert!(live.headers().get("content-encoding").is_none());
    let again = client.send("POST", "/auth/login", "", whole(login)).await;
    assert_eq!(again.status(), StatusCode::OK);
    let mut seen = String::new();
    while seen.matches("SessionStarted").count() < 2 {
        let frame = live.body_mut().frame().await.expect("it goes on").expect("it is whole");
        seen += &String::from_utf8_lossy(frame.data_ref().expect("data"));
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_told_so_and_its_connection_goes_on() {
    const PIECE: usize = 16 * 1024;
    let server = Server::start().await;
    let mut client = Client::connect(&server).await;
    for mib in [1, 3, 30] {
        for _ in 0..10 {
            let large = pieces(PIECE, mib * 1024 * 1024 / PIECE);
            let answer = client.send("POST", "/auth/login", "", large).await;
            assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
            assert_eq!(json_of(answer).await["code"], "payload_too_large");
        }
    }
    let health = client.send("GET", "/healthz", "", whole(String::new())).await;
    assert_eq!(health.status(), StatusCode::OK, "on the same connection");
}
