"""Questions about airports and the SQL that answers them, as rows: python examples/sql/gather.py [FOLDER]

The airports of thirty countries become a database of two tables, airports.sqlite. The questions are the templates of
templates.toml with values of the database; no test row has a query of a training row.
"""

import csv
import io
import random
import re
import sqlite3
import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from gathering import Row, destination, shuffled, wheel, write

AIRPORTS = ("airportsdata", "20260905", "d7eaa9a57d373b0adaaae0d52da2af0bb0edf73f7baa170f7c415d3342bf4868", "MIT")
COUNTRIES = """Africa: CD DR Congo, DZ Algeria, ET Ethiopia, MG Madagascar, ZA South Africa
Asia: CN China, ID Indonesia, IN India, IR Iran, JP Japan, MY Malaysia, PH Philippines, TH Thailand, TR Turkey
Europe: DE Germany, ES Spain, FR France, GB United Kingdom, GR Greece, IT Italy, NO Norway, SE Sweden
North America: CA Canada, MX Mexico, US United States
Oceania: AU Australia, NZ New Zealand
South America: AR Argentina, BR Brazil, CO Colombia"""
BOTH = "airports JOIN countries ON airports.country = countries.code"
TRAIN, KNOWN, PHRASING, TEMPLATE = 900, 300, 150, 150  # rows: to train on, and of the three slices of the test
ARTICLE = re.compile("United Kingdom|United States|Philippines")  # a sentence says "the" before these
MOST = 20  # rows of an answer
VALUES = 120  # of one template
TESTED = 0.3  # of a template's values


def schema() -> str:
    """The statements that make the tables, as the instruction of riyaz.toml shows them to the model."""
    settings = tomllib.loads(Path(__file__).with_name("riyaz.toml").read_text(encoding="utf-8"))
    return "\n".join(re.findall(r"^CREATE TABLE .*;$", settings["instruction"], re.MULTILINE))


def database(table: bytes) -> sqlite3.Connection:
    """The two tables, in memory, from the package's CSV file."""
    base = sqlite3.connect(":memory:")
    base.executescript(schema())
    for line in COUNTRIES.splitlines():
        continent, _, listed = line.partition(": ")
        base.executemany(
            "INSERT INTO countries VALUES (?, ?, ?)", [(*each.split(" ", 1), continent) for each in listed.split(", ")]
        )
    codes = {code for (code,) in base.execute("SELECT code FROM countries")}
    for row in csv.DictReader(io.StringIO(table.decode("utf-8"))):
        if row["iata"] and row["country"] in codes and row["city"] and row["subd"]:
            place = round(float(row["elevation"])), round(float(row["lat"]), 4), round(float(row["lon"]), 4)
            named = row["iata"], row["name"], row["city"], row["subd"], row["country"]
            base.execute("INSERT INTO airports VALUES (?,?,?,?,?,?,?,?,?)", (*named, *place, row["tz"]))
    base.commit()
    return base


def choices(base: sqlite3.Connection) -> dict[str, list[str]]:
    """What a template's fields may hold. A name that stands in the database twice is left out."""
    found: dict[str, list[str]] = {
        "few": ["2", "3", "4", "5"],
        "feet": [str(feet) for feet in (50, 100, 200, 500, 800, 1000, 1500, 2000, 3000, 5000)],
        "word": ["International", "Regional", "Municipal", "National", "Field", "City", "Island", "San", "Air Base"],
    }
    for field, column in {"country": "countries.name", "continent": "continent", "city": "city", "iata": "iata",
                          "name": "airports.name", "region": "region", "timezone": "timezone"}.items():  # fmt: skip
        once = "GROUP BY airports.name HAVING COUNT(*) = 1" if field == "name" else ""
        found[field] = [value for (value,) in base.execute(f"SELECT DISTINCT {column} FROM {BOTH} {once} ORDER BY 1")]
    return found | {"second": found["iata"]}


