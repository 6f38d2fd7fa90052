//! Rotations in the database: each step is one transaction, and a committed key is in the rows with it or not at all.

use charliehub_proto::rotation::{Offer, Phase, Rotation, Step};
use serde_json::json;
use tokio_postgres::{
    Client, GenericClient, Row, Transaction,
    types::{ToSql, Type},
};
use uuid::Uuid;

use super::{Refused, Who, next};
use crate::author::{Author, revision_made};

const COLUMNS: &str = "id, agent, site, interface, old_key, new_key, phase, follower, why, begun_at, changed_at";

/// One at a time offers for an agent.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtext('charliehub rotations of ' || $1))";

const SUPERSEDE: &str = "UPDATE charliehub.rotations SET phase = 'undone', why = 'superseded', changed_at = now()
    WHERE agent = $1 AND interface = $2 AND phase NOT IN ('committed', 'undone') RETURNING *";

/// A key that is somebody else's would give its tunnel to whoever offers another.
const OWN: &str = "SELECT FROM charliehub.sites s CROSS JOIN jsonb_array_elements(s.tunnels) t
    WHERE s.agent = $1 AND t ->> 'own_public_key' = $2 LIMIT 1";

/// The follower is the agent of a row that has a tunnel to the old key; of several the one that reported last.
const OFFER: &str = "
    INSERT INTO charliehub.rotations (id, agent, site, interface, old_key, new_key, follower)
    VALUES ($1, $2, $3, $4, $5, $6,
            (SELECT s.agent FROM charliehub.sites s LEFT JOIN charliehub.agents a ON a.name = s.agent
              WHERE s.agent <> $2
                AND EXISTS (SELECT FROM jsonb_array_elements(s.tunnels) t WHERE t ->> 'public_key' = $5)
              ORDER BY a.last_report DESC NULLS LAST, s.agent LIMIT 1))
    ON CONFLICT (id) DO NOTHING RETURNING *";

const SITES: &str = "
    UPDATE charliehub.sites s SET tunnels = (
        SELECT jsonb_agg(t.tunnel
                         || CASE t.tunnel ->> 'public_key' WHEN $1 THEN jsonb_build_object('public_key', $2) ELSE '{}' END
                         || CASE t.tunnel ->> 'own_public_key' WHEN $1 THEN jsonb_build_object('own_public_key', $2) ELSE '{}' END
                         ORDER BY t.place)
          FROM jsonb_array_elements(s.tunnels) WITH ORDINALITY t(tunnel, place))
     WHERE EXISTS (SELECT FROM jsonb_array_elements(s.tunnels) t WHERE $1 IN (t ->> 'public_key', t ->> 'own_public_key'))";

const POLICIES: &str = "
    UPDATE charliehub.policies p SET body = jsonb_set(p.body, '{vpn}', (
        SELECT jsonb_agg(v.vpn || CASE v.vpn ->> 'public_key' WHEN $1 THEN jsonb_build_object('public_key', $2) ELSE '{}' END
                         ORDER BY v.place)
          FROM jsonb_array_elements(p.body -> 'vpn') WITH ORDINALITY v(vpn, place)))
     WHERE EXISTS (SELECT FROM jsonb_array_elements(p.body -> 'vpn') v WHERE v ->> 'public_key' = $1)";

/// What became of a step.
#[derive(Debug)]
pub enum Told {
    /// There is no such rotation of this agent.
    Unknown,
    Refused(Refused),
    /// A rotation of this id has another offer.
    OtherOffer,
    /// No row of the agent says that the old key is its own.
    NotItsOwn,
    /// It was said before.
    Before(Rotation),
    /// It is so now. Earlier ones were undone by it.
    Now {
        rotation: Rotation,
        superseded: Vec<Rotation>,
    },
}

