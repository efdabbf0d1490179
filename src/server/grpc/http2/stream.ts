import { copyBytes } from "../../../base/bytes.ts";
import type { CallHandler, GrpcCall } from "../transport.ts";
import { H2Code } from "./errors.ts";
import { FRAME_BYTES_MAX, WINDOW_BYTES_DEFAULT } from "./frame.ts";

/** Bytes of one stream that may wait to be sent before its call is asked to hold back. */
const QUEUE_BYTES_MAX = 65_536;
/** A stream whose window for the client has shrunk below this is given more. */
const WINDOW_LOW_BYTES = 32_768;

/** What a stream needs of its connection. */
export interface StreamHost {
  /** Bytes of data that the client lets us send on all streams together. */
  sendWindow: number;
  /** Monotonic ms, as of the last bytes that came. */
  readonly nowMs: number;
  readonly room: number;
  /** Unsent bytes on all streams. */
  queuedBytes: number;
  writeHeaders(stream: Stream): void;
  /** A frame of data. */
  writeData(streamId: number, bytes: Uint8Array): void;
  /** The same in pieces: returns where in {@link slab} its bytes have to be put. */
  beginData(streamId: number, length: number): number;
  readonly slab: Uint8Array;
  /** Headers, one message and trailers at once. */
  writeUnary(stream: Stream, frame: Uint8Array): void;
  writeTrailers(stream: Stream, code: number, message: string): void;
  writeTrailersOnly(stream: Stream, httpStatus: number, code: number, message: string): void;
  writeReset(streamId: number, code: H2Code): void;
  writeWindowUpdate(streamId: number, bytes: number): void;
  /** The stream has something to send: it gets its turn. */
  enqueue(stream: Stream): void;
  takeInbox(bytes: number): boolean;
  giveInbox(bytes: number): void;
  /** Both sides are through with it. */
  remove(stream: Stream, how: "answered" | "cancelled", resetByUs: boolean): void;
}

/**
 * One stream of HTTP/2, which is one call. Nothing but fields and the rules of one stream; the connection reads and writes the frames.
 */
export class Stream implements GrpcCall {
  readonly id: number;
  readonly openedMs: number;
  private readonly host: StreamHost;
  handler: CallHandler | undefined;
  contentType = "application/grpc";
  encoding: string | undefined;
  /** Bytes of the request that were announced and did not come yet; -1 if nothing was announced. */
  contentLeft: number;

  /** Bytes that the client may still send. */
  recvWindow = WINDOW_BYTES_DEFAULT;
  /** Bytes that we may still send; negative after the client has made its windows smaller. */
  sendWindow: number;
  /** The client has ended its side. */
  remoteClosed = false;
  /** We have sent the end, or a reset. */
  localClosed = false;
  private headersSent = false;

  /** Unsent data, the first of it from `queueAt` on. */
  private queue: Uint8Array[] | undefined;
  private queueAt = 0;
  queuedBytes = 0;
  /** What ends the answer, behind the data. */
  private ending: { readonly code: number; readonly message: string; readonly resetCode: H2Code } | undefined;
  /** The handler was told to wait. */
  private blocked = false;
  /** Its neighbours in the ring of streams that have something to send; undefined while it is not in there. The ring belongs to the connection. */
  nextWaiting: Stream | undefined;
  previousWaiting: Stream | undefined;

  paused = false;
  /** What came while nothing was handed over, and how much that is. */
  private inbox: Uint8Array[] | undefined;
  private inboxBytes = 0;
  private endHeld = false;

  constructor(host: StreamHost, id: number, sendWindow: number, contentLength: number) {
    this.host = host;
    this.id = id;
    this.sendWindow = sendWindow;
    this.contentLeft = contentLength;
    this.openedMs = host.nowMs;
  }

  // -- for the call ----------------------------------------------------------------------------------------------------------------------

  setAnswer(contentType: string, encoding: string | undefined): void {
    this.contentType = contentType;
    this.encoding = encoding;
  }

  respond(frame: Uint8Array, owned: boolean): void {
    if (this.localClosed || this.ending !== undefined) return;
    const { host } = this;
    const bytes = frame.byteLength;
    if (
      bytes <= FRAME_BYTES_MAX &&
      bytes <= this.sendWindow &&
      bytes <= host.sendWindow &&
      host.room > 0 &&
      !this.headersSent &&
      this.queuedBytes === 0
    ) {
      this.sendWindow -= bytes;
      host.sendWindow -= bytes;
      this.headersSent = true;
      host.writeUnary(this, frame);
      this.closeLocal(H2Code.NO_ERROR);
      return;
    }
    this.send(frame, owned);
    this.finish(0, "");
  }

  send(frame: Uint8Array, owned: boolean): boolean {
    if (this.localClosed || this.ending !== undefined) return true;
    const { host } = this;
    if (!this.headersSent) {
      this.headersSent = true;
      host.writeHeaders(this);
    }
    const bytes = frame.byteLength;
    if (this.queuedBytes === 0 && bytes <= FRAME_BYTES_MAX && bytes <= this.sendWindow && bytes <= host.sendWindow && host.room > 0) {
      this.sendWindow -= bytes;
      host.sendWindow -= bytes;
      host.writeData(this.id, frame);
      return true;
    }
    this.queue ??= [];
    this.queue.push(owned ? frame : copyBytes(frame));
    this.queuedBytes += bytes;
    host.queuedBytes += bytes;
    host.enqueue(this);
    this.blocked = this.queuedBytes > QUEUE_BYTES_MAX;
    return !this.blocked;
  }

  finish(code: number, message: string): void {
    this.endWith(200, code, message, H2Code.NO_ERROR);
  }

