/** A client that speaks HTTP/2 frame by frame, for tests and measurements: it can say everything that the protocol allows, and what it forbids. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { type HeaderField, HpackDecoder } from "../../src/server/grpc/http2/hpack.ts";

export const Frame = {
  DATA: 0,
  HEADERS: 1,
  PRIORITY: 2,
  RST_STREAM: 3,
  SETTINGS: 4,
  PUSH_PROMISE: 5,
  PING: 6,
  GOAWAY: 7,
  WINDOW_UPDATE: 8,
  CONTINUATION: 9,
} as const;

export const Flag = { END_STREAM: 1, ACK: 1, END_HEADERS: 4, PADDED: 8, PRIORITY: 32 } as const;

export interface ReceivedFrame {
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
  readonly payload: Buffer;
}

/** Lower-case name to value, one char per byte. Of several fields of one name the values are joined with a comma. */
export type Fields = Readonly<Record<string, string>>;

/** What came for one request. */
export class Answer {
  headers: Fields | undefined;
  trailers: Fields | undefined;
  /** True when the first headers were the last. */
  trailersOnly = false;
  ended = false;
  resetCode: number | undefined;
  /** How many DATA frames it came in. */
  dataFrames = 0;
  /** How much came. */
  byteLength = 0;
  #parts: Buffer[] = [];

  /** All that came, behind each other. */
  get bytes(): Buffer {
    if (this.#parts.length > 1) this.#parts = [Buffer.concat(this.#parts)];
    return this.#parts[0] ?? Buffer.alloc(0);
  }

  add(bytes: Buffer): void {
    this.dataFrames += 1;
    this.byteLength += bytes.byteLength;
    this.#parts.push(bytes);
  }

  get over(): boolean {
    return this.ended || this.resetCode !== undefined;
  }

  /** The whole messages that came, with their flag. */
  get messages(): { readonly flag: number; readonly bytes: Buffer }[] {
    const found: { flag: number; bytes: Buffer }[] = [];
    for (let at = 0; at + 5 <= this.bytes.byteLength; ) {
      const length = this.bytes.readUInt32BE(at + 1);
      if (at + 5 + length > this.bytes.byteLength) break;
      found.push({ flag: this.bytes[at] as number, bytes: this.bytes.subarray(at + 5, at + 5 + length) });
      at += 5 + length;
    }
    return found;
  }

  /** Of the trailers, or of the headers if there was nothing else. */
  get status(): string | undefined {
    return (this.trailers ?? this.headers)?.["grpc-status"];
  }

  get message(): string | undefined {
    return (this.trailers ?? this.headers)?.["grpc-message"];
  }
}

export interface H2ClientOptions {
  readonly host?: string;
  readonly socket?: Socket;
  /** Sent at the start; undefined: none. */
  readonly settings?: readonly (readonly [id: number, value: number])[];
  /** Gives window back for what came. Default true. */
  readonly autoWindow?: boolean;
  /** Answers SETTINGS and PING. Default true. */
  readonly autoAck?: boolean;
  /** Window given for the whole connection at the start, beyond the protocol's 65535. */
  readonly connectionWindow?: number;
}

const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

export class H2Client implements AsyncDisposable {
  readonly socket: Socket;
  readonly frames: ReceivedFrame[] = [];
  readonly answers = new Map<number, Answer>();
  closed = false;
  goAway: { readonly lastStreamId: number; readonly code: number; readonly debug: string } | undefined;
  /** Frames are kept for looking at. Measurements switch it off. */
  keepFrames = true;
  #nextId = 1;
  #buffer: Buffer = Buffer.alloc(0);
  #block: { streamId: number; flags: number; parts: Buffer[] } | undefined;
  #fields: Record<string, string> = {};
  readonly #decoder: HpackDecoder;
  readonly #autoWindow: boolean;
  readonly #autoAck: boolean;
  #wake: (() => void)[] = [];

  constructor(port: number, options: H2ClientOptions = {}) {
    this.socket = options.socket ?? connect({ port, host: options.host ?? "127.0.0.1", noDelay: true });
    this.#autoWindow = options.autoWindow ?? true;
    this.#autoAck = options.autoAck ?? true;
    this.#decoder = new HpackDecoder({
      kindOf: () => 0,
      field: (field: HeaderField) => {
        const known = this.#fields[field.name];
        this.#fields[field.name] = known === undefined ? field.value : `${known},${field.value}`;
      },
    });
    this.socket.on("data", (chunk: Buffer) => this.#data(chunk));
    this.socket.on("close", () => {
      this.closed = true;
      this.#notify();
    });
    // Being cut off is what some tests want to see.
    this.socket.on("error", () => undefined);
    this.socket.write(PREFACE);
    this.frame(
      Frame.SETTINGS,
      0,
      0,
      Buffer.concat(
        (options.settings ?? []).map(([id, value]) => {
          const setting = Buffer.alloc(6);
          setting.writeUInt16BE(id);
          setting.writeUInt32BE(value, 2);
          return setting;
        }),
      ),
    );
    if (options.connectionWindow !== undefined) this.windowUpdate(0, options.connectionWindow);
  }

