//! Rotations of tunnels' keys: both ends say how far they are, and wait for what the other says.

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::{Path, Request, State},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use charliehub_proto::{
    event::EventKind,
    finding::Status,
    rotation::{Followed, Offer, Phase, Rotation, Step},
};
use http::StatusCode;
use serde_json::json;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::{agent_name, limit, own, stopped, wait};
use crate::{
    api::{
        Api, Problem,
        json::{self, LIMIT},
        query::Parameters,
        write::author,
    },
    auth::Caller,
    events::{Events, Told as News},
    rotations::{
        Refused, Who,
        store::{self, Told, Which},
    },
};

/// Without a notification what is waited for is looked at this often.
const LOOK: Duration = Duration::from_secs(2);
/// Bytes of `why` that are kept.
const LONGEST: usize = 2000;
/// The longest name of an interface in Linux.
const INTERFACE: usize = 15;

/// `PUT /api/agents/{name}/rotations/{id}`: what one of both ends says. Said twice it counts once.
#[utoipa::path(put, operation_id = "tell_rotation", path = "/api/agents/{name}/rotations/{id}", tag = "agents",
    params(("name" = String, Path), ("id" = Uuid, Path, description = "Made by the agent that offers")), request_body = Step,
    responses((status = 200, body = Rotation, description = "As it is now"), Problem))]
pub(in crate::api) async fn put(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path((name, id)): Path<(String, String)>,
    request: Request,
) -> Result<Json<Rotation>, Problem> {
    let name = agent_name(name)?;
    own(&caller, &name)?;
    let id = rotation_id(&id)?;
    Parameters::of(request.uri())?.done(&[])?;
    let author = author(&request, &caller);
    let mut step: Step = json::read(&json::body(request, LIMIT).await?)?;
    check(&step)?;
    step.why = step.why.map(|why| shortened(&why));
    let mut client = api.pool.get().await?;
    match store::tell(&mut client, &name, id, &step, &author).await? {
        Told::Unknown => Err(unknown()),
        Told::Refused(refused) => Err(not_now(&name, step.phase, refused)),
        Told::OtherOffer => {
            let detail = "a rotation with this id was offered with another site, interface or key";
            Err(Problem::conflict(detail).field("offer").remedy("make a new id for a new offer"))
        }
        Told::NotItsOwn => {
            let detail = format!("no row of a site of {name} says that this is its own key there");
            Err(Problem::invalid("offer.old_key", detail)
                .remedy("give the tunnel of the site's row its `own_public_key`, as `wg show IF public-key` writes it"))
        }
        Told::Before(rotation) => Ok(Json(rotation)),
        Told::Now { rotation, superseded } => {
            api.rotations.changed();
            superseded.iter().chain([&rotation]).for_each(|one| tell(&api.events, one));
            Ok(Json(rotation))
        }
    }
}

/// `GET /api/agents/{name}/rotations/{id}`: held while its phase is `not`.
#[utoipa::path(get, operation_id = "get_rotation", path = "/api/agents/{name}/rotations/{id}", tag = "agents",
    params(("name" = String, Path), ("id" = Uuid, Path),
        ("not" = Option<Phase>, Query, description = "The phase that is known"),
        ("wait" = Option<String>, Query, description = "Such as `20s`, at most 60 s: held until the phase is another than `not`")),
    responses((status = 200, body = Rotation, description = "As it is now"), Problem))]
pub(in crate::api) async fn get(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path((name, id)): Path<(String, String)>,
    request: Request,
) -> Result<Json<Rotation>, Problem> {
    let name = agent_name(name)?;
    own(&caller, &name)?;
    let id = rotation_id(&id)?;
    let mut parameters = Parameters::of(request.uri())?;
    let wait = wait(&mut parameters)?;
    let not = parameters.take("not").map(|text| phase(&text)).transpose()?;
    parameters.done(&["not", "wait"])?;
    let is_news = |found: &[Rotation]| {
        let held = found.first().filter(|one| Who::of(one, &name).is_some());
        held.is_none_or(|one| Some(one.phase) != not)
    };
    let found = held(&api, wait, &Which::One(id), is_news).await?;
    found.into_iter().find(|one| Who::of(one, &name).is_some()).map(Json).ok_or_else(unknown)
}

/// `GET /api/agents/{name}/rotations`: those that go on and that it follows; held until there is one.
#[utoipa::path(get, operation_id = "list_followed_rotations", path = "/api/agents/{name}/rotations", tag = "agents",
    params(("name" = String, Path),
        ("wait" = Option<String>, Query, description = "Such as `55s`, at most 60 s: held until there is one")),
    responses((status = 200, body = Followed, description = "The oldest first; none where none came in time"), Problem))]
pub(in crate::api) async fn followed(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Json<Followed>, Problem> {
    let name = agent_name(name)?;
    own(&caller, &name)?;
    let mut parameters = Parameters::of(request.uri())?;
    let wait = wait(&mut parameters)?;
    parameters.done(&["wait"])?;
    let rotations = held(&api, wait, &Which::FollowedBy(name), |found| !found.is_empty()).await?;
    Ok(Json(Followed { rotations }))
}

/// `GET /api/rotations`: of all agents, the newest first, as a bare array.
#[utoipa::path(get, operation_id = "list_rotations", path = "/api/rotations", tag = "agents",
    params(("limit" = Option<u16>, Query, minimum = 1, maximum = 1000)),
    responses((status = 200, body = Vec<Rotation>, description = "How far each is"), Problem))]
