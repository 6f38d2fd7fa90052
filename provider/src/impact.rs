//! Says what a change does to those who use the edge: the blast radius, and what is different for Traefik.
//!
//! Between the rows before and the rows after, each compiled. It is enough to compile the rows of the touched hosts, with
//! the wildcards above them: no other place can be affected. Pure.

use std::collections::BTreeSet;

use charliehub_proto::change::{Difference, Impact};
use serde_json::Value;

use crate::{
    compile::{Answer, Compiler, Door, Pieces, Reach, StateKind},
    row::Key,
};

/// What the step from `before` to `after` does at every place of either.
pub fn impact(before: &Compiler, after: &Compiler) -> Impact {
    let keys: BTreeSet<&Key> = before.routes().chain(after.routes()).map(|(key, _)| key).collect();
    let doors: BTreeSet<Door> = keys.iter().flat_map(|key| [before.doors(key), after.doors(key)]).flatten().collect();
    let mut impact = at_doors(doors.iter().map(|door| (door, before.answer(door), after.answer(door))));
    let closed = |compiler: &Compiler, key: &Key| {
        compiler.route(key).is_some_and(|route| route.state.kind() == StateKind::Closed)
    };
    let now_closed = keys.iter().filter(|key| closed(after, key) && !closed(before, key));
    impact.closed = now_closed.filter_map(|key| after.rows().get(key)).map(|row| row.name()).collect();
    impact
}

/// What it does at some doors, each with what its requests met and what they meet now.
pub fn at_doors<'a>(doors: impl Iterator<Item = (&'a Door, Option<Answer>, Option<Answer>)>) -> Impact {
    let mut impact = Impact::default();
    for (door, was, is) in doors {
        let mut note = |list: fn(&mut Impact) -> &mut Vec<String>| {
            let list = list(&mut impact);
            // A place behind two entry points is one place for people.
            if list.last().is_none_or(|last| **last != *door.name) {
                list.push(door.name.to_string());
            }
        };
        match (serves(was.as_ref()), serves(is.as_ref())) {
            (true, false) => note(|impact| &mut impact.off),
            (false, true) => note(|impact| &mut impact.on),
            (true, true) if was.as_ref().map(|was| &was.backend) != is.as_ref().map(|is| &is.backend) => {
                note(|impact| &mut impact.backend);
            }
            (true, true) | (false, false) => {}
        }
        let (then, now) = (reach(was.as_ref()), reach(is.as_ref()));
        if now == Reach::Internet && then != Reach::Internet {
            note(|impact| &mut impact.exposed);
            if was.as_ref().is_some_and(|was| was.protected) {
                note(|impact| &mut impact.opened);
            }
        } else if !now.within(&then) && then != Reach::Nobody {
            note(|impact| &mut impact.widened);
        }
        if was.is_some_and(|was| was.login) && is.is_some_and(|is| !is.login && is.state == StateKind::Live) {
            note(|impact| &mut impact.login_lost);
        }
    }
    impact
}

/// True when a backend answers.
fn serves(answer: Option<&Answer>) -> bool {
    answer.is_some_and(|answer| answer.state == StateKind::Live)
}

fn reach(answer: Option<&Answer>) -> Reach {
    answer.map_or(Reach::Nobody, |answer| answer.reach.clone())
}

/// The objects that are not the same in both. What rows share by a name of ours is left out: it says nothing by itself.
pub fn differences(before: &Pieces, after: &Pieces) -> Vec<Difference> {
    let sections: BTreeSet<_> = before.keys().chain(after.keys()).copied().collect();
    let mut differences = Vec::new();
    for section in sections {
        let (old, new) = (before.get(&section), after.get(&section));
        let names: BTreeSet<_> = old.into_iter().chain(new).flat_map(|pieces| pieces.keys()).collect();
        for name in names {
            let text = |pieces: Option<&std::collections::BTreeMap<_, _>>| pieces?.get(name).cloned();
            let (old, new) = (text(old), text(new));
            if old == new || name.starts_with("charliehub-") {
                continue;
            }
            let json =
                |text: Option<std::sync::Arc<str>>| text.and_then(|text| serde_json::from_str::<Value>(&text).ok());
            let (top, kind) = section.path();
            let (section, name) = (format!("{top}.{kind}"), name.to_string());
            differences.push(Difference { section, name, before: json(old), after: json(new) });
        }
    }
    differences
}

#[cfg(test)]
mod tests;
