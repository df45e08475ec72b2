//! The host behind HTTP: the reference's routes, each node by itself, and whole runs as JSON or as a stream.

mod body;
mod metrics;
mod observe;
mod openapi;
mod page;
mod problem;
mod routes;

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{get, post},
};
use tokio::net::TcpListener;

use self::metrics::Metrics;
use crate::host::Host;

/// Largest body that is read.
pub const LARGEST_BODY: usize = 1 << 20;

/// How long requests may go on after the server was asked to end.
pub const DRAIN: Duration = Duration::from_secs(30);

/// What the routes share.
struct App {
    host: Host,
    metrics: Metrics,
}

/// All routes over a host.
pub fn router(host: Host) -> Router {
    let app = Arc::new(App { metrics: Metrics::new(), host });
    Router::new()
        .route("/generate_score", post(routes::generate_score))
        .route("/v1/graphs/{graph}/run", post(routes::run))
        .route("/classify_generated_texts", post(routes::classify_generated_texts))
        .route("/{node}/generate", post(routes::generate))
        .route("/{node}/classify", post(routes::classify))
        .route("/livez", get(routes::alive))
        .route("/healthz", get(routes::healthy))
        .route("/readyz", get(routes::ready))
        .route("/metrics", get(routes::metrics))
        .route("/docs.json", get(routes::docs))
        .route("/", get(page::html))
        .route("/page.js", get(page::script))
        .route("/page.css", get(page::style))
        .route("/icon.svg", get(page::icon))
        .fallback(routes::not_found)
        .method_not_allowed_fallback(routes::method_not_allowed)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), observe::observe))
        .with_state(app)
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
