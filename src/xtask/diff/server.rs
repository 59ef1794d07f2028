//! One of the two servers, seen as a client sees it: HTTP/2 over one TLS connection.

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

use super::script::Request;

/// An answer that takes longer is a finding of its own.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(120);
/// Events of a watch that nobody has looked at yet; a script makes fewer.
const EVENTS_MAX: usize = 4096;

/// What a server answered.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status code; 0: no answer in time.
    pub code: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body; of a watch that was refused too.
    pub body: Bytes,
}

impl Answer {
    /// All values of a header.
    pub fn header(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect()
    }
    /// The first `Content-Type`.
    pub fn content_type(&self) -> &str {
        self.header("content-type").first().copied().unwrap_or("")
    }
}

/// Pieces of a watch's body; its end is the end of the channel.
pub type Stream = mpsc::Receiver<Bytes>;

/// Something that answers requests.
#[async_trait]
pub trait Server: Send + Sync {
    /// Asks; a stream comes with a watch that was let in.
    async fn ask(&self, request: &Request, watch: bool) -> anyhow::Result<(Answer, Option<Stream>)>;
}

/// A server behind TLS, asked as the user of a token.
pub struct Http {
    send: SendRequest<Full<Bytes>>,
    authority: String,
    token: String,
}

impl Http {
    /// Connects to `address`, whose certificate has to be signed by the authority in `ca_file`.
    pub async fn connect(address: SocketAddr, ca_file: &Path, token: &str) -> anyhow::Result<Http> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca_file).with_context(|| ca_file.display().to_string())?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = tokio::net::TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::IpAddress(address.ip().into());
        let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        let (send, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await?;
        // Ends with the connection; what it ends of is what the requests see.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Http { send, authority: address.to_string(), token: token.into() })
    }
}

#[async_trait]
impl Server for Http {
    async fn ask(&self, request: &Request, watch: bool) -> anyhow::Result<(Answer, Option<Stream>)> {
        let mut builder = http::Request::builder()
            .method(request.method.as_str())
            .uri(format!("https://{}{}", self.authority, request.path))
            .header("authorization", format!("Bearer {}", self.token));
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        let request = builder.body(Full::new(Bytes::from(request.body.clone())))?;
        let mut send = self.send.clone();
        send.ready().await?;
        let answer = match tokio::time::timeout(ANSWER_TIME_MAX, send.send_request(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if send.is_closed() => return Err(error.into()),
            // None came in time, or the server broke off this request alone (upstream does when a handler panics).
            Ok(Err(_)) | Err(_) => return Ok((Answer::default(), None)),
        };
        let (head, body) = answer.into_parts();
        let headers = head
            .headers
            .iter()
            .map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned()));
        let mut answer =
            Answer { code: head.status.as_u16(), headers: headers.collect(), body: Bytes::new() };
        if watch && answer.code == 200 {
            return Ok((answer, Some(streamed(body))));
        }
        match tokio::time::timeout(ANSWER_TIME_MAX, body.collect()).await {
            Ok(body) => answer.body = body?.to_bytes(),
            Err(_) => answer.code = 0,
        }
        Ok((answer, None))
    }
}

fn streamed(mut body: hyper::body::Incoming) -> Stream {
    let (sender, receiver) = mpsc::channel(EVENTS_MAX);
    tokio::spawn(async move {
        // A stream that fails has ended; what came before is compared.
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(data) = frame.into_data() else { continue };
            if sender.send(data).await.is_err() {
                return;
            }
        }
    });
    receiver
}
