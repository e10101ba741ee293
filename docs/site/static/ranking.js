// Ranks the results of the site's search by how often the words of a query stand in a section, and how rare they are.
// It replaces the search for words of Sphinx, which knows only whether a page holds a word and wants every word of a
// query. Titles and names of functions are still found by Sphinx. docs/site/sections.py writes SECTIONS.
"use strict";

const SATURATION = 1.2; // k1 and b of BM25 (Robertson and Zaragoza 2009)
const LENGTH = 0.6;
const NEAR = 0.5; // what a word counts that only begins like a word of the query
const REST = 0.3; // what the other sections of a page add to its best one
const LATER = 0.5; // what pages for developers count
const NAMED = 1.5; // what a section counts whose title is the query, such as a word that the glossary explains
const ASKING = new Set("can do doe how i me mani much my need should what when where which who whi you".split(" ")); // stems

// The words of the site that a stem stands for: itself, or else those that begin with it, or that it begins with.
const wordsLike = (stem) => {
  if (Object.hasOwn(SECTIONS.words, stem)) return [[stem, 1]];
  if (stem.length < 4) return [];
  const near = (word) => word.startsWith(stem) || (word.length > 4 && stem.startsWith(word));
  return Object.keys(SECTIONS.words).filter(near).map((word) => [word, NEAR]);
};

// Section -> its BM25 score times the share of the query's words that stand in it.
const scoresOfSections = (stems) => {
  const scores = new Map();
  const held = new Map();
  for (const stem of stems) {
    const ofStem = new Map();
    for (const [word, weight] of wordsLike(stem)) {
      const postings = SECTIONS.words[word];
      const holding = postings.length / 2;
      const rarity = Math.log(1 + (SECTIONS.sections.length - holding + 0.5) / (holding + 0.5));
      for (let place = 0; place < postings.length; place += 2) {
        const count = postings[place + 1];
        const size = Math.max(0.5, SECTIONS.sections[postings[place]][3] / SECTIONS.mean); // a section of a line is not better than one of three
        const frequency = (count * (SATURATION + 1)) / (count + SATURATION * (1 - LENGTH + LENGTH * size));
        const score = weight * rarity * frequency;
        ofStem.set(postings[place], Math.max(score, ofStem.get(postings[place]) ?? 0));
      }
    }
    for (const [section, score] of ofStem) {
      scores.set(section, (scores.get(section) ?? 0) + score);
      held.set(section, (held.get(section) ?? 0) + 1);
    }
  }
  const name = [...stems].sort().join(" ");
  for (const [section, score] of scores) {
    const named = name === SECTIONS.sections[section][4] ? NAMED : 1;
    scores.set(section, (score * named * held.get(section)) / stems.length);
  }
  return scores;
};

// The options that a query names, as `--limit-train`, `limit-train` or `limit_train`.
const optionsIn = (query) =>
  (query.match(/[a-z]+(?:[-_][a-z]+)*/gi) ?? [])
    .map((name) => `--${name.toLowerCase().replaceAll("_", "-")}`)
    .filter((name) => /--[a-z]+-/.test(name) || query.includes(name))
    .filter((name) => Object.hasOwn(SECTIONS.words, name));

let asked = ""; // the query as it was typed
const performSearch = Search._performSearch;
Search._performSearch = (query, ...terms) => performSearch((asked = query), ...terms);

// One result a page, at its best section, in the form that Sphinx's script shows.
Search.performTermsSearch = (searchTerms, excludedTerms) => {
  const split = (terms) => [...new Set([...terms].flatMap((term) => term.split("_")).filter((word) => word))];
  const words = split(searchTerms);
  const telling = words.filter((stem) => !ASKING.has(stem));
  const stems = [...(telling.length ? telling : words), ...optionsIn(asked)];
  const excluded = new Set(split(excludedTerms).flatMap((stem) => (SECTIONS.words[stem] ?? []).filter((_, n) => n % 2 === 0)));
  const pages = new Map();
  for (const [place, score] of scoresOfSections(stems)) {
    if (excluded.has(place)) continue;
    const page = SECTIONS.sections[place][0];
    const best = pages.get(page) ?? { score: 0, sum: 0, place };
    pages.set(page, {
      score: Math.max(best.score, score),
      sum: best.sum + score,
      place: score > best.score ? place : best.place,
    });
  }
  const numbers = new Map(Search._index.docnames.map((name, number) => [name, number]));
  return [...pages].map(([page, { score, sum, place }]) => {
    const number = numbers.get(page);
    const [, anchor, title] = SECTIONS.sections[place];
    const pageTitle = Search._index.titles[number];
    const total = (score + REST * Math.min(sum - score, score)) * (SECTIONS.later.includes(page) ? LATER : 1);
    return [
      page,
      anchor ? `${pageTitle} > ${title}` : pageTitle,
      anchor ? `#${anchor}` : "",
      null,
      total,
      Search._index.filenames[number],
      SearchResultKind.text,
    ];
  });
};
