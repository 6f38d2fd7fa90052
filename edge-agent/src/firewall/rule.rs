//! What a rule takes and what it does with it, however it was written.
//!
//! `--source 172.16.0.0/255.240.0.0 -p 6 --destination-port postgresql` and `-s 172.16.0.0/12 -p tcp -m tcp --dport 5432` are the
//! same. A rule says so of itself when all its words are known ([`Rule::is_understood`]); of others only iptables itself can
//! tell (`canonical`). Pure: the names of ports are an argument.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    matches::{Match, What},
    word::{self, Word},
};

/// The names of ports, from `/etc/services`.
pub(crate) type Services = BTreeMap<String, u16>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// What a packet must be. Their order means nothing; what every packet is, is left out.
    pub(crate) matches: BTreeSet<Match>,
    pub(crate) target: Target,
    pub(crate) comment: Option<String>,
    /// As it was written, after `-A CHAIN`.
    pub(crate) words: Vec<Word>,
    pub(crate) is_understood: bool,
}

/// Where a packet goes. Without a name it goes on, and is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Target {
    pub(crate) name: String,
    /// `-g`: it does not come back to this chain.
    pub(crate) is_goto: bool,
    pub(crate) options: BTreeSet<Match>,
}

/// What of a rule counts when a saved one is held against a live one.
pub(crate) type Identity<'a> = (&'a BTreeSet<Match>, &'a Target, Option<&'a str>);

impl Target {
    /// No later rule sees the packet, in this chain or in the one that jumped here.
    pub(crate) fn is_terminal(&self) -> bool {
        const TERMINAL: &[&str] = &[
            "ACCEPT",
            "DNAT",
            "DROP",
            "MASQUERADE",
            "NETMAP",
            "NFQUEUE",
            "QUEUE",
            "REDIRECT",
            "REJECT",
            "SNAT",
            "SYNPROXY",
            "TPROXY",
        ];
        TERMINAL.contains(&self.name.as_str())
    }

    /// The packet is refused.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self.name.as_str(), "DROP" | "REJECT")
    }
}

impl Rule {
    /// Takes the same packets to the same end. Comments say nothing to packets.
    pub(crate) fn does_the_same_as(&self, other: &Self) -> bool {
        self.matches == other.matches && self.target == other.target
    }

    /// Takes every packet that the other takes, as far as can be told.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.matches.iter().all(|mine| other.matches.iter().any(|theirs| theirs.implies(mine)))
    }

    pub(crate) fn identity(&self) -> Identity<'_> {
        (&self.matches, &self.target, self.comment.as_deref())
    }

    /// After `-A CHAIN` in a saved file.
    pub(crate) fn line(&self) -> String {
        word::line(&self.words)
    }

    /// After `iptables -A CHAIN` in a shell.
    pub(crate) fn arguments(&self) -> String {
        word::arguments(&self.words)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("a quote is not closed")]
    Quote,
    #[error("`{0}` stands where an option must be")]
    Stray(String),
    #[error("`{0}` lacks its value")]
    NoValue(String),
}

/// Reads what follows `-A CHAIN`. Several, where `-s` or `-d` lists several networks: iptables makes a rule of each.
pub(crate) fn parse(text: &str, services: &Services) -> Result<Vec<Rule>, Error> {
    read(&word::split(text).ok_or(Error::Quote)?, services)
}

/// As [`parse`], of words.
pub(crate) fn read(words: &[Word], services: &Services) -> Result<Vec<Rule>, Error> {
    let mut reader = Reader::default();
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let is_negated = word.is_not();
        at += usize::from(is_negated);
        let Some(option) = words.get(at) else { return Err(Error::NoValue("!".to_owned())) };
        if !option.is_option() {
            return Err(Error::Stray(option.text.clone()));
        }
        at += 1;
        let values = words.iter().skip(at).take_while(|word| !word.is_option() && !word.is_not());
        let values: Vec<String> = values.map(|word| word.text.clone()).collect();
        at += values.len();
        reader.option(is_negated, &option.text, &values, services)?;
    }
    reader.end();
    Ok(reader.rules(words))
}

/// What was read of a rule so far.
#[derive(Default)]
struct Reader {
    matches: BTreeSet<Match>,
    sources: Vec<Match>,
    destinations: Vec<Match>,
    target: Target,
    comment: Option<String>,
    /// Of `-m`, or of the target: what an option belongs to.
    module: String,
    /// `-m MODULE`, until an option of it comes: alone, it is a match of its own.
    is_bare: bool,
    is_in_target: bool,
    is_not_understood: bool,
}

/// Modules that an option of theirs, or `-p`, brings anyhow.
const IMPLIED: &[&str] =
    &["comment", "dccp", "icmp", "icmp6", "icmpv6", "ipv6-icmp", "mh", "multiport", "sctp", "tcp", "udp", "udplite"];

