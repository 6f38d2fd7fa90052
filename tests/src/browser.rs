//! A real browser without a window: Debian's Chromium, driven by its own chromedriver over HTTP (W3C WebDriver).

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper::Method;
use serde_json::{Value, json};

use crate::{
    Connection, Home, Process,
    process::{guarded, sweep},
    secs, until,
};

/// The key under which WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

pub struct Browser {
    home: Home,
    address: SocketAddr,
    session: String,
    place: PathBuf,
    process: Option<Process>,
}

impl Browser {
    pub async fn start(home: &Home) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
        let place = home.join("browser");
        std::fs::create_dir_all(&place).expect("a directory for the browser");
        let mut command = guarded(None, "KILL", "chromedriver");
        // What it leaves behind is below the home, and it is found there when it has to be ended.
        command.arg(format!("--port={}", address.port())).env("TMPDIR", &place).env("HOME", &place).current_dir(&place);
        let process = Some(Process::start(home, "browser", command));
        let mut this = Self { home: home.clone(), address, session: String::new(), place, process };
        until("chromedriver answers", secs(20), async || {
            Connection::open(&this.home, this.address).await?.send(Method::GET, "/status", &[], "").await
        })
        .await;
        let arguments =
            ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1280,900"];
        let wanted = json!({ "browserName": "chrome", "goog:chromeOptions": { "args": arguments },
                             "goog:loggingPrefs": { "browser": "ALL" } });
        let made = this.call(Method::POST, "/session", &json!({ "capabilities": { "alwaysMatch": wanted } })).await;
        this.session = format!("/session/{}", made["sessionId"].as_str().expect("a session"));
        this
    }

    async fn try_call(&self, method: Method, path: &str, body: &Value) -> Result<Value, String> {
        let path = if path == "/session" { path.to_owned() } else { format!("{}{path}", self.session) };
        let body = if method == Method::GET { String::new() } else { body.to_string() };
        let mut connection = Connection::open(&self.home, self.address).await.map_err(|e| format!("{e:#}"))?;
        let answer = connection.send(method, &path, &[("content-type", "application/json")], &body).await;
        let answer = answer.map_err(|e| format!("{e:#}"))?;
        if answer.status == 200 { Ok(answer.json()["value"].clone()) } else { Err(answer.text()) }
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Value {
        self.try_call(method, path, body).await.unwrap_or_else(|e| panic!("the browser: {path} {body}: {e}"))
    }

    pub async fn open(&self, url: &str) {
        self.call(Method::POST, "/url", &json!({ "url": url })).await;
    }

    /// The first element of a CSS selector, as soon as it is there.
    async fn element(&self, css: &str) -> String {
        let body = json!({ "using": "css selector", "value": css });
        let find = async || self.try_call(Method::POST, "/element", &body).await;
        let (found, _) = until(&format!("{css} is on the page"), secs(10), find).await;
        format!("/element/{}", found[ELEMENT].as_str().expect("an element"))
    }

    /// Clicks as a person does: it must be visible, and nothing may lie over it.
    pub async fn click(&self, css: &str) {
        let element = self.element(css).await;
        self.call(Method::POST, &format!("{element}/click"), &json!({})).await;
    }

    pub async fn fill(&self, css: &str, text: &str) {
        let element = self.element(css).await;
        self.call(Method::POST, &format!("{element}/clear"), &json!({})).await;
        self.call(Method::POST, &format!("{element}/value"), &json!({ "text": text })).await;
    }

    /// What is to be read in it; empty when it is not there.
    pub async fn text(&self, css: &str) -> String {
        let script = "return document.querySelector(arguments[0])?.innerText ?? ''";
        let body = json!({ "script": script, "args": [css] });
        let text = self.try_call(Method::POST, "/execute/sync", &body).await.unwrap_or_default();
        text.as_str().unwrap_or_default().to_owned()
    }

    pub async fn until_text(&self, css: &str, what: &str) {
        until(&format!("{css} says {what}"), secs(10), async || {
            let text = self.text(css).await;
            if text.contains(what) { Ok(()) } else { Err(text) }
        })
        .await;
    }

    pub async fn run(&self, script: &str) -> Value {
        self.call(Method::POST, "/execute/sync", &json!({ "script": script, "args": [] })).await
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.call(Method::POST, "/goog/cdp/execute", &json!({ "cmd": command, "params": parameters })).await
    }

    pub async fn scripts(&self, on: bool) {
        self.devtools("Emulation.setScriptExecutionDisabled", json!({ "value": !on })).await;
    }

    /// `light` or `dark`, and the width of the screen.
    pub async fn look(&self, scheme: &str, width: u32) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features })).await;
        let screen = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", screen).await;
    }

    /// The whole page, as a PNG.
    pub async fn screenshot(&self, path: &Path) {
        let size = self.run("const e = document.documentElement; return [e.clientWidth, e.scrollHeight]").await;
        let clip = json!({ "x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1 });
        let shot =
            self.devtools("Page.captureScreenshot", json!({ "captureBeyondViewport": true, "clip": clip })).await;
        let bytes = BASE64_STANDARD.decode(shot["data"].as_str().expect("a screenshot")).expect("base64");
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a place for screenshots");
        std::fs::write(path, bytes).expect("a written screenshot");
    }

    /// What the browser has complained of since the last call.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.call(Method::POST, "/se/log", &json!({ "type": "browser" })).await;
        let entries = log.as_array().cloned().unwrap_or_default();
        entries.iter().filter_map(|entry| entry["message"].as_str().map(str::to_owned)).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.process = None;
        sweep(&self.place);
    }
}
