//! The host behind HTTP: the reference's routes, each node by itself, whole runs as JSON or as a stream, and the page.

mod body;
mod graph;
mod metrics;
mod observe;
mod openapi;
pub mod page;
mod problem;
mod routes;

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderName, HeaderValue, Method, header},
    middleware,
    routing::{get, post},
};
use tokio::net::TcpListener;
use tower_http::cors::CorsLayer;

use self::{metrics::Metrics, page::Page};
use crate::host::Host;

/// Largest body that is read.
pub const LARGEST_BODY: usize = 1 << 20;

/// How long requests may go on after the server was asked to end.
pub const DRAIN: Duration = Duration::from_secs(30);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What is served besides the host's API.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// The page; [`page::embedded`] is the program's own.
    pub page: &'static [page::File],
    /// Origins whose pages may use the API from a browser; one that is `*` stands for all. The page served here needs
    /// none.
    pub allowed_origins: Vec<HeaderValue>,
}

/// What the routes share.
struct App {
    host: Host,
    metrics: Metrics,
    page: Page,
}

/// All routes over a host.
pub fn router(host: Host, site: &Site) -> Router {
    let app = Arc::new(App { metrics: Metrics::new(), host, page: Page::new(site.page) });
    let router = Router::new()
        .route("/generate_score", post(routes::generate_score))
        .route("/v1/graphs/{graph}", get(routes::graph))
        .route("/v1/graphs/{graph}/run", post(routes::run))
        .route("/classify_generated_texts", post(routes::classify_generated_texts))
        .route("/{node}/generate", post(routes::generate))
        .route("/{node}/classify", post(routes::classify))
        .route("/livez", get(routes::alive))
        .route("/healthz", get(routes::healthy))
        .route("/readyz", get(routes::ready))
        .route("/metrics", get(routes::metrics))
        .route("/docs.json", get(routes::docs))
        .fallback(routes::page)
        .method_not_allowed_fallback(routes::method_not_allowed)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), observe::observe))
        .with_state(app);
    if site.allowed_origins.is_empty() { router } else { router.layer(cors(&site.allowed_origins)) }
}

/// Lets pages of these origins send requests and read the answers.
fn cors(origins: &[HeaderValue]) -> CorsLayer {
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::CONTENT_TYPE, REQUEST_ID])
        .expose_headers([REQUEST_ID])
        // A page in the internet may ask a server on the visitor's own machine, if that server says so.
        .allow_private_network(true)
        .max_age(Duration::from_secs(600));
    if origins.iter().any(|origin| origin == "*") {
        layer.allow_origin(tower_http::cors::Any)
    } else {
        layer.allow_origin(origins.to_vec())
    }
}

/// Opens `addr`.
///
/// # Errors
/// One sentence that names the address and, where it is taken, what to do.
pub async fn bind(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "{addr} is in use: stop the program that has it, or choose another address, such as --addr {}:0 for any free port",
            addr.ip()
        ),
        _ => anyhow::anyhow!("cannot listen at {addr}: {error}"),
    })
}

/// Serves `router` until `stop` ends; then takes no new connections, and ends when all requests are answered, or after
/// `drain`.
///
/// # Errors
/// If the listener breaks.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
    drain: Duration,
) -> io::Result<()> {
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let stop = async move {
        stop.await;
        let _ = stopping.send(());
    };
    let drained = async {
        if stopped.await.is_ok() {
            tokio::time::sleep(drain).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        ended = axum::serve(listener, router).with_graceful_shutdown(stop).into_future() => ended,
        () = drained => Ok(()),
    }
}
