//! A request's body, in any of the forms that the routes take, becomes a [`Request`].

use axum::{
    body::Bytes,
    extract::{FromRequest, Multipart, Request as HttpRequest},
    http::{HeaderMap, StatusCode, header},
};
use inkling_engine::protocol::{DEFAULT_SENTENCE, Parameters, Request};
use serde_json::{Map, Value};

use super::problem::Problem;

/// The names of the sentence, the reference's own first.
const SENTENCE: [&str; 2] = ["original_sentence", "sentence"];

/// What a route is asked, from JSON, a form, multipart fields or plain text. An empty body asks for the defaults.
pub(super) struct Asked(pub(super) Request);

impl<S: Send + Sync> FromRequest<S> for Asked {
    type Rejection = Problem;

    async fn from_request(request: HttpRequest, state: &S) -> Result<Asked, Problem> {
        let form = Form::of(request.headers())?;
        // The announced length is enough to say no; a body that lies about it is cut off while it is read.
        if announced_length(request.headers()).is_some_and(|length| length > super::LARGEST_BODY as u64) {
            return Err(Problem::too_large());
        }
        let fields = if form == Form::Multipart && announced_length(request.headers()) != Some(0) {
            multipart(request, state).await?
        } else {
            let bytes =
                Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
                    StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(),
                    _ => {
                        Problem::bad_request("body_read", Vec::new(), "the body could not be read to its end")
                    }
                })?;
            fields(form, &bytes)?
        };
        read(fields).map(Asked)
    }
}

fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    UrlEncoded,
    Multipart,
    Text,
}

impl Form {
    fn of(headers: &HeaderMap) -> Result<Form, Problem> {
        let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(Form::Json) };
        let value = value.to_str().unwrap_or_default();
        let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "" | "application/json" => Ok(Form::Json),
            json if json.starts_with("application/") && json.ends_with("+json") => Ok(Form::Json),
            "application/x-www-form-urlencoded" => Ok(Form::UrlEncoded),
            "multipart/form-data" => Ok(Form::Multipart),
            "text/plain" => Ok(Form::Text),
            other => Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                format!(
                    "content type `{other}` is not read here; send application/json, text/plain, \
                     application/x-www-form-urlencoded or multipart/form-data"
                ),
            )),
        }
    }
}

/// The body as a JSON object.
fn fields(form: Form, bytes: &[u8]) -> Result<Map<String, Value>, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let place = error.valid_up_to();
        Problem::bad_request("string_unicode", Vec::new(), format!("the body is not UTF-8: see byte {place}"))
    })?;
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Ok(Map::new());
    }
    let object = || trimmed.starts_with('{').then(|| serde_json::from_str(trimmed).ok()).flatten();
    match form {
        Form::Json | Form::Multipart => match serde_json::from_str(trimmed) {
            Ok(Value::Object(fields)) => Ok(fields),
            Ok(other) => {
                let msg = format!("expected an object, got {}", kind_of(&other));
                Err(Problem::bad_request("object_type", Vec::new(), msg))
            }
            Err(error) => Err(Problem::bad_request("json_invalid", Vec::new(), format!("not JSON: {error}"))),
        },
        Form::Text => Ok(object()
            .unwrap_or_else(|| Map::from_iter([(SENTENCE[0].to_string(), Value::String(text.to_string()))]))),
        // curl's `-d '{..}'` says that it sends a form, but means the JSON.
        Form::UrlEncoded if trimmed.starts_with('{') => fields(Form::Json, bytes),
        Form::UrlEncoded => {
            let mut fields = Map::new();
            form_urlencoded::parse(trimmed.as_bytes())
                .for_each(|(key, value)| add(&mut fields, &key, &value));
            Ok(fields)
        }
    }
}

async fn multipart<S: Send + Sync>(request: HttpRequest, state: &S) -> Result<Map<String, Value>, Problem> {
    let broken = |status, text: String| match status {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(),
        _ => Problem::bad_request("multipart_invalid", Vec::new(), format!("not multipart fields: {text}")),
    };
    let mut parts = Multipart::from_request(request, state)
        .await
        .map_err(|error| broken(error.status(), error.body_text()))?;
    let mut fields = Map::new();
    while let Some(part) =
        parts.next_field().await.map_err(|error| broken(error.status(), error.body_text()))?
    {
        let name = part.name().unwrap_or_default().to_string();
        let bytes = part.bytes().await.map_err(|error| broken(error.status(), error.body_text()))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| {
            Problem::bad_request("string_unicode", vec![name.clone()], "the field is not UTF-8")
        })?;
        add(&mut fields, &name, text);
    }
    Ok(fields)
}

