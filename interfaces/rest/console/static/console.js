// What is new comes by itself, and the time slider moves without a new page. Without this file
// the pages say the same when they are loaded again.
"use strict";

(() => {
  const AT_MOST_EVERY = 1000; // ms between two looks
  const AGAIN = 10000; // ms until the stream is asked for once more after it was refused

  const read = async (address) => {
    const answer = await fetch(address, { headers: { Accept: "text/html" } });
    if (answer.redirected && new URL(answer.url).pathname === "/login") {
      location.assign(answer.url);
    }
    if (!answer.ok) throw new Error(`${answer.status}`);
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  };

  // A person is choosing or writing in it: leave it as it is until they are done.
  const isInUse = (part) =>
    [...part.querySelectorAll("input:not([type=hidden])")].some(
      (field) =>
        field === document.activeElement ||
        field.checked !== field.defaultChecked ||
        field.value !== field.defaultValue,
    );

  const put = (part, fresh) => {
    if (!fresh || isInUse(part) || part.innerHTML === fresh.innerHTML) return;
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    const links = (root) => [...root.querySelectorAll("a, [tabindex]")];
    const place = focused ? links(part).indexOf(focused) : -1;
    const scrolled = [...part.querySelectorAll(".scroll")].map((box) => box.scrollLeft);
    part.replaceChildren(...document.importNode(fresh, true).childNodes);
    part.querySelectorAll(".scroll").forEach((box, i) => (box.scrollLeft = scrolled[i] || 0));
    if (focused) {
      const found = links(part);
      const same = found.find((link) => link.href && link.href === focused.href) || found[place];
      if (same) same.focus({ preventScroll: true });
    }
  };

  const told = (root) =>
    [...root.querySelectorAll("[data-news]")].map((part) => part.dataset.news).join(". ");

  // -- live ------------------------------------------------------------------------------------

  const follow = (topics) => {
    const live = document.getElementById("live");
    const news = document.getElementById("news");
    let isStale = false;
    let isLooking = false;

    const look = async () => {
      if (isLooking || document.hidden) return;
      isLooking = true;
      isStale = false;
      const began = Date.now();
      let pause = AT_MOST_EVERY;
      try {
        const fresh = await read(location.href);
        const before = told(document);
        for (const part of document.querySelectorAll("[data-live]")) {
          put(part, fresh.getElementById(part.id));
        }
        if (told(document) !== before) news.textContent = told(document);
        live.textContent = "Live.";
      } catch (error) {
        live.textContent = "Not live: the server does not answer.";
        isStale = true;
        pause = AGAIN;
      }
      setTimeout(() => {
        isLooking = false;
        if (isStale) look();
      }, Math.max(0, began + pause - Date.now()));
    };
    const changed = () => {
      isStale = true;
      look();
    };

    let stream = null;
    let again = 0;
    const listen = () => {
      clearTimeout(again);
      if (stream !== null || document.hidden) return;
      stream = new EventSource("/api/v1/events/stream");
      stream.onopen = changed; // what came meanwhile is not told by the stream
      stream.onerror = () => {
        live.textContent = "Not live: waiting for the server.";
        if (stream.readyState !== EventSource.CLOSED) return; // it comes back by itself
        stream = null;
        again = setTimeout(listen, AGAIN);
        changed(); // a token that ended leads to the login page
      };
      for (const topic of topics) stream.addEventListener(topic, changed);
    };
    const leave = () => {
      clearTimeout(again);
      if (stream !== null) stream.close();
      stream = null;
    };
    // A browser has few connections for one server: a page that nobody sees leaves its own.
    addEventListener("visibilitychange", () => (document.hidden ? leave() : listen()));
    addEventListener("pagehide", leave);
    addEventListener("pageshow", listen);
    listen();
  };

  // -- the time slider -------------------------------------------------------------------------

  const slide = (form) => {
    const range = document.getElementById("moment");
    const chosen = document.getElementById("chosen");
    const busy = document.getElementById("busy");
    let wanted = null;
    let isLooking = false;

    const look = async () => {
      if (isLooking) return;
      isLooking = true;
      while (wanted !== null) {
        const at = wanted;
        wanted = null;
        busy.textContent = "Replaying.";
        try {
          const fresh = await read(`/console/past?at=${encodeURIComponent(at)}`);
          const then = document.getElementById("then");
          then.replaceWith(document.importNode(fresh.getElementById("then"), true));
          const steps = document.getElementById("steps");
          const focused = [...steps.elements].indexOf(document.activeElement);
          steps.replaceChildren(
            ...document.importNode(fresh.getElementById("steps"), true).childNodes,
          );
          if (focused >= 0) {
            const same = steps.elements[focused];
            (same.disabled ? range : same).focus();
          }
          const shown = fresh.getElementById("moment");
          range.max = shown.max;
          if (wanted === null) {
            range.value = shown.value;
            chosen.textContent = shown.value;
          }
          range.setAttribute("aria-valuetext", shown.getAttribute("aria-valuetext"));
          document.getElementById("time").value = fresh.getElementById("time").value;
          history.replaceState(null, "", `/console/past?at=${encodeURIComponent(at)}`);
          busy.textContent = document.getElementById("then").dataset.news;
        } catch (error) {
          busy.textContent = "That moment cannot be shown: reload the page.";
        }
      }
      isLooking = false;
    };
    const show = (at) => {
      wanted = at;
      look();
    };

    range.addEventListener("input", () => {
      chosen.textContent = range.value;
      range.setAttribute("aria-valuetext", `position ${range.value}`);
      show(range.value);
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      show(range.value);
    });
    document.getElementById("steps").addEventListener("submit", (event) => {
      event.preventDefault();
      show(event.submitter.value);
    });
  };

  const topics = document.body.dataset.topics;
  if (topics) follow(topics.split(" "));
  const slider = document.getElementById("slider");
  if (slider) slide(slider);
})();
