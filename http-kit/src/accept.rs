//! Content negotiation (RFC 9110 section 12.5.1) for all routes with several representations.

use http::{HeaderMap, header};
use schemas::problems;

use crate::problem::Problem;

/// The offer that the client prefers, each a media type and its value; 406 if it accepts none of them.
///
/// The quality of an offer is that of the most specific range that it matches. Among equals the more specific range
/// wins, then the earlier one in the header, then the earlier offer.
pub fn preferred<T: Copy>(headers: &HeaderMap, offers: &[(&str, T)]) -> Result<T, Problem> {
    let ranges = ranges_of(headers);
    let ranked = offers.iter().enumerate().filter_map(|(place, (media, offer))| {
        let (nth, range) = best_for(media, &ranges)?;
        (range.quality > 0).then_some(((range.quality, range.specificity(), !nth, !place), *offer))
    });
    if ranges.is_empty() {
        // No header, or an empty one.
        return offers
            .first()
            .map(|(_, offer)| *offer)
            .ok_or_else(|| Problem::internal("nothing is offered"));
    }
    ranked.max_by_key(|(rank, _)| *rank).map(|(_, offer)| offer).ok_or_else(|| {
        let offered = offers.iter().map(|(media, _)| *media).collect::<Vec<_>>().join(", ");
        Problem::new(problems::NOT_ACCEPTABLE)
            .detail(format!("Accept excludes every available type: {offered}"))
    })
}

/// A media range and its weight in thousandths.
struct Range {
    main: String,
    sub: String,
    quality: u16,
}

impl Range {
    fn specificity(&self) -> u8 {
        match (self.main.as_str(), self.sub.as_str()) {
            ("*", _) => 0,
            (_, "*") => 1,
            _ => 2,
        }
    }

    fn holds(&self, main: &str, sub: &str) -> bool {
        (self.main == "*" || self.main == main) && (self.sub == "*" || self.sub == sub)
    }
}

/// The most specific range that an offer matches, and its index in the header. Of two equal ranges the one with the
/// higher quality counts.
fn best_for<'a>(media: &str, ranges: &'a [Range]) -> Option<(usize, &'a Range)> {
    let (main, sub) = media.split_once('/')?;
    let matching = ranges.iter().enumerate().filter(|(_, range)| range.holds(main, sub));
    matching.max_by_key(|(nth, range)| (range.specificity(), range.quality, !nth))
}

/// Invalid media ranges are ignored, and so are ranges with parameters that no offer has.
fn ranges_of(headers: &HeaderMap) -> Vec<Range> {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| split(value, ',')).filter_map(range_of).collect()
}

fn range_of(text: &str) -> Option<Range> {
    let mut parts = split(text, ';');
    let (main, sub) = parts.next()?.trim().split_once('/')?;
    let (main, sub) = (main.to_ascii_lowercase(), sub.to_ascii_lowercase());
    let is_token = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    if !is_token(&main) || !is_token(&sub) || (main == "*" && sub != "*") {
        return None;
    }
    let mut quality = 1000;
    for parameter in parts.map(str::trim).filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=')?;
        match name.trim().to_ascii_lowercase().as_str() {
            // Parameters after it are extensions, none of which was ever defined.
            "q" => {
                quality = quality_of(value.trim())?;
                break;
            }
            // All text here is UTF-8, so this has no effect; some clients always send it.
            "charset" if value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8") => {}
            _ => return None,
        }
    }
    Some(Range { main, sub, quality })
}

/// `0`, `0.5`, `1.000` (RFC 9110 section 12.4.2), in thousandths.
fn quality_of(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !matches!(whole, "0" | "1") || fraction.len() > 3 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let quality = format!("{whole}{fraction:0<3}").parse().ok()?;
    (quality <= 1000).then_some(quality)
}

/// Splits at separators outside quoted strings.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c| {
        let cuts = c == separator && !quoted;
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        cuts
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const OFFERS: &[(&str, &str)] =
        &[("application/json", "json"), ("text/event-stream", "stream"), ("text/csv", "csv")];

    fn of(values: &[&str]) -> Result<&'static str, &'static str> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::ACCEPT, HeaderValue::from_str(value).expect("a header"));
        }
        preferred(&headers, OFFERS).map_err(|problem| problem.code())
    }

    #[test]
    fn the_best_quality_wins_and_the_most_specific_range_gives_it() {
        for (accept, chosen) in [
            ("", "json"),
            ("*/*", "json"),
            ("application/*", "json"),
            ("text/*", "stream"),
            ("text/csv", "csv"),
            ("TEXT/CSV", "csv"),
            ("text/event-stream", "stream"),
            ("text/event-stream;q=0, application/json", "json"),
            ("text/event-stream; q=0.0 ,*/*", "json"),
            ("text/*;q=0.3, text/event-stream;q=0.7, text/csv", "csv"),
            ("text/*, text/event-stream;q=0.7", "csv"),
            ("*/*;q=0.1, text/csv;q=0.2", "csv"),
            ("application/json;q=0.5, text/csv;q=0.50, */*;q=0.9", "stream"),
            ("application/json, text/event-stream", "json"),
            ("text/event-stream, application/json", "stream"),
            ("*/*, text/csv", "csv"),
            ("application/json;q=0, */*", "stream"),
            ("application/json;charset=UTF-8", "json"),
            ("application/json; charset=\"utf-8\"; q=0.4, text/csv;q=0.3", "json"),
            ("text/html;x=\"a,text/csv\", application/json;q=0.1", "json"),
            ("text/csv;q=2, application/json;q=0.1", "json"),
            ("text/csv;q=0.1234, application/json;q=0.1", "json"),
            ("text/csv;q=x, application/json;q=0.001", "json"),
            ("nonsense, */csv, text/csv;q=0.1", "csv"),
            ("nonsense", "json"),
            ("text/csv;header=absent", "json"),
        ] {
            assert_eq!(of(&[accept]), Ok(chosen), "{accept:?}");
        }
        assert_eq!(of(&[]), Ok("json"));
        assert_eq!(of(&["application/json;q=0.2", "text/csv"]), Ok("csv"), "several lines are one header");
    }

    #[test]
    fn nothing_acceptable_is_406() {
        for accept in [
            "text/html",
            "image/*",
            "*/*;q=0",
            "application/json;q=0",
            "application/json;q=0.000, text/*;q=0",
            "text/html, application/xhtml+xml",
        ] {
            assert_eq!(of(&[accept]), Err("not_acceptable"), "{accept:?}");
        }
    }
}
