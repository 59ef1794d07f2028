//! HTTP GET: 2xx and 3xx are well; a redirect to another host ends the probe with a warning.
//!
//! TLS certificates of pods are not verified, as upstream's are not: the probe asks whether the pod answers, not who it is.
//!
//! upstream: pkg/probe/http/http.go, request.go

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::{Outcome, dial_error, host_port, resolve_port};

/// Most of a body that is read.
const BODY_BYTES_MAX: usize = 10 * 1024;
/// Redirects followed on the same host.
const REDIRECTS_MAX: usize = 10;

/// Where to send a GET, and with which headers.
#[derive(Debug, Clone)]
pub struct HttpTarget {
    uri: Uri,
    headers: HeaderMap,
}

impl HttpTarget {
    /// From the spec; without a host the pod's address.
    pub fn new(
        action: &HTTPGetAction,
        container: &Container,
        pod_ip: &str,
        purpose: &str,
    ) -> Result<Self, String> {
        let scheme = action.scheme.as_deref().unwrap_or("HTTP").to_ascii_lowercase();
        let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
        let port = resolve_port(&action.port, container)?;
        let path = action.path.as_deref().unwrap_or_default();
        let slash = if path.starts_with('/') { "" } else { "/" };
        let uri: Uri = format!("{scheme}://{}{slash}{path}", host_port(host, port))
            .parse()
            .map_err(|error| format!("invalid URL: {error}"))?;
        let mut headers = HeaderMap::new();
        for pair in action.http_headers.iter().flatten() {
            let name = HeaderName::from_bytes(pair.name.as_bytes()).map_err(|error| error.to_string())?;
            let value = HeaderValue::from_str(&pair.value).map_err(|error| error.to_string())?;
            headers.append(name, value);
        }
        if !headers.contains_key(header::USER_AGENT) {
            let agent = HeaderValue::from_str(&format!("kube-{purpose}/1.36"));
            headers.insert(header::USER_AGENT, agent.map_err(|error| error.to_string())?);
        }
        match headers.get(header::ACCEPT).map(|value| value.is_empty()) {
            None => {
                headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
            }
            Some(true) => {
                headers.remove(header::ACCEPT);
            }
            Some(false) => {}
        }
        Ok(HttpTarget { uri, headers })
    }
}

/// The answer to a GET.
#[derive(Debug)]
pub struct Answer {
    status: http::StatusCode,
    location: Option<String>,
    body: Vec<u8>,
}

/// Why there is no answer, in Go's words.
#[derive(Debug, thiserror::Error)]
#[error("Get \"{uri}\": {what}")]
pub struct GetError {
    uri: String,
    what: String,
}

/// Probes.
pub async fn probe(target: &HttpTarget, timeout: Duration) -> Outcome {
    let mut target = target.clone();
    let deadline = tokio::time::Instant::now() + timeout;
    for _ in 0..=REDIRECTS_MAX {
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let answer = match get(&target, left).await {
            Ok(answer) => answer,
            Err(error) => return Outcome::Failure(error.to_string()),
        };
        let code = answer.status.as_u16();
        if !(200..400).contains(&code) {
            return Outcome::Failure(format!("HTTP probe failed with statuscode: {code}"));
        }
        if code < 300 {
            return Outcome::Success;
        }
        match answer.location.as_deref().and_then(|location| follow(&target.uri, location)) {
            Some(next) if next.host() == target.uri.host() => target.uri = next,
            _ => {
                let body = String::from_utf8_lossy(&answer.body);
                return Outcome::Warning(format!("Probe terminated redirects, Response body: {body}"));
            }
        }
    }
    Outcome::Failure(format!("Get \"{}\": stopped after {REDIRECTS_MAX} redirects", target.uri))
}

/// The target of a redirect, absolute or relative to the host.
fn follow(from: &Uri, location: &str) -> Option<Uri> {
    if location.contains("://") {
        return location.parse().ok();
    }
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    let slash = if location.starts_with('/') { "" } else { "/" };
    format!("{scheme}://{authority}{slash}{location}").parse().ok()
}

