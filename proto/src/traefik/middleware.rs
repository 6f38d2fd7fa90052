//! HTTP middlewares: Traefik's 25 kinds and its plugins.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    Duration, Invalid, Kind, Reference, Rules,
    http::{check_positive, not_negative},
    invalid::{exactly_one, require},
    options::{Field, choices, options},
    plugin::{Setting, in_brackets},
};

options! {
    /// Of exactly one kind.
    pub struct Middleware {
        pub add_prefix: Option<AddPrefix>,
        pub strip_prefix: Option<StripPrefix>,
        pub strip_prefix_regex: Option<StripPrefixRegex>,
        pub replace_path: Option<ReplacePath>,
        pub replace_path_regex: Option<ReplacePathRegex>,
        pub chain: Option<Chain>,
        /// Deprecated by Traefik: `ip_allow_list`.
        pub ip_white_list: Option<IpWhiteList>,
        pub ip_allow_list: Option<IpAllowList>,
        pub headers: Option<Headers>,
        pub encoded_characters: Option<EncodedCharacters>,
        pub errors: Option<Errors>,
        pub rate_limit: Option<RateLimit>,
        pub redirect_regex: Option<RedirectRegex>,
        pub redirect_scheme: Option<RedirectScheme>,
        pub basic_auth: Option<BasicAuth>,
        pub digest_auth: Option<DigestAuth>,
        pub forward_auth: Option<ForwardAuth>,
        pub in_flight_req: Option<InFlightReq>,
        pub buffering: Option<Buffering>,
        pub circuit_breaker: Option<CircuitBreaker>,
        pub compress: Option<Compress>,
        #[serde(rename = "passTLSClientCert")]
        pub pass_tls_client_cert: Option<PassTlsClientCert>,
        pub retry: Option<Retry>,
        pub content_type: Option<ContentType>,
        pub grpc_web: Option<GrpcWeb>,
        /// One plugin by its name in Traefik's static configuration, and what it is told.
        pub plugin: BTreeMap<String, BTreeMap<String, Setting>>,
    }

    pub struct AddPrefix {
        pub prefix: String,
    }

    pub struct StripPrefix {
        pub prefixes: Vec<String>,
        /// Deprecated by Traefik.
        pub force_slash: Option<bool>,
    }

    pub struct StripPrefixRegex {
        pub regex: Vec<String>,
    }

    pub struct ReplacePath {
        pub path: String,
    }

    pub struct ReplacePathRegex {
        pub regex: String,
        pub replacement: String,
    }

    pub struct Chain {
        pub middlewares: Vec<String>,
    }

    pub struct IpWhiteList {
        pub source_range: Vec<String>,
        pub ip_strategy: Option<IpStrategy>,
    }

    pub struct IpAllowList {
        /// Addresses and networks.
        pub source_range: Vec<String>,
        pub ip_strategy: Option<IpStrategy>,
        /// 403 unless said otherwise.
        pub reject_status_code: Option<i64>,
    }

    /// Where the client's address comes from; without one, the connection.
    pub struct IpStrategy {
        /// Position in X-Forwarded-For, from the right.
        pub depth: Option<i64>,
        #[serde(rename = "excludedIPs")]
        pub excluded_ips: Vec<String>,
        /// Prefix length, 1 to 128.
        pub ipv6_subnet: Option<i64>,
    }

    pub struct Headers {
        /// An empty value removes the header.
        pub custom_request_headers: BTreeMap<String, String>,
        pub custom_response_headers: BTreeMap<String, String>,
        pub access_control_allow_credentials: bool,
        pub access_control_allow_headers: Vec<String>,
        pub access_control_allow_methods: Vec<String>,
        pub access_control_allow_origin_list: Vec<String>,
        pub access_control_allow_origin_list_regex: Vec<String>,
        pub access_control_expose_headers: Vec<String>,
        /// In seconds.
        pub access_control_max_age: Option<i64>,
        pub add_vary_header: bool,
        pub allowed_hosts: Vec<String>,
        pub hosts_proxy_headers: Vec<String>,
        pub ssl_proxy_headers: BTreeMap<String, String>,
        /// In seconds.
        pub sts_seconds: Option<i64>,
        pub sts_include_subdomains: bool,
        pub sts_preload: bool,
        #[serde(rename = "forceSTSHeader")]
        pub force_sts_header: bool,
        pub frame_deny: bool,
        pub custom_frame_options_value: String,
        pub content_type_nosniff: bool,
        pub browser_xss_filter: bool,
        #[serde(rename = "customBrowserXSSValue")]
        pub custom_browser_xss_value: String,
        pub content_security_policy: String,
        pub content_security_policy_report_only: String,
        pub public_key: String,
        pub referrer_policy: String,
        pub permissions_policy: String,
        pub is_development: bool,
        /// Deprecated by Traefik, as are the four that follow.
        pub feature_policy: String,
        pub ssl_redirect: Option<bool>,
        pub ssl_temporary_redirect: Option<bool>,
        pub ssl_host: String,
        pub ssl_force_host: Option<bool>,
    }

    /// What may stand encoded in a path.
    pub struct EncodedCharacters {
        pub allow_encoded_slash: bool,
        pub allow_encoded_back_slash: bool,
        pub allow_encoded_null_character: bool,
        pub allow_encoded_semicolon: bool,
        pub allow_encoded_percent: bool,
        pub allow_encoded_question_mark: bool,
        pub allow_encoded_hash: bool,
    }

    pub struct Errors {
        /// `404`, `500-599`
        pub status: Vec<String>,
        pub status_rewrites: BTreeMap<String, i64>,
        pub service: String,
        /// `{status}`, `{originalStatus}` and `{url}` are filled in.
        pub query: String,
        pub error_request_headers: Vec<String>,
    }

    pub struct RateLimit {
        /// Requests per period; 0: no limit.
        pub average: Option<i64>,
        /// 1s unless said otherwise.
        pub period: Option<Duration>,
        pub burst: Option<i64>,
        pub source_criterion: Option<SourceCriterion>,
        pub redis: Option<Redis>,
    }

    /// One of the three.
    pub struct SourceCriterion {
        pub ip_strategy: Option<IpStrategy>,
        pub request_header_name: String,
        pub request_host: bool,
    }

    pub struct Redis {
        pub endpoints: Vec<String>,
        pub tls: Option<RedisTls>,
        pub username: String,
        pub password: String,
        pub db: Option<i64>,
        pub pool_size: Option<i64>,
        pub min_idle_conns: Option<i64>,
        pub max_active_conns: Option<i64>,
        pub read_timeout: Option<Duration>,
        pub write_timeout: Option<Duration>,
        pub dial_timeout: Option<Duration>,
    }

    /// Files or PEM.
    pub struct RedisTls {
        pub ca: String,
        pub cert: String,
        pub key: String,
        pub insecure_skip_verify: bool,
    }

    pub struct RedirectRegex {
        pub regex: String,
        pub replacement: String,
        pub permanent: bool,
    }

    pub struct RedirectScheme {
        pub scheme: String,
        pub port: String,
        pub permanent: bool,
    }

    pub struct BasicAuth {
        /// `name:hash`, as htpasswd prints it.
        pub users: Vec<String>,
        pub users_file: String,
        pub realm: String,
        pub remove_header: bool,
        pub header_field: String,
    }

    pub struct DigestAuth {
        /// `name:realm:hash`, as htdigest prints it.
        pub users: Vec<String>,
        pub users_file: String,
        pub remove_header: bool,
        pub realm: String,
        pub header_field: String,
    }

    pub struct ForwardAuth {
        pub address: String,
        pub tls: Option<ForwardAuthTls>,
        pub trust_forward_header: Option<bool>,
        pub auth_response_headers: Vec<String>,
        pub auth_response_headers_regex: String,
        pub auth_request_headers: Vec<String>,
        /// In bytes; -1: no limit.
        pub max_response_body_size: Option<i64>,
        pub add_auth_cookies_to_response: Vec<String>,
        pub header_field: String,
        pub forward_body: bool,
        /// In bytes; -1: no limit.
        pub max_body_size: Option<i64>,
        pub preserve_location_header: bool,
        pub preserve_request_method: bool,
        #[serde(rename = "authSigninURL")]
        pub auth_signin_url: String,
    }

    /// Files or PEM.
    pub struct ForwardAuthTls {
        pub ca: String,
        pub cert: String,
        pub key: String,
        pub insecure_skip_verify: bool,
        /// Deprecated by Traefik.
        pub ca_optional: Option<bool>,
    }

    pub struct InFlightReq {
        pub amount: Option<i64>,
        pub source_criterion: Option<SourceCriterion>,
    }

    /// Sizes in bytes.
    pub struct Buffering {
        pub max_request_body_bytes: Option<i64>,
        pub mem_request_body_bytes: Option<i64>,
        pub max_response_body_bytes: Option<i64>,
        pub mem_response_body_bytes: Option<i64>,
        pub retry_expression: String,
    }

    pub struct CircuitBreaker {
        pub expression: String,
        pub check_period: Option<Duration>,
        pub fallback_duration: Option<Duration>,
        pub recovery_duration: Option<Duration>,
        pub response_code: Option<i64>,
    }

    /// Empty: the default encodings.
    pub struct Compress [may_be_empty] {
        pub excluded_content_types: Vec<String>,
        pub included_content_types: Vec<String>,
        /// In bytes.
        pub min_response_body_bytes: Option<i64>,
        pub encodings: Vec<Encoding>,
        pub default_encoding: Option<Encoding>,
    }

    pub struct PassTlsClientCert {
        pub pem: bool,
        pub info: Option<ClientCertInfo>,
    }

    pub struct ClientCertInfo {
        pub not_after: bool,
        pub not_before: bool,
        pub sans: bool,
        pub serial_number: bool,
        pub subject: Option<SubjectInfo>,
        pub issuer: Option<IssuerInfo>,
    }

    pub struct SubjectInfo {
        pub country: bool,
        pub province: bool,
        pub locality: bool,
        pub organization: bool,
        pub organizational_unit: bool,
        pub common_name: bool,
        pub serial_number: bool,
        pub domain_component: bool,
    }

    pub struct IssuerInfo {
        pub country: bool,
        pub province: bool,
        pub locality: bool,
        pub organization: bool,
        pub common_name: bool,
        pub serial_number: bool,
        pub domain_component: bool,
    }

    pub struct Retry {
        pub attempts: Option<i64>,
        pub timeout: Option<Duration>,
        pub initial_interval: Option<Duration>,
        /// In bytes; -1: no limit.
        pub max_request_body_bytes: Option<i64>,
        /// `503`, `500-599`
        pub status: Vec<String>,
        pub disable_retry_on_network_error: bool,
        pub retry_non_idempotent_method: bool,
    }

    /// Empty: guesses the content type that a server did not send.
    pub struct ContentType [may_be_empty] {
        /// Deprecated by Traefik.
        pub auto_detect: Option<bool>,
    }

    pub struct GrpcWeb {
        pub allow_origins: Vec<String>,
    }
}

