/**
 * Flags as the tools of etcd read them: anywhere among the arguments until `--`, `--name value`, `--name=value`, `-n value`, switches only with
 * `=`. The words about what is wrong are those that scripts know.
 */
import { DurationError, parseBoolean, parseDurationMs } from "../../embed/index.ts";

export type FlagKind = "string" | "bool" | "int" | "uint" | "duration" | "strings";

interface FlagBase {
  readonly name: string;
  /** One letter. */
  readonly short?: string;
  readonly help: string;
}

/** `default` is what is shown and used when the flag is not given; durations are texts like "5s". */
export type FlagSpec = FlagBase &
  (
    | { readonly kind: "string" | "duration"; readonly default?: string }
    | { readonly kind: "bool"; readonly default?: boolean }
    | { readonly kind: "int" | "uint"; readonly default?: number | bigint }
    | { readonly kind: "strings"; readonly default?: readonly string[] }
  );

/** What the user typed cannot be read. The message goes behind `Error: `. */
export class FlagError extends Error {}

const INT64_MAX = 2n ** 63n - 1n;

/** A value that cannot be read, with the words of Go's strconv. */
export class NumberError extends Error {
  constructor(call: string, text: string, problem: string) {
    super(`strconv.${call}: parsing ${JSON.stringify(text)}: ${problem}`);
  }
}

/** strconv.ParseInt and ParseUint for 64 bits. `base` 0 takes Go's prefixes and underscores. @throws NumberError */
export function parseInteger(text: string, options: { signed: boolean; base: 0 | 10 | 16 }): bigint {
  const { signed, base } = options;
  const call = signed ? "ParseInt" : "ParseUint";
  const sign = signed && /^[+-]/.test(text) ? text.charAt(0) : "";
  const digits = text.slice(sign.length);
  const literal = base === 10 ? decimal(digits) : base === 16 ? hexadecimal(digits) : prefixed(digits);
  if (literal === undefined) throw new NumberError(call, text, "invalid syntax");
  const value = sign === "-" ? -BigInt(literal) : BigInt(literal);
  const [least, most] = signed ? [-INT64_MAX - 1n, INT64_MAX] : [0n, 2n * INT64_MAX + 1n];
  if (value < least || value > most) throw new NumberError(call, text, "value out of range");
  return value;
}

function decimal(digits: string): string | undefined {
  return /^[0-9]{1,400}$/.test(digits) ? digits : undefined;
}

function hexadecimal(digits: string): string | undefined {
  return /^[0-9a-fA-F]{1,400}$/.test(digits) ? `0x${digits}` : undefined;
}

function prefixed(digits: string): string | undefined {
  if (digits.length > 400 || /__|_$/.test(digits)) return undefined;
  const bare = digits.replaceAll("_", "");
  if (/^0[xX][0-9a-fA-F]+$|^0[bB][01]+$|^0[oO][0-7]+$/.test(bare)) return bare.toLowerCase();
  if (digits.startsWith("_")) return undefined;
  if (/^0[0-7]+$/.test(bare)) return `0o${bare.slice(1)}`;
  return /^(0|[1-9][0-9]*)$/.test(bare) ? bare : undefined;
}

type Value = string | boolean | bigint | number | readonly string[];

function parseValue(spec: FlagSpec, text: string): Value {
  switch (spec.kind) {
    case "string":
      return text;
    case "bool": {
      const value = parseBoolean(text);
      if (value === undefined) throw new NumberError("ParseBool", text, "invalid syntax");
      return value;
    }
    case "int":
      return parseInteger(text, { signed: true, base: 0 });
    case "uint":
      return parseInteger(text, { signed: false, base: 0 });
    case "duration":
      return parseDurationMs(text);
    case "strings":
      return text === "" ? [] : splitCsv(text);
    default:
      return spec satisfies never;
  }
}

/** One line of comma-separated values; double quotes keep commas together. */
function splitCsv(text: string): string[] {
  const fields: string[] = [];
  for (let at = 0; ; ) {
    let end: number;
    if (text[at] === '"') {
      let field = "";
      end = at + 1;
      for (; text[end] !== '"' || text[end + 1] === '"'; end += 1) {
        if (end >= text.length)
          throw new Error(`parse error on line 1, column ${text.length + 1}: extraneous or missing " in quoted-field`);
        if (text[end] === '"') end += 1;
        field += text[end];
      }
      fields.push(field);
      end += 1;
    } else {
      const comma = text.indexOf(",", at);
      end = comma < 0 ? text.length : comma;
      fields.push(text.slice(at, end));
    }
    if (end >= text.length) return fields;
    at = end + 1;
  }
}

