//! The way of every write: one transaction that changes rows, says what that does, and is committed or not at all.
//!
//! In order: the transaction is signed and takes the revision lock, so that nobody writes in between; each [`Step`] is
//! applied and judged by the constraints; what stands around the touched rows is compiled as it was and as it is, which
//! tells the impact and finds what would not compile; then it is committed, and the answer waits for the swap. A dry run
//! goes all this way and is rolled back: no revision, no notification. Where a rehearsal is asked for, a dry run comes
//! first, and a real Traefik loads what it would come to, before the transaction that counts.

mod idempotency;
mod live;
mod order;
mod rehearsed;
mod scoped;
mod step;
mod surroundings;
mod transaction;

use charliehub_proto::{
    change::{Change, ChangeState},
    problem::Item,
};
use futures_util::{TryFutureExt as _, future::try_join};
use http::StatusCode;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::{Client, error::SqlState};

use self::{
    idempotency::Kept,
    step::Touched,
    surroundings::{Verdict, judge},
    transaction::Transaction,
};
pub(super) use self::{
    idempotency::{Idempotency, Key as IdempotencyKey},
    order::{Order, Writing, author},
    step::{Applied, Op, Step, Target},
};
use super::{Api, Problem};
use crate::{author::revision_made, mask::mask, postgres, row::Table};

/// How often a write is tried that others were in the way of.
const ATTEMPTS: u32 = 3;

/// What a write came to: each row as it is now (as it was, where it is gone), and what that does.
pub(super) struct Written {
    pub(super) rows: Vec<Applied>,
    pub(super) change: Change,
    /// The answer of an earlier request with this key.
    pub(super) replayed: bool,
}

