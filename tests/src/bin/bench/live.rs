//! `live`: from COMMIT (a file: rename) to the first right answer through a real Traefik, beside what people have.
//!
//! Four Traefiks run, one for each way, and the ways take turns, so that a busy moment of the machine hits all alike.
//! Three parts: lone changes, more than 2 s apart; changes 0.15-0.5 s apart; and, watched from outside, where the time
//! goes on our way.

use std::{fs, ops::Range, path::Path, time::Duration};

use rand::RngExt as _;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    Options,
    edge::{Source, Traefik, backend},
    report::{Report, Samples, milliseconds},
    routes::{self, Files, SWITCH},
    setup::Setup,
    watch::{HeldPoll, Listening},
    way::{Change, Way},
};

/// Traefik throttles for 2 s by default: changes further apart than this do not wait for each other.
const LONE: Duration = Duration::from_millis(2_200);
/// Within Traefik's default poll interval: a pause of that length meets it at a random moment.
const POLL_MS: Range<u64> = 0..5_000;
/// Between the turns of two ways, so that the changes of each are 150-500 ms apart.
const TURN_MS: Range<u64> = 75..250;
/// Between changes of one way alone.
const SPACED_MS: Range<u64> = 150..500;

pub(crate) async fn run(options: &Options) -> anyhow::Result<Report> {
    let setup = Setup::start(&routes::insert(1)).await?;
    let home = &setup.home;
    let answers = [("first", backend(home, "first").await?), ("second", backend(home, "second").await?)];
    let [(_, port), _] = answers;
    let database = setup.connect().await;
    database.execute("UPDATE charliehub.domains SET backend_port = $1", &[&i32::from(port)]).await?;

    let certificate = home.join("default.pem");
    default_certificate(&certificate)?;
    let by_hand = Files::new(&home.join("tuned"), Some(&certificate))?;
    let plain = Files::new(&home.join("default"), None)?;
    for files in [&by_hand, &plain] {
        files.write(port, port)?;
    }

    let (provider, token) = (setup.address(), setup.token());
    let way = |name, source, change| anyhow::Ok(Way::new(Traefik::start(home, name, &source)?, change, answers));
    let row = |host| Change::Row { database: &database, host };
    let file = |files| Change::File { files, port };
    let tuned = Source::Files { watched: by_hand.watched(), throttle: Some("10ms") };
    let default = Source::Files { watched: plain.watched(), throttle: None };
    let mut ours = way("traefik-ours", Source::Hold { provider, token }, row(SWITCH))?;
    let mut tuned = way("traefik-tuned", tuned, file(&by_hand))?;
    let mut default = way("traefik-default", default, file(&plain))?;
    let mut polling = way("traefik-polling", Source::Poll { provider, token }, row("app01.bench.test"))?;

    let mut report = Report::default();
    let lone = alone(options.rounds, &mut [&mut ours, &mut tuned, &mut default], &mut polling).await?;
    let spaced = spaced(options.rounds * 4, &mut [&mut ours, &mut tuned]).await?;
    let [a, b, c, d] = lone.each_ref().map(Samples::p50);
    let [spaced_p99, _] = spaced.each_ref().map(Samples::p99);
    let names = ["ours", "file provider, tuned", "file provider, defaults", "polling every 5 s"];
    for (name, samples) in names.iter().zip(lone) {
        report.samples(&format!("lone: {name}"), samples);
    }
    for (name, samples) in names.iter().zip(spaced) {
        report.samples(&format!("0.15-0.5 s apart: {name}"), samples);
    }
    let answered = stages(options.rounds, &setup, &mut ours, &mut report).await?;

    report.at_most("p50 of ours, above the tuned file provider's", a - b, 2.0, "ms");
    report.at_least("p50 of the default file provider, to ours", c / a, 8.0, "times");
    report.at_least("p50 of plain polling, to ours", d / a, 100.0, "times");
    report.at_most("p99 of ours, changes 0.15-0.5 s apart", spaced_p99, 50.0, "ms");
    report.at_most("p50 of commit to answer received", answered, 2.0, "ms");
    Ok(report)
}

/// Lone changes, the ways in turn, plain polling last and at a random moment of its interval.
async fn alone(rounds: u32, ways: &mut [&mut Way<'_>; 3], polling: &mut Way<'_>) -> anyhow::Result<[Samples; 4]> {
    let [mut a, mut b, mut c, mut d]: [Samples; 4] = Default::default();
    for way in ways.iter_mut() {
        way.until_ready()?;
    }
    polling.until_ready()?;
    sleep(LONE).await;
    for round in 0..rounds {
        progress("lone changes", round, rounds);
        let began = Instant::now();
        for (way, samples) in ways.iter_mut().zip([&mut a, &mut b, &mut c]) {
            samples.push(way.change().await?.took());
        }
        sleep(Duration::from_millis(rand::rng().random_range(POLL_MS))).await;
        d.push(polling.change().await?.took());
        sleep_until(began + LONE).await;
    }
    Ok([a, b, c, d])
}

/// Changes in quick succession, the ways in turn.
async fn spaced(rounds: u32, ways: &mut [&mut Way<'_>; 2]) -> anyhow::Result<[Samples; 2]> {
    let mut all: [Samples; 2] = Default::default();
    for round in 0..rounds {
        progress("changes 0.15-0.5 s apart", round, rounds);
        for (way, samples) in ways.iter_mut().zip(&mut all) {
            sleep(Duration::from_millis(rand::rng().random_range(TURN_MS))).await;
            samples.push(way.change().await?.took());
        }
    }
    Ok(all)
}

/// Where the time goes: the same changes heard by a LISTEN and seen by a held poll of our own. Returns the p50, in
/// milliseconds, until that poll was answered.
async fn stages(rounds: u32, setup: &Setup, ours: &mut Way<'_>, report: &mut Report) -> anyhow::Result<f64> {
    let [mut notified, mut answered, mut live, mut all]: [Samples; 4] = Default::default();
    let mut listening = Listening::start(&setup.postgres).await?;
    let mut held = HeldPoll::start(setup.address(), setup.token())?;
    let swaps = setup.swaps().await;
    for round in 0..rounds {
        progress("where the time goes", round, rounds);
        sleep(Duration::from_millis(rand::rng().random_range(SPACED_MS))).await;
        let change = ours.change().await?;
        notified.push_ms(milliseconds(change.committed, listening.next().await?));
        answered.push_ms(milliseconds(change.committed, held.next().await?));
        live.push(change.took());
        all.push(change.took_with_the_write());
    }
    let p50 = answered.p50();
    report.samples("stages: commit -> notification received", notified);
    report.value("stages: notification -> swap, mean ms", setup.swaps().await.mean_ms_since(&swaps));
    report.samples("stages: commit -> answer received", answered);
    report.samples("stages: commit -> live", live);
    report.samples("stages: UPDATE sent -> live", all);
    Ok(p50)
}

/// One file with an elliptic-curve key and its certificate.
pub(crate) fn default_certificate(path: &Path) -> anyhow::Result<()> {
    let made = rcgen::generate_simple_self_signed(["default.bench.test".to_owned()])?;
    fs::write(path, made.cert.pem() + &made.signing_key.serialize_pem())?;
    Ok(())
}

fn progress(what: &str, round: u32, rounds: u32) {
    if round.is_multiple_of(20) {
        eprintln!("   {what}: {round} of {rounds}");
    }
}
