//! Fixed responses.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};

use crate::proxy::config::{At, FixedResponseConfig, ProxyConfigError, Quotas};

/// The types that a body may have: AWS's.
const TYPES: [&str; 5] = [
    "text/plain",
    "text/css",
    "text/html",
    "application/javascript",
    "application/json",
];

#[derive(Debug)]
pub(crate) struct Fixed {
    status: StatusCode,
    content_type: HeaderValue,
    body: Bytes,
}

impl Fixed {
    pub(super) fn compile(
        config: &FixedResponseConfig,
        quotas: &Quotas,
        at: At<'_>,
    ) -> Result<Self, ProxyConfigError> {
        let status = StatusCode::from_u16(config.status_code).ok();
        let status = status.filter(|status| matches!(status.as_u16(), 200..300 | 400..600));
        let Some(status) = status else {
            return at
                .field("status_code")
                .invalid(&config.status_code.to_string(), "is not 2xx, 4xx or 5xx");
        };
        let Some(content_type) = TYPES.iter().find(|known| **known == config.content_type) else {
            return at.field("content_type").invalid(
                &config.content_type,
                format!("is not one of {}", TYPES.join(", ")),
            );
        };
        at.field("message_body").at_most(
            "bytes",
            config.message_body.len(),
            quotas.fixed_body_bytes(),
        )?;
        Ok(Self {
            status,
            content_type: HeaderValue::from_static(content_type),
            body: Bytes::from(config.message_body.clone()),
        })
    }

    pub(super) fn response(&self) -> Response<Bytes> {
        let mut response = Response::new(self.body.clone());
        *response.status_mut() = self.status;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, self.content_type.clone());
        response
    }
}
