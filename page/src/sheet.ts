// Rows of a file that is dropped onto the page: CSV with a line of names, or JSONL; and tables written as CSV.

export interface Sheet {
  readonly columns: readonly string[];
  readonly rows: readonly Readonly<Record<string, unknown>>[];
}

export const MOST_ROWS = 10_000;
export const MOST_BYTES = 64e6;
const MARKS = [",", ";", "\t", "|"];
const MANY = `This file has more than ${MOST_ROWS.toLocaleString("en")} rows. Answer it with riyaz decide, which has no limit.`;

// Throws an Error with one line for a file that cannot be read.
export async function read(file: File): Promise<Sheet> {
  if (file.size > MOST_BYTES)
    throw new Error(`${file.name} is too large for the page. Answer it with riyaz decide, which has no limit.`);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer()); // it takes the mark of UTF-8 away
  } catch {
    throw new Error(`${file.name} is not text in UTF-8. Save it as CSV or JSONL in UTF-8.`);
  }
  const sheet = /\.(jsonl|ndjson)$/i.test(file.name) || /^\s*\{/.test(text) ? fromLines(text) : fromTable(text);
  if (!sheet.rows.length) throw new Error(`${file.name} has no rows.`);
  return sheet;
}

function fromLines(text: string): Sheet {
  const rows: Record<string, unknown>[] = [];
  const columns = new Set<string>();
  for (const [at, line] of text.split("\n").entries()) {
    if (!line.trim()) continue;
    if (rows.length === MOST_ROWS) throw new Error(MANY);
    let row: unknown;
    try {
      row = JSON.parse(line);
    } catch {
      throw new Error(`Line ${at + 1} is not JSON.`);
    }
    if (typeof row !== "object" || row === null || Array.isArray(row)) throw new Error(`Line ${at + 1} is no object.`);
    for (const name of Object.keys(row)) columns.add(name);
    rows.push(row as Record<string, unknown>);
  }
  return { columns: [...columns], rows };
}

function fromTable(text: string): Sheet {
  const head = text.slice(0, text.search(/[\r\n]|$/)).replaceAll(/"[^"]*"/g, "");
  const counts = MARKS.map((mark) => head.split(mark).length);
  const [names = [], ...lines] = cells(text, MARKS[counts.indexOf(Math.max(...counts))] ?? ",");
  const twice = names.find((name, at) => names.indexOf(name) < at);
  if (twice !== undefined) throw new Error(`Two columns are named “${twice}”. Rename one.`);
  const rows = lines.map((line, at) => {
    if (line.length > names.length)
      throw new Error(`Row ${at + 1} has ${line.length} cells, and the first line names ${names.length} columns.`);
    return Object.fromEntries(names.map((name, column) => [name, line[column] ?? ""]));
  });
  return { columns: names, rows };
}

// The cells of each line that is not empty; a cell in quotes may hold marks, line breaks, and quotes that are doubled.
function cells(text: string, mark: string): string[][] {
  const lines: string[][] = [];
  let line: string[] = [];
  let at = 0;
  while (at < text.length) {
    let cell = "";
    if (text[at] === '"') {
      for (;;) {
        const end = text.indexOf('"', at + 1);
        if (end < 0) throw new Error(`A quote in row ${lines.length} is not closed.`);
        cell += text.slice(at + 1, end);
        at = end + 1;
        if (text[at] !== '"') break;
        cell += '"';
      }
    }
    const from = at;
    while (at < text.length && text[at] !== mark && text[at] !== "\n" && text[at] !== "\r") at += 1;
    line.push(cell + text.slice(from, at));
    if (text[at] === mark) {
      at += 1;
      if (at < text.length) continue;
      line.push("");
    }
    if (text[at] === "\r" && text[at + 1] === "\n") at += 1;
    at += 1;
    if (line.length > 1 || line[0] !== "") lines.push(line);
    if (lines.length > MOST_ROWS + 1) throw new Error(MANY);
    line = [];
  }
  return lines;
}

// The columns that hold texts, the longest ones first: they are read, and labels are short.
export function textColumns({ columns, rows }: Sheet): string[] {
  const some = rows.slice(0, 200);
  const length = (name: string) =>
    some.reduce((sum, row) => sum + (typeof row[name] === "string" ? (row[name] as string).length : 0), 0);
  const lengths = new Map(columns.map((name) => [name, length(name)]));
  return columns.filter((name) => lengths.get(name)).sort((a, b) => (lengths.get(b) ?? 0) - (lengths.get(a) ?? 0));
}

export function csv(columns: readonly string[], rows: readonly (readonly unknown[])[]): string {
  return [columns, ...rows].map((line) => `${line.map(cell).join(",")}\n`).join("");
}

function cell(value: unknown): string {
  if (value === null || value === undefined) return "";
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// Gives a text to the browser as a file.
export function download(name: string, parts: BlobPart[], type = "text/plain"): void {
  const address = URL.createObjectURL(new Blob(parts, { type }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