  refuse(httpStatus: number, code: number, message: string): void {
    this.endWith(httpStatus, code, message, H2Code.NO_ERROR);
  }

  expire(code: number, message: string): void {
    this.endWith(200, code, message, H2Code.CANCEL);
  }

  expect(bytes: number): void {
    if (this.remoteClosed || this.localClosed || this.paused) return;
    const more = bytes - this.recvWindow;
    if (more <= 0) return;
    this.recvWindow += more;
    this.host.writeWindowUpdate(this.id, more);
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    this.deliverInbox();
  }

  // -- for the connection: what comes ----------------------------------------------------------------------------------------------------

  /** Hands over a piece of the request, or keeps it. False if there is no memory to keep it in. */
  receive(bytes: Uint8Array, from: number, to: number, end: boolean, hold: boolean): boolean {
    if (this.paused || hold || this.inbox !== undefined) {
      if (!this.host.takeInbox(to - from)) return false;
      this.inbox ??= [];
      if (to > from) this.inbox.push(bytes.slice(from, to));
      this.inboxBytes += to - from;
      this.endHeld = end;
      return true;
    }
    this.deliver(bytes, from, to);
    if (!end || this.localClosed) return true;
    if (this.paused) {
      // Paused by what it was just given.
      this.inbox = [];
      this.endHeld = true;
    } else this.handler?.ended();
    return true;
  }

  /** Hands over what was kept, as far as the call takes it. */
  deliverInbox(): void {
    const { inbox } = this;
    if (inbox === undefined || this.paused) return;
    let at = 0;
    for (; at < inbox.length && !this.paused && !this.localClosed; at++) {
      const bytes = inbox[at] as Uint8Array;
      this.inboxBytes -= bytes.byteLength;
      this.host.giveInbox(bytes.byteLength);
      this.deliver(bytes, 0, bytes.byteLength);
    }
    if (this.localClosed) {
      this.dropInbox();
      return;
    }
    if (at < inbox.length || this.paused) {
      this.inbox = inbox.slice(at);
      return;
    }
    this.inbox = undefined;
    if (this.endHeld) {
      this.endHeld = false;
      this.handler?.ended();
    }
  }

  /** The client has reset the stream, or the connection is gone. */
  drop(): void {
    const told = this.localClosed || this.ending !== undefined;
    this.localClosed = true;
    this.remoteClosed = true;
    this.forget();
    if (!told) this.handler?.gone();
  }

  // -- for the connection: what goes -----------------------------------------------------------------------------------------------------

  /** True while there are bytes that the window of the stream lets through, or an end behind no bytes. */
  get sendable(): boolean {
    return this.queuedBytes > 0 && this.sendWindow > 0;
  }

  /** Sends one frame's worth; the stream is {@link sendable}, and the connection's window is open. */
  sendSome(): void {
    const { host } = this;
    let left = Math.min(this.queuedBytes, this.sendWindow, host.sendWindow, FRAME_BYTES_MAX);
    this.sendWindow -= left;
    host.sendWindow -= left;
    this.queuedBytes -= left;
    host.queuedBytes -= left;
    const queue = this.queue as Uint8Array[];
    let at = host.beginData(this.id, left);
    while (left > 0) {
      const first = queue[0] as Uint8Array;
      const take = Math.min(left, first.byteLength - this.queueAt);
      host.slab.set(first.subarray(this.queueAt, this.queueAt + take), at);
      at += take;
      left -= take;
      this.queueAt += take;
      if (this.queueAt === first.byteLength) {
        queue.shift();
        this.queueAt = 0;
      }
    }
    if (this.queuedBytes === 0 && this.ending !== undefined) {
      const { code, message, resetCode } = this.ending;
      host.writeTrailers(this, code, message);
      this.closeLocal(resetCode);
    } else if (this.blocked && this.queuedBytes <= QUEUE_BYTES_MAX / 2) {
      this.blocked = false;
      this.handler?.drained();
    }
  }

  // ----------------------------------------------------------------------------------------------------------------------------------------

  private deliver(bytes: Uint8Array, from: number, to: number): void {
    if (to > from) this.handler?.data(bytes, from, to);
    if (!this.remoteClosed && !this.localClosed && !this.paused && this.recvWindow < WINDOW_LOW_BYTES) {
      const more = WINDOW_BYTES_DEFAULT - this.recvWindow;
      this.recvWindow += more;
      this.host.writeWindowUpdate(this.id, more);
    }
  }

  private endWith(httpStatus: number, code: number, message: string, resetCode: H2Code): void {
    if (this.localClosed || this.ending !== undefined) return;
    if (!this.headersSent) {
      this.headersSent = true;
      this.host.writeTrailersOnly(this, httpStatus, code, message);
      this.closeLocal(resetCode);
    } else if (this.queuedBytes > 0) {
      this.ending = { code, message, resetCode };
    } else {
      this.host.writeTrailers(this, code, message);
      this.closeLocal(resetCode);
    }
  }

  private closeLocal(resetCode: H2Code): void {
    this.localClosed = true;
    const cut = !this.remoteClosed;
    // The answer is complete: what the client would still say interests nobody.
    if (cut) this.host.writeReset(this.id, resetCode);
    this.forget();
    this.host.remove(this, "answered", cut);
  }

  private forget(): void {
    this.host.queuedBytes -= this.queuedBytes;
    this.queuedBytes = 0;
    this.queue = undefined;
    this.dropInbox();
  }

  private dropInbox(): void {
    if (this.inboxBytes > 0) this.host.giveInbox(this.inboxBytes);
    this.inboxBytes = 0;
    this.inbox = undefined;
    this.endHeld = false;
  }
}
