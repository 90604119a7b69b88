//! Sends spans to an OpenTelemetry collector: OTLP over HTTP, as protobuf.
//!
//! The service does not depend on the collector. Spans wait in a bounded queue, a dedicated thread sends them, and those
//! that find the queue full or the collector unavailable are dropped and counted.

use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use axum::http::{Request, Response};
use event_store::{Clock, SystemClock};
use http_kit::trace;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use opentelemetry_otlp::{WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData, SpanExporter,
    SpanProcessor,
};
use tokio::runtime::Handle;
use url::Url;

use crate::instance::Role;

/// The maximum number of waiting spans. A request makes about ten, and each takes some hundred bytes.
const QUEUE: usize = 8192;
/// The maximum number of spans per batch.
const BATCH: usize = 512;
/// How long a span waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// The time limit for a batch, all attempts together.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the end of the process waits for the last spans.
const LAST: Duration = Duration::from_secs(3);

/// The destination of spans, and their sampling.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceSettings {
    /// The collector. The OTLP path is appended.
    pub endpoint: Url,
    /// The fraction of requests traced when the caller does not decide: 0 to 1.
    pub sampling: f64,
}

impl TraceSettings {
    /// The URL that batches are sent to (OTLP 1.0, "OTLP/HTTP Request").
    pub fn url(&self) -> Url {
        let mut url = self.endpoint.clone();
        url.set_path(&format!("{}/v1/traces", self.endpoint.path().trim_end_matches('/')));
        url
    }
}

/// Sends spans until it is closed.
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Starts, within the runtime that serves requests.
    pub fn start(settings: &TraceSettings, role: Role) -> anyhow::Result<Self> {
        let mut client =
            reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none());
        if settings.endpoint.scheme() == "http" {
            // It needs no certificates, and the machine may have none.
            client = client.tls_certs_only([]);
        }
        let client = client.build().context("the client for traces cannot be made")?;
        let reason = Arc::<Mutex<String>>::default();
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(Client { http: client, runtime: Handle::current(), reason: reason.clone() })
            .with_endpoint(settings.url())
            .with_timeout(PATIENCE)
            .build()
            .context("traces cannot be sent to otlp_endpoint (WATCHWORD_OTLP_ENDPOINT)")?;
        let waiting = Arc::new(AtomicUsize::new(0));
        let exporter =
            Exporter { inner: exporter, waiting: waiting.clone(), is_away: AtomicBool::new(false), reason };
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(DELAY)
            .build();
        let batches = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
        let resource = Resource::builder_empty()
            .with_service_name("watchword")
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", SystemClock.new_id().to_string()),
                KeyValue::new("watchword.role", role.name()),
            ])
            // The operator's values from OTEL_RESOURCE_ATTRIBUTES take precedence.
            .with_detector(Box::new(EnvResourceDetector::new()))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sampling))))
            .with_span_processor(Queue { batches, waiting })
            .with_resource(resource)
            .build();
        trace::listen(provider.tracer("watchword"));
        Ok(Self(provider))
    }

    /// Sends the remaining spans, if that does not take long.
    pub async fn close(self) {
        // It blocks its thread meanwhile.
        let _ = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(LAST)).await;
    }
}

/// Accepts a span only if there is room, so that the queue behind it never drops one uncounted.
#[derive(Debug)]
struct Queue {
    batches: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
}

impl SpanProcessor for Queue {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        let room = |waiting| (waiting < QUEUE).then_some(waiting + 1);
        if self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok() {
            self.batches.on_end(span);
        } else {
            count("dropped", 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// Counts the outcome of spans, and logs when the collector fails or recovers.
#[derive(Debug)]
struct Exporter {
    inner: opentelemetry_otlp::SpanExporter,
    waiting: Arc<AtomicUsize>,
    is_away: AtomicBool,
    /// Why the last request failed, which the library does not report.
    reason: Arc<Mutex<String>>,
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let sent = self.inner.export(batch).await;
        let waiting = self.waiting.fetch_sub(spans, Ordering::Relaxed) - spans;
        metrics::gauge!("watchword_trace_waiting_spans").set(u32::try_from(waiting).unwrap_or(u32::MAX));
        count(if sent.is_ok() { "sent" } else { "failed" }, spans as u64);
        match (&sent, self.is_away.swap(sent.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => {
                let reason = self.reason.lock().map(|reason| reason.clone()).unwrap_or_default();
                tracing::warn!(%error, reason, "the trace collector fails: traces are dropped until it recovers");
            }
            (Ok(()), true) => tracing::info!("the trace collector works again"),
            _ => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

fn count(outcome: &'static str, spans: u64) {
    metrics::counter!("watchword_trace_spans_total", "outcome" => outcome).increment(spans);
}

/// Makes requests on the runtime, for a thread outside of it.
#[derive(Debug)]
struct Client {
    http: reqwest::Client,
    runtime: Handle,
    reason: Arc<Mutex<String>>,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let client = self.http.clone();
        let sent = self.runtime.spawn(async move {
            let answer = client.execute(request).await?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            let mut response = Response::new(answer.bytes().await?);
            (*response.status_mut(), *response.headers_mut()) = (status, headers);
            Ok::<_, reqwest::Error>(response)
        });
        let sent = sent.await?;
        if let (Err(error), Ok(mut reason)) = (&sent, self.reason.lock()) {
            let error = error as &dyn Error;
            let causes = std::iter::successors(Some(error), |error| (*error).source());
            *reason = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        }
        Ok(sent?)
    }
}
