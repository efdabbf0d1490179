/** Quoted texts inside lines that users type, by Go's rules. */

const SIMPLE_ESCAPES: Readonly<Record<string, number>> = { a: 7, b: 8, f: 12, n: 10, r: 13, t: 9, v: 11, "\\": 0x5c, '"': 0x22, "'": 0x27 };

/** A quoted text at the beginning of `line` (spaces may stand before it): its bytes and what follows. Undefined when there is none. */
export function takeQuoted(line: string): { bytes: Uint8Array; rest: string } | undefined {
  const text = line.trimStart();
  if (text.startsWith("`")) {
    const end = text.indexOf("`", 1);
    return end < 0 ? undefined : { bytes: Buffer.from(text.slice(1, end), "utf8"), rest: text.slice(end + 1) };
  }
  if (!text.startsWith('"')) return undefined;
  const pieces: Buffer[] = [];
  for (let at = 1; at < text.length; ) {
    const character = String.fromCodePoint(text.codePointAt(at) as number);
    if (character === '"') return { bytes: Buffer.concat(pieces), rest: text.slice(at + 1) };
    if (character !== "\\") {
      pieces.push(Buffer.from(character, "utf8"));
      at += character.length;
      continue;
    }
    const special = takeEscape(text, at);
    if (special === undefined) return undefined;
    pieces.push(special.bytes);
    at = special.end;
  }
  return undefined;
}

function takeEscape(text: string, at: number): { bytes: Buffer; end: number } | undefined {
  const kind = text[at + 1] ?? "";
  const simple = SIMPLE_ESCAPES[kind];
  if (simple !== undefined) return { bytes: Buffer.of(simple), end: at + 2 };
  const octal = /^[0-3][0-7]{2}/.exec(text.slice(at + 1, at + 4))?.[0];
  if (octal !== undefined) return { bytes: Buffer.of(Number.parseInt(octal, 8)), end: at + 4 };
  const digits = { x: 2, u: 4, U: 8 }[kind];
  if (digits === undefined) return undefined;
  const hex = text.slice(at + 2, at + 2 + digits);
  if (hex.length < digits || !/^[0-9a-fA-F]+$/.test(hex)) return undefined;
  const code = Number.parseInt(hex, 16);
  if (kind === "x") return { bytes: Buffer.of(code), end: at + 4 };
  if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return undefined;
  return { bytes: Buffer.from(String.fromCodePoint(code), "utf8"), end: at + 2 + digits };
}

/** The words of a line, as a shell would part them: in double quotes with escapes, in single quotes as they are. */
export function splitWords(line: string): string[] {
  return (line.match(/"(?:[^"\\]|\\.)*"|'[^']*'|[^'"\s]\S*[^'"\s]?/g) ?? []).map((word) => {
    if (word.length >= 2 && word.startsWith("'") && word.endsWith("'")) return word.slice(1, -1);
    if (!word.startsWith('"')) return word;
    const quoted = takeQuoted(word);
    return quoted === undefined ? word.slice(1, -1) : Buffer.from(quoted.bytes).toString("utf8");
  });
}
