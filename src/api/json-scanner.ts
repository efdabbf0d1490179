import { latin1Bytes, utf8TextStrict } from "../base/bytes.ts";
import { EtcdError, GrpcCode } from "../base/errors.ts";

/** A request body that is not JSON, or JSON that is not the wanted message. The text is the one etcd's gateway answers with. */
export class JsonError extends EtcdError {
  declare readonly reason: "invalid-json";

  constructor(message: string) {
    super("invalid-json", GrpcCode.InvalidArgument, message);
    this.name = "JsonError";
  }
}

/** How deep objects and arrays may nest, as in Go's encoding/json. */
export const JSON_DEPTH_MAX = 10_000;

// States, named after what the next byte belongs to.
const BEGIN_VALUE = 0;
const BEGIN_VALUE_OR_CLOSE = 1;
const BEGIN_KEY = 2;
const BEGIN_KEY_OR_CLOSE = 3;
const AFTER_VALUE = 4;
const STRING = 5;
const ESCAPE = 6;
const HEX = 7;
const MINUS = 8;
const ZERO = 9;
const INTEGER = 10;
const POINT = 11;
const FRACTION = 12;
const EXPONENT = 13;
const EXPONENT_SIGN = 14;
const EXPONENT_DIGITS = 15;
const LITERAL = 16;

// What encloses the value.
const IN_KEY = 1;
const IN_VALUE = 2;
const IN_ARRAY = 3;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/**
 * Finds the end of one JSON value, byte by byte, with the grammar and the error texts of Go's encoding/json (whose decoder the gateway
 * puts in front of the protobuf mapping). Text is latin1: one char per byte. Keeps its place between pieces of a stream.
 */
export class JsonScanner {
  #state = BEGIN_VALUE;
  #enclosing: number[] = [];
  #literal = "";
  #literalAt = 0;
  #hexLeft = 0;
  #begun = false;

  /** Ready for the next value. */
  reset(): void {
    this.#state = BEGIN_VALUE;
    this.#enclosing.length = 0;
    this.#begun = false;
  }

  /** Whether anything but white space was seen since the last reset. */
  get begun(): boolean {
    return this.#begun;
  }

  /** Whether the value would be complete if nothing came any more: true for a number at the top. */
  get completeAtEnd(): boolean {
    return this.#enclosing.length === 0 && this.#numberMayEnd();
  }

  /**
   * Reads from `from` on. Returns the index just behind the value, or -1 if `text` ended first.
   * @throws JsonError
   */
  scan(text: string, from: number): number {
    for (let at = from; at < text.length; at += 1) {
      const c = text.charCodeAt(at);
      switch (this.#state) {
        case STRING:
          if (c === QUOTE) {
            if (this.#endValue()) return at + 1;
          } else if (c === BACKSLASH) this.#state = ESCAPE;
          else if (c < 0x20) throw unexpected(c, "in string literal");
          break;
        case ESCAPE:
          if (c === 0x75) {
            this.#hexLeft = 4;
            this.#state = HEX;
          } else if (isSimpleEscape(c)) this.#state = STRING;
          else throw unexpected(c, "in string escape code");
          break;
        case HEX:
          if (!isHex(c)) throw unexpected(c, "in \\u hexadecimal character escape");
          this.#hexLeft -= 1;
          if (this.#hexLeft === 0) this.#state = STRING;
          break;
        case LITERAL: {
          if (c !== this.#literal.charCodeAt(this.#literalAt)) {
            throw unexpected(c, `in literal ${this.#literal} (expecting '${this.#literal.charAt(this.#literalAt)}')`);
          }
          this.#literalAt += 1;
          if (this.#literalAt === this.#literal.length && this.#endValue()) return at + 1;
          break;
        }
        case BEGIN_VALUE:
        case BEGIN_VALUE_OR_CLOSE:
          if (isSpace(c)) break;
          this.#begun = true;
          if (c === 0x5d && this.#state === BEGIN_VALUE_OR_CLOSE) {
            if (this.#close()) return at + 1;
          } else this.#beginValue(c);
          break;
        case BEGIN_KEY:
        case BEGIN_KEY_OR_CLOSE:
          if (isSpace(c)) break;
          if (c === 0x7d && this.#state === BEGIN_KEY_OR_CLOSE) {
            if (this.#close()) return at + 1;
          } else if (c === QUOTE) this.#state = STRING;
          else throw unexpected(c, "looking for beginning of object key string");
          break;
        case AFTER_VALUE:
          if (isSpace(c)) break;
          if (this.#afterValue(c)) return at + 1;
          break;
        default:
          // Numbers end with the byte behind them, which then counts on its own.
          if (this.#number(c)) break;
          if (this.#endValue()) return at;
          if (!isSpace(c) && this.#afterValue(c)) return at + 1;
      }
    }
    return -1;
  }

  #beginValue(c: number): void {
    switch (c) {
      case 0x7b:
        this.#open(IN_KEY, c);
        this.#state = BEGIN_KEY_OR_CLOSE;
        return;
      case 0x5b:
        this.#open(IN_ARRAY, c);
        this.#state = BEGIN_VALUE_OR_CLOSE;
        return;
      case QUOTE:
        this.#state = STRING;
        return;
      case 0x2d:
        this.#state = MINUS;
        return;
      case 0x30:
        this.#state = ZERO;
        return;
      case 0x74:
        this.#beginLiteral("true");
        return;
      case 0x66:
        this.#beginLiteral("false");
        return;
      case 0x6e:
        this.#beginLiteral("null");
        return;
      default:
        if (!isDigit(c)) throw unexpected(c, "looking for beginning of value");
        this.#state = INTEGER;
    }
  }

  #beginLiteral(literal: string): void {
    this.#literal = literal;
    this.#literalAt = 1;
    this.#state = LITERAL;
  }

  #open(kind: number, c: number): void {
    if (this.#enclosing.length >= JSON_DEPTH_MAX) throw unexpected(c, "exceeded max depth");
    this.#enclosing.push(kind);
  }

  /** True if that was the outermost one. */
  #close(): boolean {
    this.#enclosing.pop();
    return this.#endValue();
  }

  /** True if the value was the outermost one. */
  #endValue(): boolean {
    this.#state = AFTER_VALUE;
    return this.#enclosing.length === 0;
  }

  /** True if `c` closed the outermost value. */
  #afterValue(c: number): boolean {
    const last = this.#enclosing.length - 1;
    switch (this.#enclosing[last]) {
      case IN_KEY:
        if (c !== 0x3a) throw unexpected(c, "after object key");
        this.#enclosing[last] = IN_VALUE;
        this.#state = BEGIN_VALUE;
        return false;
      case IN_VALUE:
        if (c === 0x2c) {
          this.#enclosing[last] = IN_KEY;
          this.#state = BEGIN_KEY;
          return false;
        }
        if (c === 0x7d) return this.#close();
        throw unexpected(c, "after object key:value pair");
      default:
        if (c === 0x2c) {
          this.#state = BEGIN_VALUE;
          return false;
        }
        if (c === 0x5d) return this.#close();
        throw unexpected(c, "after array element");
    }
  }

  /** False if the number ended before `c`. */
  #number(c: number): boolean {
    switch (this.#state) {
      case MINUS:
        if (c === 0x30) this.#state = ZERO;
        else if (isDigit(c)) this.#state = INTEGER;
        else throw unexpected(c, "in numeric literal");
        return true;
      case INTEGER:
        if (isDigit(c)) return true;
        return this.#pointOrExponent(c);
      case ZERO:
        return this.#pointOrExponent(c);
      case POINT:
        if (!isDigit(c)) throw unexpected(c, "after decimal point in numeric literal");
        this.#state = FRACTION;
        return true;
      case FRACTION:
        if (isDigit(c)) return true;
        if (c !== 0x65 && c !== 0x45) return false;
        this.#state = EXPONENT;
        return true;
      case EXPONENT:
        if (c === 0x2b || c === 0x2d) {
          this.#state = EXPONENT_SIGN;
          return true;
        }
        return this.#exponentDigit(c);
      case EXPONENT_SIGN:
        return this.#exponentDigit(c);
      default:
        return isDigit(c);
    }
  }

  #exponentDigit(c: number): boolean {
    if (!isDigit(c)) throw unexpected(c, "in exponent of numeric literal");
    this.#state = EXPONENT_DIGITS;
    return true;
  }

  #pointOrExponent(c: number): boolean {
    if (c === 0x2e) this.#state = POINT;
    else if (c === 0x65 || c === 0x45) this.#state = EXPONENT;
    else return false;
    return true;
  }

  #numberMayEnd(): boolean {
    const state = this.#state;
    return state === ZERO || state === INTEGER || state === FRACTION || state === EXPONENT_DIGITS;
  }
}

