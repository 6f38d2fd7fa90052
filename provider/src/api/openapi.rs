//! The description of the API, as OpenAPI 3.1: made from the handlers and types that answer, so that it cannot differ.

use axum::response::{IntoResponse as _, Response};
use charliehub_proto::problem::{Item, Problem};
use utoipa::openapi::{
    InfoBuilder, OpenApi, OpenApiBuilder,
    security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
};

/// What stands above the operations: who we are, and that all of them need a token.
pub(super) fn head() -> OpenApi {
    let info = InfoBuilder::new()
        .title("CharlieHub edge")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Routes of Traefik as rows in PostgreSQL. Every refusal is a problem (RFC 9457)."))
        .build();
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    let problem = utoipa::openapi::ComponentsBuilder::new()
        .schema_from::<Problem>()
        .schema_from::<Item>()
        .security_scheme("token", bearer)
        .build();
    OpenApiBuilder::new()
        .info(info)
        .components(Some(problem))
        .security(Some([SecurityRequirement::new("token", Vec::<String>::new())]))
        .build()
}

/// The whole description.
pub fn description() -> OpenApi {
    super::described().into_openapi()
}

/// `GET /api/openapi.json`: this description.
#[utoipa::path(get, operation_id = "describe", path = "/api/openapi.json", tag = "description", responses((status = 200, description = "OpenAPI 3.1"), super::Problem))]
pub(super) async fn show() -> Response {
    axum::Json(description()).into_response()
}
