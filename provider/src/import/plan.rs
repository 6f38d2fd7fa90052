//! What an import would do, held against the rows that are there.
//!
//! A row is known by its place, a fragment by its kind and name, a certificate by what it holds. One that is there is
//! changed only where it says something else; what the files cannot say (owner, notes, labels ..) stays as it is.

use std::{collections::BTreeMap, sync::Arc};

use charliehub_proto::{
    domain::{Domain, Protocol},
    fragment::Fragment,
    traefik::{self, Kind},
};
use serde::Serialize;

use super::{
    Left, Renamed,
    read::Found,
    seed,
    settle::{Settled, settle},
};
use crate::{
    compile::{Compiler, Settings, State},
    row::{Key, Row, Rows},
};

/// What happens to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Insert,
    Update,
    Unchanged,
}

#[derive(Clone, Debug, Serialize)]
pub struct RowLine {
    pub domain: String,
    pub path_prefix: String,
    pub protocol: Protocol,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_entrypoint: Option<String>,
    /// What it stood for: the name of a router, or a row of another table.
    pub router: String,
    pub file: Arc<str>,
    pub action: Action,
    /// The columns that an update changes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct FragmentLine {
    pub kind: String,
    pub name: String,
    pub file: Arc<str>,
    pub action: Action,
    /// Why a router is no row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// All that an import says and does.
#[derive(Debug, Default, Serialize)]
pub struct Plan {
    pub rows: Vec<RowLine>,
    pub fragments: Vec<FragmentLine>,
    pub renamed: Vec<Renamed>,
    pub left_out: Vec<Left>,
    /// What is taken over, but will not answer as one might think.
    pub warnings: Vec<String>,
    /// What stands for the written in Traefik, by its name there: `router a of routes.yml`.
    #[serde(skip)]
    pub objects: BTreeMap<String, String>,
    #[serde(skip)]
    pub(super) writes: Vec<Write>,
}

/// A row to be written, and where it came from.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) action: Action,
    pub(super) row: Row,
    pub(super) router: String,
    pub(super) file: Arc<str>,
}

impl Plan {
    /// How many rows and fragments are written.
    pub fn changes(&self) -> usize {
        self.writes.len()
    }

    /// The rows as they would be with all of it written.
    pub fn over(&self, mut rows: Rows) -> Rows {
        rows.extend(self.writes.iter().map(|write| (key(&write.row), Arc::new(write.row.clone()))));
        rows
    }

    fn write(&mut self, action: Action, row: Row, router: &str, file: &Arc<str>) {
        if action != Action::Unchanged {
            self.writes.push(Write { action, row, router: router.to_owned(), file: Arc::clone(file) });
        }
    }

    /// Finds out what Traefik would have of it, and says which of the imported rows would be closed.
    fn compile(&mut self, existing: &Rows, settings: &Arc<Settings>) {
        let mut compiler = Compiler::apart(settings, existing.clone());
        let written = self.writes.iter().map(|write| (key(&write.row), Some(Arc::new(write.row.clone()))));
        compiler.apply(written.collect());
        for write in &self.writes {
            let route = compiler.route(&key(&write.row));
            let (kind, name) = match &write.row {
                Row::Fragment(fragment) => (fragment.kind.as_str(), Some(fragment.name.clone())),
                Row::Domain(_) | Row::Site(_) | Row::Policy(_) | Row::Peer(_) | Row::Bad(_) => ("router", None),
            };
            let routers = route.into_iter().flat_map(|route| &route.routers).map(|(_, router)| router.to_string());
            let origin = format!("{kind} {} of {}", write.router, write.file);
            self.objects.extend(name.into_iter().chain(routers).map(|name| (name, origin.clone())));
            if let Row::Fragment(fragment) = &write.row
                && let Some(drops) = dropped_when_twice(&fragment.kind, &fragment.name)
            {
                self.warnings.push(format!(
                    "{} ({}): while a file has it too, Traefik takes it from neither, and {drops}: take it out of the file \
                     before Traefik has both",
                    write.row.name(),
                    write.file
                ));
            }
            if let Some(State::Closed { reason }) = route.map(|route| &route.state) {
                let holds =
                    if route.is_some_and(|route| route.routers.is_empty()) { "is left out" } else { "answers 503" };
                self.warnings.push(format!("{} ({}) {holds}: {reason}", write.row.name(), write.file));
            }
            self.warnings.extend(
                route.into_iter().flat_map(|route| &route.warnings).map(|said| format!("{}: {said}", write.row.name())),
            );
        }
    }
}

/// What becomes of Traefik when two providers define this. The rest of what two providers name alike stands side by side.
fn dropped_when_twice(kind: &str, name: &str) -> Option<&'static str> {
    match (kind, name) {
        ("tls.option", "default") => Some("refuses every handshake"),
        ("tls.store", "default") => {
            Some("answers with a certificate that nobody knows where a name has none of its own")
        }
        _ => None,
    }
}

fn key(row: &Row) -> Key {
    match row {
        Row::Fragment(fragment) => Key::fragment(fragment.id),
        Row::Site(site) => Key { table: crate::row::Table::Sites, id: site.id },
        Row::Policy(policy) => Key { table: crate::row::Table::Policies, id: policy.id },
        Row::Peer(peer) => Key { table: crate::row::Table::Peers, id: peer.id },
        Row::Domain(domain) => Key::domain(domain.id),
        Row::Bad(_) => Key::domain(uuid::Uuid::nil()),
    }
}

type Place<'a> = (&'a str, &'a str, Protocol, Option<&'a str>);

