/** Header compression (RFC 7541), the receiving side. */
import { keyStringIn as latin1TextIn } from "../../../base/bytes.ts";
import { ConnectionError, H2Code } from "./errors.ts";
import { huffmanDecode } from "./huffman.ts";

/** What a table entry counts beside its texts (RFC 7541 section 4.1). */
const ENTRY_OVERHEAD_BYTES = 32;
/** The size that the peer may use for its table: the protocol's default, which we do not change. */
export const TABLE_BYTES_MAX = 4096;
/** Ring of the table: as many entries as fit into its size at most, rounded up to a power of two. */
const RING = 128;

/** One field of a header block. Texts have one char per byte. */
export class HeaderField {
  readonly name: string;
  readonly value: string;
  /** What the field counts in the table and in the header list, in bytes. */
  readonly size: number;
  /** What {@link HeaderSink.kindOf} says of the name; found out once per table entry instead of once per request. */
  readonly kind: number;

  constructor(name: string, value: string, kind: number) {
    this.name = name;
    this.value = value;
    this.size = name.length + value.length + ENTRY_OVERHEAD_BYTES;
    this.kind = kind;
  }
}

export interface HeaderSink {
  /** What the field is, in the sink's own numbers. */
  kindOf(name: string, value: string): number;
  field(field: HeaderField): void;
}

// biome-ignore format: a table
const STATIC_FIELDS: readonly (readonly [name: string, value?: string])[] = [
  [":authority"], [":method", "GET"], [":method", "POST"], [":path", "/"], [":path", "/index.html"], [":scheme", "http"], [":scheme", "https"],
  [":status", "200"], [":status", "204"], [":status", "206"], [":status", "304"], [":status", "400"], [":status", "404"], [":status", "500"],
  ["accept-charset"], ["accept-encoding", "gzip, deflate"], ["accept-language"], ["accept-ranges"], ["accept"], ["access-control-allow-origin"],
  ["age"], ["allow"], ["authorization"], ["cache-control"], ["content-disposition"], ["content-encoding"], ["content-language"],
  ["content-length"], ["content-location"], ["content-range"], ["content-type"], ["cookie"], ["date"], ["etag"], ["expect"], ["expires"],
  ["from"], ["host"], ["if-match"], ["if-modified-since"], ["if-none-match"], ["if-range"], ["if-unmodified-since"], ["last-modified"], ["link"],
  ["location"], ["max-forwards"], ["proxy-authenticate"], ["proxy-authorization"], ["range"], ["referer"], ["refresh"], ["retry-after"],
  ["server"], ["set-cookie"], ["strict-transport-security"], ["transfer-encoding"], ["user-agent"], ["vary"], ["via"], ["www-authenticate"],
];

/**
 * Decodes the header blocks of one connection, in order. What breaks the code throws {@link ConnectionError}: the table is then out of step and nothing that
 * follows could be understood.
 */
export class HpackDecoder {
  readonly #sink: HeaderSink;
  readonly #static: readonly HeaderField[];
  /** The newest entry is at `#next - 1`. */
  readonly #ring: (HeaderField | undefined)[] = new Array<HeaderField | undefined>(RING).fill(undefined);
  #next = 0;
  #count = 0;
  #bytes = 0;
  #bytesMax = TABLE_BYTES_MAX;
  #block: Uint8Array = NOTHING;
  #at = 0;
  #end = 0;
  #scratch: Uint8Array = NOTHING;

  constructor(sink: HeaderSink) {
    this.#sink = sink;
    this.#static = STATIC_FIELDS.map(([name, value]) => new HeaderField(name, value ?? "", sink.kindOf(name, value ?? "")));
  }

  /** Entries in the dynamic table. */
  get tableSize(): number {
    return this.#count;
  }

