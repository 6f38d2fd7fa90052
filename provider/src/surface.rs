//! The public surface: each name that is served, and who reaches it.
//!
//! Of the rows it is what their compiler says of their doors; of fragments, what the middlewares of their routers say. What
//! of a fragment cannot be told counts as open to the internet. [`moving`] takes names off the internet.

pub mod moving;

use std::{collections::BTreeMap, sync::Arc};

use charliehub_proto::{
    domain::Protocol,
    route::{Surface, SurfaceReach},
};

use crate::{
    compile::{Compiler, Reach, Section},
    matching::{Admission, Config},
    row::{Key, Row, Table},
    snapshot::encode::Draft,
};

/// Every name that is served, in the order of the names.
pub fn surface(compiler: &Compiler) -> Vec<Surface> {
    let mut names: Vec<Surface> = compiler
        .routes()
        .filter(|(key, _)| key.table == Table::Domains)
        .filter_map(|(key, _)| at(compiler, key))
        .collect();
    names.extend(of_fragments(compiler));
    names.sort_by(|a, b| (&a.name, a.row, a.fragment).cmp(&(&b.name, b.row, b.fragment)));
    names
}

/// What is met at the place of a row; `None`: it has none.
pub fn at(compiler: &Compiler, key: &Key) -> Option<Surface> {
    let door = compiler.doors(key).into_iter().next()?;
    let answer = compiler.answer(&door)?;
    let (reach, networks) = match answer.reach {
        Reach::Internet => (SurfaceReach::Internet, Vec::new()),
        Reach::Networks(networks) => (SurfaceReach::Networks, networks),
        Reach::Nobody => (SurfaceReach::Nobody, Vec::new()),
    };
    let tier = match compiler.rows().get(&answer.key).map(|row| &**row) {
        Some(Row::Domain(row)) => Some(row.access_tier),
        Some(Row::Fragment(_) | Row::Site(_) | Row::Policy(_) | Row::Peer(_) | Row::Bad(_)) | None => None,
    };
    Some(Surface {
        name: door.name.to_string(),
        protocol: compiler.route(key).and_then(|route| route.protocol).unwrap_or_default(),
        reach,
        login: answer.login,
        tier,
        networks: networks.iter().map(ToString::to_string).collect(),
        row: Some(answer.key.id),
        fragment: None,
    })
}

/// The routers of fragments.
fn of_fragments(compiler: &Compiler) -> Vec<Surface> {
    let fragments = compiler.routes().filter(|(key, _)| key.table == Table::Fragments);
    let routers: BTreeMap<_, _> = fragments
        .flat_map(|(key, route)| route.routers.iter().map(move |router| (router, key.id)))
        .filter(|((section, _), _)| *section != Section::UdpRouters)
        .collect();
    if routers.is_empty() {
        return Vec::new();
    }
    let config = Config::read(&Draft::new(compiler.pieces()).finish().identity()).unwrap_or_default();
    let of = |((section, name), id): (&(Section, Arc<str>), uuid::Uuid)| {
        let tcp = *section == Section::TcpRouters;
        let admission = Admission::of(&config, tcp, name)?;
        let (reach, networks) = match admission.networks {
            _ if admission.closed => (SurfaceReach::Nobody, Vec::new()),
            None => (SurfaceReach::Internet, Vec::new()),
            Some(networks) if networks.is_empty() => (SurfaceReach::Nobody, networks),
            Some(networks) => (SurfaceReach::Networks, networks),
        };
        Some(Surface {
            name: name.to_string(),
            protocol: if tcp { Protocol::Tcp } else { Protocol::Http },
            reach,
            login: admission.login,
            tier: None,
            networks: networks.iter().map(ToString::to_string).collect(),
            row: None,
            fragment: Some(id),
        })
    };
    routers.into_iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests;
