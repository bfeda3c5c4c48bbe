//! What the agent answers: `/metrics`, `/healthz`, `/status` and `/sources`, on a unix socket to those who may know, and the first
//! one on loopback.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::IncomingStream;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use xdpchain_host::Host;
use xdpchain_spec::{AgentSpec, Loopback};

use super::{Shared, lock, metrics};
use crate::commands::status;
use crate::error::{Error, Result};
use crate::output::document;

/// What Prometheus calls the text that `/metrics` is.
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The open sockets.
#[derive(Default)]
pub(super) struct Server {
    socket: Option<(PathBuf, JoinHandle<()>)>,
    metrics: Option<(Loopback, JoinHandle<()>)>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((path, task)) = self.socket.take() {
            task.abort();
            let _ = fs::remove_file(path);
        }
        if let Some((_, task)) = self.metrics.take() {
            task.abort();
        }
    }
}

impl Server {
    /// Listens where chains.yaml says.
    pub(super) async fn follow(&mut self, spec: &AgentSpec, shared: &Arc<Shared>) -> Result<()> {
        if self.socket.as_ref().is_none_or(|(path, _)| *path != spec.socket) {
            let listener = listen(&spec.socket)?;
            if let Some((path, task)) = self.socket.take() {
                task.abort();
                let _ = fs::remove_file(path);
            }
            let routes = Router::new()
                .route("/metrics", get(measures))
                .route("/healthz", get(health))
                .route("/status", get(statuses))
                .route("/sources", get(sources))
                .layer(middleware::from_fn_with_state(Arc::clone(shared), allowed))
                .with_state(Arc::clone(shared));
            let service = routes.into_make_service_with_connect_info::<Peer>();
            let task = tokio::spawn(async move {
                if let Err(error) = axum::serve(listener, service).await {
                    tracing::error!("nobody is answered on the socket any more: {error}");
                }
            });
            self.socket = Some((spec.socket.clone(), task));
        }
        if self.metrics.as_ref().map(|(address, _)| *address) != spec.metrics {
            if let Some((_, task)) = self.metrics.take() {
                task.abort();
                let _ = task.await;
            }
            let Some(address) = spec.metrics else { return Ok(()) };
            let listener = bind(address.address()).await?;
            let routes = Router::new().route("/metrics", get(measures)).with_state(Arc::clone(shared));
            let task = tokio::spawn(async move {
                if let Err(error) = axum::serve(listener, routes).await {
                    tracing::error!("metrics are not answered any more: {error}");
                }
            });
            self.metrics = Some((address, task));
        }
        Ok(())
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener> {
    let failed = |source| Error::Agent { what: format!("listen on `{address}`"), source };
    TcpListener::bind(address).await.map_err(failed)
}

/// Listens on a socket of the file system. One that a process left is taken away; one that somebody answers on is not.
fn listen(path: &Path) -> Result<UnixListener> {
    let failed = |source| Error::Agent { what: format!("listen on `{}`", path.display()), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => return Err(failed(ErrorKind::AddrInUse.into())),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)?
        }
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    // Who may know is told by who asks, not by who may open the file.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).map_err(failed)?;
    Ok(listener)
}

/// Who is at the other end of the socket; none when the kernel does not say.
#[derive(Clone, Copy, Debug)]
struct Peer(Option<u32>);

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self(stream.io().peer_cred().ok().map(|peer| peer.uid()))
    }
}

/// Answers root, the agent's own user, and those whom chains.yaml names.
async fn allowed(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(Peer(user)): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let own = nix::unistd::geteuid().as_raw();
    let named = |user: u32| lock(&shared.spec).allow.iter().any(|name| user_number(name) == Some(user));
    match user {
        Some(user) if user == 0 || user == own || named(user) => next.run(request).await,
        _ => (StatusCode::FORBIDDEN, "name your user in `agent: { allow: [...] }` of chains.yaml\n")
            .into_response(),
    }
}

/// The number of a user by name or number.
fn user_number(name: &str) -> Option<u32> {
    let known = || nix::unistd::User::from_name(name).ok()?.map(|user| user.uid.as_raw());
    name.parse().ok().or_else(known)
}

/// Does what waits for the kernel on a thread that may.
async fn work<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> std::result::Result<T, Response> {
    let failed = |text: String| (StatusCode::INTERNAL_SERVER_ERROR, text + "\n").into_response();
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn json(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn measures(State(shared): State<Arc<Shared>>) -> Response {
    match work(move || metrics::text(&shared)).await {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS)], text).into_response(),
        Err(failed) => failed,
    }
}

async fn statuses() -> Response {
    match work(|| document("Status", &status::collect(&Host::open()?)?)).await {
        Ok(text) => json(text),
        Err(failed) => failed,
    }
}

async fn sources(State(shared): State<Arc<Shared>>) -> Response {
    #[derive(serde::Serialize)]
    struct Statuses {
        sources: Vec<xdpchain_source::SourceStatus>,
    }
    let statuses = Statuses { sources: lock(&shared.followers).statuses() };
    match document("SourceStatus", &statuses) {
        Ok(text) => json(text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Well as long as chains.yaml is applied and every source is followed.
async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let mut wrong: Vec<String> = lock(&shared.applied).error.iter().map(|error| one_line(error)).collect();
    for status in lock(&shared.followers).statuses() {
        wrong.extend(
            status.error.iter().map(|error| format!("source {}: {}", status.source, one_line(error))),
        );
    }
    match wrong.is_empty() {
        true => (StatusCode::OK, "ok\n".to_owned()).into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, wrong.join("\n") + "\n").into_response(),
    }
}

fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
