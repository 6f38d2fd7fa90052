//! What is told of a failover: one finding for each pair of tunnels, before and after something is done. Pure.

use std::time::Duration;

use super::{
    super::{deed::Deed, run_dir::Hold},
    kernel::{Kernel, METRIC, PROTOCOL},
    machine::{MOST_MOVES, Machine, Move, Place, State},
    pair::Pair,
};
use crate::sample::Sample;
use charliehub_proto::finding::Status;

pub(in crate::act) const FAILOVER: &str = "failover";

/// All that is known after a look.
#[derive(Debug)]
pub(super) struct Look<'a> {
    pub pair: &'a Pair,
    pub machine: &'a Machine,
    pub kernel: &'a Kernel,
    /// Where the networks are, or would be by now.
    pub place: Place,
    pub hold: Option<&'a Hold>,
    pub is_dry: bool,
    pub last: Option<&'a Deed>,
    /// Interfaces on which the kernel drops what comes by another way than it would answer.
    pub strict: &'a [String],
}

/// What is about to be done, as the log and the finding have it.
pub(super) fn intent(pair: &Pair, which: Move, machine: &Machine) -> String {
    let (networks, primary, fallback) = (pair.networks(), &pair.primary.interface, &pair.fallback.interface);
    match which {
        Move::Over => {
            format!("{networks} moves to {fallback}: {} probes of {primary} in a row were lost", machine.lost())
        }
        Move::Back if machine.is_fallback_dead() => format!("{networks} moves back to {primary}: {fallback} is silent"),
        Move::Back => {
            format!("{networks} moves back to {primary}, which has answered for {}", spell(machine.back_after()))
        }
        Move::Undo => format!("a move of {networks} to {fallback} that was cut off is undone"),
    }
}

pub(super) fn moving(pair: &Pair, intent: &str) -> Sample {
    sample(pair, Status::Warning, intent.to_owned()).remedy("wait: it says what came of it within seconds")
}

/// The finding after a look.
pub(super) fn sample_of(look: &Look<'_>) -> Sample {
    let Look { pair, machine, kernel, place, hold, is_dry, last, strict } = *look;
    let (networks, primary, fallback) = (pair.networks(), &pair.primary.interface, &pair.fallback.interface);
    let dry = if is_dry { " (dry-run: nothing is done)" } else { "" };
    let by = if place == Place::Fallback { fallback } else { primary };
    let is_dead = match place {
        Place::Fallback => machine.is_fallback_dead(),
        Place::Primary | Place::Half | Place::Foreign => machine.is_primary_dead(),
    };
    let made = match (hold, place, machine.state()) {
        (Some(Hold { file, is_ours }), ..) => {
            let status = if is_dead || *is_ours { Status::Critical } else { Status::Warning };
            let why = if *is_ours { format!(" after {MOST_MOVES} moves within an hour") } else { String::new() };
            sample(pair, status, format!("held{why}: {networks} stays with {by}{dry}"))
                .remedy(format!("when the tunnels can be relied on: rm {}", file.display()))
        }
        (None, _, State::Held) => sample(
            pair,
            Status::Critical,
            format!("held after {MOST_MOVES} moves within an hour: {networks} stays with {by}{dry}"),
        )
        .remedy("find what makes the tunnels come and go"),
        (None, Place::Foreign, _) => {
            let route = kernel.foreign.map(|route| format!(", of metric {},", route.metric)).unwrap_or_default();
            sample(pair, Status::Warning, format!("{networks} has a route that somebody made{route} and is left alone"))
                .remedy(format!(
                    "ip route show {}; take it away, and failover is ours again",
                    networks.replace(", ", " ")
                ))
        }
        (None, Place::Half, _) => {
            sample(pair, Status::Critical, format!("a move of {networks} was cut off, and is not undone{dry}")).remedy(
                format!(
                    "see the log; by hand: ip route del {networks} dev {fallback} metric {METRIC} proto {PROTOCOL}"
                ),
            )
        }
        (None, Place::Primary, _) if machine.is_primary_dead() && machine.is_fallback_dead() => {
            sample(pair, Status::Critical, format!("both {primary} and {fallback} are silent: {networks} stays{dry}"))
                .remedy(format!("see wg-reachable of both; {networks} moves as soon as {fallback} answers"))
        }
        (None, Place::Primary, State::Suspect { since, .. }) => {
            // One that failed begins the suspicion anew.
            let (status, why) = match last.filter(|last| last.boot == since).and_then(Deed::failure) {
                Some(why) => (Status::Critical, format!("; the last move failed: {why}")),
                None => (Status::Warning, String::new()),
            };
            let text = format!("{primary} is silent; {networks} moves to {fallback} unless it answers again{why}{dry}");
            sample(pair, status, text).remedy(format!("see wg-reachable of {primary}"))
        }
        (None, Place::Primary, State::Returning { .. }) => {
            sample(pair, Status::Warning, format!("{networks} is back on {primary}, which is on trial{dry}"))
                .remedy("wait")
        }
        (None, Place::Primary, _) => {
            sample(pair, Status::Ok, format!("{networks} goes by {primary}, and {fallback} stands by{dry}"))
        }
        (None, Place::Fallback, _) => {
            let status = if is_dead { Status::Critical } else { Status::Warning };
            let and = if is_dead { ", which is silent too" } else { "" };
            let back = if kernel.can_return || is_dry {
                format!("it returns when {primary} has answered for {}", spell(machine.back_after()))
            } else {
                format!("it does not return before {primary} has its own route of metric 100")
            };
            let text = format!(
                "{networks} goes by {fallback}{and}, whose site may now send as {networks}; {back}{}{dry}",
                filtered(strict)
            );
            sample(pair, status, text).remedy(format!("mend {primary}: see its other checks"))
        }
    };
    made.did(last.map(|deed| deed.action.clone()))
}

