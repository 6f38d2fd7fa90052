//! Says in one sentence whether the edge is right. Pure.

use charliehub_proto::{
    debug::{Cause, Health, ServedRevision, Verdict},
    instance::{InstanceState, InstanceStatus},
};

/// The worst cause in a sentence, or that there is none, and what that rests on.
pub(super) fn verdict(causes: &[Cause], revision: Option<&ServedRevision>, instances: &[InstanceStatus]) -> Verdict {
    let Some(worst) = causes.first() else { return Verdict { state: Health::Ok, text: right(revision, instances) } };
    let more = match causes.len() - 1 {
        0 => String::new(),
        1 => " (and one more)".to_owned(),
        more => format!(" (and {more} more)"),
    };
    Verdict { state: worst.state, text: format!("{}: {}{more}", worst.subject, worst.text) }
}

fn right(revision: Option<&ServedRevision>, instances: &[InstanceStatus]) -> String {
    let Some(served) = revision else { return "Nothing is served, as the rows say".to_owned() };
    let taking = instances.iter().filter(|one| one.state == InstanceState::Behind).count();
    let routes = count(served.routes, "route");
    let n = served.revision;
    match (instances, taking) {
        ([one], 0) => format!("{} runs revision {n} with {routes}, as the rows say", one.name),
        ([one], _) => format!("{} is taking revision {n}, with {routes}", one.name),
        ([_, _], 0) => format!("Both Traefiks run revision {n} with {routes}, as the rows say"),
        (all, 0) => format!("All {} Traefiks run revision {n} with {routes}, as the rows say", all.len()),
        (all, taking) => format!("{taking} of {} Traefiks are taking revision {n}, with {routes}", all.len()),
    }
}

/// `1 route`, `2 routes`.
pub(super) fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
