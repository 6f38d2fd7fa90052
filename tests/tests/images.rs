//! The images of `deploy/containers`: built by buildah, run by podman without root on a root that cannot be written.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "fails as its stories do")]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use charliehub_tests::{
    AGENT, Connection, Home, PROVIDER, Postgres, Process, full, is_root, measured, repository, secs, until,
};
use hyper::Method;

#[tokio::test]
async fn the_images_answer_without_root_on_a_root_that_cannot_be_written() {
    if !is_root() {
        println!("not checked: it needs root");
        return;
    }
    let home = Home::new();
    let store = home.join("images");
    let mut command = Command::new(repository().join("deploy/containers"));
    command.arg("--root").arg(&store);
    // `--full` builds them as they are released, which takes long.
    if !full() {
        command.arg("--binaries").arg(linked_statically(&home));
    }
    let began = Instant::now();
    let made = command.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    measured("made both images", began.elapsed());
    let images = String::from_utf8(made.stdout).unwrap();
    let images: Vec<&str> = images.lines().collect();
    assert_eq!(images.len(), 2, "{images:?}");

    // A name instead of an address: static programs look names up too.
    let postgres = Postgres::start(&home).await;
    let (url, port) = (postgres.url().replace("127.0.0.1", "localhost"), home.port());
    let listen = format!("127.0.0.1:{port}");
    let provider = container(&home, &store, images[0], &["serve", "--listen", &listen, "--database-url", &url]);
    let address = listen.parse().unwrap();
    until("the provider's container serves its database", secs(60), async || answers(&home, address, "/readyz").await)
        .await;
    until("it is alive", secs(10), async || answers(&home, address, "/healthz").await).await;
    assert!(!provider.log().contains("cannot lock the data directory"), "{}", provider.log());
    is_closed(&provider, PROVIDER);

    let port = home.port();
    fs::write(home.join("edge-agent.toml"), format!("listen = '127.0.0.1:{port}'\n")).unwrap();
    let settings = format!("--volume={}:/etc/charliehub/edge-agent.toml:ro", home.join("edge-agent.toml").display());
    let agent = container(&home, &store, images[1], &[&settings, "run"]);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    until("the agent's container is alive", secs(60), async || answers(&home, address, "/healthz").await).await;
    is_closed(&agent, AGENT);
}

async fn answers(home: &Home, address: SocketAddr, path: &str) -> Result<(), String> {
    let mut connection = Connection::open(home, address).await.map_err(|error| format!("{error:#}"))?;
    let answer = connection.send(Method::GET, path, &[], "").await.map_err(|error| format!("{error:#}"))?;
    if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
}

/// As the kernel has it: another user than root, no capability, none to be had, and a root to read.
fn is_closed(container: &Process, program: &str) {
    let pid = container.below(program).unwrap_or_else(|| panic!("{program} does not run: {}", container.log()));
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    let status = read("status");
    let of = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned();
    assert_eq!(of("Uid:").split_whitespace().collect::<Vec<_>>(), ["65532"; 4], "{program}");
    assert_eq!((of("CapEff:"), of("CapBnd:"), of("NoNewPrivs:")), ("0".repeat(16), "0".repeat(16), "1".to_owned()));
    let mounts = read("mountinfo");
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    assert!(root.split(' ').nth(5).unwrap().split(',').any(|option| option == "ro"), "{root}");
}

/// The programs of this build once more, as static ones: only the linker works.
fn linked_statically(home: &Home) -> PathBuf {
    let began = Instant::now();
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let folder = home.join("static");
    fs::create_dir(&folder).unwrap();
    for (program, source) in [(PROVIDER, "provider/src/main.rs"), (AGENT, "edge-agent/src/main.rs")] {
        let name = program.replace('-', "_");
        let library = format!("{name}={}", newest(&deps, &format!("lib{name}-")).display());
        let mut rustc = Command::new("rustc");
        rustc.current_dir(repository()).args(["--edition", "2024", "--crate-name", &name, "--extern", &library]);
        rustc.arg("-L").arg(format!("dependency={}", deps.display())).args(["-C", "target-feature=+crt-static"]);
        let made = rustc.arg("-o").arg(folder.join(program)).arg(source).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    measured("linked both programs", began.elapsed());
    folder
}

/// A change of flags leaves libraries of before.
fn newest(deps: &Path, prefix: &str) -> PathBuf {
    let files = fs::read_dir(deps).unwrap().flatten().map(|entry| entry.path());
    let libraries = files.filter(|path| {
        path.extension().is_some_and(|extension| extension == "rlib")
            && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
    });
    let newest = libraries.max_by_key(|path| path.metadata().unwrap().modified().unwrap());
    newest.unwrap_or_else(|| panic!("no {prefix}*.rlib in {}", deps.display()))
}

/// Runs an image on the host's network; its words come behind the image, options of podman before.
fn container(home: &Home, store: &Path, image: &str, words: &[&str]) -> Process {
    let (options, words): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| word.starts_with("--volume="));
    // crun knows control groups of one kind or the other, not both at once.
    let script = "umount /sys/fs/cgroup/unified 2>/dev/null; exec podman \"$@\"";
    let mut command = Command::new("setpriv");
    command.args([
        "--pdeathsig",
        "KILL",
        "--",
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]);
    command.args(["sh", "-c", script, "sh", "--root"]).arg(store.join("store")).arg("--runroot").arg(store.join("run"));
    command.args([
        "--storage-driver",
        "vfs",
        "--cgroup-manager",
        "cgroupfs",
        "--events-backend",
        "file",
        "run",
        "--rm",
    ]);
    command.args(["--read-only", "--network", "host", "--cgroups", "disabled", "--log-driver", "none"]);
    command.args(["--cap-drop", "all", "--security-opt", "no-new-privileges"]).args(options).arg(image).args(words);
    let name = image.rsplit('/').next().unwrap().replace(':', "-");
    Process::start(home, &name, command)
}
