//! Spans for an OpenTelemetry collector.
//!
//! There are none until [`listen`] is called. Before that, everything here only checks a static.
//!
//! A span contains only what this program itself reports: names, numbers, and the trace that a caller named. There is
//! no other way to make one, so no libraries' spans, log lines, paths, headers or ids get in.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use event_store::{Clock, SystemClock};
use futures::future::Either;
use opentelemetry::context::FutureExt;
use opentelemetry::global::{BoxedTracer, ObjectSafeTracer};
use opentelemetry::trace::{
    SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
    Tracer,
};
use opentelemetry::{Context, KeyValue, Value};
use schemas::RecordedEvent;
use schemas::bus::STREAM;

/// An older event is being read again, as by a rebuild: its trace is over and no longer of interest.
const FRESH: Duration = Duration::from_mins(1);

/// Routes that machines poll.
const PROBES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

static TRACER: OnceLock<BoxedTracer> = OnceLock::new();

/// From now on this tracer gets spans. Further calls change nothing.
pub fn listen(tracer: impl ObjectSafeTracer + Send + Sync + 'static) {
    let _ = TRACER.set(BoxedTracer::new(Box::new(tracer)));
}

/// A timed operation. Empty if there is no tracer, or if its trace is not sampled.
///
/// It ends when it is dropped.
#[derive(Default)]
pub struct Span(Option<Context>);

impl Span {
    /// A request: part of the trace that its caller named, or the first of a new one.
    pub(crate) fn request(method: &'static str, route: Option<&str>, traceparent: Option<&str>) -> Self {
        let Some(tracer) = TRACER.get() else { return Self::default() };
        let parent = traceparent.and_then(parse);
        if parent.is_none() && route.is_some_and(|route| PROBES.contains(&route)) {
            return Self::default();
        }
        // Names from OpenTelemetry's semantic conventions for HTTP, in which unknown methods are `_OTHER`.
        let (name, method) = if method == "OTHER" { ("HTTP", "_OTHER") } else { (method, method) };
        let mut attributes = vec![KeyValue::new("http.request.method", method)];
        attributes.extend(route.map(|route| KeyValue::new("http.route", route.to_owned())));
        let name = route.map_or_else(|| name.to_owned(), |route| format!("{name} {route}"));
        let span = SpanBuilder::from_name(name).with_kind(SpanKind::Server).with_attributes(attributes);
        let parent = parent.map(|parent| Context::new().with_remote_span_context(parent)).unwrap_or_default();
        Self::begin(tracer, span, &parent)
    }

    /// A child of this task's current span, if that is traced.
    pub fn part(name: &'static str) -> Self {
        let Some(tracer) = TRACER.get() else { return Self::default() };
        let parent = Context::current();
        if !parent.span().span_context().is_sampled() {
            return Self::default();
        }
        Self::begin(tracer, SpanBuilder::from_name(name), &parent)
    }

    fn begin(tracer: &BoxedTracer, span: SpanBuilder, parent: &Context) -> Self {
        let span = parent.with_span(tracer.build_with_context(span, parent));
        let is_sampled = span.span().span_context().is_sampled();
        Self(is_sampled.then_some(span))
    }

    /// Runs something as the work of this span, where [`Span::part`] finds it. Work in another task must be wrapped
    /// again.
    pub fn around<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        match &self.0 {
            Some(context) => Either::Left(work.with_context(context.clone())),
            None => Either::Right(work),
        }
    }

    /// Sets an attribute. Never use a value that a person or a client chose.
    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new(key, value));
        }
    }

    /// Marks it as failed.
    pub fn fail(&self, kind: impl Into<Value>) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new("error.type", kind));
            context.span().set_status(Status::error(""));
        }
    }

    /// The `traceparent` (W3C Trace Context, version 00) that makes others part of its trace.
    pub(crate) fn traceparent(&self) -> Option<String> {
        let context = self.0.as_ref()?;
        let span = context.span();
        let span = span.span_context();
        Some(format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags()))
    }
}