  /** Hands each field of the block `bytes[from, to)` to the sink. */
  decode(bytes: Uint8Array, from: number, to: number): void {
    this.#block = bytes;
    this.#at = from;
    this.#end = to;
    let first = true;
    while (this.#at < to) {
      const byte = bytes[this.#at] as number;
      if (byte >= 0x80) {
        this.#sink.field(this.#indexed(this.#integer(7)));
      } else if (byte >= 0x40) {
        const field = this.#literal(this.#integer(6));
        this.#insert(field);
        this.#sink.field(field);
      } else if (byte >= 0x20) {
        if (!first) throw broken("table size change inside a block");
        const size = this.#integer(5);
        if (size > TABLE_BYTES_MAX) throw broken("table larger than allowed");
        this.#bytesMax = size;
        this.#evict(size);
        continue;
      } else {
        this.#sink.field(this.#literal(this.#integer(4)));
      }
      first = false;
    }
    this.#block = NOTHING;
  }

  #indexed(index: number): HeaderField {
    if (index === 0) throw broken("index 0");
    if (index <= STATIC_FIELDS.length) return this.#static[index - 1] as HeaderField;
    const back = index - STATIC_FIELDS.length;
    if (back > this.#count) throw broken("index beyond the table");
    return this.#ring[(this.#next - back) & (RING - 1)] as HeaderField;
  }

  #literal(nameIndex: number): HeaderField {
    const name = nameIndex === 0 ? this.#text() : this.#indexed(nameIndex).name;
    const value = this.#text();
    return new HeaderField(name, value, this.#sink.kindOf(name, value));
  }

  #insert(field: HeaderField): void {
    if (field.size > this.#bytesMax) {
      // By the rules not an error: the table is empty afterwards.
      this.#evict(0);
      return;
    }
    this.#evict(this.#bytesMax - field.size);
    this.#ring[this.#next & (RING - 1)] = field;
    this.#next = (this.#next + 1) & 0xffffff;
    this.#count += 1;
    this.#bytes += field.size;
  }

  /** Drops the oldest entries until at most `bytes` are left. */
  #evict(bytes: number): void {
    while (this.#bytes > bytes) {
      const oldest = (this.#next - this.#count) & (RING - 1);
      this.#bytes -= (this.#ring[oldest] as HeaderField).size;
      this.#ring[oldest] = undefined;
      this.#count -= 1;
    }
  }

  #integer(prefixBits: number): number {
    const mask = (1 << prefixBits) - 1;
    let value = (this.#block[this.#at++] as number) & mask;
    if (value < mask) return value;
    // Four more bytes reach beyond every length and index that can be right.
    for (let unit = 1; unit <= 0x200000; unit *= 128) {
      if (this.#at >= this.#end) throw broken("cut off");
      const byte = this.#block[this.#at++] as number;
      value += (byte & 0x7f) * unit;
      if (byte < 0x80) return value;
    }
    throw broken("integer too large");
  }

  #text(): string {
    if (this.#at >= this.#end) throw broken("cut off");
    const huffman = (this.#block[this.#at] as number) >= 0x80;
    const length = this.#integer(7);
    const from = this.#at;
    if (length > this.#end - from) throw broken("cut off");
    this.#at = from + length;
    if (!huffman) return latin1TextIn(this.#block, from, from + length);
    const room = Math.ceil((length * 8) / 5);
    let scratch = this.#scratch;
    if (scratch.byteLength < room) {
      scratch = new Uint8Array(Math.max(256, room));
      // A large one is for once.
      if (room <= TABLE_BYTES_MAX) this.#scratch = scratch;
    }
    const decoded = huffmanDecode(this.#block, from, from + length, scratch);
    if (decoded < 0) throw broken("Huffman code");
    return latin1TextIn(scratch, 0, decoded);
  }
}

const NOTHING = new Uint8Array(0);

function broken(what: string): ConnectionError {
  return new ConnectionError(H2Code.COMPRESSION_ERROR, `header block: ${what}`);
}
