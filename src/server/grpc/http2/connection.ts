/**
 * One connection of HTTP/2 (RFC 9113), server side, as far as gRPC needs it: no push, no priorities, no upgrade. Reads frames, keeps streams and windows, shares
 * the way out among the streams in turn, and takes nothing amiss but what costs it more than it costs the client.
 */
import type { Duplex } from "node:stream";
import type { Clock, Timer } from "../../../base/clock.ts";
import type { OpenCall, PeerIdentity, ReceiveBudget, TransportLimits } from "../transport.ts";
import { STREAMS_MAX, UNLIMITED_STREAMS } from "../transport.ts";
import { AbuseAccounts, FrameCost, QUICK_RESET_MS, SMALL_DATA_BYTES } from "./abuse.ts";
import { AnswerHeaders } from "./answer-headers.ts";
import { ConnectionError, H2Code } from "./errors.ts";
import {
  FRAME_BYTES_MAX,
  FRAME_HEADER_BYTES,
  FrameFlag,
  FrameType,
  PREFACE,
  Setting,
  WINDOW_BYTES_DEFAULT,
  WINDOW_BYTES_MAX,
} from "./frame.ts";
import { HpackDecoder } from "./hpack.ts";
import { Output } from "./output.ts";
import { RequestFields } from "./request-fields.ts";
import { Stream, type StreamHost } from "./stream.ts";

/** Bytes that a client may send on all streams together before we have seen them. */
const RECEIVE_WINDOW_BYTES = 8 * 1024 * 1024;
/** Unsent answers from which on no more requests are handed over, until half of them are gone. */
const CONGESTED_BYTES = 16 * 1024 * 1024;
/** Streams that we ended before the client did: what it still sends on them is no offence. */
const REMEMBERED_RESETS_MAX = 1024;
/** How long a connection that we end may take to read why. */
const LINGER_MS = 1000;
/** Pings that come too soon and are let pass. */
const PING_STRIKES_MAX = 2;
/** Shortest interval between pings of a client that has no calls open. */
const IDLE_PING_MS = 7_200_000;
const PING_BYTES = 8;
/** Decoded header lists may be this much larger than allowed before the connection ends, and not only the request. */
const HEADER_BOMB_FACTOR = 2;
const DEBUG_BYTES_MAX = 256;

export interface ConnectionOptions {
  readonly open: OpenCall;
  readonly clock: Clock;
  readonly limits: TransportLimits;
  readonly budget: ReceiveBudget;
  readonly onBug: (error: unknown) => void;
  /** The socket is closed and every call told. */
  readonly onClosed: (connection: Connection) => void;
}

export class Connection implements StreamHost {
  readonly #options: ConnectionOptions;
  readonly #socket: Duplex;
  readonly #output: Output;
  readonly #fields: RequestFields;
  readonly #decoder: HpackDecoder;
  readonly #answers = new AnswerHeaders();
  readonly #abuse = new AbuseAccounts();
  readonly #streams = new Map<number, Stream>();
  readonly #streamsMax: number;
  #lastStreamId = 0;
  readonly #endedByUs = new Set<number>();
  /** Nothing is read any more; the socket is on its way out. */
  #dead = false;
  #closed = false;
  /** New calls are not taken any more; ids above this were never seen. */
  #drainFrom: number | undefined;
  #linger: Timer | undefined;

  // Reading. A frame that arrives in pieces is collected in memory of its own.
  #prefaceSeen = 0;
  #settingsSeen = false;
  readonly #head = Buffer.alloc(FRAME_HEADER_BYTES);
  #headFilled = 0;
  #payload: Buffer | undefined;
  #payloadFilled = 0;
  /** The stream of a header block that is not complete; 0: none. */
  #blockStream = 0;
  #blockFlags = 0;
  #block: Buffer | undefined;
  #blockBytes = 0;
  #blockTaken = 0;
  #recvWindow = WINDOW_BYTES_DEFAULT;
  /** Since when the preface or the rest of a header block is awaited. */
  #awaitingSince: number | undefined;
  nowMs: number;

  // Writing.
  sendWindow = WINDOW_BYTES_DEFAULT;
  #initialSendWindow = WINDOW_BYTES_DEFAULT;
  queuedBytes = 0;
  #congested = false;
  /** Streams that have something to send, in turn: the first of a ring of them. */
  #firstWaiting: Stream | undefined;
  #pumping = false;
  #pumpScheduled = false;

  // Keeping alive.
  #lastReadMs: number;
  #lastPingMs: number | undefined;
  #strikes = 0;
  #forgiven = false;
  #askedMs: number | undefined;
  #sweptMs: number;