/// A processing step of events, each of which may belong to another trace.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// The relay has sent them to NATS.
    Publish,
    /// A projector has written them to its read model.
    Apply(&'static str),
}

/// The time at which work on events began, if there is a tracer.
pub struct Begun(Option<SystemTime>);

/// Notes the current time.
pub fn begin() -> Begun {
    Begun(TRACER.get().map(|_| SystemClock.now().into()))
}

impl Begun {
    /// Makes a span from the start until now for each event whose trace is sampled, as part of that trace.
    pub fn end<'e>(self, step: Step, events: impl ExactSizeIterator<Item = &'e RecordedEvent>) {
        let (Some(began), Some(tracer)) = (self.0, TRACER.get()) else { return };
        let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
        for event in events {
            let Some(parent) = event.metadata.traceparent.as_deref().and_then(parse) else { continue };
            let age = began.duration_since(event.at.into()).unwrap_or_default();
            if !parent.is_sampled() || age > FRESH {
                continue;
            }
            let span = step.span(event, count).with_start_time(began);
            drop(tracer.build_with_context(span, &Context::new().with_remote_span_context(parent)));
        }
    }
}

impl Step {
    /// After OpenTelemetry's semantic conventions for messaging.
    fn span(self, event: &RecordedEvent, count: i64) -> SpanBuilder {
        let mut attributes = vec![
            KeyValue::new("messaging.batch.message_count", count),
            KeyValue::new("watchword.event.type", event.name.clone()),
            KeyValue::new("watchword.event.position", event.position.cast_signed()),
        ];
        match self {
            Self::Publish => {
                attributes.extend([
                    KeyValue::new("messaging.system", "nats"),
                    KeyValue::new("messaging.operation.name", "publish"),
                    KeyValue::new("messaging.operation.type", "send"),
                    KeyValue::new("messaging.destination.name", STREAM),
                ]);
                let span = SpanBuilder::from_name(format!("publish {STREAM}"));
                span.with_kind(SpanKind::Producer).with_attributes(attributes)
            }
            Self::Apply(projection) => {
                attributes.extend([
                    KeyValue::new("messaging.operation.name", "apply"),
                    KeyValue::new("messaging.operation.type", "process"),
                    KeyValue::new("watchword.projection", projection),
                ]);
                let span = SpanBuilder::from_name(format!("apply {projection}"));
                span.with_kind(SpanKind::Consumer).with_attributes(attributes)
            }
        }
    }
}

/// Reads a `traceparent`: W3C Trace Context, version 00, `00-<trace id>-<parent id>-<flags>`, neither id all zeros.
pub(crate) fn parse(text: &str) -> Option<SpanContext> {
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let parts: Vec<&str> = text.split('-').collect();
    let ["00", trace, parent, flags] = parts[..] else { return None };
    if !(hex(trace, 32) && hex(parent, 16) && hex(flags, 2)) {
        return None;
    }
    let (trace, parent) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(parent).ok()?);
    // Only the first flag is known; unknown ones are not propagated.
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let span = SpanContext::new(trace, parent, flags, true, TraceState::NONE);
    span.is_valid().then_some(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn reads_a_traceparent() {
        let span = parse(EXAMPLE).expect("the standard's own example");
        assert_eq!(span.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(span.span_id().to_string(), "00f067aa0ba902b7");
        assert!(span.is_sampled() && span.is_remote());
        assert!(!parse(&EXAMPLE.replace("-01", "-00")).expect("valid").is_sampled());
        for bad in [
            "",
            "00",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[tokio::test]
    async fn without_a_tracer_there_are_no_spans() {
        let span = Span::request("GET", Some("/v1/apps"), Some(EXAMPLE));
        assert!(span.0.is_none() && span.traceparent().is_none());
        assert!(span.around(async { Span::part("part").0.is_none() }).await);
        assert!(begin().0.is_none());
    }
}
