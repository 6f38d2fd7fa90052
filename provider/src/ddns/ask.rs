//! What the authoritative servers of a zone say of a name: the one of the settings, or all that the zone names.
//!
//! Servers of one zone may differ for a while after a change. What all say that answer counts; while they differ, it is not known.

use std::{net::SocketAddr, time::Duration};

use charliehub_dns::{
    Asker, Error, Round, of_resolv_conf,
    wire::{
        op::Message,
        rr::{Name, RData, RecordType},
    },
};
use futures_util::future::join_all;
use tokio::net::lookup_host;

use super::{
    Failure,
    machine::{Answer, Family},
};
use crate::config::Zone;

/// How long a name server is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
const ASKER: Asker = Asker { timeout: PATIENCE };

/// Of a name server as the settings have it.
pub(super) async fn address(server: &str) -> Result<SocketAddr, Failure> {
    let remedy = || format!("see that this machine can look up `{server}`, or write its address");
    match lookup_host(server).await.map(|mut found| found.next()) {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(Failure::new(format!("{server} has no address"), remedy())),
        Err(error) => Err(Failure::new(format!("{server} cannot be looked up: {error}"), remedy())),
    }
}

/// The servers that speak for a zone.
pub(super) async fn servers(zone: &Zone) -> Result<Vec<SocketAddr>, Failure> {
    if let Some(server) = &zone.nameserver {
        return Ok(vec![address(server).await?]);
    }
    let remedy = format!("see `dig NS {}`, or name a server in `nameserver`", zone.zone);
    let found = async {
        let name = charliehub_dns::name(&zone.zone)?;
        let found = Round::new(ASKER, of_resolv_conf().await).zone(&name).await?;
        if found.name == name { Ok(found) } else { Err(Error::NoZone(Box::new(name))) }
    };
    let found = found.await.map_err(|error| Failure::new(error.to_string(), remedy))?;
    Ok(found.servers.iter().map(|server| server.at).collect())
}

/// What they say of a name and family.
pub(super) async fn ask(servers: &[SocketAddr], name: &str, family: Family) -> Result<Answer, Failure> {
    let failed =
        |error: &Error| Failure::new(error.to_string(), "see that the zone's name servers answer this machine");
    let kind = match family {
        Family::A => RecordType::A,
        Family::Aaaa => RecordType::AAAA,
    };
    let name = charliehub_dns::name(name).map_err(|error| failed(&error))?;
    let mut said: Vec<(SocketAddr, Answer)> = Vec::new();
    let mut trouble = None;
    for (server, answer) in
        servers.iter().zip(join_all(servers.iter().map(|server| ASKER.ask(*server, &name, kind, false))).await)
    {
        match answer {
            Ok(answer) if answer.metadata.authoritative => said.push((*server, read(&answer, &name))),
            Ok(_) => trouble = Some(Error::Lame { server: *server, name: Box::new(name.clone()) }),
            Err(error) => trouble = Some(error),
        }
    }
    let Some(((first, answer), others)) = said.split_first() else {
        return Err(failed(&trouble.unwrap_or(Error::NoServer(Box::new(name)))));
    };
    match others.iter().find(|(_, other)| !is_same(other, answer)) {
        None => Ok(answer.clone()),
        Some((second, other)) => Err(Failure::new(
            format!("the zone's name servers differ: {first} says {answer}, {second} says {other}"),
            "wait until they agree; where they do not, see the zone's transfers",
        )),
    }
}

/// But for the TTL, which a server may count down.
fn is_same(one: &Answer, other: &Answer) -> bool {
    match (one, other) {
        (Answer::Addresses { addresses: one, .. }, Answer::Addresses { addresses: other, .. }) => one == other,
        (one, other) => one == other,
    }
}

fn read(answer: &Message, name: &Name) -> Answer {
    let own: Vec<_> = answer.answers.iter().filter(|record| record.name == *name).collect();
    if own.iter().any(|record| matches!(record.data, RData::CNAME(_))) {
        return Answer::Alias;
    }
    let ttl = own.iter().map(|record| record.ttl).min().unwrap_or_default();
    Answer::Addresses { addresses: own.iter().filter_map(|record| record.data.ip_addr()).collect(), ttl }
}