choices! {
    pub enum Encoding { Gzip = "gzip", Brotli = "br", Zstd = "zstd", }
}

impl Rules for Middleware {
    fn check(&self) -> Result<(), Invalid> {
        exactly_one(
            "a middleware",
            &[
                ("addPrefix", !self.add_prefix.absent()),
                ("stripPrefix", !self.strip_prefix.absent()),
                ("stripPrefixRegex", !self.strip_prefix_regex.absent()),
                ("replacePath", !self.replace_path.absent()),
                ("replacePathRegex", !self.replace_path_regex.absent()),
                ("chain", !self.chain.absent()),
                ("ipWhiteList", !self.ip_white_list.absent()),
                ("ipAllowList", !self.ip_allow_list.absent()),
                ("headers", !self.headers.absent()),
                ("encodedCharacters", !self.encoded_characters.absent()),
                ("errors", !self.errors.absent()),
                ("rateLimit", !self.rate_limit.absent()),
                ("redirectRegex", !self.redirect_regex.absent()),
                ("redirectScheme", !self.redirect_scheme.absent()),
                ("basicAuth", !self.basic_auth.absent()),
                ("digestAuth", !self.digest_auth.absent()),
                ("forwardAuth", !self.forward_auth.absent()),
                ("inFlightReq", !self.in_flight_req.absent()),
                ("buffering", !self.buffering.absent()),
                ("circuitBreaker", !self.circuit_breaker.absent()),
                ("compress", !self.compress.absent()),
                ("passTLSClientCert", !self.pass_tls_client_cert.absent()),
                ("retry", !self.retry.absent()),
                ("contentType", !self.content_type.absent()),
                ("grpcWeb", !self.grpc_web.absent()),
                ("plugin", !self.plugin.absent()),
            ],
        )?;
        if self.plugin.len() > 1 {
            return Err(Invalid::new("plugin", "must name one plugin: a middleware is one"));
        }
        for (plugin, settings) in &self.plugin {
            for (name, setting) in settings {
                let path = format!("plugin.{plugin}.{name}");
                if in_brackets(name) {
                    return Err(Invalid::new(path, "must not be in brackets: it reaches the plugin as a list"));
                }
                if matches!(setting, Setting::Group(group) if group.contains_key(name)) {
                    return Err(Invalid::new(path, "has a setting of its own name, Traefik mixes them up: rename one"));
                }
            }
        }
        self.check_paths()?;
        self.check_access()?;
        self.check_traffic()
    }

