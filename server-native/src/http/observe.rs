//! What every request gets: an id, a line in the metrics, and a 500 in place of a panic.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;

use super::{App, REQUEST_ID, problem::Problem};
use crate::host::random_seed;

pub(super) async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = request.headers().get(&REQUEST_ID).filter(|id| is_plain(id)).cloned().unwrap_or_else(new_id);
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_string();
    let method = known(request.method());
    let mut response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            let error = "the server broke while it answered this request";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error).into_response()
        }
    };
    if is_foreign_error(&response) {
        let status = response.status();
        let error = status.canonical_reason().unwrap_or("the request cannot be answered").to_lowercase();
        response = Problem::new(status, error).into_response();
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    app.metrics.count(method, &route, response.status(), began.elapsed());
    response
}

/// Whether an error was made by the framework, which does not speak JSON.
fn is_foreign_error(response: &Response) -> bool {
    let is_error = response.status().is_client_error() || response.status().is_server_error();
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    is_error && kind != Some(b"application/json")
}

/// An id that can stand in logs: short, visible ASCII.
fn is_plain(id: &HeaderValue) -> bool {
    (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

fn new_id() -> HeaderValue {
    let id = format!("{:013x}{:013x}", random_seed() >> 1, random_seed() >> 1);
    HeaderValue::from_str(&id).expect("hexadecimal digits are a header value")
}

/// The method's name, unless it was made up: metrics have only so many lines.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}
