//! A row of the source of truth: a public name, how it is reached, by whom, and its backend.
//!
//! The field names are those of the columns of table `charliehub.domains` and of the API's JSON alike. What may stand in
//! a field is enforced by the database; this type only says which fields there are.

use std::{collections::BTreeMap, fmt, str::FromStr};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Declares an enum whose JSON, text and PostgreSQL labels are one.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $label:literal),+ $(,)? } default $default:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every label, in the database's order.
            pub const LABELS: &'static [&'static str] = &[$($label),+];

            /// The label, as in the database and in JSON.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label),+ }
            }
        }

        impl Default for $name {
            fn default() -> Self { Self::$default }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.as_str()) }
        }

        impl FromStr for $name {
            type Err = UnknownLabel;

            fn from_str(text: &str) -> Result<Self, UnknownLabel> {
                match text {
                    $($label => Ok(Self::$variant),)+
                    _ => Err(UnknownLabel { label: text.to_owned(), known: Self::LABELS }),
                }
            }
        }
    };
}

/// A label that this build does not know: a newer schema, or a constraint that was dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{label}` is not one of {}", known.join(", "))]
pub struct UnknownLabel {
    pub label: String,
    pub known: &'static [&'static str],
}

labels! { /// What the entry point speaks.
Protocol { Http = "http", Tcp = "tcp" } default Http }
labels! { /// What answers.
ServiceType { Proxy = "proxy", Redirect = "redirect", /** A service of a fragment, or Traefik's own `api@internal`. */ Reference = "reference" } default Proxy }
labels! { /// Only filters lists; compiles to nothing.
Environment { Production = "production", Staging = "staging", Development = "development", Testing = "testing" } default Production }
labels! { /// `draft` and `disabled` compile to nothing.
Status { Draft = "draft", Active = "active", Maintenance = "maintenance", Disabled = "disabled" } default Active }
labels! { /// Who may reach it.
AccessTier { Public = "public", /** The networks of the sites. */ Internal = "internal", /** `ip_allowlist`. */ Restricted = "restricted" } default Public }
labels! { /// Where its certificate comes from.
TlsMode { Acme = "acme", Default = "default", Passthrough = "passthrough", None = "none" } default Acme }
labels! { /// Who keeps its DNS record.
DnsMode { External = "external", Static = "static", Ddns = "ddns" } default External }

/// One of several servers of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Backend {
    pub host: String,
    pub port: u16,
    /// `http` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Share of the requests, 0 to 10,000; 1 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

/// Requests a client may send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests per `period`.
    pub average: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// Such as `1s` (when left out) or `1m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<String>,
}

/// How Traefik finds out that a server is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
}

/// The cookie that keeps a client on one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Sticky {
    pub cookie: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_only: Option<bool>,
    /// `none`, `lax` or `strict`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_site: Option<String>,
}

/// A row of `charliehub.domains`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Domain {
    pub id: Uuid,
    /// `a.example.org`, or `*.example.org` for exactly one label more.
    pub domain: String,
    pub path_prefix: String,
    pub protocol: Protocol,
    pub service_type: ServiceType,
    pub environment: Environment,
    pub status: Status,
    pub access_tier: AccessTier,
    pub tls_mode: TlsMode,
    pub cert_resolver: Option<String>,
    pub backend_scheme: Option<String>,
    pub backend_host: Option<String>,
    pub backend_port: Option<u16>,
    pub backends: Vec<Backend>,
    pub tcp_entrypoint: Option<String>,
    pub auth_required: bool,
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub ip_allowlist: Vec<IpNet>,
    pub middlewares: Vec<String>,
    pub service_ref: Option<String>,
    pub redirect_to: Option<String>,
    pub redirect_permanent: bool,
    pub redirect_keep_path: bool,
    pub maintenance_message: Option<String>,
    // Boxed, since few rows have them, and there may be a million rows.
    pub rate_limit: Option<Box<RateLimit>>,
    pub health_check: Option<Box<HealthCheck>>,
    pub sticky: Option<Box<Sticky>>,
    /// Overrides the compiled priority, 1 to 1,000,000.
    pub priority: Option<u32>,
    pub dns_mode: DnsMode,
    pub site: Option<String>,
    pub owner: Option<String>,
    pub notes: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// The revision that last changed the row.
    pub version: i64,
}

impl Domain {
    /// True when the row is meant to answer requests.
    pub fn is_served(&self) -> bool {
        matches!(self.status, Status::Active | Status::Maintenance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_the_same_as_text_and_as_json() {
        for label in AccessTier::LABELS {
            let tier: AccessTier = label.parse().unwrap();
            assert_eq!(serde_json::to_value(tier).unwrap(), *label);
        }
        assert_eq!(
            "open".parse::<AccessTier>().unwrap_err().to_string(),
            "`open` is not one of public, internal, restricted"
        );
    }
}