def answered(base: sqlite3.Connection, query: str) -> bool:
    """Whether a query has an answer that is not empty, not long, and the same however ties are broken."""
    ordered = " ORDER BY " in query
    variants = [query.replace(" LIMIT", f", airports.rowid {way} LIMIT") for way in ("ASC", "DESC")] if ordered else []
    answers = [base.execute(each).fetchmany(MOST + 1) for each in (query, *variants)]
    first = answers[0]
    full = 0 < len(first) <= MOST and all(value not in (None, 0) for row in first for value in row)
    return full and all(each == first for each in answers)


def filled(template: dict, base: sqlite3.Connection, known: dict[str, list[str]], draw: random.Random) -> list[dict]:
    """Different values for a template's fields with which its query has an answer, in a random order."""
    fields = [field for field in known if f"{{{field}}}" in template["sql"]]
    made = {tuple(draw.choice(known[field]) for field in fields) for _ in range(6 * VALUES)}
    found = []
    for values in shuffled(sorted(made)):
        filling = dict(zip(fields, values, strict=True))
        if len(set(values)) < len(values):
            continue  # an airport beside itself
        query = asked(template["sql"], {field: value.replace("'", "''") for field, value in filling.items()})
        if answered(base, query) and len(found) < VALUES:
            found.append(filling | {"answer": query})
    return found


def asked(pattern: str, values: dict) -> str:
    """A question or a query with its values."""
    return pattern.format(both=BOTH, **values)


def rows(pattern: str, values: list[dict], part: str = "", group: str = "") -> list[Row]:
    """The rows of one wording; those of the test name their slice and, as their group, the kind of question."""
    slices = {"slice": part, "group": group} if part else {}
    spoken = ({name: ARTICLE.sub(r"the \g<0>", value) for name, value in each.items()} for each in values)
    return [{"prompt": asked(pattern, said), "answer": each["answer"], **slices} for said, each in zip(spoken, values)]


def dealt(groups: list[list[Row]], count: int) -> list[Row]:
    """So many rows, taken from every group in turn: the same number of each as long as it has any."""
    turns = [group[place] for place in range(max(map(len, groups))) for group in groups if place < len(group)]
    return turns[:count]


def deal(base: sqlite3.Connection, templates: list[dict]) -> tuple[list[Row], list[Row]]:
    """The training rows and the test rows: a template's values are dealt to either, so that they share no query."""
    known, draw = choices(base), random.Random(0)
    parts: dict[str, list[list[Row]]] = {"train": [], "known": [], "phrasing": [], "template": []}
    for place, template in enumerate(templates):
        kind = f"kind {place}"
        values = filled(template, base, known, draw)
        tested, learned = values[: max(2, round(TESTED * len(values)))], values[max(2, round(TESTED * len(values))) :]
        if template.get("heldout"):
            made = {"template": [row for wording in template["ask"] for row in rows(wording, values, "template", kind)]}
        else:
            made = {
                "train": [row for wording in template["ask"] for row in rows(wording, learned)],
                "known": [row for wording in template["ask"] for row in rows(wording, tested, "known", kind)],
                "phrasing": rows(template["later"], tested, "phrasing", kind),
            }
        for part, each in made.items():
            parts[part].append(shuffled(each))
    sizes = {"known": KNOWN, "phrasing": PHRASING, "template": TEMPLATE}
    test = [row for part, count in sizes.items() for row in dealt(parts[part], count)]
    return shuffled(dealt(parts["train"], TRAIN)), shuffled(test)


def main() -> None:
    """Fetch the airports and write airports.sqlite, train.jsonl and test.jsonl."""
    out = destination(__file__, __doc__).out
    base = database(wheel(*AIRPORTS).read("airportsdata/airports.csv"))
    templates = tomllib.loads(Path(__file__).with_name("templates.toml").read_text(encoding="utf-8"))["template"]
    train, test = deal(base, templates)
    write(__file__, out, train=train, test=test)
    file = out / "airports.sqlite"
    file.unlink(missing_ok=True)
    with sqlite3.connect(file) as stored:
        base.backup(stored)
    counts = [base.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in ("airports", "countries")]
    print(f"{file}: {counts[0]:,} airports of {counts[1]} countries")


if __name__ == "__main__":
    main()