    fn references(&self) -> Vec<Reference> {
        let mut found = Vec::new();
        if let Some(chain) = &self.chain {
            found.extend(Reference::all(Kind::HttpMiddleware, "chain.middlewares", &chain.middlewares));
        }
        if let Some(errors) = &self.errors {
            found.extend(Reference::one(Kind::HttpService, "errors.service", &errors.service));
        }
        found
    }
}

impl Middleware {
    /// What rewrites or redirects.
    fn check_paths(&self) -> Result<(), Invalid> {
        if let Some(add) = &self.add_prefix {
            require("addPrefix.prefix", &add.prefix)?;
        }
        if let Some(strip) = &self.strip_prefix {
            some("stripPrefix.prefixes", &strip.prefixes)?;
        }
        if let Some(replace) = &self.replace_path {
            require("replacePath.path", &replace.path)?;
        }
        if let Some(replace) = &self.replace_path_regex {
            require("replacePathRegex.regex", &replace.regex)?;
        }
        if let Some(redirect) = &self.redirect_regex {
            require("redirectRegex.regex", &redirect.regex)?;
            require("redirectRegex.replacement", &redirect.replacement)?;
        }
        if let Some(redirect) = &self.redirect_scheme {
            require("redirectScheme.scheme", &redirect.scheme)?;
        }
        if let Some(errors) = &self.errors {
            some("errors.status", &errors.status)?;
            check_ranges("errors.status", &errors.status)?;
            for (status, rewritten) in &errors.status_rewrites {
                let path = format!("errors.statusRewrites.{status}");
                check_range(&path, status)?;
                check_status(&path, Some(*rewritten))?;
            }
            require("errors.service", &errors.service)?;
        }
        Ok(())
    }

