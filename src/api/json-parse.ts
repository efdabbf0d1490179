/**
 * JSON to messages, by the rules and with the texts of Go's protojson behind Go's encoding/json: the combination that etcd's gateway runs.
 *
 * One pass over the text does it as long as everything is in order. Whatever is not, is looked at a second time in the order in which the
 * gateway would: first the whole value as plain JSON, then as a message.
 */
import { latin1Bytes, latin1Text, utf8Bytes, utf8TextStrict } from "../base/bytes.ts";
import { type FieldPlan, type MessagePlan, planOf, subPlan } from "./json-plan.ts";
import {
  base64Bytes,
  base64PlainBytes,
  integerOf,
  integerWithin,
  isDigit,
  NOT_ASCII,
  numberAt,
  quotedNumber,
  SAFE_DIGITS,
  withinNumber,
} from "./json-scalars.ts";
import { isSpace, JSON_DEPTH_MAX, JsonError, JsonScanner, quoteGo, unexpectedEof } from "./json-scanner.ts";
import type { MessageType } from "./wire/message-type.ts";
import { MESSAGE_DEPTH_MAX } from "./wire/reader.ts";

/**
 * Reads one JSON value as a message. What follows the value is ignored, an empty body is an empty message. Bytes fields may be views
 * into pooled memory.
 * @throws JsonError
 */
export function parseJson<T extends object>(type: MessageType<T>, input: Uint8Array | string): T {
  // One char per byte: positions in error texts and what counts as a character are matters of bytes.
  const text = latin1Text(typeof input === "string" ? utf8Bytes(input) : input);
  try {
    return new Parser(text).whole(type);
  } catch (error) {
    if (!(error instanceof Trouble) && !(error instanceof JsonError)) throw error;
  }
  const scanner = new JsonScanner();
  let end = scanner.scan(text, 0);
  if (end < 0) {
    if (!scanner.completeAtEnd) throw unexpectedEof();
    end = text.length;
  }
  let start = 0;
  while (isSpace(text.charCodeAt(start))) start += 1;
  // Lines and columns count from the value on, not from the beginning of the body.
  try {
    return new Parser(text.slice(start, end)).whole(type);
  } catch (error) {
    // Both passes know the same grammar, so this cannot be; but what comes from outside must never end in an untyped error.
    throw error instanceof Trouble ? unexpectedEof() : error;
  }
}

/** Not JSON, or deeper than the first pass wants to go: the second pass knows what to say. */
class Trouble extends Error {}
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;
const OPEN_ARRAY = 0x5b;
const CLOSE_ARRAY = 0x5d;
const MINUS = 0x2d;

