//! The language of a page: the app's, or if it has chosen none, the reader's preferred one (RFC 9110 section 12.5.4).

use domain::branding::Locale;
use http::{HeaderMap, header};

/// The available language that `Accept-Language` prefers; English if there is none.
pub(crate) fn preferred(headers: &HeaderMap) -> Locale {
    let ranges = headers.get_all(header::ACCEPT_LANGUAGE).iter().filter_map(|value| value.to_str().ok());
    let mut best = (Locale::default(), 0);
    for (locale, quality) in ranges.flat_map(|value| value.split(',')).take(100).filter_map(range) {
        // Among equals the first wins, as browsers list them in order of preference.
        if quality > best.1 {
            best = (locale, quality);
        }
    }
    best.0
}

/// A language range that matches an available language (RFC 4647 section 3.3.1), and its weight in thousandths.
fn range(text: &str) -> Option<(Locale, u32)> {
    let mut parts = text.split(';').map(str::trim);
    let tag = parts.next()?;
    let primary = tag.split('-').next()?;
    let locale = match primary.to_ascii_lowercase().as_str() {
        "de" => Locale::De,
        "en" | "*" => Locale::En,
        _ => return None,
    };
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    Some((locale, weight.map_or(Some(1000), thousandths)?))
}

/// `0.8` as 800; `None` for an invalid weight.
fn thousandths(text: &str) -> Option<u32> {
    let (whole, rest) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    if !matches!(whole, "0" | "1") || rest.len() > 3 || !rest.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value = whole.parse::<u32>().ok()? * 1000 + format!("{rest:0<3}").parse::<u32>().ok()?;
    (value <= 1000).then_some(value)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_reader_gets_the_language_they_like_best() {
        for (accepted, locale) in [
            ("de", Locale::De),
            ("de-AT,de;q=0.9,en;q=0.8", Locale::De),
            ("DE-ch", Locale::De),
            ("en-GB,en;q=0.9,de;q=0.8", Locale::En),
            ("fr-FR,fr;q=0.9,de;q=0.5,en;q=0.4", Locale::De),
            ("fr, de;q=0.5, en;q=0.500", Locale::De),
            ("en;q=0.5, de;q=0.501", Locale::De),
            ("en;q=0, de;q=0.1", Locale::De),
            ("de;q=0", Locale::En),
            ("de;q=0, *", Locale::En),
            ("*", Locale::En),
            ("fr", Locale::En),
            ("", Locale::En),
            ("dede", Locale::En),
            ("de;q=2, en;q=0.1", Locale::En),
            ("de;q=x", Locale::En),
            ("den-AT", Locale::En),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_LANGUAGE, HeaderValue::from_static(accepted));
            assert_eq!(preferred(&headers), locale, "{accepted}");
        }
        assert_eq!(preferred(&HeaderMap::new()), Locale::En);
    }
}
