/**
 * What the Lock and Election services stand on, and what both share: ownership keys under a prefix, ordered by creation. Everything goes
 * through the ordinary services, with the caller's identity. Recipes of etcd's client/v3/concurrency (key.go, mutex.go, election.go).
 */
import * as api from "../../api/index.ts";
import { rpcError } from "../../api/rpc-errors.ts";
import { concatBytes, utf8Bytes } from "../../base/bytes.ts";
import { EtcdError, GrpcCode } from "../../base/errors.ts";
import { hexId, type Revision } from "../../base/ids.ts";
import type { CallContext, KvService, LeaseService, WatchService } from "./services.contract.ts";

export interface CoordinationPort {
  readonly kv: Pick<KvService, "range" | "put" | "deleteRange" | "txn">;
  readonly lease: Pick<LeaseService, "leaseGrant">;
  readonly watch: WatchService;
}

/** Seconds of the lease that is granted to callers who bring none. Nobody renews or revokes it. */
const IMPLICIT_LEASE_TTL_SECONDS = 60;

/** An error of Lock or Election: the text of what went wrong, with code Unknown. */
export class CoordinationError extends EtcdError {
  constructor(cause: EtcdError) {
    super(cause.reason, GrpcCode.Unknown, cause.message, { cause });
    this.name = "CoordinationError";
  }
}

/**
 * As the error leaves the service: all codes become Unknown, except that a caller who gave up or ran out of time hears just that.
 * Anything that is not an EtcdError is a bug and stays as it is.
 */
export function coordinationError(error: unknown, context: CallContext): unknown {
  if (context.signal?.aborted === true) return callersEnd(context.signal);
  if (!EtcdError.is(error) || error.grpcCode === GrpcCode.Canceled || error.grpcCode === GrpcCode.DeadlineExceeded) return error;
  return error.grpcCode === GrpcCode.Unknown ? error : new CoordinationError(error);
}

function callersEnd(signal: AbortSignal): EtcdError {
  const reason: unknown = signal.reason;
  return EtcdError.is(reason) ? reason : rpcError("canceled");
}

/** Runs one call; its errors come out as they have to. */
export async function coordinate<Result>(context: CallContext, call: () => Promise<Result>): Promise<Result> {
  try {
    return await call();
  } catch (error) {
    throw coordinationError(error, context);
  }
}

/** All ownership keys of one name: `name/`, and everything below it. */
export function ownershipRange(name: Uint8Array): { key: Uint8Array; rangeEnd: Uint8Array } {
  return { key: concatBytes([name, utf8Bytes("/")]), rangeEnd: concatBytes([name, utf8Bytes("0")]) };
}

export function ownershipKey(name: Uint8Array, lease: bigint): Uint8Array {
  return concatBytes([name, utf8Bytes(`/${hexId(lease)}`)]);
}

/** The caller's lease, or a new one. */
export async function leaseFor(port: CoordinationPort, lease: bigint, context: CallContext): Promise<bigint> {
  if (lease !== 0n) return lease;
  const granted = await port.lease.leaseGrant(api.LeaseGrantRequest.create({ ttl: IMPLICIT_LEASE_TTL_SECONDS }), context);
  return granted.id;
}

/** True when `key` was created at `revision`; 0 when it is absent. */
export function createdAt(key: Uint8Array, revision: Revision): api.Compare {
  return api.Compare.create({ result: api.CompareResult.EQUAL, target: api.CompareTarget.CREATE, key, createRevision: revision });
}

/** The owner: the key that was created first. */
export function ownerRange(name: Uint8Array): api.RangeRequest {
  return api.RangeRequest.create({ ...ownershipRange(name), sortTarget: api.SortTarget.CREATE, sortOrder: api.SortOrder.ASCEND, limit: 1 });
}

export function opPut(key: Uint8Array, value: Uint8Array, lease: bigint): api.RequestOp {
  return api.RequestOp.create({ requestPut: api.PutRequest.create({ key, value, lease }) });
}

export function opRange(range: api.RangeRequest): api.RequestOp {
  return api.RequestOp.create({ requestRange: range });
}

/** Deletes `key` if it is still the one that was created at `revision`. */
export function deleteCreatedAt(
  port: CoordinationPort,
  key: Uint8Array,
  revision: Revision,
  context: CallContext,
): Promise<api.TxnResponse> {
  const deletion = api.RequestOp.create({ requestDeleteRange: api.DeleteRangeRequest.create({ key }) });
  return port.kv.txn(api.TxnRequest.create({ compare: [createdAt(key, revision)], success: [deletion] }), context);
}

/**
 * The caller is gone, or its turn cannot come: its key must not stand in the way of others. Without the caller's signal, which is over;
 * the services' own timeouts bound it. If it fails, the lease removes the key.
 */
export async function withdraw(port: CoordinationPort, key: Uint8Array, revision: Revision, context: CallContext): Promise<void> {
  try {
    await deleteCreatedAt(port, key, revision, { token: context.token, commonName: context.commonName });
  } catch (error) {
    if (!EtcdError.is(error)) throw error;
  }
}

/**
 * Waits until no key under the name is older than the one created at `revision`: always for the newest of the older ones, so that each
 * release wakes one waiter and not all of them.
 */
export async function waitForTurn(port: CoordinationPort, name: Uint8Array, revision: Revision, context: CallContext): Promise<void> {
  const older = api.RangeRequest.create({
    ...ownershipRange(name),
    sortTarget: api.SortTarget.CREATE,
    sortOrder: api.SortOrder.DESCEND,
    limit: 1,
    maxCreateRevision: revision - 1,
  });
  for (;;) {
    const { kvs, header } = await port.kv.range(older, context);
    const [last] = kvs;
    if (last === undefined) return;
    await waitForDelete(port, last.key, header?.revision ?? 0, context);
  }
}

/** Returns when `key`, which existed at `revision`, may be gone: look again. */
async function waitForDelete(port: CoordinationPort, key: Uint8Array, revision: Revision, context: CallContext): Promise<void> {
  const request = api.WatchCreateRequest.create({ key, startRevision: revision + 1, filters: [api.FilterType.NOPUT] });
  for await (const response of watchResponses(port, request, context)) if (response === "compacted" || response.events.length > 0) return;
}

/**
 * The responses of one watcher that bring events. Ends after "compacted": what comes next in the history is gone, so look at the present.
 * @throws lost-watcher when the stream ends for no reason.
 */
export async function* watchResponses(
  port: CoordinationPort,
  request: api.WatchCreateRequest,
  context: CallContext,
): AsyncGenerator<api.WatchResponse | "compacted"> {
  const session = port.watch.watch(context);
  try {
    session.send(api.WatchRequest.create({ createRequest: request }));
    for (;;) {
      const responses = await session.next();
      if (responses === undefined) throw rpcError("lost-watcher");
      for (const response of responses) {
        if (response.compactRevision !== 0) {
          yield "compacted";
          return;
        }
        if (response.canceled) throw new WatchRefusedError(response.cancelReason);
        if (response.events.length > 0) yield response;
      }
    }
  } finally {
    session.close();
  }
}

const REFUSAL_PREFIX = /^rpc error: code = [A-Za-z]+ desc = /;

/** The watch service refused a watcher; the text is the reason it gave. */
class WatchRefusedError extends EtcdError {
  constructor(cancelReason: string) {
    super("watch-refused", GrpcCode.Unknown, cancelReason.replace(REFUSAL_PREFIX, ""));
    this.name = "WatchRefusedError";
  }
}
