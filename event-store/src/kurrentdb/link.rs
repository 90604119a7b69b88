//! Connections to a server and gRPC calls on them, as far as a journal needs them.
//!
//! The official client (1.2) delays each call by 40 ms: it leaves Nagle's algorithm on, sends a request in two parts
//! and accepts no custom connector. Nor does it say why a connection failed. So it only parses the URL; the calls are
//! made here.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use eventstore::{ClientSettings, Endpoint};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, CertificateError, ClientConfig, RootCertStore};

use super::protocol::{self, ClusterInfo, Member};
use super::{Access, KurrentUrl};

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// How often an idle connection is pinged, and how long the answer may take.
const ALIVE: Duration = Duration::from_secs(10);
/// How many bytes may be in flight: whole journals are read.
const WINDOW: u32 = 4 * 1024 * 1024;
/// The largest message accepted: no server accepts an event of that size.
const GREATEST: usize = 64 * 1024 * 1024;

/// Why a call has no answer.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    /// No server is listening. Nothing was sent.
    Away(String),
    /// Refused for a reason that retrying does not change. Nothing was done.
    Denied(String),
    /// It was not sent.
    NotSent(String),
    /// It was sent, and failed afterwards.
    Lost(String),
    /// The server's own status.
    Status(Status),
}

/// How a failed call ended.
#[derive(Clone, Debug)]
pub(super) struct Status {
    /// The gRPC status code.
    pub(super) code: i32,
    pub(super) text: String,
    /// KurrentDB's name for it.
    pub(super) exception: Option<String>,
    /// The cluster's leader, if the node that was asked is not.
    pub(super) leader: Option<Endpoint>,
}

/// gRPC status codes.
pub(super) mod code {
    pub(in super::super) const INVALID_ARGUMENT: i32 = 3;
    pub(in super::super) const NOT_FOUND: i32 = 5;
    pub(in super::super) const PERMISSION_DENIED: i32 = 7;
    pub(in super::super) const FAILED_PRECONDITION: i32 = 9;
    pub(in super::super) const UNIMPLEMENTED: i32 = 12;
    pub(in super::super) const UNAVAILABLE: i32 = 14;
    pub(in super::super) const UNAUTHENTICATED: i32 = 16;
}

/// Where to connect to, and as whom.
pub(super) struct Target {
    settings: ClientSettings,
    authorization: Option<HeaderValue>,
    user: Option<String>,
    tls: Option<TlsConnector>,
}

