//! How messages to webhooks are sent.

use std::num::NonZeroUsize;
use std::time::Duration;

use effects::webhooks::WebhookPolicy;

use super::keys;
use super::values::{ConfigError, Values};

/// Messages to webhooks.
#[derive(Debug, Clone)]
pub struct WebhookConfig {
    /// How many an app may have.
    pub per_app: NonZeroUsize,
    /// How long a receiver may take.
    pub patience: Duration,
    pub policy: WebhookPolicy,
}

pub(super) fn webhooks(values: &mut Values) -> Result<WebhookConfig, ConfigError> {
    Ok(WebhookConfig {
        per_app: values.take(&keys::WEBHOOKS_PER_APP)?,
        patience: values.take(&keys::WEBHOOKS_TIMEOUT)?,
        policy: WebhookPolicy {
            first_pause: values.take(&keys::WEBHOOKS_FIRST_PAUSE)?,
            longest_pause: values.take(&keys::WEBHOOKS_LONGEST_PAUSE)?,
            give_up_after: values.take(&keys::WEBHOOKS_GIVE_UP_AFTER)?,
            disable_after: values.take(&keys::WEBHOOKS_DISABLE_AFTER)?,
        },
    })
}
