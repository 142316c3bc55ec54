//! What OTLP's clients are told: answers in the format of the request, and which refusals are worth a retry.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prost::Message;
use whatap_wire::otlp::{ExportTraceServiceResponse, PartialSuccess, RpcStatus};

use super::body::BadBody;
use super::json::{FromJson, Partial};
use crate::engine::AppendError;
use crate::model::Signal;

/// The two encodings of the same messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Protobuf,
    Json,
}

impl Format {
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let kind = value.split(';').next().unwrap_or("").trim();
        if kind.eq_ignore_ascii_case("application/x-protobuf")
            || kind.eq_ignore_ascii_case("application/protobuf")
        {
            Some(Self::Protobuf)
        } else if kind.eq_ignore_ascii_case("application/json") {
            Some(Self::Json)
        } else {
            None
        }
    }

    pub(super) fn read<T: Message + Default + FromJson>(self, bytes: &[u8]) -> Result<T, String> {
        match self {
            Self::Protobuf => T::decode(bytes)
                .map_err(|error| format!("not the protobuf message of this path: {error}")),
            Self::Json => T::from_json(bytes)
                .map_err(|error| format!("not the JSON message of this path: {error}")),
        }
    }

    pub(super) fn success(self, signal: Signal, rejected: i64, why: &str) -> Response {
        let partial = (rejected > 0).then(|| PartialSuccess {
            rejected,
            error_message: why.to_owned(),
        });
        match self {
            // The three answers have the same layout.
            Self::Protobuf => self.answer(
                StatusCode::OK,
                ExportTraceServiceResponse {
                    partial_success: partial,
                }
                .encode_to_vec(),
            ),
            Self::Json => {
                let partial = partial.map(|partial| {
                    let count = Some(partial.rejected.to_string());
                    let mut json = Partial {
                        error_message: partial.error_message,
                        ..Partial::default()
                    };
                    match signal {
                        Signal::Traces => json.rejected_spans = count,
                        Signal::Metrics => json.rejected_data_points = count,
                        Signal::Logs => json.rejected_log_records = count,
                    }
                    serde_json::json!({ "partialSuccess": json })
                });
                self.answer(
                    StatusCode::OK,
                    partial
                        .unwrap_or_else(|| serde_json::json!({}))
                        .to_string()
                        .into_bytes(),
                )
            }
        }
    }

    pub(super) fn status(self, status: StatusCode, message: &str) -> Response {
        let code = match status {
            StatusCode::UNAUTHORIZED => 16,
            StatusCode::FORBIDDEN => 7,
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => 8,
            StatusCode::SERVICE_UNAVAILABLE => 14,
            _ => 3,
        };
        let body = match self {
            Self::Protobuf => RpcStatus {
                code,
                message: message.to_owned(),
            }
            .encode_to_vec(),
            Self::Json => serde_json::json!({ "code": code, "message": message })
                .to_string()
                .into_bytes(),
        };
        self.answer(status, body)
    }

    pub(super) fn answer(self, status: StatusCode, body: Vec<u8>) -> Response {
        let kind = match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        };
        (
            status,
            [(header::CONTENT_TYPE, HeaderValue::from_static(kind))],
            body,
        )
            .into_response()
    }
}

/// Why a request was not taken.
#[derive(Debug)]
pub(super) struct Refusal {
    pub status: StatusCode,
    pub reason: &'static str,
    pub message: String,
    pub retry_after: Option<HeaderValue>,
}

impl Refusal {
    pub(super) fn bad(message: String) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            reason: "malformed",
            message,
            retry_after: None,
        }
    }

    pub(super) fn unauthorized(message: &str) -> Self {
        let status = StatusCode::UNAUTHORIZED;
        Self {
            status,
            reason: "unauthorized",
            message: message.to_owned(),
            retry_after: None,
        }
    }

    pub(super) fn body(bad: BadBody) -> Self {
        let (status, message) = match bad {
            BadBody::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is larger than 64 MiB",
            ),
            BadBody::Bomb => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body unpacks to more than 200 times its size",
            ),
            BadBody::Encoding => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "content encoding must be gzip, zstd or none",
            ),
            BadBody::Corrupt => (
                StatusCode::BAD_REQUEST,
                "the body is not what its content encoding says",
            ),
            BadBody::TooSlow => (StatusCode::REQUEST_TIMEOUT, "the body came too slowly"),
            BadBody::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "too many large requests at once",
            ),
            BadBody::Gone => (StatusCode::BAD_REQUEST, "the body did not arrive"),
        };
        let retry_after = (bad == BadBody::Busy).then(|| HeaderValue::from_static("1"));
        Self {
            status,
            reason: bad.reason(),
            message: message.to_owned(),
            retry_after,
        }
    }

    pub(super) fn later(error: AppendError) -> Self {
        let (reason, seconds) = match error {
            AppendError::DiskFull => ("disk_full", "10"),
            AppendError::Busy => ("busy", "1"),
            AppendError::Failed => ("store_failed", "5"),
            AppendError::Stopped => ("stopping", "1"),
        };
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            reason,
            message: error.to_string(),
            retry_after: Some(HeaderValue::from_static(seconds)),
        }
    }

    pub(super) fn answer(self, format: Format) -> Response {
        let mut answer = format.status(self.status, &self.message);
        if let Some(seconds) = self.retry_after {
            answer.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            answer
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        answer
    }
}
