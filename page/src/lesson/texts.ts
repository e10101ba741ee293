// The texts of the lesson. Everything else on its screen comes from the model that is served.

export interface Sentence {
  readonly language: string;
  readonly code: string;
  readonly text: string;
}

// One sentence in four languages.
export const SENTENCES: readonly Sentence[] = [
  { language: "English", code: "en", text: "The children play in the garden today." },
  { language: "German", code: "de", text: "Die Kinder spielen heute im Garten." },
  { language: "French", code: "fr", text: "Les enfants jouent dans le jardin aujourd'hui." },
  { language: "Hindi", code: "hi", text: "बच्चे आज बगीचे में खेल रहे हैं।" },
];

export const CAPITAL = "The capital of France is";
export const CAPITAL_WORDS = ["Paris", "London", "the", "a"] as const;

export const ORDERS = [
  { id: "order", name: "a sentence", text: "The sun rises in the east and sets in the west." },
  { id: "mixed", name: "its words, mixed", text: "The west in sets the and in sun east rises the." },
  { id: "letters", name: "letters without words", text: "Qxz vrtk plwq zzj bnmf kwtr hgd wqpl." },
] as const;
export const STEP = { text: "The sun rises in the", word: "east" } as const;

export const LABELS = ["good", "bad"] as const;
export const REVIEW = "I fell asleep:";
export const EXAMPLES = "A great film: good\nA boring story: bad\nI loved it: good\n";

export const JOBS = [
  { id: "nurse", text: "The nurse said that" },
  { id: "engineer", text: "The engineer said that" },
] as const;
export const INVENTED = "The capital of the country Zubrowka is the city of";
export const STORY = "Once upon a time there was a little";

export interface Round {
  readonly text: string;
  readonly word: string; // the one that comes next
  readonly others: readonly string[];
}

// Proverbs, rhymes, openings of books, and plain sentences: some have one usual end, some have several.
export const ROUNDS: readonly Round[] = [
  { text: "The quick brown fox jumps over the lazy", word: "dog", others: ["cat", "river", "king"] },
  { text: "Roses are red, violets are", word: "blue", others: ["white", "green", "tall"] },
  { text: "Honesty is the best", word: "policy", others: ["way", "friend", "choice"] },
  { text: "Water is made of hydrogen and", word: "oxygen", others: ["helium", "carbon", "salt"] },
  { text: "It was the best of times, it was the worst of", word: "times", others: ["days", "the", "years"] },
  { text: "The dog chased the cat up the", word: "tree", others: ["mountain", "hill", "stairs"] },
  { text: "One, two, three, four,", word: "five", others: ["six", "and", "ten"] },
  { text: "My grandmother baked us a chocolate", word: "cake", others: ["chip", "bar", "pie"] },
  { text: "To be or not to be, that is the", word: "question", others: ["answer", "problem", "end"] },
  { text: "In winter it is cold, in summer it is", word: "hot", others: ["warm", "dry", "long"] },
];