impl Reader {
    fn option(&mut self, negated: bool, option: &str, values: &[String], services: &Services) -> Result<(), Error> {
        let value = |values: &[String]| values.first().cloned().ok_or_else(|| Error::NoValue(option.to_owned()));
        match option {
            "-s" | "--source" | "--src" => self.sources = addresses(&value(values)?, negated, What::Source, "-s"),
            "-d" | "--destination" | "--dst" => {
                self.destinations = addresses(&value(values)?, negated, What::Destination, "-d");
            }
            "-p" | "--protocol" | "--proto" => {
                let protocol = super::matches::protocol(&value(values)?);
                self.is_in_target = false;
                if protocol != "all" {
                    self.matches.insert(Match { negated, what: What::Protocol(protocol) });
                }
            }
            "-i" | "--in-interface" => self.interface(negated, What::In(value(values)?)),
            "-o" | "--out-interface" => self.interface(negated, What::Out(value(values)?)),
            "-f" | "--fragment" => self.add(Match { negated, what: What::Fragment }),
            "-c" | "--set-counters" => {}
            "-m" | "--match" => {
                self.end();
                self.module = value(values)?;
                self.is_bare = !IMPLIED.contains(&self.module.as_str());
                self.is_in_target = false;
            }
            "-j" | "--jump" | "-g" | "--goto" => {
                self.end();
                self.target.name = value(values)?;
                self.target.is_goto = option == "-g" || option == "--goto";
                self.is_in_target = true;
                self.is_not_understood |= values.len() > 1;
            }
            "--comment" if !self.is_in_target => {
                self.is_bare = false;
                self.comment = Some(value(values)?);
            }
            _ => self.of_module(negated, option, values, services),
        }
        Ok(())
    }

    fn interface(&mut self, negated: bool, what: What) {
        if !matches!(&what, What::In(name) | What::Out(name) if name == "+" && !negated) {
            self.add(Match { negated, what });
        }
    }

    fn add(&mut self, new: Match) {
        self.is_bare = false;
        self.matches.insert(new);
    }

    /// Any other option: of the module before it, or of the target.
    fn of_module(&mut self, negated: bool, option: &str, values: &[String], services: &Services) {
        let module = if self.is_in_target { "" } else { self.module.as_str() };
        let (read, is_known) = super::matches::option(negated, module, option, values, services);
        self.is_not_understood |= !is_known;
        if self.is_in_target {
            self.target.options.extend(read);
        } else {
            self.is_bare = false;
            self.matches.extend(read);
        }
    }

    /// A module of which nothing was asked is a match all the same.
    fn end(&mut self) {
        if std::mem::take(&mut self.is_bare) {
            let what = What::Other { module: self.module.clone(), option: String::new(), values: Vec::new() };
            self.matches.insert(Match { negated: false, what });
            self.is_not_understood = true;
        }
    }

    /// A rule for each pair of source and destination.
    fn rules(self, words: &[Word]) -> Vec<Rule> {
        let some = |all: &[Match]| if all.is_empty() { vec![None] } else { all.iter().cloned().map(Some).collect() };
        let (sources, destinations) = (some(&self.sources), some(&self.destinations));
        // With what REJECT answers by default is another in each family.
        let lacks_what_with = self.target.name == "REJECT" && self.target.options.is_empty();
        let is_one = sources.len() * destinations.len() == 1;
        let mut rules = Vec::new();
        for source in &sources {
            for destination in &destinations {
                let mut matches = self.matches.clone();
                let ends = [source, destination].into_iter().flatten().filter(|end| !end.is_everything());
                matches.extend(ends.cloned());
                rules.push(Rule {
                    matches,
                    target: self.target.clone(),
                    comment: self.comment.clone(),
                    words: if is_one { words.to_vec() } else { one_of(words, source.as_ref(), destination.as_ref()) },
                    is_understood: !self.is_not_understood && !lacks_what_with,
                });
            }
        }
        rules
    }
}

/// The words with one source and one destination in place of the lists.
fn one_of(words: &[Word], source: Option<&Match>, destination: Option<&Match>) -> Vec<Word> {
    let mut one = words.to_vec();
    for (names, end) in [(["-s", "--source", "--src"], source), (["-d", "--destination", "--dst"], destination)] {
        let Some(at) = words.iter().position(|word| word.is_option() && names.contains(&word.text.as_str())) else {
            continue;
        };
        if let (Some(Match { what, .. }), Some(word)) = (end, one.get_mut(at + 1)) {
            word.text = match what {
                What::Source(net) | What::Destination(net) => net.to_string(),
                What::Other { values, .. } => values.concat(),
                What::Protocol(_) | What::In(_) | What::Out(_) | What::Fragment | What::Ports(..) => continue,
            };
        }
    }
    one
}

fn addresses(list: &str, negated: bool, what: fn(ipnet::IpNet) -> What, option: &str) -> Vec<Match> {
    let one = |text: &str| match super::matches::network(text) {
        Some(net) => Match { negated, what: what(net) },
        None => Match {
            negated,
            what: What::Other { module: String::new(), option: option.to_owned(), values: vec![text.to_owned()] },
        },
    };
    list.split(',').take(256).map(one).collect()
}

#[cfg(test)]
mod tests;
