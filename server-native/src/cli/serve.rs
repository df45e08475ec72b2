//! `inkling serve`: the graph behind HTTP.

use std::{
    net::SocketAddr,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;
use axum::http::{HeaderValue, Uri};
use clap::Args;

use super::{complain, options::GraphAndModels, print, print_json};
use crate::{
    host::{Host, Limits, MAX_BATCH_SIZE},
    http::{self, Site, page},
    pool::cores,
};

/// Serve the graph over HTTP, and the page
///
/// Answers as soon as it is started; /readyz says when the models are there. Ctrl-C lets requests finish.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  inkling serve\n  inkling serve --addr 0.0.0.0:8080 --models hub\n  \
                        curl http://127.0.0.1:3000/generate_score --json '{\"sentence\": \"I have an idea!\"}'")]
pub(super) struct Arguments {
    /// Address and port; port 0 takes any free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:3000")]
    addr: SocketAddr,
    #[command(flatten)]
    graph: GraphAndModels,
    /// Seconds that a request may take
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    timeout: Duration,
    /// Requests that may run models at the same time; others get a 429
    #[arg(long, value_name = "N", default_value = "32", value_parser = clap::value_parser!(u32).range(1..))]
    max_concurrency: u32,
    /// Texts that a model writes at the same time, whoever asked for them. Each comes out as it would alone, and takes
    /// memory while it is written: 37 kB a token of GPT-2
    #[arg(long, value_name = "N", default_value_t = MAX_BATCH_SIZE, value_parser = clap::value_parser!(u32).range(1..))]
    max_batch_size: u32,
    /// Let pages of this origin use the API from a browser, for example https://example.org; may be given several times,
    /// and `*` lets all
    #[arg(long, value_name = "ORIGIN", value_parser = origin)]
    allow_origin: Vec<HeaderValue>,
    /// Say on standard output, as JSON, where it serves and when it is ready
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|time| !time.is_zero()).ok_or_else(|| "expected a number of seconds above 0".into())
}

/// An origin as browsers write it: scheme, host and port, nothing after.
fn origin(text: &str) -> Result<HeaderValue, String> {
    let expected =
        || "expected an origin such as https://example.org or http://localhost:8080, or *".to_string();
    let is_origin = |text: &str| {
        let Ok(uri) = text.parse::<Uri>() else { return false };
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return false };
        // Written back, so that a path, a name of a user or a capital letter makes it another text.
        format!("{scheme}://{authority}").to_lowercase() == text && !authority.as_str().contains('@')
    };
    if text != "*" && !is_origin(text) {
        return Err(expected());
    }
    HeaderValue::from_str(text).map_err(|_| expected())
}

pub(super) fn main(arguments: Arguments) -> Result<ExitCode> {
    let began = Instant::now();
    let graph = arguments.graph.graph()?;
    let loader = arguments.graph.loader(&graph)?;
    // HTTP is light next to the models: one thread for it leaves them the cores.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let listener = http::bind(arguments.addr).await?;
        let addr = listener.local_addr()?;
        let limits = Limits {
            timeout: Some(arguments.timeout),
            max_concurrency: arguments.max_concurrency as usize,
            max_batch_size: arguments.max_batch_size as usize,
            threads: cores(),
        };
        let host = Host::start(graph, limits, loader)?;
        let readiness = host.readiness();
        let site = Site { page: page::embedded(), allowed_origins: arguments.allow_origin };
        let say = |state: &str, sentence: String| {
            // A server goes on where nobody reads what it says.
            let _ = match arguments.json {
                true => print_json(&serde_json::json!({"state": state, "url": format!("http://{addr}")})),
                false => print(&sentence),
            };
        };
        say("loading", format!("Inkling serves at http://{addr}; its models are loading.\n"));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let server = http::serve(
            listener,
            http::router(host, &site),
            async {
                let _ = stopped.await;
            },
            http::DRAIN,
        );
        let mut server = std::pin::pin!(server);
        let watch = async {
            readiness.await?;
            let time = began.elapsed().as_secs_f64();
            say("ready", format!("Ready after {time:.1} s. Ctrl-C stops it.\n"));
            std::future::pending::<Result<()>>().await
        };
        tokio::select! {
            ended = &mut server => return ended.map(|()| ExitCode::SUCCESS).map_err(Into::into),
            failed = watch => return failed.map(|()| ExitCode::SUCCESS),
            () = asked_to_end() => {}
        }
        complain("ending: requests on their way are finished; Ctrl-C again ends at once");
        let _ = stop.send(());
        tokio::select! {
            ended = server => ended?,
            () = asked_to_end() => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Ctrl-C, or the signal by which systems end services.
async fn asked_to_end() {
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = interrupt => {}
        _ = terminate => {}
    }
}
