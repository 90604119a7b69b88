//! Parsers of configuration values, and their error texts.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::str::FromStr;
use std::time::Duration;

use domain::{Email, LogOrigin};
use effects::mailer::MailUrl;
use effects::relay;
use effects::senders::SenderDomains;
use event_store::location::Location;
use http_kit::limits::Rate;
use ipnet::IpNet;
use read_models::LONGEST_LEASE;
use secrecy::SecretString;
use tokens::PublicUrl;
use url::Url;

use super::{Argon2Cost, LogFormat};
use crate::bus;

fn parsed<T: FromStr>(text: &str, what: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is not {what}"))
}

/// For types that parse from text.
fn of_type<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

const POSITIVE: &str = "a whole number above 0";

pub(super) fn positive_size(text: &str) -> Result<NonZeroUsize, String> {
    parsed(text, POSITIVE)
}

pub(super) fn positive_number(text: &str) -> Result<u32, String> {
    parsed(text, POSITIVE).map(NonZeroU32::get)
}

pub(super) fn positive_seconds(text: &str) -> Result<Duration, String> {
    positive_number(text).map(|seconds| Duration::from_secs(seconds.into()))
}

/// The value in bytes.
pub(super) fn mebibytes(text: &str) -> Result<u64, String> {
    positive_number(text).map(|mib| u64::from(mib) << 20)
}

pub(super) fn whole_number(text: &str) -> Result<usize, String> {
    parsed(text, "a whole number")
}

/// 0 is valid.
pub(super) fn any_number(text: &str) -> Result<u64, String> {
    parsed(text, "a whole number")
}

/// The minimum of hyper's buffer.
const LEAST_HEAD: u32 = 8192;

pub(super) fn head_bytes(text: &str) -> Result<u32, String> {
    let bytes = positive_number(text)?;
    if bytes < LEAST_HEAD { Err(format!("it is below {LEAST_HEAD}")) } else { Ok(bytes) }
}

/// 0 is `None`.
pub(super) fn number_or_none(text: &str) -> Result<Option<u64>, String> {
    parsed(text, "a whole number").map(|number| Some(number).filter(|number| *number > 0))
}

/// 0 is `None`.
pub(super) fn seconds_or_none(text: &str) -> Result<Option<Duration>, String> {
    Ok(number_or_none(text)?.map(Duration::from_secs))
}

const SECONDS: &str = "a number of seconds";

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    parsed(text, SECONDS).map(|seconds: NonZeroU32| Duration::from_secs(seconds.get().into()))
}

/// Nodes wait for no longer one.
pub(super) fn lease(text: &str) -> Result<Duration, String> {
    let lease = seconds(text)?;
    if lease > LONGEST_LEASE { Err(format!("it is above {}", LONGEST_LEASE.as_secs())) } else { Ok(lease) }
}

/// Zero, too.
pub(super) fn any_seconds(text: &str) -> Result<u32, String> {
    parsed(text, SECONDS)
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    parsed(text, "an address and a port such as 127.0.0.1:8080")
}

pub(super) fn internal_address(text: &str) -> Result<SocketAddr, String> {
    parsed(text, "an address and a port such as 127.0.0.1:9090")
}

pub(super) fn secret(text: &str) -> Result<SecretString, String> {
    non_empty(text).map(SecretString::from)
}

pub(super) fn log_origin(text: &str) -> Result<LogOrigin, String> {
    LogOrigin::parse(text).map_err(|error| error.to_string())
}

/// Empty: none.
pub(super) fn nats_servers(text: &str) -> Result<Option<SecretString>, String> {
    if text.is_empty() { Ok(None) } else { bus::servers(text).map(|_| Some(SecretString::from(text))) }
}

pub(super) fn mail_url(text: &str) -> Result<MailUrl, String> {
    of_type(text)
}

pub(super) fn sender(text: &str) -> Result<Email, String> {
    Email::parse(text).map_err(|_| "it is not an address such as no-reply@example.com".to_owned())
}

pub(super) fn sender_domains(text: &str) -> Result<SenderDomains, String> {
    of_type(text)
}

pub(super) fn non_empty(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("it is empty".to_owned()) } else { Ok(text.trim().to_owned()) }
}

pub(super) fn location(text: &str) -> Result<Location, String> {
    of_type(text)
}

pub(super) fn public_url(text: &str) -> Result<PublicUrl, String> {
    // Not quoted, because it may contain a password.
    PublicUrl::parse(text.trim()).map_err(|error| error.to_string())
}

