//! Which CAA records bind the issuers of a name's certificate, and whom they let (RFC 8659). Pure, but for [`climb`].

use charliehub_dns::{
    Error, Round, shown,
    wire::rr::{Name, RData, RecordType},
};

/// What was found on the way up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// No name from it up has any: everybody may issue.
    Free,
    By(Set),
    /// The records of this name could not be had.
    Failed {
        at: Name,
        error: Error,
    },
}

/// The records that count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Set {
    /// Who has them; what it stands for, where it is an alias.
    pub owner: Name,
    pub properties: Vec<Property>,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Property {
    /// Whoever does not know the tag must not issue.
    pub is_critical: bool,
    pub tag: String,
    pub value: String,
}

/// Why a set lets nobody of ours issue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal<'a> {
    /// It binds by something that issuers do not know.
    Strange(&'a Property),
    /// By this tag others are let, or nobody.
    Others(&'static str),
}

const ISSUE: &str = "issue";
const ISSUEWILD: &str = "issuewild";
/// Where misuse is told, which binds nobody.
const IODEF: &str = "iodef";

impl Property {
    fn is(&self, tag: &str) -> bool {
        self.tag.eq_ignore_ascii_case(tag)
    }

    /// Whom it lets issue: what is before the parameters, which the issuer alone understands. Empty: nobody.
    fn issuer(&self) -> &str {
        let domain = self.value.split(';').next().unwrap_or_default().trim_matches([' ', '\t']);
        domain.strip_suffix('.').unwrap_or(domain)
    }

    /// As in a zone file.
    pub(super) fn shown(&self) -> String {
        let flags = if self.is_critical { 128 } else { 0 };
        format!("{flags} {} {:?}", self.tag, self.value)
    }
}

impl Set {
    /// Whether one of `issuers` may issue for a name, or for all names below one.
    pub(super) fn lets(&self, issuers: &[String], is_wildcard: bool) -> Result<(), Refusal<'_>> {
        let is_known = |one: &Property| [ISSUE, ISSUEWILD, IODEF].iter().any(|tag| one.is(tag));
        if let Some(strange) = self.properties.iter().find(|one| one.is_critical && !is_known(one)) {
            return Err(Refusal::Strange(strange));
        }
        let has = |tag: &str| self.properties.iter().any(|one| one.is(tag));
        let tag = if is_wildcard && has(ISSUEWILD) { ISSUEWILD } else { ISSUE };
        let mut binding = self.properties.iter().filter(|one| one.is(tag));
        let is_ours = |one: &Property| issuers.iter().any(|issuer| issuer.eq_ignore_ascii_case(one.issuer()));
        if !has(tag) || binding.any(is_ours) { Ok(()) } else { Err(Refusal::Others(tag)) }
    }

    /// As in a zone file.
    pub(super) fn shown(&self) -> String {
        let owner = shown(&self.owner);
        let lines: Vec<_> = self.properties.iter().map(|one| format!("{owner}. CAA {}", one.shown())).collect();
        lines.join("; ")
    }
}

/// The names whose records may count, in order: a wildcard's are those of the name below which it is. The root has none.
fn upwards(name: &Name) -> impl Iterator<Item = Name> + use<> {
    let first = if name.is_wildcard() { name.base_name() } else { name.clone() };
    std::iter::successors(Some(first), |name| Some(name.base_name())).take_while(|name| !name.is_root())
}

/// Asks from the name upwards until there are records.
pub(super) async fn climb(round: &Round, name: &Name) -> Bound {
    for at in upwards(name) {
        match round.records(&at, RecordType::CAA).await {
            Ok(found) if found.records.is_empty() => {}
            Ok(found) => {
                let properties = found.records.iter().filter_map(property).collect();
                return Bound::By(Set { owner: found.owner.clone(), properties });
            }
            Err(error) => return Bound::Failed { at, error },
        }
    }
    Bound::Free
}

fn property(data: &RData) -> Option<Property> {
    let RData::CAA(caa) = data else { return None };
    let value = String::from_utf8_lossy(&caa.value).into_owned();
    Some(Property { is_critical: caa.issuer_critical, tag: caa.tag.clone(), value })
}

#[cfg(test)]
mod tests;