  // -- sending ---------------------------------------------------------------------------------------------------------------------------

  nextId(): number {
    const id = this.#nextId;
    this.#nextId += 2;
    return id;
  }

  frame(type: number, flags: number, streamId: number, payload: Uint8Array = Buffer.alloc(0)): void {
    this.socket.write(frameBytes(type, flags, streamId, payload));
  }

  headers(streamId: number, block: Uint8Array, options: { endStream?: boolean } = {}): void {
    this.frame(Frame.HEADERS, Flag.END_HEADERS | (options.endStream === true ? Flag.END_STREAM : 0), streamId, block);
  }

  /** In frames of at most 16384 bytes. Takes no notice of the server's windows. */
  data(streamId: number, bytes: Uint8Array, options: { endStream?: boolean } = {}): void {
    let at = 0;
    do {
      const piece = bytes.subarray(at, at + 16_384);
      at += piece.byteLength;
      const last = at >= bytes.byteLength && options.endStream === true;
      this.frame(Frame.DATA, last ? Flag.END_STREAM : 0, streamId, piece);
    } while (at < bytes.byteLength);
  }

  reset(streamId: number, code = 8): void {
    const payload = Buffer.alloc(4);
    payload.writeUInt32BE(code);
    this.frame(Frame.RST_STREAM, 0, streamId, payload);
  }

  windowUpdate(streamId: number, increment: number): void {
    const payload = Buffer.alloc(4);
    payload.writeUInt32BE(increment);
    this.frame(Frame.WINDOW_UPDATE, 0, streamId, payload);
  }

  ping(data = "12345678"): void {
    this.frame(Frame.PING, 0, 0, Buffer.from(data, "latin1"));
  }

  /** A request from a header block made by hand. */
  openBlock(block: Uint8Array, options: { endStream?: boolean } = {}): number {
    const id = this.nextId();
    this.answers.set(id, new Answer());
    this.headers(id, block, options);
    return id;
  }

  /** Begins a call; `fields` are added to, or replace, those of an ordinary one. An undefined field is left out. */
  open(path: string, fields: Readonly<Record<string, string | undefined>> = {}, options: { endStream?: boolean } = {}): number {
    return this.openBlock(requestBlock(path, fields), options);
  }

  /** A call with one message and nothing more to say. */
  call(path: string, message: Uint8Array, fields: Readonly<Record<string, string | undefined>> = {}): number {
    const id = this.open(path, fields);
    this.data(id, grpcFrame(message), { endStream: true });
    return id;
  }

  /** {@link call}, and its whole answer. */
  async unary(path: string, message: Uint8Array, fields: Readonly<Record<string, string | undefined>> = {}): Promise<Answer> {
    return await this.finished(this.call(path, message, fields));
  }

  // -- waiting ---------------------------------------------------------------------------------------------------------------------------

  answer(streamId: number): Answer {
    const answer = this.answers.get(streamId);
    if (answer === undefined) throw new Error(`no request ${streamId}`);
    return answer;
  }

  /** Waits until the answer is complete, or the request reset, or the connection closed. */
  async finished(streamId: number): Promise<Answer> {
    const answer = this.answer(streamId);
    await this.until(
      () => answer.over || this.closed,
      () => `stream ${streamId}: ${JSON.stringify({ ...answer, bytes: answer.bytes.byteLength })}`,
    );
    return answer;
  }