  constructor(options: ConnectionOptions, socket: Duplex, peer: PeerIdentity) {
    const { limits, clock } = options;
    this.#options = options;
    this.#socket = socket;
    this.nowMs = clock.monotonicMs();
    this.#lastReadMs = this.nowMs;
    this.#sweptMs = this.nowMs;
    this.#awaitingSince = this.nowMs;
    this.#output = new Output(socket, () => this.#afterFlush());
    this.#fields = new RequestFields(limits.headerListBytesMax, peer.commonName);
    this.#decoder = new HpackDecoder(this.#fields);
    this.#streamsMax = limits.maxConcurrentStreams < UNLIMITED_STREAMS ? limits.maxConcurrentStreams : STREAMS_MAX;
    this.#sendSettings();
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
    socket.on("end", () => this.#ended());
    socket.on("drain", () => this.#pump());
    socket.on("error", ignoreError);
    socket.on("close", () => this.#onClose());
    socket.resume();
  }

  get streams(): number {
    return this.#streams.size;
  }

  // -- its end -----------------------------------------------------------------------------------------------------------------------------

  /** Takes no new calls, ends those that do not end by themselves, and closes the connection when the last has ended. */
  drain(): void {
    if (this.#dead || this.#drainFrom !== undefined) return;
    this.#drainFrom = this.#lastStreamId;
    this.#writeGoAway(this.#lastStreamId, H2Code.NO_ERROR, "");
    for (const stream of this.#streams.values()) stream.handler?.closing();
    this.#output.flush();
    this.#endWhenDrained();
  }

  /** At once. */
  destroy(): void {
    this.#dead = true;
    this.#socket.destroy();
  }

  /** Looks at what takes too long. Called about once a second. */
  sweep(nowMs: number): void {
    this.#abuse.elapsed(nowMs - this.#sweptMs);
    this.#sweptMs = nowMs;
    const { limits } = this.#options;
    if (this.#dead) return;
    if (this.#awaitingSince !== undefined && nowMs - this.#awaitingSince > limits.headersMs) {
      this.destroy();
      return;
    }
    this.#keepAlive(nowMs);
    for (const stream of this.#streams.values()) {
      if (stream.handler?.incomplete === true && nowMs - stream.openedMs > limits.requestMs) this.#resetStream(stream, H2Code.CANCEL);
    }
    if (this.#streams.size === 0) this.#output.release();
  }

  #keepAlive(nowMs: number): void {
    const { keepaliveIntervalMs, keepaliveTimeoutMs } = this.#options.limits;
    if (keepaliveIntervalMs <= 0) return;
    if (this.#askedMs !== undefined) {
      if (this.#lastReadMs >= this.#askedMs) this.#askedMs = undefined;
      else if (keepaliveTimeoutMs > 0 && nowMs - this.#askedMs >= keepaliveTimeoutMs) this.destroy();
      return;
    }
    if (nowMs - this.#lastReadMs < keepaliveIntervalMs) return;
    this.#askedMs = nowMs;
    this.#output.frame(FrameType.PING, 0, 0, new Uint8Array(PING_BYTES));
  }

  /** Ends the connection with a reason. */
  #goAway(code: H2Code, debug: string): void {
    if (this.#dead) return;
    this.#dead = true;
    this.#writeGoAway(this.#drainFrom ?? this.#lastStreamId, code, debug);
    this.#output.flush();
    this.#dropStreams();
    this.#end();
  }

  /** Lets the client read what was sent, but not for long. */
  #end(): void {
    this.#dead = true;
    this.#socket.end();
    this.#linger ??= this.#options.clock.timer(LINGER_MS, () => this.#socket.destroy());
  }

  #endWhenDrained(): void {
    if (this.#drainFrom === undefined || this.#streams.size > 0 || this.#dead) return;
    this.#output.flush();
    this.#end();
  }

  /** The client has closed its side: without WINDOW_UPDATE and RST_STREAM there is no HTTP/2. */
  #ended(): void {
    this.#socket.destroy();
  }

  #onClose(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#dead = true;
    this.#linger?.cancel();
    this.#forgetBlock();
    this.#dropStreams();
    this.#options.onClosed(this);
  }

  #dropStreams(): void {
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    this.#firstWaiting = undefined;
    for (const stream of streams) stream.drop();
  }

  // -- reading -----------------------------------------------------------------------------------------------------------------------------

  #read(chunk: Buffer): void {
    if (this.#dead) return;
    this.nowMs = this.#options.clock.monotonicMs();
    this.#lastReadMs = this.nowMs;
    try {
      this.#parse(chunk);
    } catch (error) {
      if (error instanceof ConnectionError) {
        this.#goAway(error.code, error.message);
        return;
      }
      this.#goAway(H2Code.INTERNAL_ERROR, "");
      this.#options.onBug(error);
    }
  }

  #parse(chunk: Buffer): void {
    let at = this.#prefaceSeen < PREFACE.byteLength ? this.#readPreface(chunk) : 0;
    if (this.#headFilled > 0) at = this.#readSplit(chunk, at);
    const end = chunk.byteLength;
    while (!this.#dead && end - at >= FRAME_HEADER_BYTES) {
      const length = payloadLength(chunk, at);
      const payload = at + FRAME_HEADER_BYTES;
      if (end - payload < length) break;
      at = payload + length;
      this.#frame(chunk, payload, length, chunk[payload - 6] as number, chunk[payload - 5] as number, uint31(chunk, payload - 4));
    }
    if (!this.#dead && at < end) this.#readSplit(chunk, at);
  }

  #readPreface(chunk: Buffer): number {
    let at = 0;
    while (at < chunk.byteLength && this.#prefaceSeen < PREFACE.byteLength) {
      if (chunk[at] !== PREFACE[this.#prefaceSeen]) throw new ConnectionError(H2Code.PROTOCOL_ERROR, "no HTTP/2 preface");
      at += 1;
      this.#prefaceSeen += 1;
    }
    return at;
  }

  /** Begins, or goes on with, a frame that is not all in one chunk. Returns where the chunk goes on behind it. */
  #readSplit(chunk: Buffer, from: number): number {
    let at = from;
    if (this.#payload === undefined) {
      while (this.#headFilled < FRAME_HEADER_BYTES) {
        if (at === chunk.byteLength) return at;
        this.#head[this.#headFilled++] = chunk[at++] as number;
      }
      this.#payload = Buffer.allocUnsafeSlow(payloadLength(this.#head, 0));
      this.#payloadFilled = 0;
    }
    const payload = this.#payload;
    const take = Math.min(chunk.byteLength - at, payload.byteLength - this.#payloadFilled);
    chunk.copy(payload, this.#payloadFilled, at, at + take);
    this.#payloadFilled += take;
    at += take;
    if (this.#payloadFilled < payload.byteLength) return at;
    this.#payload = undefined;
    this.#headFilled = 0;
    this.#frame(payload, 0, payload.byteLength, this.#head[3] as number, this.#head[4] as number, uint31(this.#head, 5));
    return at;
  }

  #frame(bytes: Buffer, at: number, length: number, type: number, flags: number, streamId: number): void {
    if (!this.#settingsSeen) {
      if (type !== FrameType.SETTINGS || (flags & FrameFlag.ACK) !== 0) throw protocolError("the first frame has to be SETTINGS");
      this.#settingsSeen = true;
      this.#awaitingSince = undefined;
    }
    if (this.#blockStream !== 0 && (type !== FrameType.CONTINUATION || streamId !== this.#blockStream)) {
      throw protocolError("a header block has to be completed first");
    }
    switch (type) {
      case FrameType.DATA:
        this.#onData(bytes, at, length, flags, streamId);
        return;
      case FrameType.HEADERS:
        this.#onHeaders(bytes, at, length, flags, streamId);
        return;
      case FrameType.CONTINUATION:
        if (this.#blockStream === 0) throw protocolError("CONTINUATION without HEADERS");
        this.#onContinuation(bytes, at, length, flags);
        return;
      case FrameType.RST_STREAM:
        this.#onReset(length, streamId);
        return;
      case FrameType.WINDOW_UPDATE:
        this.#onWindowUpdate(bytes, at, length, streamId);
        return;
      case FrameType.SETTINGS:
        this.#onSettings(bytes, at, length, flags, streamId);
        return;
      case FrameType.PING:
        this.#onPing(bytes, at, length, flags, streamId);
        return;
      case FrameType.PRIORITY:
        if (streamId === 0) throw protocolError("PRIORITY on the connection");
        this.#spend(FrameCost.small);
        if (length !== 5) this.#streamError(streamId, H2Code.FRAME_SIZE_ERROR);
        else if (uint31(bytes, at) === streamId) this.#streamError(streamId, H2Code.PROTOCOL_ERROR);
        return;
      case FrameType.GOAWAY:
        if (streamId !== 0) throw protocolError("GOAWAY on a stream");
        this.#spend(FrameCost.settings);
        return;
      case FrameType.PUSH_PROMISE:
        throw protocolError("clients do not push");
      default:
        this.#spend(FrameCost.small);
    }
  }

  #onData(bytes: Buffer, from: number, length: number, flags: number, streamId: number): void {
    if (streamId === 0) throw protocolError("DATA on the connection");
    // Padding counts against the windows, but is nobody's.
    this.#recvWindow -= length;
    if (this.#recvWindow < 0) throw new ConnectionError(H2Code.FLOW_CONTROL_ERROR, "more data than the connection's window");
    if (this.#recvWindow < RECEIVE_WINDOW_BYTES / 2) {
      this.writeWindowUpdate(0, RECEIVE_WINDOW_BYTES - this.#recvWindow);
      this.#recvWindow = RECEIVE_WINDOW_BYTES;
    }
    let at = from;
    let to = from + length;
    if ((flags & FrameFlag.PADDED) !== 0) {
      const padding = length > 0 ? (bytes[at] as number) : 0;
      at += 1;
      to -= padding;
      if (at > to) throw protocolError("more padding than frame");
    }
    const stream = this.#streams.get(streamId);
    if (stream === undefined) {
      this.#onDataForNobody(streamId);
      return;
    }
    const end = (flags & FrameFlag.END_STREAM) !== 0;
    if (to - at < SMALL_DATA_BYTES && !end) this.#spend(FrameCost.small);
    stream.recvWindow -= length;
    if (stream.remoteClosed) this.#resetStream(stream, H2Code.STREAM_CLOSED);
    else if (stream.recvWindow < 0) this.#resetStream(stream, H2Code.FLOW_CONTROL_ERROR);
    else {
      if (stream.contentLeft >= 0) {
        stream.contentLeft -= to - at;
        if (stream.contentLeft < 0 || (end && stream.contentLeft > 0)) {
          this.#resetStream(stream, H2Code.PROTOCOL_ERROR);
          return;
        }
      }
      if (end) stream.remoteClosed = true;
      if (!stream.receive(bytes, at, to, end, this.#congested)) this.#resetStream(stream, H2Code.ENHANCE_YOUR_CALM);
    }
  }

  #onDataForNobody(streamId: number): void {
    if (this.#isIdle(streamId)) throw protocolError("DATA on a stream that was not opened");
    this.#spend(FrameCost.small);
    if (!this.#endedByUs.has(streamId)) this.writeReset(streamId, H2Code.STREAM_CLOSED);
  }

  #onHeaders(bytes: Buffer, from: number, length: number, flags: number, streamId: number): void {
    if (streamId === 0 || streamId % 2 === 0) throw protocolError("HEADERS on a stream that clients do not open");
    let at = from;
    let to = from + length;
    if ((flags & FrameFlag.PADDED) !== 0) {
      to -= length > 0 ? (bytes[at] as number) : 0;
      at += 1;
    }
    if ((flags & FrameFlag.PRIORITY) !== 0) {
      if (to - at >= 5 && uint31(bytes, at) === streamId) throw protocolError("a stream that depends on itself");
      at += 5;
    }
    if (at > to) throw protocolError("more padding than frame");
    if ((flags & FrameFlag.END_HEADERS) !== 0) {
      this.#onBlock(bytes, at, to, flags, streamId);
      return;
    }
    this.#blockStream = streamId;
    this.#blockFlags = flags;
    this.#awaitingSince = this.nowMs;
    this.#appendBlock(bytes, at, to);
  }

  #onContinuation(bytes: Buffer, at: number, length: number, flags: number): void {
    if (length < SMALL_DATA_BYTES) this.#spend(FrameCost.small);
    this.#appendBlock(bytes, at, at + length);
    if ((flags & FrameFlag.END_HEADERS) === 0) return;
    const block = this.#block ?? NOTHING;
    const streamId = this.#blockStream;
    const end = this.#blockBytes;
    this.#awaitingSince = undefined;
    this.#forgetBlock();
    this.#onBlock(block, 0, end, this.#blockFlags, streamId);
  }

  #appendBlock(bytes: Buffer, from: number, to: number): void {
    const need = this.#blockBytes + to - from;
    if (need > this.#options.limits.headerListBytesMax) throw new ConnectionError(H2Code.ENHANCE_YOUR_CALM, "header block too large");
    const block = this.#block;
    if (block === undefined || need > block.byteLength) {
      const room = Math.max(need, (block?.byteLength ?? 0) * 2, FRAME_BYTES_MAX);
      if (!this.#options.budget.take(room - this.#blockTaken))
        throw new ConnectionError(H2Code.ENHANCE_YOUR_CALM, "out of memory for requests");
      this.#blockTaken = room;
      const grown = Buffer.allocUnsafeSlow(room);
      block?.copy(grown, 0, 0, this.#blockBytes);
      this.#block = grown;
    }
    bytes.copy(this.#block as Buffer, this.#blockBytes, from, to);
    this.#blockBytes = need;
  }

  #forgetBlock(): void {
    this.#options.budget.give(this.#blockTaken);
    this.#blockTaken = 0;
    this.#block = undefined;
    this.#blockBytes = 0;
    this.#blockStream = 0;
  }

  /** A whole header block. It is decoded in any case, because the tables of both sides must stay in step. */
  #onBlock(bytes: Buffer, from: number, to: number, flags: number, streamId: number): void {
    const fields = this.#fields;
    fields.reset();
    this.#decoder.decode(bytes, from, to);
    if (fields.bytes > this.#options.limits.headerListBytesMax * HEADER_BOMB_FACTOR) {
      throw new ConnectionError(H2Code.ENHANCE_YOUR_CALM, "header list too large");
    }
    const end = (flags & FrameFlag.END_STREAM) !== 0;
    if (streamId <= this.#lastStreamId) {
      this.#onTrailers(streamId, end);
      return;
    }
    // Streams skipped over are closed by that.
    this.#lastStreamId = streamId;
    if (this.#drainFrom !== undefined) {
      this.#remember(streamId);
      return;
    }
    if (fields.tooLarge) {
      this.#streamError(streamId, H2Code.ENHANCE_YOUR_CALM);
      return;
    }
    if (!fields.wellFormedRequest || (end && fields.contentLength > 0)) {
      this.#streamError(streamId, H2Code.PROTOCOL_ERROR);
      return;
    }
    if (this.#streams.size >= this.#streamsMax) {
      this.#streamError(streamId, H2Code.REFUSED_STREAM);
      return;
    }
    const stream = new Stream(this, streamId, this.#initialSendWindow, fields.contentLength);
    stream.remoteClosed = end;
    this.#streams.set(streamId, stream);
    const handler = this.#options.open(stream, fields);
    if (stream.localClosed) return;
    stream.handler = handler;
    if (end && !stream.receive(bytes, 0, 0, true, this.#congested)) this.#resetStream(stream, H2Code.ENHANCE_YOUR_CALM);
  }

  /** Headers on a stream that has some already: the request's trailers, of which gRPC has none. */
  #onTrailers(streamId: number, end: boolean): void {
    const stream = this.#streams.get(streamId);
    if (stream === undefined) {
      if (this.#endedByUs.has(streamId)) this.#spend(FrameCost.small);
      else throw new ConnectionError(H2Code.STREAM_CLOSED, "HEADERS on a closed stream");
      return;
    }
    if (stream.remoteClosed) this.#resetStream(stream, H2Code.STREAM_CLOSED);
    else if (!end || !this.#fields.wellFormedTrailers || stream.contentLeft > 0) this.#resetStream(stream, H2Code.PROTOCOL_ERROR);
    else {
      stream.remoteClosed = true;
      if (!stream.receive(NOTHING, 0, 0, true, this.#congested)) this.#resetStream(stream, H2Code.ENHANCE_YOUR_CALM);
    }
  }

  #onReset(length: number, streamId: number): void {
    if (length !== 4) throw new ConnectionError(H2Code.FRAME_SIZE_ERROR, "RST_STREAM of another length than 4");
    if (this.#isIdle(streamId)) throw protocolError("RST_STREAM on a stream that was not opened");
    const stream = this.#streams.get(streamId);
    if (stream === undefined) {
      this.#spend(FrameCost.small);
      return;
    }
    const quick = this.nowMs - stream.openedMs < QUICK_RESET_MS;
    this.#streams.delete(streamId);
    this.#dropWaiting(stream);
    stream.drop();
    if (quick) this.#spendReset();
    this.#endWhenDrained();
  }

  #onWindowUpdate(bytes: Buffer, at: number, length: number, streamId: number): void {
    if (length !== 4) throw new ConnectionError(H2Code.FRAME_SIZE_ERROR, "WINDOW_UPDATE of another length than 4");
    const more = uint31(bytes, at);
    this.#spend(FrameCost.small);
    if (streamId === 0) {
      if (more === 0) throw protocolError("WINDOW_UPDATE of 0");
      this.sendWindow += more;
      if (this.sendWindow > WINDOW_BYTES_MAX) throw new ConnectionError(H2Code.FLOW_CONTROL_ERROR, "window too large");
      this.#pump();
      return;
    }
    const stream = this.#streams.get(streamId);
    if (stream === undefined) {
      if (this.#isIdle(streamId)) throw protocolError("WINDOW_UPDATE on a stream that was not opened");
      return;
    }
    if (more === 0) {
      this.#resetStream(stream, H2Code.PROTOCOL_ERROR);
      return;
    }
    stream.sendWindow += more;
    if (stream.sendWindow > WINDOW_BYTES_MAX) this.#resetStream(stream, H2Code.FLOW_CONTROL_ERROR);
    else this.enqueue(stream);
  }

  #onSettings(bytes: Buffer, from: number, length: number, flags: number, streamId: number): void {
    if (streamId !== 0) throw protocolError("SETTINGS on a stream");
    if ((flags & FrameFlag.ACK) !== 0) {
      if (length !== 0) throw new ConnectionError(H2Code.FRAME_SIZE_ERROR, "SETTINGS acknowledged with settings");
      this.#spend(FrameCost.small);
      return;
    }
    if (length % 6 !== 0) throw new ConnectionError(H2Code.FRAME_SIZE_ERROR, "SETTINGS of an odd length");
    this.#spend(FrameCost.settings);
    for (let at = from; at < from + length; at += 6) this.#onSetting(bytes.readUInt16BE(at), bytes.readUInt32BE(at + 2));
    this.#output.frame(FrameType.SETTINGS, FrameFlag.ACK, 0, NOTHING);
    this.#pump();
  }

  #onSetting(setting: number, value: number): void {
    switch (setting) {
      case Setting.HEADER_TABLE_SIZE:
        this.#answers.setTableSize(value);
        return;
      case Setting.ENABLE_PUSH:
        if (value > 1) throw protocolError("ENABLE_PUSH is 0 or 1");
        return;
      case Setting.INITIAL_WINDOW_SIZE: {
        if (value > WINDOW_BYTES_MAX) throw new ConnectionError(H2Code.FLOW_CONTROL_ERROR, "window too large");
        const change = value - this.#initialSendWindow;
        this.#initialSendWindow = value;
        for (const stream of this.#streams.values()) {
          stream.sendWindow += change;
          if (stream.sendWindow > WINDOW_BYTES_MAX) throw new ConnectionError(H2Code.FLOW_CONTROL_ERROR, "window too large");
          if (stream.sendable) this.#putWaiting(stream);
        }
        return;
      }
      case Setting.MAX_FRAME_SIZE:
        // Ours are never larger than the least that everybody accepts.
        if (value < FRAME_BYTES_MAX || value > 0xffffff) throw protocolError("MAX_FRAME_SIZE out of range");
        return;
      default:
        return;
    }
  }

  #onPing(bytes: Buffer, at: number, length: number, flags: number, streamId: number): void {
    if (streamId !== 0) throw protocolError("PING on a stream");
    if (length !== PING_BYTES) throw new ConnectionError(H2Code.FRAME_SIZE_ERROR, "PING of another length than 8");
    if ((flags & FrameFlag.ACK) !== 0) {
      this.#spend(FrameCost.small);
      return;
    }
    this.#output.frame(FrameType.PING, FrameFlag.ACK, 0, bytes.subarray(at, at + PING_BYTES));
    // gRPC's rule: pings too soon are strikes, unless we have sent something since the last one (then it measures how fast that goes). Clients of Go and Java
    // send such a one after every answer, so that it must not cost more than the answer has earned.
    this.#spend(this.#forgiven ? FrameCost.small : FrameCost.ping);
    const since = this.#lastPingMs === undefined ? Number.POSITIVE_INFINITY : this.nowMs - this.#lastPingMs;
    this.#lastPingMs = this.nowMs;
    if (this.#forgiven) {
      this.#forgiven = false;
      this.#strikes = 0;
      return;
    }
    if (since < (this.#streams.size > 0 ? this.#options.limits.keepaliveMinTimeMs : IDLE_PING_MS)) this.#strikes += 1;
    if (this.#strikes > PING_STRIKES_MAX) throw new ConnectionError(H2Code.ENHANCE_YOUR_CALM, "too_many_pings");
  }

  /** True for streams that were never opened. */
  #isIdle(streamId: number): boolean {
    return streamId > this.#lastStreamId || streamId % 2 === 0;
  }

  /** Something on a stream was wrong in a way that concerns nobody else. */
  #streamError(streamId: number, code: H2Code): void {
    const stream = this.#streams.get(streamId);
    if (stream !== undefined) {
      this.#resetStream(stream, code);
      return;
    }
    this.writeReset(streamId, code);
    this.#remember(streamId);
    this.#spendReset();
  }

  #resetStream(stream: Stream, code: H2Code): void {
    if (!this.#streams.delete(stream.id)) return;
    this.writeReset(stream.id, code);
    this.#remember(stream.id);
    this.#dropWaiting(stream);
    stream.drop();
    this.#spendReset();
    this.#endWhenDrained();
  }

  #remember(streamId: number): void {
    const known = this.#endedByUs;
    known.add(streamId);
    if (known.size <= REMEMBERED_RESETS_MAX) return;
    for (const oldest of known) {
      known.delete(oldest);
      return;
    }
  }

  #spend(cost: number): void {
    if (!this.#abuse.spendFrame(cost)) throw new ConnectionError(H2Code.ENHANCE_YOUR_CALM, "too many frames for nothing");
  }

  #spendReset(): void {
    if (this.#abuse.spendReset() || this.#dead) return;
    this.#goAway(H2Code.ENHANCE_YOUR_CALM, "too many resets");
  }

  // -- writing -----------------------------------------------------------------------------------------------------------------------------

  get room(): number {
    return this.#output.room;
  }

  get slab(): Uint8Array {
    return this.#output.slab;
  }

  writeUnary(stream: Stream, frame: Uint8Array): void {
    this.#writeBlock(stream.id, this.#answers.headers(stream.contentType, stream.encoding), 0);
    this.writeData(stream.id, frame);
    this.#writeBlock(stream.id, this.#answers.okTrailers(), FrameFlag.END_STREAM);
  }

  writeHeaders(stream: Stream): void {
    this.#writeBlock(stream.id, this.#answers.headers(stream.contentType, stream.encoding), 0);
  }

  writeData(streamId: number, bytes: Uint8Array): void {
    this.#output.frame(FrameType.DATA, 0, streamId, bytes);
    this.#forgiven = true;
    this.#abuse.worked();
  }

  beginData(streamId: number, length: number): number {
    this.#forgiven = true;
    this.#abuse.worked();
    return this.#output.header(length, FrameType.DATA, 0, streamId);
  }

  writeTrailers(stream: Stream, code: number, message: string): void {
    this.#writeBlock(stream.id, this.#answers.trailers(code, message), FrameFlag.END_STREAM);
  }

  writeTrailersOnly(stream: Stream, httpStatus: number, code: number, message: string): void {
    this.#writeBlock(stream.id, this.#answers.trailersOnly(httpStatus, stream.contentType, code, message), FrameFlag.END_STREAM);
  }

  writeReset(streamId: number, code: H2Code): void {
    const at = this.#output.header(4, FrameType.RST_STREAM, 0, streamId);
    this.#output.slab.writeUInt32BE(code, at);
  }

  writeWindowUpdate(streamId: number, bytes: number): void {
    const at = this.#output.header(4, FrameType.WINDOW_UPDATE, 0, streamId);
    this.#output.slab.writeUInt32BE(bytes, at);
  }

  remove(stream: Stream, how: "answered" | "cancelled", endedByUs: boolean): void {
    this.#streams.delete(stream.id);
    if (endedByUs) this.#remember(stream.id);
    if (how === "answered") this.#abuse.answered();
    if (this.#drainFrom !== undefined) this.#endWhenDrained();
  }

  takeInbox(bytes: number): boolean {
    return this.#options.budget.take(bytes);
  }

  giveInbox(bytes: number): void {
    this.#options.budget.give(bytes);
  }

  enqueue(stream: Stream): void {
    if (this.queuedBytes > CONGESTED_BYTES) this.#congested = true;
    if (stream.sendable) this.#putWaiting(stream);
    this.#pump();
  }

  /** Gives each stream that has something to send a frame in turn, as long as the windows and the socket take it. */
  #pump(): void {
    if (this.#pumping || this.#dead) return;
    this.#pumping = true;
    while (this.#firstWaiting !== undefined && this.sendWindow > 0 && this.#output.room > 0) {
      const stream = this.#firstWaiting;
      this.#dropWaiting(stream);
      if (!stream.sendable) continue;
      stream.sendSome();
      if (stream.sendable) this.#putWaiting(stream);
    }
    this.#pumping = false;
    if (this.#congested && this.queuedBytes < CONGESTED_BYTES / 2) this.#relieve();
  }

  /** At the end of the ring. */
  #putWaiting(stream: Stream): void {
    if (stream.nextWaiting !== undefined) return;
    const first = this.#firstWaiting;
    if (first === undefined) {
      this.#firstWaiting = stream;
      stream.nextWaiting = stream;
      stream.previousWaiting = stream;
      return;
    }
    const last = first.previousWaiting as Stream;
    stream.previousWaiting = last;
    stream.nextWaiting = first;
    last.nextWaiting = stream;
    first.previousWaiting = stream;
  }

  #dropWaiting(stream: Stream): void {
    const { nextWaiting: next, previousWaiting: previous } = stream;
    if (next === undefined || previous === undefined) return;
    if (next === stream) this.#firstWaiting = undefined;
    else {
      next.previousWaiting = previous;
      previous.nextWaiting = next;
      if (this.#firstWaiting === stream) this.#firstWaiting = next;
    }
    stream.nextWaiting = undefined;
    stream.previousWaiting = undefined;
  }

  /** The client has read on: what was held back goes to the calls. */
  #relieve(): void {
    this.#congested = false;
    for (const stream of this.#streams.values()) {
      if (this.#congested) return;
      stream.deliverInbox();
    }
  }

  /** What the socket took at once makes room without any event to tell so. Others get their turn in between. */
  #afterFlush(): void {
    if (this.#firstWaiting === undefined || this.#pumpScheduled || this.sendWindow <= 0) return;
    this.#pumpScheduled = true;
    setImmediate(() => {
      this.#pumpScheduled = false;
      this.#pump();
    });
  }

  #writeBlock(streamId: number, block: Uint8Array, flags: number): void {
    this.#forgiven = true;
    if (block.byteLength <= FRAME_BYTES_MAX) {
      this.#output.frame(FrameType.HEADERS, flags | FrameFlag.END_HEADERS, streamId, block);
      return;
    }
    this.#output.frame(FrameType.HEADERS, flags, streamId, block.subarray(0, FRAME_BYTES_MAX));
    for (let at = FRAME_BYTES_MAX; at < block.byteLength; at += FRAME_BYTES_MAX) {
      const last = at + FRAME_BYTES_MAX >= block.byteLength;
      this.#output.frame(FrameType.CONTINUATION, last ? FrameFlag.END_HEADERS : 0, streamId, block.subarray(at, at + FRAME_BYTES_MAX));
    }
  }

  #writeGoAway(lastStreamId: number, code: H2Code, debug: string): void {
    const text = Buffer.from(debug.slice(0, DEBUG_BYTES_MAX), "latin1");
    const at = this.#output.header(8 + text.byteLength, FrameType.GOAWAY, 0, 0);
    const { slab } = this.#output;
    slab.writeUInt32BE(lastStreamId, at);
    slab.writeUInt32BE(code, at + 4);
    slab.set(text, at + 8);
  }

  #sendSettings(): void {
    const { limits } = this.#options;
    const settings: [number, number][] = [
      [Setting.MAX_FRAME_SIZE, FRAME_BYTES_MAX],
      [Setting.MAX_HEADER_LIST_SIZE, limits.headerListBytesMax],
    ];
    if (limits.maxConcurrentStreams < UNLIMITED_STREAMS) settings.push([Setting.MAX_CONCURRENT_STREAMS, limits.maxConcurrentStreams]);
    const at = this.#output.header(settings.length * 6, FrameType.SETTINGS, 0, 0);
    settings.forEach(([setting, value], i) => {
      this.#output.slab.writeUInt16BE(setting, at + i * 6);
      this.#output.slab.writeUInt32BE(value, at + i * 6 + 2);
    });
    this.writeWindowUpdate(0, RECEIVE_WINDOW_BYTES - WINDOW_BYTES_DEFAULT);
    this.#recvWindow = RECEIVE_WINDOW_BYTES;
  }
}

const NOTHING = Buffer.alloc(0);

function protocolError(message: string): ConnectionError {
  return new ConnectionError(H2Code.PROTOCOL_ERROR, message);
}

function payloadLength(bytes: Uint8Array, at: number): number {
  const length = ((bytes[at] as number) << 16) | ((bytes[at + 1] as number) << 8) | (bytes[at + 2] as number);
  if (length > FRAME_BYTES_MAX) throw new ConnectionError(H2Code.FRAME_SIZE_ERROR, "frame too large");
  return length;
}

/** 31 bits: the highest is reserved and ignored. */
function uint31(bytes: Uint8Array, at: number): number {
  return (
    (((bytes[at] as number) & 0x7f) << 24) |
    ((bytes[at + 1] as number) << 16) |
    ((bytes[at + 2] as number) << 8) |
    (bytes[at + 3] as number)
  );
}

/** A client that breaks off is no event: "close" follows. */
function ignoreError(): void {
  return;
}
