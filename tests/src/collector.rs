//! A trace collector: OTLP over HTTP, as protobuf.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{Method, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::PATIENCE;

/// A span that a server sent.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its name.
    pub name: String,
    /// The kind's number in the protocol: 1 internal, 2 server, 4 producer, 5 consumer.
    pub kind: i32,
    /// Its trace, in hexadecimal.
    pub trace: String,
    /// Its own id, in hexadecimal.
    pub id: String,
    /// The id of its parent; empty if it is the first of its trace.
    pub parent: String,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// Whether it failed.
    pub failed: bool,
    /// The attributes of the process.
    pub process: BTreeMap<String, String>,
}

/// A running collector.
pub struct Collector {
    address: SocketAddr,
    bodies: Arc<Mutex<Vec<Bytes>>>,
    task: JoinHandle<()>,
}

impl Collector {
    /// Listens on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        let bodies = Arc::<Mutex<Vec<Bytes>>>::default();
        let task = tokio::spawn(serve(listener, bodies.clone()));
        Self { address, bodies, task }
    }

    /// The value for `WATCHWORD_OTLP_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every received body.
    pub fn bodies(&self) -> Vec<Bytes> {
        self.bodies.lock().expect("nobody panics").clone()
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        self.bodies().iter().flat_map(spans).collect()
    }

    /// The spans of a trace, once there are this many.
    pub async fn trace(&self, trace: &str, count: usize) -> Vec<Span> {
        self.until(count, |span| span.trace == trace).await
    }

    /// The matching spans, once there are this many.
    pub async fn until(&self, count: usize, is_one: impl Fn(&Span) -> bool) -> Vec<Span> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let spans: Vec<Span> = self.spans().into_iter().filter(|span| is_one(span)).collect();
            if spans.len() >= count {
                return spans;
            }
            let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
            assert!(Instant::now() < deadline, "there are only {names:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, bodies: Arc<Mutex<Vec<Bytes>>>) {
    loop {
        let (stream, _) = listener.accept().await.expect("it listens");
        let bodies = bodies.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let bodies = bodies.clone();
            async move {
                assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/v1/traces"));
                assert_eq!(request.headers()["content-type"], "application/x-protobuf");
                let body = request.into_body().collect().await.expect("the body is sent").to_bytes();
                bodies.lock().expect("nobody panics").push(body);
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

fn spans(body: &Bytes) -> Vec<Span> {
    let request = ExportTraceServiceRequest::decode(body.clone()).expect("it is OTLP");
    let mut found = Vec::new();
    for resource in request.resource_spans {
        let process = texts(resource.resource.map(|it| it.attributes).unwrap_or_default());
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            assert!(
                span.end_time_unix_nano >= span.start_time_unix_nano,
                "{} ended before it started",
                span.name
            );
            assert!(span.events.is_empty() && span.links.is_empty(), "{} has events or links", span.name);
            found.push(Span {
                name: span.name,
                kind: span.kind,
                trace: hex::encode(&span.trace_id),
                id: hex::encode(&span.span_id),
                parent: hex::encode(&span.parent_span_id),
                attributes: texts(span.attributes),
                failed: span.status.is_some_and(|status| status.code == 2),
                process: process.clone(),
            });
        }
    }
    found
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|it| it.value) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes.into_iter().map(|it| (it.key, text(it.value))).collect()
}
