//! How a row's router ends TLS, and where its certificate comes from.

use charliehub_proto::domain::{Domain, Protocol, TlsMode};
use serde::Serialize;

use super::{Settings, rule::Host, syntax};

/// `tls` of a router; empty: the default certificate, or whichever covers the name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RouterTls {
    #[serde(skip_serializing_if = "Option::is_none")]
    cert_resolver: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    domains: Vec<Names>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    passthrough: bool,
}

/// A certificate to ask for where the rule does not tell Traefik its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Names {
    main: String,
}

impl RouterTls {
    pub(super) fn passthrough() -> Self {
        Self { passthrough: true, ..Self::default() }
    }

    pub(super) fn is_resolved(&self) -> bool {
        self.cert_resolver.is_some()
    }

    /// The same, with a certificate for each of `hosts` where a resolver is asked.
    pub(super) fn naming<'n>(&self, hosts: impl Iterator<Item = &'n str>) -> Self {
        let domains = hosts.filter(|_| self.is_resolved()).map(|host| Names { main: host.to_owned() }).collect();
        Self { domains, ..self.clone() }
    }
}

/// The `tls` of a row's router, `None` without; what is hardly meant goes to `warnings`.
pub(super) fn router_tls(
    row: &Domain,
    host: &Host,
    settings: &Settings,
    warnings: &mut Vec<String>,
) -> Result<Option<RouterTls>, String> {
    if row.cert_resolver.is_some() && row.tls_mode != TlsMode::Acme {
        return Err("cert_resolver: is only for tls_mode acme; remove one of them".to_owned());
    }
    match row.tls_mode {
        TlsMode::None => Ok(None),
        TlsMode::Default => Ok(Some(RouterTls::default())),
        TlsMode::Passthrough if row.protocol == Protocol::Http => {
            Err("tls_mode: passthrough is for tcp rows; use acme or default".to_owned())
        }
        TlsMode::Passthrough => Ok(Some(RouterTls::passthrough())),
        TlsMode::Acme => {
            let Some(resolver) = resolver(row, settings) else {
                warnings.push(
                    "tls_mode: acme, but no certificate resolver is known, so the default certificate is served; set \
                     cert_resolver, or [compile] default_resolver"
                        .to_owned(),
                );
                return Ok(Some(RouterTls::default()));
            };
            if !syntax::is_label(resolver) {
                return Err("cert_resolver: not the name of a resolver; letters, digits, _ and -".to_owned());
            }
            // Traefik itself only logs an unknown one, and serves the default certificate.
            if settings.cert_resolvers.as_ref().is_some_and(|known| !known.contains(resolver)) {
                return Err(format!(
                    "cert_resolver: `{resolver}` is not in [compile] cert_resolvers; add it there, or name one of them"
                ));
            }
            // ACME does not find names in a regular expression.
            let domains = host.wildcard().map(|_| Names { main: host.as_str().to_owned() }).into_iter().collect();
            Ok(Some(RouterTls { cert_resolver: Some(resolver.to_owned()), domains, passthrough: false }))
        }
    }
}

/// The row's resolver, else the default one, else the only one that there is.
pub(super) fn resolver<'a>(row: &'a Domain, settings: &'a Settings) -> Option<&'a str> {
    let only = || match settings.cert_resolvers.as_ref() {
        Some(known) if known.len() == 1 => known.first(),
        _ => None,
    };
    row.cert_resolver.as_ref().or(settings.default_resolver.as_ref()).or_else(only).map(String::as_str)
}
