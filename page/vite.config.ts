// Builds the page into the Python package. File names carry no hash, so that a build of the same source is the same
// bytes under the same names; the server sends an ETag instead.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { defineConfig, type Plugin } from "vite";

const here = import.meta.dirname;
const LEFT_OUT = new Set(["node_modules", "tests"]);
const BUILT = "built.sha256";

function files(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    if (LEFT_OUT.has(entry.name)) return [];
    const path = join(folder, entry.name);
    return entry.isDirectory() ? files(path) : [path];
  });
}

// One line for each file, as `sha256sum` writes it: tests/serve/test_page_build.py makes the same lists without Node.
function hashes(folder: string): string {
  const lines = files(folder).map((path) => {
    const digest = createHash("sha256").update(readFileSync(path)).digest("hex");
    return { name: relative(folder, path).replaceAll("\\", "/"), digest };
  });
  lines.sort((a, b) => (a.name < b.name ? -1 : 1));
  return lines.map(({ name, digest }) => `${digest}  ${name}\n`).join("");
}

// The licences of what is built into the page. DOMPurify may be taken under Apache-2.0 or MPL-2.0: Riyaz takes Apache-2.0.
function notices(): string {
  const names = ["preact", "@preact/signals", "@preact/signals-core", "uplot", "marked", "dompurify"];
  const texts = names.map((name) => {
    const folder = join(here, "node_modules", name);
    const about = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as {
      version: string;
      license: string;
    };
    const licence = readdirSync(folder).find((file) => /^licen[cs]e/i.test(file));
    if (licence === undefined) throw new Error(`${name} has no licence file`);
    const text = readFileSync(join(folder, licence), "utf8").trim();
    const taken = name === "dompurify" ? `${about.license}, taken under Apache-2.0` : about.license;
    return `${name} ${about.version} (${taken})\n\n${text}\n`;
  });
  return `The page of Riyaz is built with these packages.\n\n${texts.join(`\n${"-".repeat(78)}\n\n`)}`;
}

function besides(): Plugin {
  return {
    name: "hashes-and-notices",
    generateBundle() {
      this.emitFile({ type: "asset", fileName: "source.sha256", source: hashes(here) });
      this.emitFile({ type: "asset", fileName: "THIRD-PARTY.txt", source: notices() });
    },
    writeBundle({ dir }) {
      if (dir !== undefined) writeFileSync(join(dir, BUILT), hashes(dir)); // the folder was empty before
    },
  };
}

export default defineConfig({
  root: here,
  base: "/",
  plugins: [besides()],
  build: {
    outDir: join(here, "../src/riyaz/serve/static"),
    emptyOutDir: true,
    target: "es2022",
    modulePreload: false,
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    rollupOptions: {
      output: {
        entryFileNames: "assets/page.js",
        chunkFileNames: "assets/[name].js",
        assetFileNames: (asset) =>
          asset.names.some((name) => name.endsWith(".css")) ? "assets/page.css" : "assets/[name][extname]",
      },
    },
  },
});