  async until(condition: () => boolean, describe: () => string = () => condition.toString()): Promise<void> {
    const deadline = performance.now() + 10_000;
    while (!condition()) {
      if (performance.now() > deadline) throw new Error(`did not happen: ${describe()}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 100);
        this.#wake.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }

  untilClosed(): Promise<void> {
    return this.until(
      () => this.closed,
      () => "still open",
    );
  }

  count(type: number, streamId?: number): number {
    return this.frames.filter((frame) => frame.type === type && (streamId === undefined || frame.streamId === streamId)).length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.closed) return;
    const closed = once(this.socket, "close");
    this.socket.destroy();
    await closed;
  }

  // -- receiving -------------------------------------------------------------------------------------------------------------------------

  #data(chunk: Buffer): void {
    let bytes = this.#buffer.byteLength === 0 ? chunk : Buffer.concat([this.#buffer, chunk]);
    while (bytes.byteLength >= 9) {
      const length = bytes.readUIntBE(0, 3);
      if (bytes.byteLength < 9 + length) break;
      this.#received({
        type: bytes[3] as number,
        flags: bytes[4] as number,
        streamId: bytes.readUInt32BE(5) & 0x7fffffff,
        payload: bytes.subarray(9, 9 + length),
      });
      bytes = bytes.subarray(9 + length);
    }
    this.#buffer = bytes;
    this.#notify();
  }

  #notify(): void {
    if (this.#wake.length === 0) return;
    const wake = this.#wake;
    this.#wake = [];
    for (const resolve of wake) resolve();
  }

  #received(frame: ReceivedFrame): void {
    if (this.keepFrames) this.frames.push(frame);
    const answer = this.answers.get(frame.streamId);
    switch (frame.type) {
      case Frame.DATA:
        if (answer !== undefined) {
          answer.add(frame.payload);
          if ((frame.flags & Flag.END_STREAM) !== 0) answer.ended = true;
        }
        if (this.#autoWindow && frame.payload.byteLength > 0) {
          this.windowUpdate(0, frame.payload.byteLength);
          if (answer?.over === false) this.windowUpdate(frame.streamId, frame.payload.byteLength);
        }
        break;
      case Frame.HEADERS:
        this.#block = { streamId: frame.streamId, flags: frame.flags, parts: [frame.payload] };
        if ((frame.flags & Flag.END_HEADERS) !== 0) this.#endBlock();
        break;
      case Frame.CONTINUATION:
        this.#block?.parts.push(frame.payload);
        if ((frame.flags & Flag.END_HEADERS) !== 0) this.#endBlock();
        break;
      case Frame.RST_STREAM:
        if (answer !== undefined) answer.resetCode = frame.payload.readUInt32BE(0);
        break;
      case Frame.SETTINGS:
        if (this.#autoAck && (frame.flags & Flag.ACK) === 0) this.frame(Frame.SETTINGS, Flag.ACK, 0);
        break;
      case Frame.PING:
        if (this.#autoAck && (frame.flags & Flag.ACK) === 0) this.frame(Frame.PING, Flag.ACK, 0, frame.payload);
        break;
      case Frame.GOAWAY:
        this.goAway = {
          lastStreamId: frame.payload.readUInt32BE(0) & 0x7fffffff,
          code: frame.payload.readUInt32BE(4),
          debug: frame.payload.subarray(8).toString("latin1"),
        };
        break;
      default:
        break;
    }
  }

  #endBlock(): void {
    const block = this.#block;
    if (block === undefined) return;
    this.#block = undefined;
    const bytes = Buffer.concat(block.parts);
    this.#fields = {};
    this.#decoder.decode(bytes, 0, bytes.byteLength);
    const fields = this.#fields;
    const answer = this.answers.get(block.streamId);
    if (answer === undefined) return;
    const end = (block.flags & Flag.END_STREAM) !== 0;
    if (answer.headers === undefined) {
      answer.headers = fields;
      answer.trailersOnly = end;
    } else answer.trailers = fields;
    if (end) answer.ended = true;
  }
}

export function frameBytes(type: number, flags: number, streamId: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const frame = Buffer.alloc(9 + payload.byteLength);
  frame.writeUIntBE(payload.byteLength, 0, 3);
  frame[3] = type;
  frame[4] = flags;
  frame.writeUInt32BE(streamId, 5);
  frame.set(payload, 9);
  return frame;
}

/** A message with the five bytes that gRPC puts before it. */
export function grpcFrame(message: Uint8Array, flag = 0): Buffer {
  const frame = Buffer.alloc(5 + message.byteLength);
  frame[0] = flag;
  frame.writeUInt32BE(message.byteLength, 1);
  frame.set(message, 5);
  return frame;
}

/** A header block without any compression. Values have one char per byte. */
export function plainBlock(fields: readonly (readonly [name: string, value: string])[]): Buffer {
  return Buffer.concat(fields.flatMap(([name, value]) => [Buffer.from([0]), plainText(name), plainText(value)]));
}

function plainText(text: string): Buffer {
  return Buffer.concat([hpackInteger(text.length, 7, 0), Buffer.from(text, "latin1")]);
}

/** An integer of HPACK with `high` in the bits above the prefix. */
export function hpackInteger(value: number, prefixBits: number, high: number): Buffer {
  const mask = (1 << prefixBits) - 1;
  if (value < mask) return Buffer.from([high | value]);
  const bytes = [high | mask];
  let rest = value - mask;
  while (rest >= 128) {
    bytes.push((rest & 127) | 128);
    rest = Math.floor(rest / 128);
  }
  bytes.push(rest);
  return Buffer.from(bytes);
}

export function requestFields(path: string, fields: Readonly<Record<string, string | undefined>> = {}): [name: string, value: string][] {
  const all: Record<string, string | undefined> = {
    ":method": "POST",
    ":scheme": "http",
    ":path": path,
    ":authority": "test",
    "content-type": "application/grpc",
    te: "trailers",
    ...fields,
  };
  return Object.entries(all).filter((field): field is [string, string] => field[1] !== undefined);
}

export function requestBlock(path: string, fields: Readonly<Record<string, string | undefined>> = {}): Buffer {
  return plainBlock(requestFields(path, fields));
}