impl Target {
    /// The server of a URL. Fails if the files that it names are unusable, and says why.
    pub(super) fn new(url: &KurrentUrl, access: Option<&Access>) -> Result<Self, String> {
        let access = access.or(url.access.as_ref());
        let authorization = match access {
            Some(Access { user, password }) => {
                let text = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
                let mut value = HeaderValue::from_str(&text).map_err(|error| error.to_string())?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let settings = url.settings.clone();
        let tls = if settings.is_secure_mode_enabled() { Some(tls(&settings)?) } else { None };
        Ok(Self { settings, authorization, user: access.map(|access| access.user.clone()), tls })
    }

    /// Why the server rejects this user and password.
    pub(super) fn not_let_in(&self) -> String {
        match &self.user {
            Some(user) => format!(
                "the server rejects {user}: unknown user or wrong password. Set user and password in \
                 the URL as the server has them"
            ),
            None => "the server requires a login: give user and password in the URL".to_owned(),
        }
    }

    /// The account that it logs in with.
    pub(super) fn account(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The account, for messages.
    pub(super) fn user(&self) -> &str {
        self.user.as_deref().unwrap_or("an anonymous user")
    }
}

fn tls(settings: &ClientSettings) -> Result<TlsConnector, String> {
    let certificates = |path: &str, name: &str| {
        let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
        match read() {
            Ok(found) if !found.is_empty() => Ok(found),
            Ok(_) => Err(format!("{name}: {path} holds no certificate in PEM")),
            Err(error) => Err(format!("{name}: {path} cannot be read: {error}")),
        }
    };
    let mut roots = RootCertStore::empty();
    if let Some(path) = settings.tls_ca_file() {
        for certificate in certificates(path, "tlsCaFile")? {
            roots.add(certificate).map_err(|error| format!("tlsCaFile: {path}: {error}"))?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let mut config = match settings.user_certificate() {
        Some((certificate, key)) => {
            let chain = certificates(certificate, "userCertFile")?;
            let read = PrivateKeyDer::from_pem_file(key);
            let key = read.map_err(|error| format!("userKeyFile: {key} cannot be read: {error}"))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| format!("userCertFile: {error}"))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A connection.
pub(super) struct Link {
    target: Arc<Target>,
    authority: String,
    sender: SendRequest<Bytes>,
}

impl Link {
    /// Connects to the node reported as leader, or to the server; in a cluster, to the leader that its members name.
    pub(super) async fn connect(target: &Arc<Target>, leader: Option<&Endpoint>) -> Result<Self, Trouble> {
        if let Some(leader) = leader {
            return Self::to(target, leader).await;
        }
        let hosts = target.settings.hosts();
        if hosts.len() == 1 && !target.settings.is_dns_discovery_enabled() {
            return Self::to(target, &hosts[0]).await;
        }
        let mut last = Trouble::NotSent("the URL names no host".to_owned());
        for host in hosts {
            match Self::leader(target, host).await {
                Ok(link) => return Ok(link),
                Err(trouble) => last = trouble,
            }
        }
        Err(last)
    }

    /// The leader, according to this member of the cluster.
    async fn leader(target: &Arc<Target>, member: &Endpoint) -> Result<Self, Trouble> {
        let asking = async {
            let mut link = Self::to(target, member).await?;
            let mut answers = link.call(protocol::GOSSIP, [Vec::new()].into_iter()).await?;
            let answer = answers.next().await?.unwrap_or_default();
            let unreadable =
                |error| Trouble::NotSent(format!("the answer of {} cannot be read: {error}", link.authority));
            let info = ClusterInfo::decode(answer).map_err(unreadable)?;
            let leads = |member: &Member| member.is_alive && member.state == Member::LEADER;
            let leader = info.members.into_iter().find(leads).and_then(|member| member.endpoint);
            Ok::<_, Trouble>((link, leader))
        };
        let asked = timeout(2 * CONNECT, asking).await;
        let silent = |_| Trouble::NotSent(format!("{}:{} does not answer", member.host, member.port));
        match asked.map_err(silent)?? {
            (link, None) => Err(Trouble::NotSent(format!(
                "the cluster currently has no leader, according to {}",
                link.authority
            ))),
            (link, Some(leader)) if (&leader.address, leader.port) == (&member.host, member.port) => Ok(link),
            (_, Some(leader)) => {
                Self::to(target, &Endpoint { host: leader.address, port: leader.port }).await
            }
        }
    }

    async fn to(target: &Arc<Target>, endpoint: &Endpoint) -> Result<Self, Trouble> {
        let Endpoint { host, port } = endpoint;
        let authority = format!("{host}:{port}");
        let silent = || Trouble::NotSent(format!("{authority} does not answer"));
        let port = u16::try_from(*port).map_err(|_| Trouble::Denied(format!("{port} is not a port")))?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let connected = timeout(CONNECT, TcpStream::connect((bare, port))).await.map_err(|_| silent())?;
        let socket = connected.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => Trouble::Away(format!(
                "{authority} refuses connections: the server is not running, or not there"
            )),
            _ => Trouble::NotSent(format!("{authority} cannot be reached: {error}")),
        })?;
        // Sends each part of a request at once, without waiting for the acknowledgement of the previous one.
        socket.set_nodelay(true).map_err(|error| Trouble::NotSent(error.to_string()))?;
        let sender = match &target.tls {
            None => handshake(socket, &authority, false).await?,
            Some(tls) => {
                let name = ServerName::try_from(bare.to_owned())
                    .map_err(|_| Trouble::Denied(format!("{host} is not a server name")))?;
                let secured = timeout(CONNECT, tls.connect(name, socket)).await.map_err(|_| silent())?;
                let secured = secured.map_err(|error| insecure(&authority, &error))?;
                handshake(secured, &authority, true).await?
            }
        };
        Ok(Self { target: Arc::clone(target), authority, sender })
    }

    /// Sends these messages and returns the answers.
    pub(super) async fn call(
        &mut self,
        path: &'static str,
        messages: impl Iterator<Item = Vec<u8>>,
    ) -> Result<Answers, Trouble> {
        let mut body = BytesMut::new();
        for message in messages {
            body.put_u8(0);
            body.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
            body.put_slice(&message);
        }
        let request = self.request(path).map_err(|error| Trouble::NotSent(error.to_string()))?;
        let hint = hint(self.target.tls.is_some());
        let not_sent = |error: h2::Error| Trouble::NotSent(format!("{}: {error}{hint}", self.authority));
        let mut sender = self.sender.clone().ready().await.map_err(not_sent)?;
        let (response, stream) = sender.send_request(request, false).map_err(not_sent)?;
        let lost = |error: h2::Error| Trouble::Lost(format!("{}: {error}{hint}", self.authority));
        let (mut response, mut sending) = (Box::pin(response), Box::pin(send(stream, body.freeze())));
        // A server may answer before it has received everything, and refuse the rest.
        let response = tokio::select! {
            biased;
            response = &mut response => response,
            _ = &mut sending => response.await,
        };
        let (head, body) = response.map_err(lost)?.into_parts();
        if let Some(status) = http_status(&Response::from_parts(head.clone(), ())) {
            return Err(self.trouble(status));
        }
        let body = match grpc_status(&head.headers) {
            None => Some(body),
            Some(Ok(())) => None,
            Some(Err(status)) => return Err(self.trouble(status)),
        };
        let (authority, target) = (self.authority.clone(), Arc::clone(&self.target));
        Ok(Answers { authority, target, body, bytes: BytesMut::new() })
    }

    fn request(&self, path: &str) -> Result<Request<()>, http::Error> {
        let scheme = if self.target.tls.is_some() { "https" } else { "http" };
        let mut request = Request::post(format!("{scheme}://{}{path}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("requires-leader", "true");
        if let Some(authorization) = &self.target.authorization {
            request = request.header("authorization", authorization);
        }
        request.body(())
    }

    fn trouble(&self, status: Status) -> Trouble {
        trouble(status, &self.target)
    }
}

/// Separates a refusal that retrying does not change from other failures.
fn trouble(status: Status, target: &Target) -> Trouble {
    match status.code {
        code::UNAUTHENTICATED => Trouble::Denied(target.not_let_in()),
        _ => Trouble::Status(status),
    }
}

async fn handshake(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    authority: &str,
    is_secured: bool,
) -> Result<SendRequest<Bytes>, Trouble> {
    let hint = hint(is_secured);
    let failed = |error: &dyn std::fmt::Display| Trouble::NotSent(format!("{authority}: {error}{hint}"));
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(2 * WINDOW).enable_push(false);
    let shaken = timeout(CONNECT, builder.handshake::<_, Bytes>(socket)).await;
    let (sender, mut connection) =
        shaken.map_err(|_| failed(&"it does not answer"))?.map_err(|error| failed(&error))?;
    let ping = connection.ping_pong();
    tokio::spawn(async move {
        let gone = async move {
            let Some(mut ping) = ping else { return std::future::pending().await };
            loop {
                sleep(ALIVE).await;
                if !matches!(timeout(ALIVE, ping.ping(h2::Ping::opaque())).await, Ok(Ok(_))) {
                    return;
                }
            }
        };
        // When this ends, calls waiting on the connection fail.
        tokio::select! {
            _ = connection => {}
            () = gone => {}
        }
    });
    Ok(sender)
}

/// A likely cause of a broken connection.
fn hint(is_secured: bool) -> &'static str {
    if is_secured { "" } else { ". If it accepts only TLS, remove tls=false from the URL" }
}

/// Why no trusted connection can be made.
fn insecure(authority: &str, error: &io::Error) -> Trouble {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return Trouble::NotSent(format!(
            "{authority}: {error}. If it does not use TLS, set tls=false in the URL"
        ));
    };
    let text = match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "its certificate is signed by an unknown authority. If the authority is your own, name the file of \
             the authority's certificate in the URL: tlsCaFile=/etc/watchword/ca.crt"
                .to_owned()
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "its certificate is for another name: name the server in the URL as its certificate does".to_owned(),
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "its certificate has expired: renew it".to_owned(),
        rustls::Error::InvalidCertificate(wrong) => format!("its certificate is not accepted: {wrong}"),
        rustls::Error::InvalidMessage(_) => "it does not use TLS. If that is intended, set tls=false in the URL".to_owned(),
        other => format!("no TLS connection can be made: {other}"),
    };
    Trouble::Denied(format!("{authority}: {text}"))
}

/// Sends as fast as the server accepts. Fails when the server refuses more.
async fn send(mut stream: SendStream<Bytes>, mut bytes: Bytes) -> Option<()> {
    while bytes.has_remaining() {
        stream.reserve_capacity(bytes.len());
        let capacity = std::future::poll_fn(|context| stream.poll_capacity(context)).await?.ok()?;
        let part = bytes.split_to(capacity.min(bytes.len()));
        let is_last = bytes.is_empty();
        stream.send_data(part, is_last).ok()?;
    }
    Some(())
}

/// The messages that a server answers with.
pub(super) struct Answers {
    authority: String,
    target: Arc<Target>,
    /// `None`: the call succeeded without a message.
    body: Option<RecvStream>,
    bytes: BytesMut,
}

impl Answers {
    /// The next message; `None` after the last one if the call succeeded.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Trouble> {
        let lost = |error: &dyn std::fmt::Display| Trouble::Lost(format!("{}: {error}", self.authority));
        loop {
            if let Some(message) = message(&mut self.bytes).map_err(|error| lost(&error))? {
                return Ok(Some(message));
            }
            let Some(body) = &mut self.body else { return Ok(None) };
            match body.data().await {
                Some(Ok(data)) => {
                    let _ = body.flow_control().release_capacity(data.len());
                    self.bytes.extend_from_slice(&data);
                }
                Some(Err(error)) => return Err(lost(&error)),
                None => {
                    let trailers = body.trailers().await.map_err(|error| lost(&error))?;
                    return match trailers.as_ref().and_then(grpc_status) {
                        Some(Ok(())) => Ok(None),
                        Some(Err(status)) => Err(trouble(status, &self.target)),
                        None => Err(lost(&"the answer is incomplete")),
                    };
                }
            }
        }
    }
}

/// The first message of these bytes, if complete.
fn message(bytes: &mut BytesMut) -> Result<Option<Bytes>, &'static str> {
    let Some(([is_compressed, length @ ..], rest)) = bytes.split_first_chunk::<5>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if *is_compressed != 0 || length > GREATEST {
        return Err("the answer is compressed, or larger than any event");
    }
    if rest.len() < length {
        return Ok(None);
    }
    bytes.advance(5);
    Ok(Some(bytes.split_to(length).freeze()))
}

/// How a call ended, if these headers say so.
fn grpc_status(headers: &HeaderMap) -> Option<Result<(), Status>> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let code = text("grpc-status")?.parse().unwrap_or(2);
    if code == 0 {
        return Some(Ok(()));
    }
    let exception = text("exception");
    let leader = text("leader-endpoint-host").zip(text("leader-endpoint-port"));
    let leader = leader.and_then(|(host, port)| Some(Endpoint { host, port: port.parse().ok()? }));
    let message = text("grpc-message").map(|message| super::percent_decoded(&message)).unwrap_or_default();
    let text = match &exception {
        _ if !message.is_empty() => message,
        Some(exception) => format!("the server says {exception}"),
        None => format!("the server ended the call with gRPC status code {code}"),
    };
    Some(Err(Status { code, text, exception, leader }))
}

/// What a server, or a proxy before it, says by its HTTP status.
fn http_status(response: &Response<()>) -> Option<Status> {
    let status = response.status();
    if status.is_success() {
        return None;
    }
    let code = match status.as_u16() {
        400 => code::INVALID_ARGUMENT,
        401 => code::UNAUTHENTICATED,
        403 => code::PERMISSION_DENIED,
        404 => code::UNIMPLEMENTED,
        _ => code::UNAVAILABLE,
    };
    let text = format!("the server answers {status}, which KurrentDB does not");
    Some(Status { code, text, exception: None, leader: None })
}

#[cfg(test)]
mod tests;