/// Keeps what agent `name` says of rotation `id`, if it is the time to say it. A step `offered` has its offer.
pub async fn tell(
    client: &mut Client,
    name: &str,
    id: Uuid,
    step: &Step,
    author: &Author,
) -> Result<Told, tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    if step.phase == Phase::Offered {
        transaction.query_typed(LOCK, &[(&name, Type::TEXT)]).await?;
    }
    let sql = format!("SELECT {COLUMNS} FROM charliehub.rotations WHERE id = $1 FOR UPDATE");
    let found = transaction.query_typed(&sql, &[(&id, Type::UUID)]).await?;
    let told = match (found.first().map(rotation).transpose()?, &step.offer) {
        (None, Some(new)) if step.phase == Phase::Offered => offer(&transaction, name, id, new).await?,
        (None, _) => Told::Unknown,
        (Some(found), _) => go_on(&transaction, name, found, step, author).await?,
    };
    let Told::Now { rotation, superseded } = &told else {
        transaction.rollback().await?;
        return Ok(told);
    };
    let revision = if rotation.phase == Phase::Committed { revision_made(&transaction).await? } else { None };
    for one in superseded.iter().chain([rotation]) {
        note(&transaction, author, one, revision).await?;
    }
    transaction.commit().await?;
    Ok(told)
}

async fn offer(
    transaction: &Transaction<'_>,
    name: &str,
    id: Uuid,
    offer: &Offer,
) -> Result<Told, tokio_postgres::Error> {
    let Offer { site, interface, old_key, new_key } = offer;
    let [name, interface]: [(&(dyn ToSql + Sync), Type); 2] = [(&name, Type::TEXT), (interface, Type::TEXT)];
    let own = [name.clone(), (old_key as &(dyn ToSql + Sync), Type::TEXT)];
    if transaction.query_typed(OWN, &own).await?.is_empty() {
        return Ok(Told::NotItsOwn);
    }
    let open = transaction.query_typed(SUPERSEDE, &[name.clone(), interface.clone()]).await?;
    let all = [
        (&id as &(dyn ToSql + Sync), Type::UUID),
        name,
        (site, Type::TEXT),
        interface,
        (old_key, Type::TEXT),
        (new_key, Type::TEXT),
    ];
    let made = transaction.query_typed(OFFER, &all).await?;
    // None: another agent made one of this id at this moment.
    let Some(made) = made.first() else { return Ok(Told::Unknown) };
    let superseded = open.iter().map(rotation).collect::<Result<_, _>>()?;
    Ok(Told::Now { rotation: rotation(made)?, superseded })
}

async fn go_on(
    transaction: &Transaction<'_>,
    name: &str,
    found: Rotation,
    step: &Step,
    author: &Author,
) -> Result<Told, tokio_postgres::Error> {
    let Some(who) = Who::of(&found, name) else { return Ok(Told::Unknown) };
    let phase = match next(found.phase, who, step.phase) {
        Err(refused) => return Ok(Told::Refused(refused)),
        Ok(None) if step.offer.as_ref().is_some_and(|offer| !is_of(offer, &found)) => return Ok(Told::OtherOffer),
        Ok(None) => return Ok(Told::Before(found)),
        Ok(Some(phase)) => phase,
    };
    if phase == Phase::Committed {
        exchange(transaction, &found, author).await?;
    }
    let sql = format!(
        "UPDATE charliehub.rotations SET phase = $2, why = $3, changed_at = now() WHERE id = $1 RETURNING {COLUMNS}"
    );
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&found.id, Type::UUID), (&phase.as_str(), Type::TEXT), (&step.why, Type::TEXT)];
    let now = transaction.query_typed_one(&sql, &parameters).await?;
    Ok(Told::Now { rotation: rotation(&now)?, superseded: Vec::new() })
}

fn is_of(offer: &Offer, rotation: &Rotation) -> bool {
    let Rotation { site, interface, old_key, new_key, .. } = rotation;
    (&offer.site, &offer.interface, &offer.old_key, &offer.new_key) == (site, interface, old_key, new_key)
}

