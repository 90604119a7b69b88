//! Validation of what an admin sets of a webhook.

use std::collections::BTreeSet;

use domain::text::Lines;
use domain::webhook::{EventFilter, MAX_FILTERS, WebhookUrl};
use effects::outbound::AllowedNetworks;
use http_kit::problem::{Problem, each};
use schemas::field_codes;

use crate::api::fields;

const MAX_DESCRIPTION: usize = 200;

pub(super) fn url(text: &str, networks: &AllowedNetworks) -> Result<WebhookUrl, Problem> {
    let invalid = |detail: String| Problem::invalid("/url", field_codes::INVALID, detail);
    let url = WebhookUrl::parse(text).map_err(|error| invalid(error.to_string()))?;
    networks.check_url(&url.to_url()).map_err(|error| invalid(error.to_string()))?;
    Ok(url)
}

pub(super) fn events(texts: &[String]) -> Result<BTreeSet<EventFilter>, Problem> {
    if !(1..=MAX_FILTERS).contains(&texts.len()) {
        let detail = format!("1 to {MAX_FILTERS} filters; [\"*\"] for all events");
        return Err(Problem::invalid("/events", field_codes::OUT_OF_RANGE, detail));
    }
    each(texts.iter().enumerate().map(|(at, text)| {
        let pointer = format!("/events/{at}");
        let filter = EventFilter::parse(text.as_str()).map_err(|error| {
            Problem::invalid(pointer.clone(), field_codes::INVALID, format!("give {error}"))
        })?;
        if filter.is_known() {
            return Ok(filter);
        }
        let detail = "no event has this name or aggregate; the AsyncAPI document lists them";
        Err(Problem::invalid(pointer, field_codes::UNKNOWN_TYPE, detail))
    }))
}

/// An empty text is none.
pub(super) fn description(text: Option<&str>) -> Result<Option<String>, Problem> {
    let text = text.filter(|text| !text.is_empty());
    text.map(|text| fields::text("/description", text, MAX_DESCRIPTION, Lines::One)).transpose()
}
