/** Collects the fields of one header block and judges whether they are a well-formed request (RFC 9113 section 8). */
import type { RequestHead } from "../transport.ts";
import type { HeaderField, HeaderSink } from "./hpack.ts";

const Kind = {
  other: 0,
  method: 1,
  scheme: 2,
  path: 3,
  authority: 4,
  contentType: 5,
  te: 6,
  timeout: 7,
  encoding: 8,
  token: 9,
  authorization: 10,
  hasLeader: 11,
  clientApiVersion: 12,
  contentLength: 13,
  /** Makes the whole block malformed. */
  bad: 14,
} as const;

const KINDS = new Map<string, number>([
  [":method", Kind.method],
  [":scheme", Kind.scheme],
  [":path", Kind.path],
  [":authority", Kind.authority],
  ["content-type", Kind.contentType],
  ["te", Kind.te],
  ["grpc-timeout", Kind.timeout],
  ["grpc-encoding", Kind.encoding],
  ["token", Kind.token],
  ["authorization", Kind.authorization],
  ["hasleader", Kind.hasLeader],
  ["client-api-version", Kind.clientApiVersion],
  ["content-length", Kind.contentLength],
  // Of one connection only: forbidden in HTTP/2.
  ["connection", Kind.bad],
  ["proxy-connection", Kind.bad],
  ["keep-alive", Kind.bad],
  ["transfer-encoding", Kind.bad],
  ["upgrade", Kind.bad],
]);

const NAME = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/;
/** Anything but tab, printable characters and bytes beyond ASCII. */
const CONTROL = /[^\t\x20-\x7e\x80-\xff]/;
const DIGITS = /^\d{1,15}$/;

/** One per connection, used again for each block. */
export class RequestFields implements HeaderSink, RequestHead {
  readonly commonName: string | undefined;
  readonly #bytesMax: number;

  method = "";
  path = "";
  contentType: string | undefined;
  encoding: string | undefined;
  timeout: string | undefined;
  token: string | undefined;
  authorization: string | undefined;
  hasLeader: string | undefined;
  clientApiVersion: string | undefined;
  /** -1 when there is none. */
  contentLength = -1;

  #scheme = false;
  #authority = false;
  /** A field that is no pseudo field was seen. */
  #regular = false;
  #pseudo = false;
  #malformed = false;
  #bytes = 0;

  constructor(bytesMax: number, commonName: string | undefined) {
    this.#bytesMax = bytesMax;
    this.commonName = commonName;
  }

  /** Before each block. */
  reset(): void {
    this.method = "";
    this.path = "";
    this.contentType = undefined;
    this.encoding = undefined;
    this.timeout = undefined;
    this.token = undefined;
    this.authorization = undefined;
    this.hasLeader = undefined;
    this.clientApiVersion = undefined;
    this.contentLength = -1;
    this.#scheme = false;
    this.#authority = false;
    this.#regular = false;
    this.#pseudo = false;
    this.#malformed = false;
    this.#bytes = 0;
  }

  /** Size of the list, as HPACK counts it. */
  get bytes(): number {
    return this.#bytes;
  }

  get tooLarge(): boolean {
    return this.#bytes > this.#bytesMax;
  }

  get wellFormedRequest(): boolean {
    return !this.#malformed && this.#scheme && this.method !== "" && this.path !== "";
  }

  get wellFormedTrailers(): boolean {
    return !this.#malformed && !this.#pseudo;
  }

  kindOf(name: string, value: string): number {
    if (CONTROL.test(value)) return Kind.bad;
    const kind = KINDS.get(name);
    if (kind === Kind.te) return value === "trailers" ? Kind.te : Kind.bad;
    if (kind === Kind.contentLength) return DIGITS.test(value) ? Kind.contentLength : Kind.bad;
    if (kind !== undefined) return kind;
    return NAME.test(name) ? Kind.other : Kind.bad;
  }

  field(field: HeaderField): void {
    this.#bytes += field.size;
    // What is too large is only counted.
    if (this.#bytes > this.#bytesMax) return;
    const { kind, value } = field;
    if (kind >= Kind.contentType) this.#regular = true;
    // Of several fields of one name the first counts, as with etcd; a second pseudo field is an error.
    switch (kind) {
      case Kind.other:
        this.#regular = true;
        return;
      case Kind.method:
        this.#pseudoField(this.method !== "");
        this.method = value;
        return;
      case Kind.scheme:
        this.#pseudoField(this.#scheme);
        this.#scheme = true;
        return;
      case Kind.path:
        this.#pseudoField(this.path !== "");
        this.path = value;
        return;
      case Kind.authority:
        this.#pseudoField(this.#authority);
        this.#authority = true;
        return;
      case Kind.contentType:
        this.contentType ??= value;
        return;
      case Kind.timeout:
        this.timeout ??= value;
        return;
      case Kind.encoding:
        this.encoding ??= value;
        return;
      case Kind.token:
        this.token ??= value;
        return;
      case Kind.authorization:
        this.authorization ??= value;
        return;
      case Kind.hasLeader:
        this.hasLeader ??= value;
        return;
      case Kind.clientApiVersion:
        this.clientApiVersion ??= value;
        return;
      case Kind.contentLength:
        if (this.contentLength >= 0 && this.contentLength !== Number(value)) this.#malformed = true;
        this.contentLength = Number(value);
        return;
      case Kind.bad:
        this.#malformed = true;
        return;
      default:
        return;
    }
  }

  #pseudoField(again: boolean): void {
    this.#pseudo = true;
    if (again || this.#regular) this.#malformed = true;
  }
}
