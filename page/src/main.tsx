// Starts the page.
import { render } from "preact";
import { App } from "./app.tsx";
import { explainTerms } from "./parts/term.tsx";
import { follow } from "./route.ts";
import "uplot/dist/uPlot.min.css";
import "./style.css";

follow();
explainTerms();
const place = document.getElementById("page");
if (place) render(<App />, place);