/// Puts the new key in the place of the old one, in all rows that have it.
async fn exchange(
    transaction: &Transaction<'_>,
    rotation: &Rotation,
    author: &Author,
) -> Result<(), tokio_postgres::Error> {
    let reason = format!("key of {} {} was rotated", rotation.agent, rotation.interface);
    Author { reason, ..author.clone() }.begin(transaction).await?;
    for sql in [SITES, POLICIES] {
        transaction.execute_typed(sql, &[(&rotation.old_key, Type::TEXT), (&rotation.new_key, Type::TEXT)]).await?;
    }
    Ok(())
}

/// Writes down that one began or ended.
async fn note(
    transaction: &Transaction<'_>,
    author: &Author,
    rotation: &Rotation,
    revision: Option<i64>,
) -> Result<(), tokio_postgres::Error> {
    let kind = match rotation.phase {
        Phase::Offered => "rotation.offered",
        Phase::Committed => "rotation.committed",
        Phase::Undone => "rotation.undone",
        Phase::Ready | Phase::Switching | Phase::Going => return Ok(()),
    };
    let Rotation { id, agent, site, interface, old_key, new_key, follower, why, .. } = rotation;
    let detail = json!({ "rotation": id, "agent": agent, "site": site, "interface": interface, "old_key": old_key,
        "new_key": new_key, "follower": follower, "why": why, "revision": revision });
    author.note(transaction, kind, &detail).await
}

/// Which rotations are asked for.
#[derive(Clone, Debug)]
pub enum Which {
    One(Uuid),
    /// Those that go on and that this agent follows, the oldest first.
    FollowedBy(String),
    /// So many of all, the newest first.
    Newest(i64),
}

pub async fn read(client: &impl GenericClient, which: &Which) -> Result<Vec<Rotation>, tokio_postgres::Error> {
    let (condition, parameter): (&str, (&(dyn ToSql + Sync), Type)) = match which {
        Which::One(id) => ("WHERE id = $1", (id, Type::UUID)),
        Which::FollowedBy(name) => {
            ("WHERE follower = $1 AND phase NOT IN ('committed', 'undone') ORDER BY begun_at, id", (name, Type::TEXT))
        }
        Which::Newest(limit) => ("ORDER BY begun_at DESC, id LIMIT $1", (limit, Type::INT8)),
    };
    let sql = format!("SELECT {COLUMNS} FROM charliehub.rotations {condition}");
    client.query_typed(&sql, &[parameter]).await?.iter().map(rotation).collect()
}

/// Each key that was ever exchanged, and for which, the oldest first: as the audit has it, which outlasts the rotations.
pub async fn exchanged(client: &impl GenericClient) -> Result<Vec<(String, String)>, tokio_postgres::Error> {
    let sql = "SELECT detail ->> 'old_key', detail ->> 'new_key' FROM charliehub.audit_events
                WHERE kind = 'rotation.committed' ORDER BY id";
    let rows = client.query_typed(sql, &[]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Forgets those of which nobody said anything for so long.
pub async fn prune(client: &impl GenericClient, age: &str) -> Result<(), tokio_postgres::Error> {
    let sql = "DELETE FROM charliehub.rotations WHERE changed_at < now() - $1::text::interval";
    client.execute_typed(sql, &[(&age, Type::TEXT)]).await.map(drop)
}

fn rotation(row: &Row) -> Result<Rotation, tokio_postgres::Error> {
    let phase: &str = row.try_get("phase")?;
    Ok(Rotation {
        id: row.try_get("id")?,
        agent: row.try_get("agent")?,
        site: row.try_get("site")?,
        interface: row.try_get("interface")?,
        old_key: row.try_get("old_key")?,
        new_key: row.try_get("new_key")?,
        // A constraint holds the words; another one would be of a newer schema.
        phase: Phase::ALL.into_iter().find(|known| known.as_str() == phase).unwrap_or(Phase::Undone),
        follower: row.try_get("follower")?,
        why: row.try_get("why")?,
        begun_at: row.try_get("begun_at")?,
        changed_at: row.try_get("changed_at")?,
    })
}