/// One GET on a connection of its own.
pub async fn get(target: &HttpTarget, timeout: Duration) -> Result<Answer, GetError> {
    let failed = |what: String| GetError { uri: target.uri.to_string(), what };
    match tokio::time::timeout(timeout, exchange(target)).await {
        Ok(answer) => answer.map_err(failed),
        Err(_) => {
            Err(failed("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".into()))
        }
    }
}

async fn exchange(target: &HttpTarget) -> Result<Answer, String> {
    let uri = &target.uri;
    let tls = uri.scheme_str() == Some("https");
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let address = host_port(host, port);
    let stream = TcpStream::connect(&address).await.map_err(|error| dial_error(&address, &error))?;
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "SO_LINGER");
    }
    if !tls {
        return over(stream, target).await;
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(UNVERIFIED.clone());
    let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
    over(stream, target).await
}

async fn over<S>(stream: S, target: &HttpTarget) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let text = |error: hyper::Error| {
        if error.is_incomplete_message() { "EOF".to_owned() } else { error.to_string() }
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let path = target.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::get(path).body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    request.headers_mut().extend(target.headers.clone());
    if !target.headers.contains_key(header::HOST)
        && let Some(authority) = target.uri.authority()
    {
        let value = HeaderValue::from_str(authority.as_str()).map_err(|error| error.to_string())?;
        request.headers_mut().insert(header::HOST, value);
    }
    let answer = async {
        let response = sender.send_request(request).await.map_err(text)?;
        let status = response.status();
        let location =
            response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut body = response.into_body();
        let mut read = Vec::new();
        while let Some(frame) = body.frame().await {
            // Frames that are not data are trailers, which say nothing here.
            if let Some(data) = frame.map_err(text)?.data_ref() {
                read.extend_from_slice(data);
            }
            if read.len() >= BODY_BYTES_MAX {
                break;
            }
        }
        read.truncate(BODY_BYTES_MAX);
        Ok(Answer { status, location, body: read })
    };
    // The connection runs only while the answer is awaited, and is dropped with it. That it ends is no verdict: what it
    // has read may not have been taken yet.
    let drive = async {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "probe connection");
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = answer => answer,
        () = drive => Err("EOF".into()),
    }
}

static UNVERIFIED: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider serves TLS 1.2 and 1.3");
    let verifier = Arc::new(AnyCertificate { schemes });
    Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
});

#[derive(Debug)]
struct AnyCertificate {
    schemes: Vec<rustls::SignatureScheme>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.schemes.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn against(response: &'static str) -> Outcome {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 1024];
                let read = stream.read(&mut request).await.unwrap_or(0);
                let again = request[..read].starts_with(b"GET /next");
                let text = if again { "HTTP/1.1 204 No Content\r\n\r\n" } else { response };
                // The probe may have gone away, which is what some cases are about.
                if stream.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        let action: HTTPGetAction = serde_json::from_value(
            serde_json::json!({"port": port, "path": "healthz?x=1", "host": "127.0.0.1"}),
        )
        .expect("an action");
        let target = HttpTarget::new(&action, &Container::default(), "", "probe").expect("a target");
        probe(&target, Duration::from_millis(500)).await
    }

    #[tokio::test]
    async fn answers_are_judged() {
        for (response, want) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Outcome::Success),
            (
                "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
                Outcome::Failure("HTTP probe failed with statuscode: 500".into()),
            ),
            ("HTTP/1.1 302 Found\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n", Outcome::Success),
            (
                "HTTP/1.1 302 Found\r\nLocation: http://example.com/\r\nContent-Length: 2\r\n\r\ngo",
                Outcome::Warning("Probe terminated redirects, Response body: go".into()),
            ),
        ] {
            assert_eq!(against(response).await, want, "{response}");
        }
        assert!(matches!(against("").await, Outcome::Failure(_)));
    }
}
