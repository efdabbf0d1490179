/** Texts as Go programs print them. */

const SHORT_ESCAPES: Readonly<Record<string, string>> = {
  "\u0007": "\\a",
  "\b": "\\b",
  "\f": "\\f",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\v": "\\v",
  "\\": "\\\\",
  '"': '\\"',
};
const PRINTABLE = /[\p{L}\p{M}\p{N}\p{P}\p{S} ]/u;

/** `%q` of a string that may be any bytes. */
export function quoted(bytes: Uint8Array | string): string {
  const data = typeof bytes === "string" ? Buffer.from(bytes, "utf8") : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let text = '"';
  for (let at = 0; at < data.length; ) {
    const length = characterLength(data, at);
    if (length === 0) {
      text += `\\x${hexByte(data[at] as number)}`;
      at += 1;
      continue;
    }
    const character = data.toString("utf8", at, at + length);
    text += escaped(character);
    at += length;
  }
  return `${text}"`;
}

function escaped(character: string): string {
  const short = SHORT_ESCAPES[character];
  if (short !== undefined) return short;
  if (PRINTABLE.test(character)) return character;
  const code = character.codePointAt(0) as number;
  if (code < 0x80) return `\\x${hexByte(code)}`;
  return code < 0x10000 ? `\\u${code.toString(16).padStart(4, "0")}` : `\\U${code.toString(16).padStart(8, "0")}`;
}

/** Bytes of the character that begins at `at`; 0 where there is none. */
function characterLength(data: Buffer, at: number): number {
  const first = data[at] as number;
  if (first < 0x80) return 1;
  const length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || at + length > data.length) return 0;
  return data.toString("utf8", at, at + length).includes("\ufffd") && !isReplacement(data, at) ? 0 : length;
}

function isReplacement(data: Buffer, at: number): boolean {
  return data[at] === 0xef && data[at + 1] === 0xbf && data[at + 2] === 0xbd;
}

export function hexByte(byte: number): string {
  return byte.toString(16).padStart(2, "0");
}

/** Every byte as `\xNN`. */
export function hexEscaped(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += `\\x${hexByte(byte)}`;
  return text;
}

const SI_UNITS = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/** Sizes with two significant digits and powers of 1000: `25 kB`, `2.1 GB`. */
export function siBytes(bytes: number): string {
  if (bytes < 10) return `${bytes} B`;
  const power = Math.min(Math.floor(Math.log(bytes) / Math.log(1000) + 1e-12), SI_UNITS.length - 1);
  const value = Math.floor((bytes / 1000 ** power) * 10 + 0.5) / 10;
  return `${value < 10 ? value.toFixed(1) : halfToEven(value)} ${SI_UNITS[power]}`;
}

/** As Go rounds when it prints without decimals: 20.5 is 20, 21.5 is 22. */
function halfToEven(value: number): number {
  const below = Math.floor(value);
  return value - below === 0.5 ? below + (below % 2) : Math.round(value);
}

/** A table as etcd's tools draw it: headings in the middle, cells to the right. */
export function table(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = headings.map((heading, column) => Math.max(heading.length, ...rows.map((row) => (row[column] ?? "").length)));
  const line = (left: string, middle: string, right: string): string =>
    `${left}${widths.map((width) => "─".repeat(width + 2)).join(middle)}${right}\n`;
  const cells = (row: readonly string[], place: (text: string, width: number) => string): string =>
    `│${widths.map((width, column) => ` ${place(row[column] ?? "", width)} `).join("│")}│\n`;
  const centred = (text: string, width: number): string => text.padStart(text.length + Math.floor((width - text.length) / 2)).padEnd(width);
  return (
    line("┌", "┬", "┐") +
    cells(headings, centred) +
    line("├", "┼", "┤") +
    rows.map((row) => cells(row, (text, width) => text.padStart(width))).join("") +
    line("└", "┴", "┘")
  );
}
