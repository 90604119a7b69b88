//! A client for addresses that apps configure.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use url::Url;

use super::{AllowedNetworks, Unreachable};

/// How much of an answer is read, so that its connection can be used again.
const MAX_ANSWER: usize = 64 * 1024;
/// How long an unused connection is kept. Many servers close theirs after five seconds.
const IDLE: Duration = Duration::from_secs(4);
/// The maximum number of unused connections to a host.
const MOST_IDLE: usize = 8;

/// Sends requests to public and allowed addresses only. It follows no redirect and uses no proxy.
pub struct OutboundClient {
    networks: Arc<AllowedNetworks>,
    /// Or why there is none: the machine has no certificates.
    secure: Result<reqwest::Client, String>,
    plain: reqwest::Client,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// The address is not allowed.
    #[error("{0}")]
    Forbidden(Unreachable),
    /// It cannot be connected to, or the connection broke.
    #[error("{0}")]
    Unreachable(String),
    /// It takes too long.
    #[error("it did not answer in time")]
    Timeout,
}

impl OutboundClient {
    /// A client that waits as long for an answer.
    pub fn new(networks: AllowedNetworks, patience: Duration) -> Self {
        let networks = Arc::new(networks);
        let client = |is_secure| {
            reqwest::Client::builder()
                .redirect(Policy::none())
                // A proxy would resolve names itself.
                .no_proxy()
                .dns_resolver(Arc::new(Resolver { networks: Arc::clone(&networks), is_secure }))
                .timeout(patience)
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(MOST_IDLE)
                .tcp_nodelay(true)
                .user_agent("watchword")
        };
        let secure = client(true).https_only(true).build().map_err(|error| describe(&error));
        // It needs no certificates, and the machine may have none.
        let plain = client(false).tls_certs_only([]).build().expect("these settings are valid");
        Self { networks, secure, plain }
    }

    /// Posts a body, and answers with the status.
    pub async fn post(&self, url: Url, headers: HeaderMap, body: Vec<u8>) -> Result<u16, NoAnswer> {
        // An address in the URL is not resolved.
        self.networks.check_url(&url).map_err(NoAnswer::Forbidden)?;
        let client = if url.scheme() == "https" {
            self.secure.as_ref().map_err(|why| NoAnswer::Unreachable(why.clone()))?
        } else {
            &self.plain
        };
        let answer = client.post(url).headers(headers).body(body).send().await;
        let mut answer = answer.map_err(|error| no_answer(&error))?;
        let status = answer.status().as_u16();
        let mut length = 0;
        // What it says does not matter, nor whether it says it to the end.
        while let Ok(Some(part)) = answer.chunk().await {
            length += part.len();
            if length > MAX_ANSWER {
                break;
            }
        }
        Ok(status)
    }
}

fn no_answer(error: &reqwest::Error) -> NoAnswer {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(this) = cause {
        if let Some(forbidden) = this.downcast_ref::<Unreachable>() {
            return NoAnswer::Forbidden(*forbidden);
        }
        cause = this.source();
    }
    if error.is_timeout() { NoAnswer::Timeout } else { NoAnswer::Unreachable(describe(error)) }
}

/// The innermost cause: what is around it repeats the URL.
fn describe(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Resolves names to the addresses that may be connected to.
struct Resolver {
    networks: Arc<AllowedNetworks>,
    is_secure: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (networks, is_secure) = (Arc::clone(&self.networks), self.is_secure);
        Box::pin(async move {
            let mut refused = None;
            let mut allowed = Vec::new();
            for address in tokio::net::lookup_host((name.as_str(), 0)).await? {
                match networks.check(address.ip(), is_secure) {
                    Ok(()) => allowed.push(address),
                    Err(why) => refused = Some(why),
                }
            }
            match refused {
                Some(why) if allowed.is_empty() => Err(why.into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}