/// Adds a form's field. A form has texts only: parameters are read from theirs.
fn add(fields: &mut Map<String, Value>, key: &str, text: &str) {
    let value = match key {
        _ if SENTENCE.contains(&key) => Value::String(text.into()),
        "stop" => {
            if let Value::Array(stops) = fields.entry(key).or_insert_with(|| Value::Array(Vec::new())) {
                stops.push(Value::String(text.into()));
            }
            return;
        }
        // An empty field of a form says nothing.
        _ if text.trim().is_empty() => return,
        _ => match serde_json::from_str(text.trim()) {
            Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
            _ => Value::String(text.into()),
        },
    };
    fields.insert(key.into(), value);
}

/// Sentence and parameters are read apart, so that an error says which it is about; other keys are ignored.
fn read(mut fields: Map<String, Value>) -> Result<Request, Problem> {
    let sentences: Vec<(&str, Value)> =
        SENTENCE.iter().filter_map(|name| Some((*name, fields.remove(*name)?))).collect();
    let sentence = match sentences.as_slice() {
        [] => DEFAULT_SENTENCE.into(),
        [(_, Value::String(text))] => text.clone(),
        [(name, other)] => {
            let msg = format!("expected a string, got {}", kind_of(other));
            return Err(Problem::bad_request("string_type", vec![(*name).into()], msg));
        }
        [(first, _), (second, _), ..] => {
            let msg = format!("`{first}` and `{second}` mean the same: give one of them");
            return Err(Problem::bad_request("duplicate", vec![(*second).into()], msg));
        }
    };
    fields.retain(|name, _| Parameters::NAMES.contains(&name.as_str()));
    let parameters = serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        use serde_path_to_error::Segment;
        let segment = |segment: &Segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } => Some(key.clone()),
            _ => None,
        };
        let loc = error.path().iter().filter_map(segment).collect();
        Problem::bad_request("type_error", loc, error.inner().to_string())
    })?;
    Ok(Request { sentence, parameters })
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(form: Form, body: &str, sentence: &str, seed: Option<u64>) {
        let request =
            fields(form, body.as_bytes()).and_then(read).unwrap_or_else(|problem| panic!("{problem:?}"));
        assert_eq!((request.sentence.as_str(), request.parameters.seed), (sentence, seed));
    }

    #[track_caller]
    fn check_bad(body: &str, loc: &[&str], msg: &str) {
        let problem = fields(Form::Json, body.as_bytes()).and_then(read).unwrap_err();
        assert_eq!(
            (problem.detail[0].loc.as_slice(), problem.detail[0].msg.as_str()),
            (loc_of(loc).as_slice(), msg)
        );
    }

    fn loc_of(loc: &[&str]) -> Vec<String> {
        loc.iter().map(|part| (*part).to_string()).collect()
    }

    #[test]
    fn every_form_says_the_same() {
        check(Form::Json, r#"{"original_sentence": "Hi", "seed": 3, "extra": []}"#, "Hi", Some(3));
        check(Form::Json, r#"{"sentence": "Hi", "seed": null}"#, "Hi", None);
        check(Form::UrlEncoded, "original_sentence=Hi+there%21&seed=3&top_k=", "Hi there!", Some(3));
        check(Form::UrlEncoded, r#"{"sentence": "Hi", "seed": 3}"#, "Hi", Some(3));
        check(Form::Text, r#" {"sentence": "Hi", "seed": 3}"#, "Hi", Some(3));
        check(Form::Text, "{Hi", "{Hi", None);
        check(Form::Text, " Hi\n", " Hi\n", None);
        for form in [Form::Json, Form::UrlEncoded, Form::Text] {
            check(form, "", DEFAULT_SENTENCE, None);
        }
    }

    #[test]
    fn errors_say_where() {
        check_bad("[]", &[], "expected an object, got an array");
        check_bad("null", &[], "expected an object, got null");
        check_bad(r#"{"sentence": 3}"#, &["sentence"], "expected a string, got a number");
        check_bad(r#"{"seed": -1}"#, &["seed"], "invalid value: integer `-1`, expected u64");
        check_bad(r#"{"stop": ["a", 1]}"#, &["stop", "1"], "invalid type: integer `1`, expected a string");
        let both = "`original_sentence` and `sentence` mean the same: give one of them";
        check_bad(r#"{"sentence": "a", "original_sentence": "a"}"#, &["sentence"], both);
    }

    #[test]
    fn broken_json_that_says_it_is_a_form_is_told_as_json() {
        let problem = fields(Form::UrlEncoded, b"{\"sentence\": \"x\"").unwrap_err();
        assert_eq!(problem.detail[0].kind, "json_invalid");
    }

    #[test]
    fn a_form_reads_numbers_and_keeps_texts() {
        let request = fields(Form::UrlEncoded, b"sentence=3&do_sample=false&stop=1&stop=b&temperature=0.5");
        let request = request.and_then(read).unwrap_or_else(|problem| panic!("{problem:?}"));
        assert_eq!(request.sentence, "3");
        assert_eq!(request.parameters.stop, Some(vec!["1".into(), "b".into()]));
        assert_eq!((request.parameters.do_sample, request.parameters.temperature), (Some(false), Some(0.5)));
    }
}
