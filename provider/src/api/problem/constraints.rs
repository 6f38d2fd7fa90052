//! What each constraint of the database means to whoever wrote the row: its field, its rule, and how to mend it.
//!
//! A test holds this table against a migrated database: a new constraint without a line here does not pass.

/// A constraint in the API's words.
pub(crate) struct Known {
    pub(crate) constraint: &'static str,
    /// The field to change first, where several are held against each other.
    pub(crate) field: &'static str,
    pub(crate) rule: &'static str,
    pub(crate) remedy: &'static str,
}

macro_rules! remedies {
    ($($constraint:ident $field:ident: $rule:literal, $remedy:literal;)*) => {
        &[$(Known {
            constraint: stringify!($constraint), field: stringify!($field), rule: $rule, remedy: $remedy,
        }),*]
    };
}

pub(crate) const REMEDIES: &[Known] = remedies! {
    domains_pkey id: "a row with this id is there", "leave `id` out";
    domains_name_unique domain: "a row with this domain, path_prefix, protocol and tcp_entrypoint is there",
        "change that row, or give this one another `path_prefix` or `tcp_entrypoint`";
    domains_tcp_catch_all tcp_entrypoint: "an active row takes all connections of this entry point already",
        "use `tls_mode` default, acme or passthrough, another `tcp_entrypoint`, or disable the other row";
    domains_immutable id: "`id` and `created_at` never change", "delete the row and insert another";
    domains_domain_lower domain: "a domain is written in lower case", "write it as a.example.org";
    domains_domain_valid domain: "this is not a domain name of at least two labels",
        "write it as a.example.org, or *.example.org for one label more; other scripts as xn--";
    domains_path_valid path_prefix: "this is not a path",
        "begin with /, do not end with it, without //, dots as segments, spaces or quotes; escape others as %20";
    domains_backend_coupling backend_port: "backend_host and backend_port go together, and backend_scheme with them",
        "give `backend_host` and `backend_port`, or neither";
    domains_backend_port_range backend_port: "a port is 1 to 65535", "write the port that the backend listens on";
    domains_backend_host_valid backend_host: "this is neither a host name nor an IP address",
        "write it as app, app.internal, 10.44.1.7 or fd00::7, without scheme and port";
    domains_backend_scheme_valid backend_scheme: "a backend's scheme is http, https or h2c, and only of http rows",
        "use one of those, or leave it out for http";
    domains_backends_valid backends: "each backend has host and port, no two the same, at most 100, not all of weight 0",
        "write [{\"host\": \"10.44.1.7\", \"port\": 8080, \"weight\": 1}]; `scheme` is http, https or h2c";
    domains_backend_required service_type: "a proxy has one backend or a list of them, a reference its service_ref, no row more",
        "proxy: give `backend_host` and `backend_port`, or `backends`; reference: `service_ref` alone; redirect: neither";
    domains_tcp_requires tcp_entrypoint: "a tcp row has an entry point and a backend",
        "give `tcp_entrypoint`, and `backend_host` and `backend_port`, or `backends`";
    domains_tcp_entrypoint_valid tcp_entrypoint: "an entry point is a word, and only of tcp rows",
        "write its name as in Traefik's static configuration, such as mqtt, with `protocol` tcp";
    domains_tcp_plain protocol: "a tcp row has no path, login, rate limit, health check, sticky cookie or scheme, and is a proxy",
        "leave those out, or use `protocol` http";
    domains_tls_protocol tls_mode: "passthrough is for tcp rows", "use acme or default, or `protocol` tcp";
    domains_tls_resolver cert_resolver: "a resolver is a word, and only of rows with tls_mode acme",
        "leave `cert_resolver` out, or use `tls_mode` acme";
    domains_auth_needs_tls auth_required: "a login must not cross the network in the clear",
        "use `tls_mode` acme or default";
    domains_access_tier_list ip_allowlist: "restricted has a list, public has none, internal only private networks",
        "restricted: name its networks in `ip_allowlist`; public: leave it out; internal: narrow it within private networks";
    domains_ip_allowlist_valid ip_allowlist: "these are not at most 1000 networks, or one of them is everybody",
        "write [\"203.0.113.0/24\"]; for everybody use `access_tier` public";
    domains_middlewares_valid middlewares: "these are not at most 32 names of middlewares, each once",
        "write [\"compress\", \"headers@file\"]";
    domains_redirect_fields redirect_to: "a redirect has a http(s) URL without spaces, quotes and $, other rows no redirect field",
        "give `redirect_to` as https://www.example.org/path with `service_type` redirect, or leave all redirect_ fields out";
    domains_maintenance_fields maintenance_message: "maintenance is for http rows, its message plain text of at most 1000 bytes",
        "shorten the message, leave out back-ticks and control characters; a tcp row can be `disabled`";
    domains_rate_limit_valid rate_limit: "a rate limit has an average above 0, and may have burst and period",
        "write {\"average\": 100, \"burst\": 50, \"period\": \"1s\"}";
    domains_health_check_valid health_check: "a health check has a path, and may have interval, timeout, port and hostname",
        "write {\"path\": \"/health\", \"interval\": \"10s\", \"timeout\": \"2s\"}";
    domains_sticky_valid sticky: "a sticky cookie has a name, and may have secure, http_only and same_site",
        "write {\"cookie\": \"edge\", \"secure\": true, \"same_site\": \"lax\"}";
    domains_priority_range priority: "a priority is 1 to 1000000", "leave it out: longer paths and exact hosts come first";
    domains_text_valid notes: "site, owner or notes hold what they may not",
        "`site` is a short word in lower case; `owner` at most 200 bytes without quotes; `notes` at most 10000; no back-ticks";
    domains_labels_valid labels: "labels are at most 64 words with plain text of at most 1024 bytes each",
        "write {\"team\": \"web\"}, without back-ticks and control characters";
    fragments_pkey id: "a fragment with this id is there", "leave `id` out";
    fragments_immutable id: "`id` and `created_at` never change", "delete the fragment and insert another";
    fragments_name_unique name: "a fragment of this kind and name is there",
        "change that one with PUT, or give this one another `name`";
    fragments_name_valid name: "this is not a name of letters, digits, . _ and -, or it begins with charliehub-",
        "write it as Traefik has it, without a provider: compress-all";
    fragments_kind_valid kind: "this is no kind of fragment", "use one such as http.middleware, http.service, tls.option";
    fragments_body_valid body: "a body is an object of at most 262144 bytes", "write that one object of Traefik's, in its JSON";
    sites_pkey id: "a site with this id is there", "leave `id` out";
    sites_immutable id: "`id` and `created_at` never change", "delete the site and insert another";
    sites_name_unique name: "a site of this name is there", "change that one with PUT, or give this one another `name`";
    sites_name_valid name: "a site is called by a short word", "use lower case letters, digits and hyphens, at most 32: uk";
    sites_agent_valid agent: "this is not the name of an agent", "write the name that its token was made for: hub2";
    sites_networks_valid networks: "a site has at least one network, none of them everybody's, and no two with an address in common",
        "write [\"10.44.0.0/16\"]; of two that overlap leave out the narrower";
    sites_networks_apart networks: "another site has some of these addresses",
        "an address leads to one site: narrow one of the networks, or remove it there first";
    sites_tunnel_keys_valid tunnels: "a key is not a public key of WireGuard",
        "write the 44 characters, the last one =, that `wg show INTERFACE public-key` prints";
    sites_tunnels_valid tunnels: "a tunnel has an interface, a public_key and allowed_ips; each rank once, each peer once",
        "write [{\"interface\": \"wg-uk\", \"public_key\": \"..\", \"allowed_ips\": [\"10.44.0.0/16\"], \"keepalive\": 25, \"rank\": 1}]";
    sites_hosts_valid hosts: "a host has an address, and may have a name and a port; each once",
        "write [{\"address\": \"10.44.1.20\", \"name\": \"px1\", \"port\": 8006}]";
    sites_wan_name_valid wan_name: "this is not a domain name of at least two labels", "write it as uk.example.org";
    sites_notes_valid notes: "notes are plain text of at most 10000 bytes", "leave out back-ticks and control characters";
    peers_pkey id: "a peer with this id is there", "leave `id` out";
    peers_immutable id: "`id` and `created_at` never change", "delete the peer and insert another";
    peers_name_unique name: "a peer of this name is there", "change that one with PUT, or give this one another `name`";
    peers_name_valid name: "a peer is called by a short word", "use lower case letters, digits and hyphens, at most 32: anna-laptop";
    peers_agents_valid agents: "these are not names of agents, at least one, each once",
        "write the names that their tokens were made for: [\"hub2\"]";
    peers_interface_valid interface: "this is not the name of an interface",
        "write at most 15 letters, digits, _ = + . and -: wg-clients";
    peers_public_key_unique public_key: "another peer has this key", "make a new key for this one, or remove the other";
    peers_public_key_valid public_key: "this is not a public key of WireGuard",
        "write the 44 characters, the last one =, that `wg pubkey` makes of the private key";
    peers_addresses_valid addresses: "a peer has at least one address, each once, and no network",
        "write [\"10.99.0.7/32\"]; of IPv6 with /128";
    peers_addresses_apart addresses: "another peer has one of these addresses",
        "an address leads to one peer: give this one another, or remove the other first";
    peers_notes_valid notes: "notes are plain text of at most 10000 bytes", "leave out back-ticks and control characters";
    policies_pkey id: "a policy with this id is there", "leave `id` out";
    policies_immutable id: "`id` and `created_at` never change", "delete the policy and insert another";
    policies_agent_unique agent: "there is a policy for this agent", "change that one";
    policies_agent_valid agent: "this is not the name of an agent", "write the name that its token was made for: hub2";
    policies_body_valid body: "a part of the policy is not in its form, or all of it is larger than 262144 bytes",
        "write it in the form of /api/openapi.json, schema Policy";
    fragments_notes_valid notes: "notes are plain text of at most 10000 bytes", "leave out back-ticks and control characters";
};