pub(super) fn collector(text: &str) -> Result<Option<Url>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    // Not quoted, because it may contain a password.
    let wrong = || {
        "give http:// or https://, host and port such as http://127.0.0.1:4318; what the collector wants to see besides, \
         such as a key, goes into the environment variable OTEL_EXPORTER_OTLP_HEADERS"
            .to_owned()
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    let plain = url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() || !plain {
        return Err(wrong());
    }
    Ok(Some(url))
}

/// Empty: none.
pub(super) fn list_url(text: &str) -> Result<Option<Url>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let url = Url::parse(text).map_err(|e| format!("{text:?} is not a URL: {e}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || url.fragment().is_some() {
        return Err(
            "give an http or https URL without a query, such as https://list.example.com/range/".to_owned()
        );
    }
    Ok(Some(url))
}

pub(super) fn share(text: &str) -> Result<f64, String> {
    match parsed::<f64>(text, "a number from 0 to 1, such as 0.1")? {
        share if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(format!("{text:?} is not from 0 to 1")),
    }
}

pub(super) fn log_directives(text: &str) -> Result<String, String> {
    tracing_subscriber::EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|e| format!("give a level (error, warn, info, debug, trace) or tracing directives: {e}"))
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{text:?} is neither text nor json")),
    }
}

/// Whether NATS keeps the stream in memory.
pub(super) fn storage(text: &str) -> Result<bool, String> {
    match text {
        "file" => Ok(false),
        "memory" => Ok(true),
        _ => Err(format!("{text:?} is neither file nor memory")),
    }
}

pub(super) fn batch(text: &str) -> Result<usize, String> {
    match parsed::<usize>(text, POSITIVE)? {
        events @ 1..=relay::MAX_BATCH => Ok(events),
        _ => Err(format!("it must be between 1 and {}", relay::MAX_BATCH)),
    }
}

pub(super) fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{text:?} is neither on nor off")),
    }
}

pub(super) fn rate(text: &str) -> Result<Rate, String> {
    let wrong = || format!("{text:?} is not of the form 60/60 (requests/seconds)");
    let (requests, seconds) = text.split_once('/').ok_or_else(wrong)?;
    let number = |text: &str| text.trim().parse().map_err(|_| wrong());
    Ok(Rate { requests: number(requests)?, seconds: number(seconds)? })
}

pub(super) fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            part.parse()
                .or_else(|_| part.parse().map(|address: std::net::IpAddr| IpNet::from(address)))
                .map_err(|_| format!("{part:?} is neither a network such as 10.0.0.0/8 nor an address"))
        })
        .collect()
}

pub(super) fn argon2_cost(text: &str) -> Result<Argon2Cost, String> {
    let wrong = || format!("{text:?} is not of the form m=19456,t=2,p=1 (memory in KiB, passes, lanes)");
    let mut numbers = BTreeMap::new();
    for part in text.split(',') {
        let (name, number) = part.trim().split_once('=').ok_or_else(wrong)?;
        let number: u32 = number.parse().map_err(|_| wrong())?;
        if !matches!(name, "m" | "t" | "p") || numbers.insert(name, number).is_some() {
            return Err(wrong());
        }
    }
    let number = |name| numbers.get(name).copied().ok_or_else(wrong);
    let cost = Argon2Cost { memory_kib: number("m")?, passes: number("t")?, lanes: number("p")? };
    let range = |name, value: u32, least, most| {
        if (least..=most).contains(&value) {
            Ok(())
        } else {
            Err(format!("{name} must be between {least} and {most}"))
        }
    };
    range("p", cost.lanes, 1, 16)?;
    // RFC 9106, section 3.1: at least 8 KiB a lane.
    range("m", cost.memory_kib, 8 * cost.lanes, 4 * 1024 * 1024)?;
    range("t", cost.passes, 1, 64)?;
    Ok(cost)
}

/// A platform key created by the operator: fit for a header (RFC 6750 section 2.1), and hard to guess.
pub(super) fn admin_key(text: &str) -> Result<SecretString, String> {
    let text = text.trim();
    let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b));
    if (32..=256).contains(&text.len()) && fits {
        return Ok(SecretString::from(text));
    }
    // Not quoted: it is a secret.
    Err("give 32 to 256 letters, digits and characters of -._~+/= that are hard to guess: openssl rand -base64 32".to_owned())
}
