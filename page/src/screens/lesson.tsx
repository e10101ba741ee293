// Lesson: six stations in the order of a lecture, a guessing game, and a sheet to print. The pupil guesses before the
// model answers; guesses and scores stay in the page until it is closed or loaded again.
import { useEffect, useRef } from "preact/hooks";
import { isFocusLost, model } from "../lesson/asking.ts";
import { Game } from "../lesson/game.tsx";
import { cpuStation, limitsStation } from "../lesson/limits.tsx";
import { nextStation, numbersStation } from "../lesson/reading.tsx";
import { Sheet } from "../lesson/sheet.tsx";
import type { Station } from "../lesson/station.ts";
import { methodsStation, trainingStation } from "../lesson/training.tsx";
import { Walk } from "../lesson/walk.tsx";
import { ModelPicker } from "../parts/picker.tsx";
import { Empty, Head } from "../parts/words.tsx";
import { go, link, route } from "../route.ts";
import { models } from "../state.ts";

const STATIONS = [
  numbersStation,
  nextStation,
  trainingStation,
  methodsStation,
  limitsStation,
  cpuStation,
] as readonly Station<unknown>[];

export function Lesson() {
  const view = route.value.query.get("view") ?? "";
  const asked = Number(route.value.query.get("station") ?? 1);
  const at = Number.isInteger(asked) ? Math.max(1, Math.min(STATIONS.length, asked)) : 1;
  const station = STATIONS[at - 1];
  const walking = view !== "game" && view !== "sheet";
  const before = useRef(view);
  useEffect(() => {
    if (before.current !== view && isFocusLost()) document.querySelector<HTMLElement>("main h2[tabindex]")?.focus();
    before.current = view;
  }, [view]);
  return (
    <>
      <Head title="Lesson">
        Six stations of about five minutes: guess first, then ask the model. Guesses and scores stay in this page and
        are gone when it is closed.
      </Head>
      <Stations at={walking ? at : 0} view={view} />
      <div class="narrow unprinted">
        <ModelPicker label="Model" value={model.value} set={(id) => (model.value = id)} />
      </div>
      {view === "game" && (models.value.length ? <Game /> : <NoModel />)}
      {view === "sheet" && <Sheet stations={STATIONS} />}
      {walking && station && (
        <>
          <p class="under" role="status">
            Station {at} of {STATIONS.length}, about 5 minutes
          </p>
          {models.value.length ? <Walk station={station} /> : <NoModel />}
          <Steps at={at} />
        </>
      )}
    </>
  );
}

const NoModel = () => (
  <Empty>
    No model is served, so nothing can be asked. Start the page with one: <code>riyaz ui --model smollm2-135m</code>.
  </Empty>
);

// Every station, the game and the sheet, each at an address of its own.
function Stations({ at, view }: { at: number; view: string }) {
  return (
    <nav class="actions unprinted" aria-label="Stations">
      {STATIONS.map((station, place) => (
        <a
          key={station.id}
          class="button"
          href={link("lesson", { station: String(place + 1) })}
          aria-current={place + 1 === at ? "step" : undefined}
          aria-label={`Station ${place + 1}: ${station.title}`}
        >
          {place + 1}
        </a>
      ))}
      <a class="button" href={link("lesson", { view: "game" })} aria-current={view === "game" ? "page" : undefined}>
        Guessing game
      </a>
      <a class="button" href={link("lesson", { view: "sheet" })} aria-current={view === "sheet" ? "page" : undefined}>
        Sheet to print
      </a>
    </nav>
  );
}

function Steps({ at }: { at: number }) {
  const to = (place: number) => go("lesson", { station: String(place) });
  return (
    <div class="actions">
      <button type="button" disabled={at === 1} onClick={() => to(at - 1)}>
        Station before
      </button>
      {at < STATIONS.length ? (
        <button type="button" onClick={() => to(at + 1)}>
          Next station
        </button>
      ) : (
        <button type="button" onClick={() => go("lesson", { view: "game" })}>
          To the guessing game
        </button>
      )}
    </div>
  );
}
