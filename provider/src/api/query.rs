//! The parameters behind the `?` of a request: each is taken once, and one that nobody took is a mistake.

use std::collections::BTreeMap;

use axum::extract::Query;
use http::Uri;

use super::Problem;

/// What was sent, by name; several of a name in their order.
pub(super) struct Parameters(BTreeMap<String, Vec<String>>);

impl Parameters {
    pub(super) fn of(uri: &Uri) -> Result<Self, Problem> {
        let Query(pairs): Query<Vec<(String, String)>> = Query::try_from_uri(uri)
            .map_err(|_| Problem::bad_request("the query cannot be read").remedy("write name=value, escaped as %XX"))?;
        let mut all = BTreeMap::<String, Vec<String>>::new();
        for (name, value) in pairs {
            if value.contains('\0') {
                return Err(Problem::parameter(&shown(&name), "a value holds the character %00").remedy("leave it out"));
            }
            all.entry(name).or_default().push(value);
        }
        Ok(Self(all))
    }

    /// Every value of a name.
    pub(super) fn all(&mut self, name: &str) -> Vec<String> {
        self.0.remove(name).unwrap_or_default()
    }

    /// The value of a name; the last one where there are several.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.all(name).pop()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Problem> {
        match self.take(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("true" | "") => Ok(true),
            Some(_) => {
                Err(Problem::parameter(name, "it is neither true nor false").remedy(format!("write {name}=true")))
            }
        }
    }

    /// Refuses what is left; `known` are the names that could have been meant.
    pub(super) fn done(self, known: &[&str]) -> Result<(), Problem> {
        let Some(name) = self.0.into_keys().next() else { return Ok(()) };
        let nearest = known.iter().min_by_key(|known| strsim::damerau_levenshtein(&name, known));
        let problem = Problem::parameter(&shown(&name), format!("there is no parameter `{}`", shown(&name)));
        Err(match nearest {
            Some(nearest) => problem.remedy(format!("did you mean `{nearest}`?")),
            None => problem.remedy("leave it out"),
        })
    }
}

fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}
