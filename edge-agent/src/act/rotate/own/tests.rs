use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::{Arc, Mutex},
};

use charliehub_proto::rotation::Step as Said;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, UnixListener},
    task::JoinSet,
};

use super::*;
use crate::config::Config;

const OLD: Secret = Secret([7; 32]);
const PEER: Key = Key([9; 32]);

/// A tunnel that answers an order with this error, and does not what it was told; and a provider that takes what it hears.
struct World {
    dir: tempfile::TempDir,
    ground: Ground,
    heard: Arc<Mutex<Vec<Said>>>,
    _others: JoinSet<()>,
}

impl World {
    async fn of(errno: i32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("wg-test.conf");
        fs::write(&conf, format!("[Interface]\nPrivateKey = {}\n", OLD.reveal())).unwrap();
        fs::set_permissions(&conf, fs::Permissions::from_mode(0o600)).unwrap();
        let mut others = JoinSet::new();
        others.spawn(tunnel(UnixListener::bind(dir.path().join("wg-test.sock")).unwrap(), errno));
        let heard = Arc::<Mutex<Vec<Said>>>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = format!(
            "state_dir = \"{0}\"\n[provider]\nurl = \"http://{1}\"\n[wireguard]\nsockets = \"{0}\"\n\
             [act]\nrun_dir = \"{0}\"\nconf_dir = \"{0}\"\n",
            dir.path().display(),
            listener.local_addr().unwrap()
        );
        others.spawn(provider(listener, heard.clone()));
        let config: Config = toml::from_str(&settings).unwrap();
        Self { dir, ground: Ground::of(Arc::new(config)).unwrap(), heard, _others: others }
    }

    fn phases(&self) -> Vec<Phase> {
        self.heard.lock().unwrap().iter().map(|said| said.phase).collect()
    }

    /// Notes and drafts.
    fn left(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("rotation-") || name.contains(".new")).collect()
    }
}

async fn tunnel(listener: UnixListener, errno: i32) {
    let hex = |key: &[u8; 32]| key.map(|byte| format!("{byte:02x}")).concat();
    let device = format!("private_key={}\nlisten_port=1\npublic_key={}\nerrno=0\n\n", hex(&OLD.0), hex(&PEER.0));
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut first = String::new();
        BufReader::new(&mut stream).read_line(&mut first).await.unwrap();
        let answer = if first.starts_with("set") { format!("errno={errno}\n\n") } else { device.clone() };
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

async fn provider(listener: TcpListener, heard: Arc<Mutex<Vec<Said>>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).await.unwrap();
            if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let said: Said = serde_json::from_slice(&body).unwrap();
        let answer = serde_json::json!({
            "id": Uuid::nil(), "agent": "hub2", "site": "uk", "interface": "wg-test", "old_key": "", "new_key": "",
            "phase": said.phase, "follower": null, "why": said.why, "begun_at": Timestamp::now(),
            "changed_at": Timestamp::now(),
        });
        heard.lock().unwrap().push(said);
        let answer = answer.to_string();
        let begin = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
        stream.write_all((begin + &answer).as_bytes()).await.unwrap();
    }
}

async fn rotate(world: &World, old: Key, by_hand: Result<(), String>) -> Result<String, String> {
    let plan = Plan {
        site: "uk".to_owned(),
        interface: "wg-test".to_owned(),
        old,
        peer: PEER,
        end: "10.254.44.2".parse().unwrap(),
        own_address: None,
    };
    let talk = world.ground.talk.clone().unwrap();
    let own = Own { ground: &world.ground, talk: &talk, interface: "wg-test", told: &|_| {} };
    own.rotate(&plan, async |_| by_hand.clone()).await
}

#[tokio::test]
async fn a_tunnel_that_takes_no_key_keeps_its_own_and_all_hear_why() {
    for (errno, words) in [(-1, "wg-test cannot be changed: "), (0, "wg-test has not the key that was set")] {
        let world = World::of(errno).await;
        let why = rotate(&world, OLD.public(), Ok(())).await.unwrap_err();
        assert!(why.starts_with(words) && why.ends_with("; the old key stays"), "{why}");
        assert_eq!(world.phases(), [Phase::Offered, Phase::Switching, Phase::Undone]);
        assert!(world.heard.lock().unwrap()[2].why.as_ref().unwrap().starts_with(words));
        assert_eq!(world.left(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn nothing_is_begun_that_somebody_declines_or_that_is_not_as_it_was_planned() {
    let world = World::of(0).await;
    let why = rotate(&world, OLD.public(), Err("the input ended".to_owned())).await.unwrap_err();
    assert_eq!(why, "the input ended; the old key stays");
    assert_eq!((world.phases(), world.left()), (vec![Phase::Offered, Phase::Undone], Vec::new()));
    let why = rotate(&world, Key([1; 32]), Ok(())).await.unwrap_err();
    assert_eq!(why, "the key of wg-test was exchanged meanwhile; look again");
    assert_eq!(world.phases().len(), 2, "nothing more was said");
}

#[tokio::test]
async fn what_was_left_goes_back_before_the_decision_and_forward_behind_it() {
    let new = Secret([8; 32]);
    for step in [Step::Made, Step::Switching, Step::Undone] {
        let world = World::of(0).await;
        let conf = Conf::read(world.dir.path(), "wg-test").unwrap();
        conf.with_own_key(&new).write_draft().unwrap();
        let note = Note { site: "uk".to_owned(), step, ..Note::default() };
        world.ground.notes.remember("rotation-wg-test", &note).unwrap();
        let talk = world.ground.talk.clone().unwrap();
        let own = Own { ground: &world.ground, talk: &talk, interface: "wg-test", told: &|_| {} };
        assert_eq!(own.resume().await.unwrap().unwrap(), "it was interrupted; the old key stays");
        assert_eq!((world.phases(), world.left()), (vec![Phase::Undone], Vec::new()));
        assert_eq!(Conf::read(world.dir.path(), "wg-test").unwrap().own_key(), Some(OLD));
    }
    // Behind it the file has the new key, and the tunnel is given that until it takes it.
    let world = World::of(0).await;
    Conf::read(world.dir.path(), "wg-test").unwrap().with_own_key(&new).write_draft().unwrap();
    let note = Note { step: Step::Decided, ..Note::default() };
    world.ground.notes.remember("rotation-wg-test", &note).unwrap();
    let talk = world.ground.talk.clone().unwrap();
    let own = Own { ground: &world.ground, talk: &talk, interface: "wg-test", told: &|_| {} };
    assert_eq!(own.resume().await.unwrap().unwrap_err(), "wg-test has not the key that was set");
    assert_eq!(Conf::read(world.dir.path(), "wg-test").unwrap().own_key(), Some(new));
    assert_eq!((world.phases(), world.left()), (vec![], vec!["rotation-wg-test.json".to_owned()]));
}
