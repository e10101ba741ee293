"use strict";
// The example browser: shows the rows of the JSON block; text enters the page as text nodes only.
(() => {
  const block = document.getElementById("examples-data");
  const browser = document.getElementById("browser");
  if (!block || !browser) return;
  const data = JSON.parse(block.textContent);
  const PAGE = 25;
  const LONG = 700;
  const byId = (id) => document.getElementById(id);
  const [show, slice, search, count, list, more] = ["show", "slice", "search", "count", "rows", "more"].map(byId);

  const make = (name, className, ...children) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    for (const child of children) {
      if (child instanceof Node) made.append(child);
      else if (child !== null && child !== undefined) made.append(document.createTextNode(String(child)));
    }
    return made;
  };
  const right = (said) => said !== null && said[1] !== null && said[1] >= data.right;
  const points = (score) => (score === null || score === undefined ? "–" : score.toFixed(2));

  for (const row of data.rows) {
    const answers = row.said.map((said) => (said === null ? "" : said[0]));
    row.text = [row.prompt, ...row.answers, ...answers, row.where].join("\n").toLowerCase();
    row.right = row.said.map(right);
    const had = row.right.filter((_, i) => row.said[i] !== null);
    row.disagree = had.some((one) => one !== had[0]);
    const pair = [data.pick, data.next];
    row.two = pair.every((i) => i !== null && row.said[i] !== null) && row.right[pair[0]] !== row.right[pair[1]];
  }

  const tests = {
    all: () => true,
    disagree: (row) => row.disagree,
    two: (row) => row.two,
    wrong: (row) => data.pick !== null && row.said[data.pick] !== null && !row.right[data.pick],
  };
  const chosen = () => {
    const [kind, place] = show.value.split(":");
    const only = (row) => row.right[Number(place)] && row.right.filter(Boolean).length === 1;
    const test = kind === "only" ? only : tests[kind];
    const part = slice && slice.value ? slice.value.slice(1) : null;
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    return data.rows.filter(
      (row) =>
        test(row) &&
        (part === null || String(row.slice) === part) &&
        words.every((word) => row.text.includes(word)),
    );
  };

  const clipped = (name, className, text) => {
    const whole = text === null || text === undefined || text === "" ? "(nothing)" : String(text);
    const made = make(name, className, whole.length > LONG ? `${whole.slice(0, LONG)}… ` : whole);
    if (whole.length > LONG) {
      const button = make("button", "", `Show all ${whole.length.toLocaleString("en")} characters`);
      button.type = "button";
      button.addEventListener("click", () => {
        made.textContent = whole;
        made.tabIndex = -1;
        made.focus();
      });
      made.append(button);
    }
    return made;
  };

  const source = (cited) => {
    const title = cited.title || cited.doc_id || "a document";
    const id = cited.title && cited.doc_id ? `${cited.doc_id}, ` : "";
    const pages = cited.page === cited.last_page ? `page ${cited.page}` : `pages ${cited.page}–${cited.last_page}`;
    const place = cited.page ? pages : `characters ${cited.start}–${cited.end}`;
    return make("li", "", `${title} (${id}${place})`);
  };

  // Methods with the same answer and score share one line, unless they cite sources.
  const answers = (row) => {
    const groups = new Map();
    row.said.forEach((said, place) => {
      if (said === null) return;
      const sources = said[2].length ? place : "";
      const key = JSON.stringify([said[0], said[1], sources]);
      if (!groups.has(key)) groups.set(key, { said, places: [] });
      groups.get(key).places.push(place);
    });
    const sorted = [...groups.values()].sort((a, b) => (b.said[1] ?? -1) - (a.said[1] ?? -1));
    return sorted.map(({ said, places }) => {
      const names = places.map((place) => {
        const { name, colour } = data.methods[place];
        const dot = make("span", `dot c${colour}`);
        dot.setAttribute("aria-hidden", "true");
        return make("span", "method", dot, place === data.pick ? `${name} (${data.role})` : name);
      });
      const shown = make(
        "li",
        right(said) ? "right" : "wrong",
        make("span", "points", points(said[1])),
        clipped("span", "answer", said[0]),
        make("span", "who", ...names),
      );
      if (said[2].length) {
        const title = said[2].length === 1 ? "1 source" : `${said[2].length} sources`;
        shown.append(make("details", "sources", make("summary", "", title), make("ul", "", ...said[2].map(source))));
      }
      return shown;
    });
  };

  const item = (row) => {
    const meta = row.slice === null ? row.where : `${row.where} · ${row.slice}`;
    const wanted = make("p", "wanted", "Accepted: ", make("b", "", row.answers.join("  or  ") || "(nothing)"));
    return make(
      "li",
      "",
      make("div", "", make("p", "meta", meta), clipped("p", "prompt", row.prompt), wanted),
      make("ul", "said", ...answers(row)),
    );
  };

  let matching = [];
  let shown = 0;
  const extend = () => {
    const next = matching.slice(shown, shown + PAGE).map(item);
    const first = next[0];
    list.append(...next);
    shown += next.length;
    more.hidden = shown >= matching.length;
    more.textContent = `Show ${Math.min(PAGE, matching.length - shown)} more`;
    return first;
  };
  const refresh = () => {
    matching = chosen();
    shown = 0;
    list.replaceChildren();
    const all = data.rows.length.toLocaleString("en");
    const number = matching.length.toLocaleString("en");
    count.textContent = matching.length ? `${number} of ${all} rows` : `None of ${all} rows`;
    extend();
  };

  let waiting = 0;
  const soon = () => {
    clearTimeout(waiting);
    waiting = setTimeout(refresh, 120);
  };
  show.addEventListener("change", refresh);
  if (slice) slice.addEventListener("change", refresh);
  search.addEventListener("input", soon);
  byId("filter").addEventListener("submit", (event) => {
    event.preventDefault();
    refresh();
  });
  more.addEventListener("click", () => {
    const first = extend();
    if (first) {
      first.tabIndex = -1;
      first.focus();
    }
  });
  const first = ["two", "disagree"].find((name) => data.rows.some(tests[name]));
  if (first) show.value = first;
  refresh();
  browser.hidden = false;
})();