/** Flags of one invocation: which there are, and what was given. */
export class FlagSet {
  readonly specs: readonly FlagSpec[];
  readonly #byName = new Map<string, FlagSpec>();
  readonly #byShort = new Map<string, FlagSpec>();
  readonly #given = new Map<string, Value>();

  constructor(specs: readonly FlagSpec[]) {
    this.specs = specs;
    for (const spec of specs) {
      this.#byName.set(spec.name, spec);
      if (spec.short !== undefined) this.#byShort.set(spec.short, spec);
    }
  }

  /** Reads the arguments; returns those that are no flags. @throws FlagError at the first thing that cannot be read */
  parse(words: readonly string[]): { words: string[]; dash: number } {
    const rest: string[] = [];
    for (let at = 0; at < words.length; at += 1) {
      const word = words[at] as string;
      if (word === "--") return { words: [...rest, ...words.slice(at + 1)], dash: rest.length };
      if (!word.startsWith("-") || word === "-") {
        rest.push(word);
      } else if (word.startsWith("--")) {
        at += this.#long(word, words[at + 1]);
      } else {
        at += this.#shorts(word, words[at + 1]);
      }
    }
    return { words: rest, dash: -1 };
  }

  /** Sets a flag from elsewhere than the command line. @throws Error with Go's words */
  set(name: string, text: string): void {
    this.#given.set(name, parseValue(this.#spec(name), text));
  }

  /** True if the flag was set. */
  has(name: string): boolean {
    return this.#given.has(name);
  }

  string(name: string): string {
    const spec = this.#spec(name);
    return (this.#given.get(name) ?? spec.default ?? "") as string;
  }

  bool(name: string): boolean {
    return (this.#given.get(name) ?? this.#spec(name).default ?? false) as boolean;
  }

  /** 64 bits, exact. */
  integer(name: string): bigint {
    return BigInt((this.#given.get(name) ?? this.#spec(name).default ?? 0n) as bigint | number);
  }

  durationMs(name: string): number {
    const given = this.#given.get(name);
    return given === undefined ? parseDurationMs(this.#spec(name).default as string) : (given as number);
  }

  strings(name: string): readonly string[] {
    return (this.#given.get(name) ?? this.#spec(name).default ?? []) as readonly string[];
  }

  #spec(name: string): FlagSpec {
    const spec = this.#byName.get(name);
    if (spec === undefined) throw new Error(`there is no flag ${name}`);
    return spec;
  }

  /** Returns how many further words it took. */
  #long(word: string, next: string | undefined): number {
    const bare = word.slice(2);
    if (bare === "" || bare.startsWith("-") || bare.startsWith("=")) throw new FlagError(`bad flag syntax: ${word}`);
    const equals = bare.indexOf("=");
    const name = equals < 0 ? bare : bare.slice(0, equals);
    const spec = this.#byName.get(name);
    if (spec === undefined) throw new FlagError(`unknown flag: --${name}`);
    if (equals >= 0) {
      this.#take(spec, bare.slice(equals + 1));
      return 0;
    }
    if (spec.kind === "bool") {
      this.#take(spec, "true");
      return 0;
    }
    if (next === undefined) throw new FlagError(`flag needs an argument: --${name}`);
    this.#take(spec, next);
    return 1;
  }

  #shorts(word: string, next: string | undefined): number {
    for (let at = 1; at < word.length; at += 1) {
      const letter = word.charAt(at);
      const spec = this.#byShort.get(letter);
      if (spec === undefined) throw new FlagError(`unknown shorthand flag: '${letter}' in ${word}`);
      if (word[at + 1] === "=") {
        this.#take(spec, word.slice(at + 2));
        return 0;
      }
      if (spec.kind === "bool") {
        this.#take(spec, "true");
        continue;
      }
      if (at + 1 < word.length) {
        this.#take(spec, word.slice(at + 1));
        return 0;
      }
      if (next === undefined) throw new FlagError(`flag needs an argument: '${letter}' in ${word}`);
      this.#take(spec, next);
      return 1;
    }
    return 0;
  }

  #take(spec: FlagSpec, text: string): void {
    let value: Value;
    try {
      value = parseValue(spec, text);
    } catch (error) {
      const shown = spec.short === undefined ? `--${spec.name}` : `-${spec.short}, --${spec.name}`;
      const problem = error instanceof DurationError || error instanceof Error ? error.message : String(error);
      throw new FlagError(`invalid argument ${JSON.stringify(text)} for "${shown}" flag: ${problem}`);
    }
    const before = this.#given.get(spec.name);
    // Lists accumulate.
    this.#given.set(spec.name, spec.kind === "strings" && before !== undefined ? [...(before as string[]), ...(value as string[])] : value);
  }
}