/// Why a transaction ended.
enum Failure {
    Database(tokio_postgres::Error),
    Refused(Problem),
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

/// Applies all `steps`, or none. What the answer shows is masked below role `admin`.
pub(super) async fn write(api: &Api, order: &Order, steps: &[Step]) -> Result<Written, Problem> {
    let mut written = apply(api, order, steps).await?;
    if order.masked {
        hide(&mut written)?;
    }
    Ok(written)
}

/// Hides the secrets in the rows and in the difference: what was replaced or removed may be somebody else's.
fn hide(written: &mut Written) -> Result<(), Problem> {
    for applied in written.rows.iter_mut().filter(|applied| applied.key.table == Table::Fragments) {
        let mut fragment: Value = serde_json::from_str(&applied.json).map_err(|_| Problem::internal())?;
        fragment.get_mut("body").into_iter().for_each(mask);
        applied.json = fragment.to_string();
    }
    written.change.diff.iter_mut().flat_map(|one| [&mut one.before, &mut one.after]).flatten().for_each(mask);
    Ok(())
}

async fn apply(api: &Api, order: &Order, steps: &[Step]) -> Result<Written, Problem> {
    let mut told = None;
    if order.is_rehearsed(api, steps) {
        let (tried, touched) = transact(api, &order.tried(), steps).await?;
        let report = rehearsed::rehearse(api, &tried.change, &touched).await?;
        if order.dry_run {
            return Ok(rehearsed::with_report(tried, report));
        }
        told = Some(report);
    }
    let (mut written, _) = transact(api, order, steps).await?;
    settle(api, order, &mut written.change).await;
    Ok(match told {
        Some(report) => rehearsed::with_report(written, report),
        None => written,
    })
}

/// Does it in one transaction, tried again when others were in the way.
async fn transact(api: &Api, order: &Order, steps: &[Step]) -> Result<(Written, Touched), Problem> {
    let mut number = 1;
    loop {
        let mut client = api.pool.get().await?;
        match attempt(api, order, steps, &mut client).await {
            Ok(done) => return Ok(done),
            Err(Failure::Refused(problem)) => return Err(problem),
            Err(Failure::Database(error)) => match error.code() {
                Some(&(SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED)) if number < ATTEMPTS => {
                    number += 1;
                }
                Some(&SqlState::LOCK_NOT_AVAILABLE) => return Err(blocked(&client).await),
                _ => return Err(error.into()),
            },
        }
    }
}

async fn attempt(api: &Api, order: &Order, steps: &[Step], client: &mut Client) -> Result<(Written, Touched), Failure> {
    let transaction = Transaction::on(client);
    let begin = transaction.begin(&order.author).err_into::<Failure>();
    let mut touched = Touched::of(order.scope.clone());
    // What comes first is sent with what begins, and runs behind it.
    let (rows, mut refused) = if let Some(idempotency) = &order.idempotency {
        if let ((), Some(kept)) = try_join(begin, idempotency.find(&transaction)).await? {
            return Ok((Written { rows: kept.rows, change: kept.change, replayed: true }, Touched::default()));
        }
        all_of(steps, &transaction, &mut touched).await?
    } else {
        try_join(begin, all_of(steps, &transaction, &mut touched)).await?.1
    };
    scoped::check(&transaction, &order.scope, &touched).await?;
    let (verdict, revision) = try_join(judge(&transaction, api, &touched), revision_made(&*transaction)).await?;
    if refused.is_empty() {
        refused = unfit(&verdict, &rows);
    }
    if !refused.is_empty() {
        return Err(all_or_nothing(steps.len(), refused).into());
    }
    let change = change(revision, order, &touched, verdict);
    if order.dry_run {
        transaction.rollback().await?;
        return Ok((Written { rows, change, replayed: false }, touched));
    }
    let kept = Kept { rows, change };
    if let Some(idempotency) = &order.idempotency {
        idempotency.keep(&transaction, &kept).await?;
    }
    transaction.commit().await?;
    Ok((Written { rows: kept.rows, change: kept.change, replayed: false }, touched))
}

/// Applies the steps: the rows of those that were done, and what is held against the others.
async fn all_of(
    steps: &[Step],
    transaction: &Transaction<'_>,
    touched: &mut Touched,
) -> Result<(Vec<Applied>, Vec<(usize, Problem)>), Failure> {
    let (mut rows, mut refused) = (Vec::with_capacity(steps.len()), Vec::new());
    for (index, step) in steps.iter().enumerate() {
        match one_of(steps.len(), transaction, step, touched).await? {
            Ok(applied) => rows.push(applied),
            Err(problem) => refused.push((index, problem)),
        }
    }
    Ok((rows, refused))
}

/// Applies one step. Among several each has a savepoint, so that all that is wrong can be said at once.
async fn one_of(
    many: usize,
    transaction: &Transaction<'_>,
    step: &Step,
    touched: &mut Touched,
) -> Result<Result<Applied, Problem>, Failure> {
    if many > 1 {
        transaction.batch_execute("SAVEPOINT item").await?;
    }
    let failure = match step.apply(transaction, touched).await {
        Ok(applied) => return Ok(Ok(applied)),
        Err(failure) => failure,
    };
    if many == 1 {
        return Err(failure);
    }
    let problem = match failure {
        Failure::Refused(problem) => problem,
        // Only what the database holds against the row: a connection that broke has no savepoint.
        Failure::Database(error)
            if error.code().is_some_and(|code| matches!(code.code().get(..2), Some("22" | "23"))) =>
        {
            error.into()
        }
        failure @ Failure::Database(_) => return Err(failure),
    };
    transaction.batch_execute("ROLLBACK TO SAVEPOINT item").await?;
    Ok(Err(problem))
}

/// The steps whose rows would not compile, or keep others from it.
fn unfit(verdict: &Verdict, rows: &[Applied]) -> Vec<(usize, Problem)> {
    let own = rows.iter().enumerate().filter_map(|(index, applied)| {
        let reason = verdict.closed.get(&applied.key)?;
        Some((index, Problem::reason(reason)))
    });
    let mut refused: Vec<_> = own.collect();
    if refused.is_empty() && !verdict.others.is_empty() {
        let detail = format!("it is needed by {}", verdict.others.join(", "));
        let problem = Problem::new(StatusCode::CONFLICT, "in-use", "Others need it as it is", detail)
            .remedy("change those first, or in the same batch");
        refused.push((0, problem));
    }
    refused
}

fn all_or_nothing(steps: usize, mut refused: Vec<(usize, Problem)>) -> Problem {
    if steps == 1
        && let Some((_, problem)) = refused.pop()
    {
        return problem;
    }
    let detail = format!("{} of {steps} items were refused; nothing was written", refused.len());
    let items = refused.into_iter().map(|(index, problem)| Item { index, problem: problem.into_body() }).collect();
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "batch", "Items of the batch were refused", detail)
        .remedy("mend these items and send all of them again")
        .items(items)
}