pub(super) fn sample(pair: &Pair, status: Status, text: String) -> Sample {
    Sample::new(FAILOVER, pair.target(), status, text).site(&*pair.site).confirmed_by(1)
}

fn filtered(strict: &[String]) -> String {
    match strict {
        [] => String::new(),
        names => format!(
            "; what the site still sends by {} is dropped meanwhile (strict rp_filter, 2 would let it in)",
            names.join(" and ")
        ),
    }
}

fn spell(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds => format!("{} min", seconds / 60),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{
        super::{
            machine::{Event, Rules, Seen},
            pair::tests::pair,
        },
        *,
    };
    use crate::clock::Now;

    const RULES: Rules = Rules {
        every: Duration::from_secs(1),
        lost: 2,
        confirm: Duration::from_secs(3),
        back_after: Duration::from_mins(5),
        trial: Duration::from_secs(3),
    };

    /// A machine after such looks, a second apart.
    fn machine(place: Place, looks: &[(bool, bool)]) -> Machine {
        let mut machine = Machine::new(RULES);
        for (at, (primary, fallback)) in (1_000..).zip(looks) {
            let seen = Seen { primary: *primary, fallback: *fallback, place, can_return: true, is_held: false };
            machine = machine.on(Event::Seen(seen), Duration::from_secs(at)).0;
        }
        machine
    }

    fn told(place: Place, looks: &[(bool, bool)], hold: Option<bool>, last: Option<&Deed>) -> (Status, String) {
        let kernel = Kernel {
            place,
            can_return: true,
            fallback: Some(5),
            allowed: None,
            handshake: None,
            ours: Vec::new(),
            foreign: None,
        };
        let (pair, machine, strict) = (pair(), machine(place, looks), ["wg-fr".to_owned()]);
        let hold = hold.map(|is_ours| Hold { file: "/run/hold".into(), is_ours });
        let hold = hold.as_ref();
        let look =
            Look { pair: &pair, machine: &machine, kernel: &kernel, place, hold, is_dry: false, last, strict: &strict };
        let sample = sample_of(&look);
        assert_eq!((sample.check, &*sample.target), ("failover", "wg-fr->wg-uk"));
        assert_eq!(sample.remedy.is_none(), sample.status == Status::Ok, "{}", sample.text);
        (sample.status, sample.text)
    }

    #[test]
    fn each_state_has_its_words() {
        const WELL: (bool, bool) = (true, true);
        const DEAD: (bool, bool) = (false, true);
        const BOTH: (bool, bool) = (false, false);
        let failed = |boot| {
            let now = Now { boot: Duration::from_secs(boot), wall: Timestamp::UNIX_EPOCH, is_trusted: true };
            Deed::of(now, "it moves".to_owned(), Err("no".to_owned()), false)
        };
        // The second lost probe begins the suspicion.
        let (now, earlier) = (failed(1_001), failed(500));
        for (place, looks, hold, last, status, words) in [
            (Place::Primary, &[WELL; 3][..], None, None, Status::Ok, "goes by wg-fr, and wg-uk stands by"),
            (Place::Primary, &[DEAD; 3], None, None, Status::Warning, "wg-fr is silent; 10.35.0.0/16 moves to wg-uk"),
            (Place::Primary, &[DEAD; 3], None, Some(&now), Status::Critical, "the last move failed: no"),
            (Place::Primary, &[DEAD; 3], None, Some(&earlier), Status::Warning, "unless it answers again"),
            (Place::Primary, &[BOTH; 3], None, None, Status::Critical, "both wg-fr and wg-uk are silent"),
            (Place::Fallback, &[DEAD; 3], None, None, Status::Warning, "may now send as 10.35.0.0/16; it returns when"),
            (Place::Fallback, &[BOTH; 3], None, None, Status::Critical, "goes by wg-uk, which is silent too"),
            (Place::Fallback, &[DEAD; 3], None, None, Status::Warning, "sends by wg-fr is dropped meanwhile"),
            (Place::Foreign, &[DEAD; 3], None, None, Status::Warning, "a route that somebody made and is left alone"),
            (Place::Half, &[WELL; 3], None, None, Status::Critical, "was cut off, and is not undone"),
            (Place::Primary, &[WELL; 3], Some(false), None, Status::Warning, "held: 10.35.0.0/16 stays with wg-fr"),
            (Place::Primary, &[DEAD; 3], Some(false), None, Status::Critical, "held: 10.35.0.0/16 stays with wg-fr"),
            (
                Place::Fallback,
                &[WELL; 3],
                Some(true),
                None,
                Status::Critical,
                "held after 3 moves within an hour: 10.35.0.0/16 stays with wg-uk",
            ),
        ] {
            let (said, text) = told(place, looks, hold, last);
            assert!(said == status && text.contains(words), "{said} {text}; not {status} {words}");
        }
    }
}