    /// What lets in or keeps out.
    fn check_access(&self) -> Result<(), Invalid> {
        if let Some(list) = &self.ip_white_list {
            check_networks("ipWhiteList.sourceRange", &list.source_range)?;
            check_strategy("ipWhiteList.ipStrategy", list.ip_strategy.as_ref())?;
        }
        if let Some(list) = &self.ip_allow_list {
            check_networks("ipAllowList.sourceRange", &list.source_range)?;
            check_strategy("ipAllowList.ipStrategy", list.ip_strategy.as_ref())?;
            check_status("ipAllowList.rejectStatusCode", list.reject_status_code)?;
        }
        if let Some(auth) = &self.basic_auth {
            check_users("basicAuth", &auth.users, &auth.users_file, 2, "name:hash")?;
        }
        if let Some(auth) = &self.digest_auth {
            check_users("digestAuth", &auth.users, &auth.users_file, 3, "name:realm:hash")?;
        }
        if let Some(auth) = &self.forward_auth {
            require("forwardAuth.address", &auth.address)?;
            let pair = auth.tls.as_ref().map(|tls| (&tls.cert, &tls.key));
            if pair.is_some_and(|(cert, key)| cert.is_empty() != key.is_empty()) {
                return Err(Invalid::new("forwardAuth.tls", "needs cert and key, or neither"));
            }
        }
        Ok(())
    }

