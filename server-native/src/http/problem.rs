//! What went wrong, as a status and `{"error", "detail"}`.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use inkling_engine::{
    Error,
    graph::{Answer, answer::Pair},
    protocol::FailureKind,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::host::{Limits, Refused};

/// The body of every answer that is an error.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    #[serde(skip)]
    status: StatusCode,
    /// One sentence for people.
    pub(super) error: String,
    /// What is wrong where in the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) detail: Vec<Detail>,
    /// The rows as far as they came, where a graph failed after its texts were written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<super::openapi::Row>)]
    pub(super) rows: Vec<Pair>,
}

/// One thing that is wrong with a request.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Detail {
    /// A name for its kind.
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    /// The path of keys and indices that leads to it.
    pub(super) loc: Vec<String>,
    /// What is wrong, for people.
    pub(super) msg: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Problem {
        Problem { status, error: error.into(), detail: Vec::new(), rows: Vec::new() }
    }

    /// 400: the body is not what it should be.
    pub(super) fn bad_request(kind: &'static str, loc: Vec<String>, msg: impl Into<String>) -> Problem {
        let msg = msg.into();
        let place = if loc.is_empty() { String::new() } else { format!("`{}`: ", loc.join(".")) };
        let mut problem = Problem::new(StatusCode::BAD_REQUEST, format!("{place}{msg}"));
        problem.detail.push(Detail { kind, loc, msg });
        problem
    }

    /// 422: the body is well-formed, but cannot be done.
    fn unprocessable(loc: Vec<String>, msg: String) -> Problem {
        let mut problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, msg.clone());
        problem.detail.push(Detail { kind: "value_error", loc, msg });
        problem
    }

    /// 413.
    pub(super) fn too_large() -> Problem {
        let largest = super::LARGEST_BODY;
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {largest} bytes"))
    }

    /// 504.
    fn timeout(limits: Limits) -> Problem {
        let seconds = limits.timeout.map_or(0.0, |timeout| timeout.as_secs_f64());
        let error = format!("Not able to process the request in {seconds} seconds");
        Problem::new(StatusCode::GATEWAY_TIMEOUT, error)
    }

    pub(super) fn of_refusal(refused: &Refused) -> Problem {
        match refused {
            Refused::Busy => Problem::new(StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
            Refused::Invalid(error @ Error::Parameter { name, .. }) => {
                Problem::unprocessable(vec![(*name).into()], error.to_string())
            }
            Refused::Invalid(error) => Problem::unprocessable(Vec::new(), error.to_string()),
        }
    }

    /// The problem of an answer without a whole row; none where a row is whole.
    pub(super) fn of_answer(answer: &Answer, limits: Limits) -> Option<Problem> {
        if answer.rows.iter().any(|row| row.error.is_none() && row.generated.is_some()) {
            return None;
        }
        let errors = || answer.rows.iter().filter_map(|row| row.error.as_ref());
        let with = |kind| errors().find(|error| error.kind == kind);
        let say = |status, error: &inkling_engine::graph::answer::RowError| {
            Problem::new(status, format!("{}: {}", error.node, error.message))
        };
        let mut problem = if with(FailureKind::Deadline).is_some() {
            Problem::timeout(limits)
        } else if let Some(error) = with(FailureKind::Internal) {
            say(StatusCode::INTERNAL_SERVER_ERROR, error)
        } else if let Some(error) = with(FailureKind::Unavailable) {
            say(StatusCode::SERVICE_UNAVAILABLE, error)
        } else if let Some(error) = with(FailureKind::Invalid) {
            Problem::unprocessable(vec!["sentence".into()], format!("{}: {}", error.node, error.message))
        } else {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the run ended without an answer")
        };
        if answer.rows.iter().any(|row| row.text.is_some() && row.generated.is_some()) {
            problem.rows = answer.pairs();
        }
        Some(problem)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status;
        let mut response = (status, Json(self)).into_response();
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