fn change(revision: Option<i64>, order: &Order, touched: &Touched, verdict: Verdict) -> Change {
    let state = match (order.dry_run, touched.is_change()) {
        (true, _) => ChangeState::DryRun,
        (false, true) => ChangeState::Pending,
        (false, false) => ChangeState::Unchanged,
    };
    let Verdict { impact, diff, warnings, .. } = verdict;
    Change {
        state,
        revision: revision.filter(|_| !order.dry_run),
        digest: None,
        impact,
        diff,
        warnings,
        instances: Vec::new(),
        rehearsal: None,
    }
}

/// Waits until the change is swapped in, or live, and says what is served then.
async fn settle(api: &Api, order: &Order, change: &mut Change) {
    let Some(revision) = change.revision.filter(|_| !order.patience.is_zero()) else { return };
    let until = Instant::now() + order.patience;
    let Ok(Some(snapshot)) = timeout_at(until, api.current.decided(revision)).await else { return };
    change.digest = Some(snapshot.digest().to_string());
    let waits = snapshot.withheld.is_some_and(|withheld| withheld >= revision);
    change.state = if waits { ChangeState::Withheld } else { ChangeState::Served };
    if waits {
        change.warnings.push(format!(
            "revision {revision} waits for an administrator: charliehub-provider withheld, then approve or discard {revision}"
        ));
    }
    change.warnings.extend(api.current.parts().iter().filter_map(|part| {
        let withheld = part.current.load()?.withheld.filter(|_| !waits)?;
        Some(format!(
            "{} keeps what it has: revision {withheld} waits there for an administrator, to approve or discard it",
            part.selector
        ))
    }));
    if order.live {
        change.instances = live::until_live(api, revision, until).await;
    }
}

/// A write waited for the revision lock until its time was up: whose transaction holds it?
async fn blocked(client: &Client) -> Problem {
    let holder = "SELECT a.pid, a.application_name, extract(epoch FROM clock_timestamp() - a.xact_start)::bigint
                    FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                   WHERE l.relation = 'revision'::regclass AND l.granted AND l.pid <> pg_backend_pid()
                     AND l.mode IN ('RowShareLock', 'RowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
                   ORDER BY a.xact_start LIMIT 1";
    let found = client.query_opt(holder, &[]).await.map_err(postgres::Error::from);
    let Ok(Some(row)) = found else {
        return Problem::unavailable(2, "another session held the revision lock, and is gone by now");
    };
    let pid: i32 = row.try_get(0).unwrap_or_default();
    let application = row.try_get::<_, Option<String>>(1).ok().flatten().filter(|name| !name.is_empty());
    let seconds: i64 = row.try_get::<_, Option<i64>>(2).ok().flatten().unwrap_or_default();
    let application = application.unwrap_or_else(|| "an unnamed application".to_owned());
    Problem::unavailable(
        2,
        format!("process {pid} ({application}) holds the revision lock in a transaction that is {seconds} s old"),
    )
    .remedy(format!("commit or roll back there, or: SELECT pg_terminate_backend({pid})"))
}