    /// What limits, buffers, retries, compresses.
    fn check_traffic(&self) -> Result<(), Invalid> {
        if let Some(limit) = &self.rate_limit {
            not_negative("rateLimit.average", limit.average)?;
            not_negative("rateLimit.burst", limit.burst)?;
            check_positive("rateLimit.period", limit.period)?;
            check_criterion("rateLimit.sourceCriterion", limit.source_criterion.as_ref())?;
        }
        if let Some(limit) = &self.in_flight_req {
            not_negative("inFlightReq.amount", limit.amount)?;
            check_criterion("inFlightReq.sourceCriterion", limit.source_criterion.as_ref())?;
        }
        if let Some(breaker) = &self.circuit_breaker {
            require("circuitBreaker.expression", &breaker.expression)?;
            check_status("circuitBreaker.responseCode", breaker.response_code)?;
        }
        if let Some(retry) = &self.retry {
            if retry.attempts.is_none_or(|attempts| attempts < 1) {
                return Err(Invalid::new("retry.attempts", "is required, at least 1"));
            }
            if retry.disable_retry_on_network_error && retry.status.is_empty() {
                return Err(Invalid::new("retry.status", "is required with disableRetryOnNetworkError"));
            }
            check_ranges("retry.status", &retry.status)?;
        }
        if let Some(compress) = &self.compress {
            not_negative("compress.minResponseBodyBytes", compress.min_response_body_bytes)?;
            if !compress.excluded_content_types.is_empty() && !compress.included_content_types.is_empty() {
                return Err(Invalid::new("compress.includedContentTypes", "excludes excludedContentTypes: use one"));
            }
            let offered = |encoding| compress.encodings.is_empty() || compress.encodings.contains(&encoding);
            if compress.default_encoding.is_some_and(|encoding| !offered(encoding)) {
                return Err(Invalid::new("compress.defaultEncoding", "must be one of encodings"));
            }
        }
        Ok(())
    }
}

fn some(path: &str, list: &[String]) -> Result<(), Invalid> {
    if list.is_empty() { Err(Invalid::new(path, "needs at least one")) } else { Ok(()) }
}

/// Addresses and networks, at least one.
pub(crate) fn check_networks(path: &str, networks: &[String]) -> Result<(), Invalid> {
    some(path, networks)?;
    check_addresses(path, networks)
}

fn check_addresses(path: &str, networks: &[String]) -> Result<(), Invalid> {
    for (i, text) in networks.iter().enumerate() {
        if text.parse::<IpAddr>().is_err() && text.parse::<ipnet::IpNet>().is_err() {
            let reason = format!("must be an address or a network such as 10.44.0.0/16, not {text:?}");
            return Err(Invalid::new(format!("{path}[{i}]"), reason));
        }
    }
    Ok(())
}

fn check_strategy(path: &str, strategy: Option<&IpStrategy>) -> Result<(), Invalid> {
    let Some(strategy) = strategy else { return Ok(()) };
    not_negative(&format!("{path}.depth"), strategy.depth)?;
    check_addresses(&format!("{path}.excludedIPs"), &strategy.excluded_ips)?;
    if strategy.ipv6_subnet.is_some_and(|bits| !(1..=128).contains(&bits)) {
        return Err(Invalid::new(format!("{path}.ipv6Subnet"), "must be a prefix length, 1 to 128"));
    }
    Ok(())
}

fn check_criterion(path: &str, criterion: Option<&SourceCriterion>) -> Result<(), Invalid> {
    let Some(criterion) = criterion else { return Ok(()) };
    check_strategy(&format!("{path}.ipStrategy"), criterion.ip_strategy.as_ref())?;
    let given = [criterion.ip_strategy.is_some(), !criterion.request_header_name.is_empty(), criterion.request_host];
    if given.into_iter().filter(|given| *given).count() > 1 {
        return Err(Invalid::new(path, "takes one of ipStrategy, requestHeaderName, requestHost"));
    }
    Ok(())
}

fn check_users(kind: &str, users: &[String], file: &str, parts: usize, shape: &str) -> Result<(), Invalid> {
    if users.is_empty() && file.is_empty() {
        return Err(Invalid::new(format!("{kind}.users"), "is required, or usersFile"));
    }
    match users.iter().position(|user| user.split(':').count() != parts || user.starts_with(':')) {
        Some(i) => Err(Invalid::new(format!("{kind}.users[{i}]"), format!("must be {shape}"))),
        None => Ok(()),
    }
}

pub(crate) fn check_status(path: &str, status: Option<i64>) -> Result<(), Invalid> {
    match status {
        Some(status) if !(100..=599).contains(&status) => Err(Invalid::new(path, "must be a status, 100 to 599")),
        _ => Ok(()),
    }
}

pub(crate) fn check_ranges(path: &str, ranges: &[String]) -> Result<(), Invalid> {
    ranges.iter().enumerate().try_for_each(|(i, range)| check_range(&format!("{path}[{i}]"), range))
}

fn check_range(path: &str, range: &str) -> Result<(), Invalid> {
    let (low, high) = range.split_once('-').unwrap_or((range, range));
    match (low.parse::<u16>(), high.parse::<u16>()) {
        (Ok(low), Ok(high)) if low <= high => Ok(()),
        _ => Err(Invalid::new(path, "must be a status such as 404 or a range such as 500-599")),
    }
}
