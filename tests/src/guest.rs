//! A machine of its own with a kernel of its own (`tools/kernel-guest`), driven by lines of a shell.

use std::{path::Path, process::Command};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};

use crate::{Home, Process, ms, process::guarded, secs};

/// Off when it is dropped.
pub struct Guest {
    shell: BufReader<UnixStream>,
    _process: Process,
}

impl Guest {
    /// Has the files below `guest/root` of the home, and these programs of the host. None: this machine cannot.
    pub async fn boot(home: &Home, programs: &[&Path]) -> Option<Self> {
        let work = home.join("guest");
        std::fs::create_dir_all(&work).expect("a folder");
        let mut command: Command =
            guarded(None, "KILL", Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/kernel-guest"));
        command.arg(&work).args(programs);
        let mut process = Process::start(home, "guest", command);
        // The first time it fetches its kernel.
        let connected = tokio::time::timeout(secs(90), async {
            loop {
                if let Ok(stream) = UnixStream::connect(work.join("guest.sock")).await {
                    return Some(stream);
                }
                match process.exit() {
                    Some(status) if status.code() == Some(77) => return None,
                    Some(status) => panic!("kernel-guest: {status}"),
                    None => tokio::time::sleep(ms(20)).await,
                }
            }
        });
        let shell = BufReader::new(connected.await.expect("a guest in time")?);
        let mut this = Self { shell, _process: process };
        this.answer("its boot").await;
        Some(this)
    }

    /// Runs a line of a shell; what it printed, and its exit code.
    pub async fn run(&mut self, line: &str) -> (String, u8) {
        self.shell.get_mut().write_all(format!("{line}\n").as_bytes()).await.expect("a guest that listens");
        self.answer(line).await
    }

    /// Runs a line of a shell that must succeed; what it printed.
    pub async fn sh(&mut self, line: &str) -> String {
        let (output, code) = self.run(line).await;
        assert_eq!(code, 0, "{line}: {output}");
        output
    }

    async fn answer(&mut self, to: &str) -> (String, u8) {
        let mut answer = String::new();
        let read = tokio::time::timeout(secs(40), self.shell.read_line(&mut answer)).await;
        read.unwrap_or_else(|_| panic!("the guest does not answer: {to}")).expect("a guest that answers");
        let (output, code) = answer.trim_end_matches('\n').split_once(' ').expect("output and exit code");
        let output = STANDARD.decode(output).expect("base64");
        (String::from_utf8_lossy(&output).into_owned(), code.parse().expect("an exit code"))
    }
}
