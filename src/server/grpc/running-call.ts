/** What every call has, unary or not: who calls, how long it may take, and its one end. */
import { rpcError } from "../../api/index.ts";
import { latin1Bytes, utf8TextStrict } from "../../base/bytes.ts";
import { type EtcdError, GrpcCode } from "../../base/errors.ts";
import type { CallContext } from "../services/services.contract.ts";
import type { Timed } from "./deadline-wheel.ts";
import type { Method } from "./methods.ts";
import type { GrpcParts } from "./parts.ts";
import type { CallHandler, GrpcCall, RequestHead } from "./transport.ts";

const WIDE = /[\x80-\xff]/;
const BEARER = "Bearer ";

/** The call as the services see it, and as the transport does. One object, because there is one per call. */
export abstract class RunningCall implements CallHandler, CallContext, Timed {
  readonly token: string | undefined;
  readonly commonName: string | undefined;
  readonly requireLeader: boolean;
  readonly clientApiVersion: string | undefined;

  protected readonly parts: GrpcParts;
  protected readonly method: Method;
  protected readonly call: GrpcCall;
  /** Compresses its answers. */
  protected readonly gzip: boolean;
  /** Monotonic ms when the service was called; only with extensive metrics. */
  private startedMs = 0;
  /** The service was called, so that the end counts. */
  private counted = false;
  /** Answered, failed, cancelled or expired: nothing more will be sent. */
  protected over = false;
  private controller: AbortController | undefined;
  private abortReason: EtcdError | undefined;

  deadlineMs = 0;
  wheelSlot = -1;
  wheelIndex = -1;

  constructor(parts: GrpcParts, method: Method, call: GrpcCall, head: RequestHead, gzip: boolean) {
    this.parts = parts;
    this.method = method;
    this.call = call;
    this.gzip = gzip;
    const token = head.token ?? head.authorization;
    this.token = token?.startsWith(BEARER) === true ? token.slice(BEARER.length) : token;
    this.commonName = head.commonName;
    this.requireLeader = head.hasLeader === "true";
    this.clientApiVersion = head.clientApiVersion;
  }

  /** Aborted when the call has ended in another way than by its answer. Made when first asked for: most calls end before anybody does. */
  get signal(): AbortSignal {
    if (this.controller === undefined) {
      this.controller = new AbortController();
      if (this.abortReason !== undefined) this.controller.abort(this.abortReason);
    }
    return this.controller.signal;
  }

  /** True while the request is not complete. */
  abstract readonly incomplete: boolean;
  abstract data(bytes: Uint8Array, from: number, to: number): void;
  abstract ended(): void;
  abstract drained(): void;
  abstract closing(): void;
  /** Lets go of what the call holds. Called once, when it is over. */
  protected abstract release(): void;

  /** `timeoutMs` from now the call fails. */
  startDeadline(timeoutMs: number): void {
    this.deadlineMs = this.parts.clock.monotonicMs() + timeoutMs;
    if (timeoutMs <= 0) this.deadlinePassed();
    else this.parts.deadlines.add(this);
  }

  deadlinePassed(): void {
    const reason = rpcError("deadline-exceeded");
    if (this.end(reason.grpcCode, reason)) this.call.expire(reason.grpcCode, reason.message);
  }

  gone(): void {
    this.end(GrpcCode.Canceled, rpcError("canceled"));
  }

  /** Counts the begin; what is refused before that (framing, decoding) counts nowhere, as in etcd. @throws RpcError for a bad client version */
  protected begin(stream: boolean): void {
    const { rpc } = this.method;
    const version = this.clientApiVersion;
    if (version !== undefined && WIDE.test(version) && utf8TextStrict(latin1Bytes(version)) === undefined) {
      // A learner refuses the call whatever else is wrong with it.
      if (this.parts.services.health.isLearner()) throw rpcError("not-supported-for-learner");
      throw rpcError("invalid-client-api-version");
    }
    this.parts.metrics.clientRequest(stream, version);
    this.counted = true;
    rpc.started++;
    if (rpc.seconds !== undefined) this.startedMs = this.parts.clock.monotonicMs();
  }

  protected received(bytes: number): void {
    this.method.rpc.received++;
    this.parts.metrics.clientReceivedBytes.value += bytes;
  }

  protected sent(messages: number, bytes: number): void {
    this.method.rpc.sent += messages;
    this.parts.metrics.clientSentBytes.value += bytes;
  }

  /** Ends the call with an error. Later ends change nothing. */
  protected fail(error: unknown): void {
    if (this.over) return;
    const reason = this.parts.asEtcdError(error);
    this.end(reason.grpcCode, reason);
    this.call.finish(reason.grpcCode, reason.message);
  }

  /** The call is over; false if it was before. With a reason the services are told to give up. */
  protected end(code: number, reason: EtcdError | undefined): boolean {
    if (this.over) return false;
    this.over = true;
    this.parts.deadlines.remove(this);
    if (this.counted) {
      const { rpc } = this.method;
      rpc.finish(code);
      if (rpc.seconds !== undefined) rpc.seconds.observe((this.parts.clock.monotonicMs() - this.startedMs) / 1000);
    }
    if (reason !== undefined) {
      this.abortReason = reason;
      this.controller?.abort(reason);
    }
    this.release();
    return true;
  }
}