fn place(row: &Domain) -> Place<'_> {
    (&row.domain, &row.path_prefix, row.protocol, row.tcp_entrypoint.as_deref())
}

pub(super) fn of_files(found: Found, existing: &Rows, settings: &Arc<Settings>) -> Plan {
    let Settled { rows, fragments, renamed, left_out, files } = settle(found, existing, settings);
    let mut plan = Plan { renamed, left_out, ..Plan::default() };
    let rows = rows.into_iter().map(|(name, row)| {
        let file = files.get(&name).cloned().unwrap_or_default();
        (row, name.1, file)
    });
    plan.take_rows(rows.collect(), existing, merged);
    let there = existing.values().filter_map(|row| match &**row {
        Row::Fragment(fragment) => Some(fragment),
        Row::Domain(_) | Row::Site(_) | Row::Policy(_) | Row::Peer(_) | Row::Bad(_) => None,
    });
    let by_name: BTreeMap<(&str, &str), &Fragment> =
        there.map(|fragment| ((fragment.kind.as_str(), fragment.name.as_str()), fragment)).collect();
    for (fragment, file, because) in fragments {
        plan.take_fragment(fragment, &file, because, &by_name);
    }
    plan.compile(existing, settings);
    plan
}

pub(super) fn of_table(table: seed::Table, existing: &Rows, settings: &Arc<Settings>) -> Plan {
    let seed::Table { rows, left_out, warnings } = table;
    let mut plan = Plan { left_out, warnings, ..Plan::default() };
    plan.take_rows(rows, existing, seed::merged);
    plan.compile(existing, settings);
    plan
}

impl Plan {
    fn take_rows(
        &mut self,
        rows: Vec<(Domain, String, Arc<str>)>,
        existing: &Rows,
        merged: fn(&Domain, Domain) -> Domain,
    ) {
        let there: BTreeMap<Place<'_>, &Domain> = existing
            .values()
            .filter_map(|row| match &**row {
                Row::Domain(domain) => Some((place(domain), domain)),
                Row::Fragment(_) | Row::Site(_) | Row::Policy(_) | Row::Peer(_) | Row::Bad(_) => None,
            })
            .collect();
        for (row, router, file) in rows {
            let there = there.get(&place(&row)).copied();
            let (action, row) = match there {
                None => (Action::Insert, Domain { notes: row.notes.clone().or_else(|| noted(&router, &file)), ..row }),
                Some(there) => {
                    let row = merged(there, row);
                    (if row == *there { Action::Unchanged } else { Action::Update }, row)
                }
            };
            self.rows.push(RowLine {
                domain: row.domain.clone(),
                path_prefix: row.path_prefix.clone(),
                protocol: row.protocol,
                tcp_entrypoint: row.tcp_entrypoint.clone(),
                router: router.clone(),
                file: Arc::clone(&file),
                action,
                changed: there.map(|there| changed(there, &row)).unwrap_or_default(),
            });
            self.write(action, Row::Domain(row), &router, &file);
        }
    }

    fn take_fragment(
        &mut self,
        mut fragment: Fragment,
        file: &Arc<str>,
        because: Option<String>,
        there: &BTreeMap<(&str, &str), &Fragment>,
    ) {
        let says_the_same = |other: &Fragment| {
            let piece =
                |fragment: &Fragment| Some(traefik::piece(fragment.kind.parse().ok()?, &fragment.body).ok()?.to_json());
            other.enabled
                && (other.body == fragment.body || piece(other).is_some_and(|other| piece(&fragment) == Some(other)))
        };
        let same = there.get(&(fragment.kind.as_str(), fragment.name.as_str())).copied();
        let certificates = || there.values().find(|other| other.kind == fragment.kind && says_the_same(other)).copied();
        let same = if fragment.kind == Kind::TlsCertificate.name() { certificates() } else { same };
        let action = match same {
            None => Action::Insert,
            Some(other) if says_the_same(other) => Action::Unchanged,
            Some(_) => Action::Update,
        };
        match same {
            Some(other) => fragment = Fragment { body: fragment.body, enabled: true, ..other.clone() },
            None => fragment.notes = noted(&fragment.name, file),
        }
        self.fragments.push(FragmentLine {
            kind: fragment.kind.clone(),
            name: fragment.name.clone(),
            file: Arc::clone(file),
            action,
            because,
        });
        let name = fragment.name.clone();
        self.write(action, Row::Fragment(fragment), &name, file);
    }
}

/// The columns in which two rows differ.
fn changed(there: &Domain, row: &Domain) -> Vec<String> {
    let columns = |row| serde_json::to_value(row).ok().and_then(|row| row.as_object().cloned()).unwrap_or_default();
    let (there, row) = (columns(there), columns(row));
    row.iter().filter(|(column, value)| there.get(*column) != Some(*value)).map(|(column, _)| column.clone()).collect()
}

/// The row that is there, with what its router says now.
fn merged(there: &Domain, new: Domain) -> Domain {
    let there = there.clone();
    Domain {
        id: there.id,
        environment: there.environment,
        maintenance_message: there.maintenance_message,
        dns_mode: there.dns_mode,
        site: there.site,
        owner: there.owner,
        notes: there.notes,
        labels: there.labels,
        created_at: there.created_at,
        updated_at: there.updated_at,
        version: there.version,
        ..new
    }
}

/// Where something came from, as far as a note may hold it.
fn noted(router: &str, file: &str) -> Option<String> {
    let text: String =
        format!("imported: {router} of {file}").chars().filter(|c| !c.is_control() && *c != '`').collect();
    let plain = text.chars().all(|c| c.is_ascii_graphic() || c == ' ');
    plain.then(|| text.chars().take(500).collect())
}