pub(in crate::api) async fn list(State(api): State<Api>, request: Request) -> Result<Json<Vec<Rotation>>, Problem> {
    let mut parameters = Parameters::of(request.uri())?;
    let limit = limit(&mut parameters)?;
    parameters.done(&["limit"])?;
    Ok(Json(store::read(&**api.pool.get().await?, &Which::Newest(limit)).await?))
}

/// Looks again with each change until it is `enough`, the time is up, or we stop: what was found last.
async fn held(
    api: &Api,
    wait: Duration,
    which: &Which,
    enough: impl Fn(&[Rotation]) -> bool,
) -> Result<Vec<Rotation>, Problem> {
    let until = Instant::now() + wait;
    let mut news = api.rotations.subscribe();
    loop {
        news.mark_unchanged();
        let found = store::read(&**api.pool.get().await?, which).await?;
        let now = Instant::now();
        if now >= until || enough(&found) {
            return Ok(found);
        }
        tokio::select! {
            _ = timeout_at(until.min(now + LOOK), news.changed()) => {}
            () = stopped(api) => return Ok(found),
        }
    }
}

fn rotation_id(text: &str) -> Result<Uuid, Problem> {
    text.parse().map_err(|_| Problem::parameter("id", "it is not a UUID").remedy("make one for each rotation: uuidgen"))
}

fn phase(text: &str) -> Result<Phase, Problem> {
    Phase::ALL.into_iter().find(|phase| phase.as_str() == text).ok_or_else(|| {
        Problem::parameter("not", "it is not a phase").remedy(format!("write one of {}", listed(&Phase::ALL, ", ")))
    })
}

fn listed(phases: &[Phase], between: &str) -> String {
    phases.iter().map(|phase| format!("`{phase}`")).collect::<Vec<_>>().join(between)
}

/// Who is not part of it is not told that it is there.
fn unknown() -> Problem {
    Problem::not_found("this agent has no rotation with this id, of its own or to follow")
        .remedy("begin one: PUT with phase `offered` and an `offer`")
}

fn not_now(name: &str, step: Phase, Refused { phase, may }: Refused) -> Problem {
    let (detail, remedy) = match may {
        [] if phase.is_final() => {
            (format!("it is `{phase}`, which is final"), "begin another one, with a new id".to_owned())
        }
        [] => (
            format!("it is `{phase}`: the other end is to say something, not {name}"),
            "wait for it: GET with wait and not".to_owned(),
        ),
        may => {
            let may = listed(may, " or ");
            (format!("it is `{phase}`, and {name} may say {may}, not `{step}`"), format!("say {may}"))
        }
    };
    Problem::new(StatusCode::CONFLICT, "phase", "It is not the time to say that", detail).field("phase").remedy(remedy)
}

/// What the types do not say.
fn check(step: &Step) -> Result<(), Problem> {
    match (&step.offer, step.phase) {
        (Some(offer), Phase::Offered) => check_offer(offer)?,
        (None, Phase::Offered) => {
            return Err(Problem::invalid("offer", "`offer` is missing")
                .remedy("say which key: {\"site\": .., \"interface\": .., \"old_key\": .., \"new_key\": ..}"));
        }
        (Some(_), phase) => {
            return Err(Problem::invalid("offer", format!("`offer` is not for phase `{phase}`")).remedy("leave it out"));
        }
        (None, _) => {}
    }
    if step.why.is_some() && step.phase != Phase::Undone {
        return Err(Problem::invalid("why", format!("`why` is not for phase `{}`", step.phase)).remedy("leave it out"));
    }
    Ok(())
}

fn check_offer(offer: &Offer) -> Result<(), Problem> {
    if agent_name(offer.site.clone()).is_err() {
        return Err(Problem::invalid("offer.site", "it is not the name of a site")
            .remedy("give the name as the site's row has it: uk"));
    }
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_=+.-".contains(&byte);
    let name = &offer.interface;
    if !(1..=INTERFACE).contains(&name.len()) || !name.bytes().all(inner) || name.starts_with('.') {
        return Err(Problem::invalid("offer.interface", "it is not the name of an interface")
            .remedy("give the name as `wg show` writes it: wg-uk"));
    }
    for (field, key) in [("offer.old_key", &offer.old_key), ("offer.new_key", &offer.new_key)] {
        if !BASE64_STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 32) {
            return Err(Problem::invalid(field, "it is not a public key of WireGuard")
                .remedy("give the 44 characters that `wg pubkey` writes"));
        }
    }
    if offer.old_key == offer.new_key {
        return Err(Problem::invalid("offer.new_key", "it is the old key").remedy("make a new one: wg genkey"));
    }
    Ok(())
}

/// It may be the words of a program: nothing in it keeps an end from being written down.
fn shortened(why: &str) -> String {
    let why = why.replace('\0', " ");
    why.get(..why.floor_char_boundary(LONGEST)).unwrap_or_default().to_owned()
}

/// Tells of one that began or ended.
fn tell(events: &Events, rotation: &Rotation) {
    let Rotation { agent, interface, phase, why, .. } = rotation;
    let (now, text) = match phase {
        Phase::Offered => (Status::Ok, format!("{agent}: the rotation of the key of {interface} begins")),
        Phase::Committed => (Status::Ok, format!("{agent}: the key of {interface} was rotated")),
        Phase::Undone => {
            let why = why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
            (Status::Warning, format!("{agent}: the key of {interface} stays; its rotation was undone{why}"))
        }
        Phase::Ready | Phase::Switching | Phase::Going => return,
    };
    tracing::info!(agent, interface, %phase, id = %rotation.id, "{text}");
    let mut news = News::new(EventKind::Finding, text);
    news.detail = json!({ "agent": agent, "check": "rotation", "target": interface, "now": now });
    events.tell(news);
}
