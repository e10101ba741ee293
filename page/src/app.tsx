// The frame: the list of screens, and the one that the address names.

import type { ComponentType } from "preact";
import { useEffect } from "preact/hooks";
import { later, Samples } from "./parts/later.tsx";
import { Problem, Waiting } from "./parts/words.tsx";
import { key, link, route } from "./route.ts";
import { Chat } from "./screens/chat.tsx";
import { Compare } from "./screens/compare.tsx";
import { Data } from "./screens/data.tsx";
import { Learn } from "./screens/learn.tsx";
import { Limits } from "./screens/limits.tsx";
import { NextWord } from "./screens/next.tsx";
import { RunScreen } from "./screens/run.tsx";
import { Runs } from "./screens/runs.tsx";
import { info, models, problem, ready, refresh } from "./state.ts";

const Decide = later(async () => (await import("./screens/decide.tsx")).Decide);
const Documents = later(async () => (await import("./screens/documents.tsx")).Documents);
const Side = later(async () => (await import("./screens/side.tsx")).Side);
const Inside = later(async () => (await import("./screens/inside.tsx")).InsideScreen);
const Lesson = later(async () => (await import("./screens/lesson.tsx")).Lesson);

interface Screen {
  readonly name: string;
  readonly title: string;
  readonly group: string;
  readonly shown: ComponentType;
}

const SCREENS: readonly Screen[] = [
  { name: "chat", title: "Chat", group: "Talk", shown: Chat },
  { name: "next", title: "Next word", group: "Talk", shown: NextWord },
  { name: "inside", title: "Inside", group: "Talk", shown: Inside },
  { name: "side", title: "Side by side", group: "Talk", shown: Side },
  { name: "decide", title: "Decide", group: "Talk", shown: Decide },
  { name: "data", title: "Data", group: "Adapt", shown: Data },
  { name: "compare", title: "Compare", group: "Adapt", shown: Compare },
  { name: "runs", title: "Runs", group: "Adapt", shown: Runs },
  { name: "run", title: "Run", group: "", shown: RunScreen },
  { name: "documents", title: "Documents", group: "Adapt", shown: Documents },
  { name: "lesson", title: "Lesson", group: "Understand", shown: Lesson },
  { name: "learn", title: "Learn", group: "Understand", shown: Learn },
  { name: "limits", title: "Limits", group: "Understand", shown: Limits },
];

export function App() {
  useEffect(() => {
    void refresh();
  }, [key.value]);
  const name = route.value.screen || "chat";
  const screen = SCREENS.find((each) => each.name === name) ?? SCREENS[0];
  useEffect(() => {
    document.title = screen ? `${screen.title} · Riyaz` : "Riyaz";
    document.querySelector<HTMLElement>(".menu details")?.removeAttribute("open");
    scrollTo({ top: 0 });
  }, [screen]);
  const Shown = screen?.shown ?? Chat;
  return (
    <div class="frame">
      <button type="button" class="skip" onClick={toMain}>
        To the content
      </button>
      <Menu at={screen?.name ?? ""} />
      <main id="main" tabIndex={-1} class={`screen screen-${name}`}>
        <Problem text={problem.value} />
        {screen?.group === "Talk" && ready.value && noOwnModel() && <Samples of="models" />}
        {ready.value || problem.value ? <Shown /> : <Waiting>The model is loading …</Waiting>}
      </main>
    </div>
  );
}

// Whether nothing answers, or samples only.
const noOwnModel = () => !models.value.length || info.value?.models.every((model) => model.sample);

function toMain(): void {
  document.getElementById("main")?.focus();
}

function Menu({ at }: { at: string }) {
  const groups = [...new Set(SCREENS.filter((each) => each.group).map((each) => each.group))];
  const list = groups.map((group) => (
    <div key={group} class="group">
      <h2 class="over">{group}</h2>
      <ul>
        {SCREENS.filter((each) => each.group === group).map((each) => (
          <li key={each.name}>
            <a href={link(each.name)} aria-current={each.name === (at === "run" ? "runs" : at) ? "page" : undefined}>
              {each.title}
            </a>
          </li>
        ))}
      </ul>
    </div>
  ));
  return (
    <nav class="menu" aria-label="Screens">
      <div class="brand">
        <a href={link("chat")}>riyaz</a>
      </div>
      <div class="wide-menu">{list}</div>
      <details class="narrow-menu">
        <summary>{SCREENS.find((each) => each.name === at)?.title ?? "Menu"}</summary>
        <div>{list}</div>
      </details>
      <p class="under foot">{info.value ? `${info.value.version} · ${info.value.folder}` : ""}</p>
    </nav>
  );
}
