//! One message to a webhook: made, signed and sent.

use std::sync::Arc;

use domain::delivery::WebhookFailure;
use domain::user::User;
use domain::webhook::WebhookUrl;
use domain::{LogOrigin, Personal, WebhookId};
use event_store::{Clock, Repository, StoreError};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use schemas::RecordedEvent;
use serde_json::{Value, json};
use tokens::{DerivedTokens, WebhookSecret};
use uuid::Uuid;

use crate::outbound::{NoAnswer, OutboundClient};

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const CLOUD_EVENT: HeaderValue = HeaderValue::from_static("application/cloudevents+json");

/// Why a webhook did not accept a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAccepted {
    /// The reason.
    pub reason: WebhookFailure,
    /// The status of its answer, if there was one.
    pub status: Option<u16>,
    /// For people. It holds nothing of the answer, which may be that of a service which is nobody's business.
    pub detail: String,
}

impl NotAccepted {
    pub(super) fn not_made(detail: impl Into<String>) -> Self {
        Self { reason: WebhookFailure::NotMade, status: None, detail: detail.into() }
    }
}

impl From<NoAnswer> for NotAccepted {
    fn from(none: NoAnswer) -> Self {
        let reason = match &none {
            NoAnswer::Forbidden(_) => WebhookFailure::Forbidden,
            NoAnswer::Unreachable(_) => WebhookFailure::Unreachable,
            NoAnswer::Timeout => WebhookFailure::Timeout,
        };
        Self { reason, status: None, detail: none.to_string() }
    }
}

/// Signs messages, and sends them.
pub struct Messages {
    client: OutboundClient,
    tokens: DerivedTokens,
    clock: Arc<dyn Clock>,
}

impl Messages {
    /// From its parts.
    pub fn new(client: OutboundClient, tokens: DerivedTokens, clock: Arc<dyn Clock>) -> Self {
        Self { client, tokens, clock }
    }

    /// Sends a message, signed with the webhook's secret. `message_id` is the same whenever the message is repeated.
    pub async fn send(
        &self,
        webhook_id: WebhookId,
        url: &WebhookUrl,
        message_id: Uuid,
        body: String,
    ) -> Result<(), NotAccepted> {
        let message_id = message_id.to_string();
        // The moment of this attempt: receivers refuse old ones.
        let timestamp = self.clock.now().as_second();
        let secret = WebhookSecret::of(&self.tokens, webhook_id);
        let signature = secret.sign(&message_id, timestamp, body.as_bytes());
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(CONTENT_TYPE, CLOUD_EVENT);
        let value = |text: &str| HeaderValue::from_str(text).expect("ids and base64 are plain");
        headers.insert(ID, value(&message_id));
        headers.insert(TIMESTAMP, timestamp.into());
        headers.insert(SIGNATURE, value(&signature));
        let status = self.client.post(url.to_url(), headers, body.into_bytes()).await?;
        if (200..300).contains(&status) {
            return Ok(());
        }
        let detail = format!("it answered with status {status}");
        Err(NotAccepted { reason: WebhookFailure::Status, status: Some(status), detail })
    }
}

/// The body of an event: the bytes that the event has everywhere else or, with personal data, the same event with that part
/// opened. An erased person's is not: their events are looked at again for each attempt.
pub(super) async fn body(
    repository: &Repository,
    origin: &LogOrigin,
    recorded: &RecordedEvent,
    include_personal: bool,
) -> Result<String, StoreError> {
    if !include_personal || recorded.personal.is_none() {
        return Ok(recorded.to_canonical_json(origin));
    }
    let is_erased = match recorded.person {
        // From the log, which knows at once what this node's keys may not have heard of yet.
        Some(person) => repository.load::<User>(&person).await?.state.erased,
        None => false,
    };
    let personal = if is_erased { None } else { repository.personal(recorded).await? };
    Ok(match personal {
        Some(personal) => recorded.to_canonical_json_with(origin, opened(personal)),
        None => recorded.to_canonical_json(origin),
    })
}

/// What an app may know of its people. Password hashes and what one person sealed for another stay here.
fn opened(personal: Personal) -> Value {
    let Personal { email, previous_email, name, phone, avatar_url, ip, user_agent, reason, .. } = personal;
    let members = json!({
        "email": email,
        "previous_email": previous_email,
        "name": name,
        "phone": phone,
        "avatar_url": avatar_url,
        "ip": ip,
        "user_agent": user_agent,
        "reason": reason,
    });
    let Value::Object(mut members) = members else { return Value::Null };
    members.retain(|_, value| !value.is_null());
    Value::Object(members)
}
