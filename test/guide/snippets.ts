/**
 * The programs in a document. A fence ```` ```ts ```` begins a program; ```` ```ts continued ```` goes on with the one before; ```` ```ts types ```` is only
 * compiled; ```` ```ts vitest ```` and ```` ```ts node:test ```` are test files. A ```` ```text ```` fence right behind a program is what it prints.
 */

export type SnippetKind = "program" | "types" | "vitest" | "node:test";

export interface Snippet {
  /** Document and line of the first fence, for messages. */
  readonly place: string;
  /** Fit for a file name. */
  readonly name: string;
  readonly kind: SnippetKind;
  readonly code: string;
  /** What it prints; undefined: anything. */
  readonly output: string | undefined;
}

const FENCE = /^```(.*)$/;
const KINDS: Readonly<Record<string, SnippetKind>> = { "": "program", types: "types", vitest: "vitest", "node:test": "node:test" };

/** @param document name without `.md` */
export function snippetsOf(document: string, text: string): Snippet[] {
  const found: { place: string; name: string; kind: SnippetKind; code: string; output: string | undefined }[] = [];
  const lines = text.split("\n");
  /** No prose since the last program ended. */
  let justEnded = false;
  for (let at = 0; at < lines.length; at += 1) {
    const info = FENCE.exec(lines[at] as string)?.[1]?.trim();
    if (info === undefined) {
      if ((lines[at] as string).trim() !== "") justEnded = false;
      continue;
    }
    const begin = at;
    for (at += 1; at < lines.length && (lines[at] as string).trim() !== "```"; at += 1);
    const code = lines.slice(begin + 1, at).join("\n");
    const place = `${document}.md:${begin + 1}`;
    const [language, ...rest] = info.split(" ");
    const last = found.at(-1);
    if (language === "text") {
      if (justEnded && last !== undefined) last.output = code;
      justEnded = false;
      continue;
    }
    justEnded = language === "ts";
    if (language !== "ts") continue;
    const word = rest.join(" ");
    if (word === "continued") {
      if (last === undefined) throw new Error(`${place} goes on with nothing`);
      last.code += `\n${code}`;
      continue;
    }
    const kind = KINDS[word];
    if (kind === undefined) throw new Error(`${place}: what is a snippet "${word}"?`);
    found.push({ place, name: `${document}-${begin + 1}`, kind, code, output: undefined });
  }
  return found;
}
