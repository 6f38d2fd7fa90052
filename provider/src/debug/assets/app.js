// Keeps the page live: after an event it fetches itself and takes over the parts that are marked. Without this, or
// without the stream, the page is whole and a reload shows what is new.
"use strict";
(() => {
  const kinds = ["revision", "withheld", "quarantined", "ack", "refused", "late", "refused_routes", "held_back",
    "instance", "database", "finding", "missed"];
  const soon = 150, whileIdle = 15000, withoutStream = 5000;
  const sign = document.getElementById("stream");
  const announce = document.getElementById("announce");
  let timer, at = 0, busy = false, again = false, streaming = false;

  const say = (text, on) => {
    sign.hidden = false;
    sign.textContent = text;
    sign.classList.toggle("on", on);
  };

  // A part that somebody writes in stays as it is.
  const inUse = (part) => {
    const active = document.activeElement;
    if (part.contains(active) && /^(INPUT|SELECT|TEXTAREA)$/.test(active.tagName)) return true;
    return [...part.querySelectorAll("input:not([type=hidden])")].some((input) => input.value !== input.defaultValue);
  };

  const take = (page) => {
    const verdict = (of) => of.querySelector("#verdict .said")?.textContent ?? "";
    const said = verdict(document);
    for (const part of page.querySelectorAll("[data-live]")) {
      const here = document.getElementById(part.id);
      if (!here || inUse(here) || here.innerHTML === part.innerHTML) continue;
      for (const old of here.querySelectorAll("details[id]")) {
        const now = part.querySelector("#" + CSS.escape(old.id));
        if (now) now.open = old.open;
      }
      const focused = here.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      here.className = part.className;
      here.hidden = part.hidden;
      here.replaceChildren(...part.childNodes);
      if (focused) here.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus();
    }
    document.title = page.title;
    if (verdict(document) !== said) announce.textContent = verdict(document);
  };

  const refresh = async () => {
    clearTimeout(timer);
    timer = undefined;
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    let next = streaming ? whileIdle : withoutStream;
    try {
      const response = await fetch(location.pathname + location.search, { headers: { accept: "text/html" } });
      if (response.status === 401) {
        location.reload();
        return;
      }
      if (response.ok) {
        take(new DOMParser().parseFromString(await response.text(), "text/html"));
        if (!streaming) say("every 5 s", true);
      } else {
        say("refused: " + response.status, false);
      }
    } catch {
      say("provider unreachable", false);
    }
    busy = false;
    if (again) {
      again = false;
      next = soon;
    }
    later(next);
  };

  const later = (delay) => {
    const due = Date.now() + delay;
    if (timer !== undefined && at <= due) return;
    clearTimeout(timer);
    at = due;
    timer = setTimeout(() => (document.hidden ? (timer = undefined) : refresh()), delay);
  };

  const listen = () => {
    const stream = new EventSource("/api/events");
    stream.onopen = () => {
      streaming = true;
      say("live", true);
    };
    stream.onerror = () => {
      streaming = false;
      say("not live", false);
      later(withoutStream);
      // Refused for good: perhaps it was a restart.
      if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 60000);
    };
    const news = () => later(soon);
    for (const kind of kinds) stream.addEventListener(kind, news);
    stream.onmessage = news;
  };

  document.addEventListener("visibilitychange", () => { if (!document.hidden) later(soon); });
  listen();
  later(whileIdle);
})();