/** Anything in a string that needs a closer look. */
const NOT_PLAIN = /[^\x20-\x7f]|["\\]/;

class Parser {
  readonly #text: string;
  /** Whether no string of the text can contain an escape. */
  readonly #noEscapes: boolean;
  #at = 0;
  #messageDepth = 0;
  #depth = 0;

  constructor(text: string) {
    this.#text = text;
    this.#noEscapes = text.indexOf("\\") < 0;
  }

  whole<T extends object>(type: MessageType<T>): T {
    this.#skipSpace();
    if (this.#at >= this.#text.length) return type.create();
    return this.#message(planOf(type as unknown as MessageType<object>)) as T;
  }

  #message(plan: MessagePlan): object {
    this.#messageDepth += 1;
    if (this.#messageDepth > MESSAGE_DEPTH_MAX) throw new JsonError("proto: exceeded max recursion depth");
    if (this.#text.charCodeAt(this.#at) !== OPEN_OBJECT) throw this.#unexpectedToken();
    this.#enter();
    const message = plan.type.create();
    const slots = message as Record<string, unknown>;
    let seen = 0;
    let seenMore = 0;
    let seenOneofs = 0;
    this.#at += 1;
    if (this.#skipSpace() === CLOSE_OBJECT) this.#at += 1;
    else {
      for (;;) {
        const nameAt = this.#at;
        const known = this.#knownField(plan);
        const nameEnd = this.#at;
        if (this.#skipSpace() !== COLON) throw new Trouble();
        this.#at += 1;
        const first = this.#skipSpace();
        if (known === undefined) this.#skipValue();
        else {
          const before = known.word === 0 ? seen : seenMore;
          if ((before & known.bit) !== 0) throw this.#error(nameAt, `duplicate field ${this.#raw(nameAt, nameEnd)}`);
          if (known.word === 0) seen |= known.bit;
          else seenMore |= known.bit;
          const field = known.field;
          if (first === 0x6e) this.#literal("null");
          else if (field.repeated) this.#list(known, slots[field.name] as unknown[]);
          else if (field.kind === "map") this.#map(known, slots[field.name] as Map<string, object>);
          else {
            if (known.oneofBit !== 0) {
              if ((seenOneofs & known.oneofBit) !== 0) {
                throw this.#error(nameAt, `error parsing ${this.#raw(nameAt, nameEnd)}, oneof ${field.oneof} is already set`);
              }
              seenOneofs |= known.oneofBit;
            }
            const value = field.kind === "message" ? this.#message(subPlan(known)) : this.#scalar(known, first);
            if (value !== undefined) slots[field.name] = value;
          }
        }
        const next = this.#skipSpace();
        this.#at += 1;
        if (next === CLOSE_OBJECT) break;
        if (next !== COMMA) throw new Trouble();
        this.#skipSpace();
      }
    }
    this.#depth -= 1;
    this.#messageDepth -= 1;
    return message;
  }

  #list(plan: FieldPlan, list: unknown[]): void {
    if (this.#text.charCodeAt(this.#at) !== OPEN_ARRAY) throw this.#unexpectedToken();
    this.#enter();
    this.#at += 1;
    if (this.#skipSpace() === CLOSE_ARRAY) this.#at += 1;
    else {
      for (;;) {
        const value = plan.field.kind === "message" ? this.#message(subPlan(plan)) : this.#scalar(plan, this.#text.charCodeAt(this.#at));
        if (value !== undefined) list.push(value);
        const next = this.#skipSpace();
        this.#at += 1;
        if (next === CLOSE_ARRAY) break;
        if (next !== COMMA) throw new Trouble();
        this.#skipSpace();
      }
    }
    this.#depth -= 1;
  }

  #map(plan: FieldPlan, map: Map<string, object>): void {
    if (this.#text.charCodeAt(this.#at) !== OPEN_OBJECT) throw this.#unexpectedToken();
    this.#enter();
    this.#at += 1;
    if (this.#skipSpace() === CLOSE_OBJECT) this.#at += 1;
    else {
      for (;;) {
        const keyAt = this.#at;
        const key = this.#string();
        if (map.has(key)) throw this.#error(keyAt, `duplicate map key ${this.#raw(keyAt, this.#at)}`);
        if (this.#skipSpace() !== COLON) throw new Trouble();
        this.#at += 1;
        this.#skipSpace();
        map.set(key, this.#message(subPlan(plan)));
        const next = this.#skipSpace();
        this.#at += 1;
        if (next === CLOSE_OBJECT) break;
        if (next !== COMMA) throw new Trouble();
        this.#skipSpace();
      }
    }
    this.#depth -= 1;
  }

  // ---- scalars ----

  /** Undefined means: leave the field as it is. `first` is the char at the current place. */
  #scalar(plan: FieldPlan, first: number): unknown {
    const from = this.#at;
    const field = plan.field;
    let value: unknown;
    switch (field.kind) {
      case "bool":
        if (first === 0x74) {
          this.#literal("true");
          return true;
        }
        if (first === 0x66) {
          this.#literal("false");
          return false;
        }
        break;
      case "string":
        if (first === QUOTE) return this.#string();
        break;
      case "bytes":
        if (first === QUOTE) {
          value = this.#bytes();
          if (value !== undefined) return value;
        }
        break;
      case "enum":
        if (first === QUOTE) return field.enum?.numbers.get(this.#string());
        value = this.#bareInteger(plan, first);
        if (value !== undefined) return Number(value);
        break;
      default:
        value = first === QUOTE ? this.#quotedInteger(plan) : this.#bareInteger(plan, first);
        if (value !== undefined) return integerOf(field, value as number | bigint);
    }
    this.#at = from;
    throw this.#error(from, `invalid value for ${field.kind} field ${field.jsonName}: ${this.#token()}`);
  }

  /** Undefined if this is no number, or not an integer within the limits of the field. */
  #bareInteger(plan: FieldPlan, first: number): number | bigint | undefined {
    if (first !== MINUS && !isDigit(first)) return undefined;
    const plain = this.#plainInteger(this.#at, COMMA) ?? this.#plainInteger(this.#at, CLOSE_OBJECT);
    return plain === undefined ? integerWithin(plan, this.#number()) : withinNumber(plan, plain);
  }

  /** An integer without frills from `from` up to the char `end`; undefined, and nothing read, for any other. */
  #plainInteger(from: number, end: number): number | undefined {
    const text = this.#text;
    let at = from;
    let c = text.charCodeAt(at);
    const negative = c === MINUS;
    if (negative) c = text.charCodeAt(++at);
    const digitsAt = at;
    let value = 0;
    while (isDigit(c)) {
      value = value * 10 + (c - 0x30);
      c = text.charCodeAt(++at);
    }
    const digits = at - digitsAt;
    if (c !== end || digits === 0 || digits > SAFE_DIGITS || (digits > 1 && text.charCodeAt(digitsAt) === 0x30)) return undefined;
    this.#at = at;
    return negative ? 0 - value : value;
  }

  #quotedInteger(plan: FieldPlan): number | bigint | undefined {
    const plain = this.#plainInteger(this.#at + 1, QUOTE);
    if (plain !== undefined) {
      this.#at += 1;
      return withinNumber(plan, plain);
    }
    const digits = quotedNumber(this.#string());
    return digits === undefined ? undefined : integerWithin(plan, digits);
  }

  #number(): string {
    const digits = numberAt(this.#text, this.#at);
    if (digits === undefined) throw new Trouble();
    this.#at += digits.length;
    return digits;
  }

  #literal(literal: string): void {
    if (!this.#text.startsWith(literal, this.#at)) throw new Trouble();
    this.#at += literal.length;
  }

  // ---- strings ----

  #string(): string {
    const from = this.#at + 1;
    if (this.#text.charCodeAt(this.#at) !== QUOTE) throw new Trouble();
    if (this.#noEscapes) {
      const end = this.#text.indexOf('"', from);
      if (end < 0) throw new Trouble();
      const raw = this.#text.slice(from, end);
      if (!NOT_PLAIN.test(raw)) {
        this.#at = end + 1;
        return raw;
      }
    }
    return this.#escapedString();
  }

  /** The field that the string here names. */
  #knownField(plan: MessagePlan): FieldPlan | undefined {
    const from = this.#at;
    if (this.#noEscapes && this.#text.charCodeAt(from) === QUOTE) {
      const end = this.#text.indexOf('"', from + 1);
      const known = plan.fields.get(this.#text.slice(from + 1, end));
      if (known !== undefined) {
        this.#at = end + 1;
        return known;
      }
    }
    return plan.fields.get(this.#string());
  }

  #bytes(): Uint8Array | undefined {
    const from = this.#at;
    if (this.#noEscapes) {
      const end = this.#text.indexOf('"', from + 1);
      if (end < 0) throw new Trouble();
      const bytes = base64PlainBytes(this.#text.slice(from + 1, end));
      if (bytes !== undefined) {
        this.#at = end + 1;
        return bytes;
      }
    }
    return base64Bytes(this.#string());
  }

  #escapedString(): string {
    const text = this.#text;
    const from = this.#at;
    const parts: string[] = [];
    let at = from + 1;
    let copied = at;
    for (;;) {
      const c = text.charCodeAt(at);
      if (c === QUOTE) break;
      if (!(c >= 0x20)) throw new Trouble(); // also the end of the text, where c is not a number
      if (c !== BACKSLASH) {
        at += 1;
        continue;
      }
      this.#utf8(text.slice(copied, at), from, parts);
      const letter = text.charAt(at + 1);
      const simple = SIMPLE_ESCAPES.get(letter);
      if (simple !== undefined) {
        parts.push(simple);
        at += 2;
      } else {
        if (letter !== "u") throw new Trouble();
        const unit = hexUnit(text, at);
        at += 6;
        if (unit < 0xd800 || unit > 0xdfff) parts.push(String.fromCharCode(unit));
        else {
          const six = text.slice(at, at + 6);
          if (six.length < 6) throw new JsonError("proto: unexpected EOF");
          const low = six.startsWith("\\u") ? hexUnit(text, at) : 0;
          if (unit >= 0xdc00 || low < 0xdc00 || low > 0xdfff) {
            throw this.#syntaxError(from, `invalid escape code ${quoteGo(six)} in string`);
          }
          parts.push(String.fromCharCode(unit, low));
          at += 6;
        }
      }
      copied = at;
    }
    this.#utf8(text.slice(copied, at), from, parts);
    this.#at = at + 1;
    return parts.length === 1 ? (parts[0] as string) : parts.join("");
  }

  #utf8(raw: string, stringAt: number, parts: string[]): void {
    if (raw === "") return;
    if (!NOT_ASCII.test(raw)) {
      parts.push(raw);
      return;
    }
    const decoded = utf8TextStrict(latin1Bytes(raw));
    if (decoded === undefined) throw this.#syntaxError(stringAt, "invalid UTF-8 in string");
    parts.push(decoded);
  }

  // ---- values nobody asked for ----

  /** Without recursion: this is where a hostile body would dig. */
  #skipValue(): void {
    const open: number[] = [];
    for (;;) {
      const c = this.#skipSpace();
      let ended = true;
      switch (c) {
        case QUOTE:
          this.#string();
          break;
        case OPEN_OBJECT:
        case OPEN_ARRAY: {
          if (this.#depth + open.length >= JSON_DEPTH_MAX) throw new Trouble();
          this.#at += 1;
          const close = c === OPEN_OBJECT ? CLOSE_OBJECT : CLOSE_ARRAY;
          if (this.#skipSpace() === close) this.#at += 1;
          else {
            open.push(close);
            if (c === OPEN_OBJECT) this.#name();
            ended = false;
          }
          break;
        }
        case 0x74:
          this.#literal("true");
          break;
        case 0x66:
          this.#literal("false");
          break;
        case 0x6e:
          this.#literal("null");
          break;
        default:
          this.#number();
      }
      while (ended) {
        const close = open.at(-1);
        if (close === undefined) return;
        const next = this.#skipSpace();
        this.#at += 1;
        if (next === close) open.pop();
        else {
          if (next !== COMMA) throw new Trouble();
          this.#skipSpace();
          if (close === CLOSE_OBJECT) this.#name();
          ended = false;
        }
      }
    }
  }

  #name(): void {
    this.#string();
    if (this.#skipSpace() !== COLON) throw new Trouble();
    this.#at += 1;
  }

  // ---- places and errors ----

  #enter(): void {
    this.#depth += 1;
    if (this.#depth > JSON_DEPTH_MAX) throw new Trouble();
  }

  /** Goes to the next char that is not white space and returns it; NaN at the end. */
  #skipSpace(): number {
    const text = this.#text;
    let c = text.charCodeAt(this.#at);
    while (isSpace(c)) {
      this.#at += 1;
      c = text.charCodeAt(this.#at);
    }
    return c;
  }

  /** The token at the current place as it stands there. */
  #token(): string {
    const from = this.#at;
    const c = this.#text.charCodeAt(from);
    if (c === QUOTE) this.#string();
    else if (c === 0x74) this.#literal("true");
    else if (c === 0x66) this.#literal("false");
    else if (c === 0x6e) this.#literal("null");
    else if (c === MINUS || isDigit(c)) this.#number();
    else this.#at += 1;
    return this.#raw(from, this.#at);
  }

  #raw(from: number, to: number): string {
    const raw = this.#text.slice(from, to);
    return utf8TextStrict(latin1Bytes(raw)) ?? raw;
  }

  #unexpectedToken(): JsonError {
    const from = this.#at;
    return this.#syntaxError(from, `unexpected token ${this.#token()}`);
  }

  #syntaxError(at: number, what: string): JsonError {
    return new JsonError(`proto: syntax error (${this.#place(at)}): ${what}`);
  }

  #error(at: number, what: string): JsonError {
    return new JsonError(`proto: (${this.#place(at)}): ${what}`);
  }

  /** Both from 1; the column counts code points. */
  #place(at: number): string {
    let line = 1;
    let column = 1;
    for (let i = 0; i < at; i += 1) {
      const c = this.#text.charCodeAt(i);
      if (c === 0x0a) {
        line += 1;
        column = 1;
      } else if ((c & 0xc0) !== 0x80) column += 1;
    }
    return `line ${line}:${column}`;
  }
}

const SIMPLE_ESCAPES: ReadonlyMap<string, string> = new Map([
  ['"', '"'],
  ["\\", "\\"],
  ["/", "/"],
  ["b", "\b"],
  ["f", "\f"],
  ["n", "\n"],
  ["r", "\r"],
  ["t", "\t"],
]);

/** The code unit of the `\uXXXX` at `at`. */
function hexUnit(text: string, at: number): number {
  const digits = text.slice(at + 2, at + 6);
  if (!/^[0-9a-fA-F]{4}$/.test(digits)) throw new Trouble();
  return Number.parseInt(digits, 16);
}