export function unexpectedEof(): JsonError {
  return new JsonError("unexpected EOF");
}

function unexpected(c: number, context: string): JsonError {
  return new JsonError(`invalid character ${quoteByte(c)} ${context}`);
}

export function isSpace(c: number): boolean {
  return c === 0x20 || c === 0x0a || c === 0x0d || c === 0x09;
}

function isDigit(c: number): boolean {
  return c >= 0x30 && c <= 0x39;
}

function isHex(c: number): boolean {
  return isDigit(c) || (c >= 0x61 && c <= 0x66) || (c >= 0x41 && c <= 0x46);
}

function isSimpleEscape(c: number): boolean {
  return (
    c === QUOTE || c === BACKSLASH || c === 0x2f || c === 0x62 || c === 0x66 || c === 0x6e || c === 0x72 || c === 0x74 // " \ / b f n r t
  );
}

const SHORT_ESCAPES: Readonly<Record<string, string>> = {
  "\x07": "\\a",
  "\b": "\\b",
  "\f": "\\f",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\v": "\\v",
  "\\": "\\\\",
};

const PRINTABLE = /^[\p{L}\p{M}\p{N}\p{P}\p{S} ]$/u;

/** One char as it stands inside Go's quotes (strconv.Quote), apart from the quote itself. */
function quoteChar(char: string): string {
  const short = SHORT_ESCAPES[char];
  if (short !== undefined) return short;
  const code = char.codePointAt(0) as number;
  if (code < 0x20 || code === 0x7f) return `\\x${code.toString(16).padStart(2, "0")}`;
  if (PRINTABLE.test(char)) return char;
  return code < 0x10000 ? `\\u${code.toString(16).padStart(4, "0")}` : `\\U${code.toString(16).padStart(8, "0")}`;
}

/** A byte in single quotes, as encoding/json quotes the offender; bytes above 0x7f show as the char with that number. */
function quoteByte(c: number): string {
  return c === 0x27 ? "'\\''" : `'${quoteChar(String.fromCharCode(c))}'`;
}

/** Go's %q for bytes, one char per byte. What is not UTF-8 shows as hexadecimal bytes. */
export function quoteGo(bytes: string): string {
  let quoted = '"';
  for (let at = 0; at < bytes.length; ) {
    const first = bytes.charCodeAt(at);
    const length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    const char = at + length > bytes.length ? undefined : utf8TextStrict(latin1Bytes(bytes.slice(at, at + length)));
    if (char === undefined) {
      quoted += `\\x${first.toString(16)}`;
      at += 1;
    } else {
      quoted += char === '"' ? '\\"' : quoteChar(char);
      at += length;
    }
  }
  return `${quoted}"`;
}
