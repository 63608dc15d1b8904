// Fetches the page anew and changes what differs: scroll position, focus and what is typed stay.
"use strict";
(() => {
  const EVERY = 5000, PATIENCE = 10000;
  const box = document.getElementById("live");
  const said = document.createElement("span");
  const button = document.createElement("button");
  said.setAttribute("role", "status");
  button.type = "button";
  box.replaceChildren(said, button);
  let timer = 0, paused = false, running = false;

  const isSame = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && a.id === b.id;

  function change(old, now) {
    if (old.isEqualNode(now)) return;
    if (old.nodeType !== Node.ELEMENT_NODE) { old.nodeValue = now.nodeValue; return; }
    for (const { name } of [...old.attributes]) if (!now.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of [...now.attributes]) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    const fresh = [...now.childNodes];
    fresh.forEach((child, place) => {
      const there = old.childNodes[place];
      if (!there) old.append(child);
      else if (isSame(there, child)) change(there, child);
      else there.replaceWith(child);
    });
    while (old.childNodes.length > fresh.length) old.lastChild.remove();
  }

  async function refresh() {
    if (running) return;
    running = true;
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
      if (!answer.ok) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (!paused) {
        for (const part of document.querySelectorAll("[data-live]")) {
          const now = fresh.getElementById(part.id);
          if (now) change(part, now);
        }
        document.title = fresh.title;
        tell("Updated every 5 seconds");
      }
    } catch {
      tell("No answer since " + new Date().toLocaleTimeString() + "; trying again", true);
    }
    running = false;
    plan();
  }

  // Keeps the first failure message, so that it shows when the failure began.
  let failed = false;
  function tell(text, failure = false) {
    if (failure && failed) return;
    failed = failure;
    if (said.textContent !== text) said.textContent = text;
    said.className = failure ? "pill bad" : "";
  }

  function plan() {
    clearTimeout(timer);
    if (!paused && !document.hidden) timer = setTimeout(refresh, EVERY);
  }

  function show() {
    button.textContent = paused ? "Resume" : "Pause";
    tell(paused ? "Paused" : "Updated every 5 seconds");
  }

  button.addEventListener("click", () => {
    paused = !paused;
    show();
    if (paused) clearTimeout(timer); else refresh();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer); else if (!paused) refresh();
  });
  show();
  plan();
})();
