//! Runs one program and takes what it says: never through a shell of somebody's PATH, never longer than it is waited for, and never
//! more than a bound.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
};

/// Room for some 100,000 rules.
const MOST: u64 = 16 << 20;
const MOST_COMPLAINTS: u64 = 64 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// None: ended by a signal.
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
    pub(crate) complaint: String,
}

impl Said {
    /// In a line, for a finding.
    pub(crate) fn why(&self) -> String {
        let lines = self.complaint.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("Try `"));
        let complaint: Vec<&str> = lines.take(3).collect();
        match (complaint.is_empty(), self.code) {
            (false, _) => complaint.join("; "),
            (true, Some(code)) => format!("it ended with {code}, and said nothing"),
            (true, None) => "it was killed".to_owned(),
        }
    }
}

/// In PATH, or where the programs of root are.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    places.filter(|place| place.is_absolute()).map(|place| place.join(program)).find(|file| file.is_file())
}

/// Gives it `input` and waits for its end. Dropped, it is killed.
pub(crate) async fn run(program: &Path, arguments: &[&str], input: &[u8]) -> io::Result<Said> {
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .env("XTABLES_LOCKFILE", "/dev/null") // a trial restore holds up nobody, and /run may not be writable
        .env_remove("NOTIFY_SOCKET") // it is not its to speak for the agent
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let give = async {
        if let Some(mut stdin) = stdin {
            stdin.write_all(input).await.ok(); // who does not read to the end says why in another way
        }
    };
    let ((), output, complaint) = tokio::join!(give, take(stdout, MOST), take(stderr, MOST_COMPLAINTS));
    let (output, complaint) = (output?, complaint?);
    let code = child.wait().await?.code();
    Ok(Said { code, output, complaint: String::from_utf8_lossy(complaint.as_bytes()).into_owned() })
}

/// What is more than `most` is not waited for: its writer gets a broken pipe, and ends.
async fn take(from: Option<impl AsyncRead + Unpin>, most: u64) -> io::Result<String> {
    let mut taken = Vec::new();
    if let Some(from) = from {
        from.take(most).read_to_end(&mut taken).await?;
    }
    Ok(String::from_utf8_lossy(&taken).into_owned())
}
