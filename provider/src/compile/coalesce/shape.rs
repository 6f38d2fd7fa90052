//! All of a row but its host: rows of the same shape compile to the same but for their rules.

use std::sync::Arc;

use charliehub_proto::{domain::Domain, traefik};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{
    super::{
        Section, State,
        output::{Head, Output},
        path::Path,
        piece::Piece,
        place::Spot,
        tls::RouterTls,
    },
    class::Group,
    listed,
};

/// Names a shape: the same on every machine, and no two have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::compile) struct ShapeId([u8; 16]);

/// What a shape compiles to: what its rows share.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::compile) struct Shape {
    /// The name of the service and the beginning of all other names.
    pub(in crate::compile) name: Arc<str>,
    /// Without routers: they are those of the groups.
    pub(in crate::compile) output: Output,
    head: Head,
    path: Option<Path>,
    wildcard: bool,
    /// What the name of a row's own router has behind the host.
    suffix: String,
}

impl ShapeId {
    /// That of these parts. Often the row before had the same, and to hash them again would cost most of all: `last` is what
    /// came of that one's.
    pub(in crate::compile) fn of<P: Serialize + PartialEq>(parts: P, last: &mut Option<(P, Self)>) -> Self {
        if let Some((same, id)) = last
            && *same == parts
        {
            return *id;
        }
        let sum = Sha256::digest(traefik::to_json(&parts));
        let mut id = Self([0; 16]);
        id.0.iter_mut().zip(sum).for_each(|(to, from)| *to = from);
        *last = Some((parts, id));
        id
    }

    /// What makes the shape of a row in its place. What is not looked at is what compiles to nothing, or what no row of a
    /// shape has.
    pub(in crate::compile) fn parts<'a>(row: &'a Domain, spot: &'a Spot) -> impl Serialize + PartialEq + use<'a> {
        let Domain {
            id: _,
            domain: _,
            path_prefix: _,
            protocol: _,
            service_type,
            environment: _,
            status: _,
            access_tier,
            tls_mode,
            cert_resolver,
            backend_scheme,
            backend_host,
            backend_port,
            backends,
            tcp_entrypoint: _,
            auth_required,
            ip_allowlist,
            middlewares,
            service_ref,
            redirect_to,
            redirect_permanent,
            redirect_keep_path,
            maintenance_message: _,
            rate_limit: _,
            health_check,
            sticky,
            priority: _,
            dns_mode: _,
            site: _,
            owner: _,
            notes: _,
            labels: _,
            created_at: _,
            updated_at: _,
            version: _,
        } = row;
        let place = (spot.path.as_ref().map_or("/", Path::as_str), spot.priority, spot.host.wildcard().is_some());
        let access = (access_tier, ip_allowlist, auth_required, middlewares, tls_mode, cert_resolver);
        let behind = (service_type, backend_scheme, backend_host, backend_port, backends, health_check, sticky);
        let elsewhere = (service_ref, redirect_to, redirect_permanent, redirect_keep_path);
        ("shape", place, access, behind, elsewhere)
    }

    /// What makes the parent of a row in its place: what the requests of its children have in common.
    pub(in crate::compile) fn above(spot: &Spot) -> impl Serialize + PartialEq + use<'_> {
        let place = (spot.path.as_ref().map_or("/", Path::as_str), spot.priority, spot.host.wildcard().is_some());
        let entry = spot.entry_points.first().map(|entry| (&*entry.name, entry.tls));
        ("parent", place, entry)
    }

    /// The one whose name begins so.
    pub(super) fn named(name: &str) -> Option<Self> {
        let (_, hash) = name.split_once(':')?;
        u128::from_str_radix(hash, 16).ok().map(|id| Self(id.to_be_bytes()))
    }

    pub(in crate::compile) fn name(self) -> Arc<str> {
        listed::shape_name(&format!("{:032x}", u128::from_be_bytes(self.0))).into()
    }
}

impl Shape {
    /// The parent of the row at `spot` and of its like.
    pub(in crate::compile) fn parent(id: ShapeId, spot: &Spot) -> Option<Self> {
        let entry = spot.entry_points.first()?;
        let head = Head {
            entry_point: Arc::clone(&entry.name),
            middlewares: Vec::new(),
            priority: spot.priority,
            service: "".into(),
            tls: entry.tls.then(RouterTls::default),
        };
        Some(Self::new(id, spot, Output::nothing(Some(spot.protocol), State::Off), head))
    }

    /// What the row at `spot`, which was compiled under the name of its shape, shares with the others.
    pub(in crate::compile) fn new(id: ShapeId, spot: &Spot, mut output: Output, head: Head) -> Self {
        // Its routers are those of the groups.
        output.route.routers.clear();
        let suffix = spot.name.strip_prefix(spot.host.as_str()).unwrap_or_default().to_owned();
        let (path, wildcard) = (spot.path.clone(), spot.host.wildcard().is_some());
        Self { name: id.name(), output, head, path, wildcard, suffix }
    }

    /// The router of the group that begins with this host.
    pub(super) fn router(&self, first: &str) -> Arc<str> {
        listed::group_name(&self.name, &format!("{first}{}", self.suffix)).into()
    }

    /// The router of the group that begins with `first`.
    pub(super) fn group(&self, first: &str, group: &Group) -> Piece {
        let rule = listed::rule(group.text(), self.wildcard, self.path.as_ref());
        let text = self.head.naming(group.hosts()).encode(&rule, None);
        Piece { section: Section::HttpRouters, name: self.router(first), text }
    }

    /// Whether a resolver is asked for a certificate of each host.
    pub(in crate::compile) fn is_resolved(&self) -> bool {
        self.head.tls.as_ref().is_some_and(RouterTls::is_resolved)
    }
}
