import * as api from "../../api/index.ts";
import { rpcError } from "../../api/rpc-errors.ts";
import { type Identity, requireRange, requireTxn } from "../../auth/index.ts";
import { type Applied, txnHasPut } from "../apply/execute.ts";
import { raftRequest } from "../raft-request.ts";
import type { ServiceCore } from "./core.ts";
import type { CallContext, KvService } from "./services.contract.ts";

/** Space a put is expected to take besides its key and value (cluster-behaviour.md section 12). */
const PUT_COST_BYTES = 256;
const STREAM_FIRST_KEYS = 10;

/** The KV service of api-semantics.md sections 4 to 9. */
export function createKvService(core: ServiceCore): KvService {
  const { config } = core;

  function checkQuota(costBytes: number): void {
    if (costBytes === 0 || config.quotaBackendBytes < 0) return;
    if (core.state.sizeAllocated + costBytes >= quotaBytes(config.quotaBackendBytes)) {
      core.raiseNoSpace();
      throw rpcError("no-space");
    }
  }

  async function range(request: api.RangeRequest, context: CallContext): Promise<api.RangeResponse> {
    const started = core.clock.monotonicMs();
    try {
      const response = await readRange(request, context);
      core.onRead("Range", true, core.clock.monotonicMs() - started);
      return response;
    } catch (error) {
      core.onRead("Range", false, core.clock.monotonicMs() - started);
      throw error;
    }
  }

  async function readRange(request: api.RangeRequest, context: CallContext): Promise<api.RangeResponse> {
    core.admit(context, { learnerMay: request.serializable });
    core.state.store.checkRange(request);
    if (!request.serializable) {
      const barrier = core.linearizable(context.signal);
      if (barrier !== undefined) await barrier;
    }
    const checking = readerOf(request, context);
    const who = checking === undefined ? undefined : await checking;
    const { store } = core.state;
    const response = store.rangeNow(request) ?? (await store.range(request, signalOption(context)));
    core.access.confirm(who);
    response.header = core.header(response.header?.revision ?? store.revision);
    return response;
  }

  /** Who reads, if they may. Undefined at once where authentication is off, to spare the most frequent call a turn. */
  function readerOf(request: api.RangeRequest, context: CallContext): Promise<Identity | undefined> | undefined {
    return core.access.enabled ? checkReader(request, context) : undefined;
  }

  async function checkReader(request: api.RangeRequest, context: CallContext): Promise<Identity | undefined> {
    const who = await core.access.identify(context);
    requireRange(core.access.rightsOf(who), request);
    return who;
  }

  async function* rangeStream(request: api.RangeRequest, context: CallContext): AsyncGenerator<api.RangeStreamResponse> {
    core.admit(context);
    core.state.store.checkRange(request);
    const plainOrder =
      request.sortOrder === api.SortOrder.NONE || (request.sortOrder === api.SortOrder.ASCEND && request.sortTarget === api.SortTarget.KEY);
    if (!plainOrder) throw rpcError("range-stream-sort");
    if (
      request.minModRevision !== 0 ||
      request.maxModRevision !== 0 ||
      request.minCreateRevision !== 0 ||
      request.maxCreateRevision !== 0
    ) {
      throw rpcError("range-stream-filters");
    }
    if (!request.serializable) {
      const barrier = core.linearizable(context.signal);
      if (barrier !== undefined) await barrier;
    }
    yield* streamRange(core, request, context, await readerOf(request, context));
  }

  async function put(request: api.PutRequest, context: CallContext): Promise<api.PutResponse> {
    core.admit(context);
    checkQuota(putCost(request));
    core.state.store.checkPut(request);
    const { response, revision } = await core.propose<Applied<api.PutResponse>>(raftRequest("put", request), context);
    response.header = core.header(revision);
    return response;
  }

  async function deleteRange(request: api.DeleteRangeRequest, context: CallContext): Promise<api.DeleteRangeResponse> {
    core.admit(context);
    core.state.store.checkDeleteRange(request);
    const { response, revision } = await core.propose<Applied<api.DeleteRangeResponse>>(raftRequest("delete-range", request), context);
    response.header = core.header(revision);
    return response;
  }

  async function txn(request: api.TxnRequest, context: CallContext): Promise<api.TxnResponse> {
    core.admit(context);
    checkQuota(txnCost(request));
    core.state.store.checkTxn(request, config.maxTxnOps);
    if (!isReadOnly(request)) {
      const { response, revision } = await core.propose<Applied<api.TxnResponse>>(raftRequest("txn", request), context);
      response.header = core.header(revision);
      return response;
    }
    const started = core.clock.monotonicMs();
    try {
      const response = await readTxn(request, context);
      core.onRead("ReadonlyTxn", true, core.clock.monotonicMs() - started);
      return response;
    } catch (error) {
      core.onRead("ReadonlyTxn", false, core.clock.monotonicMs() - started);
      throw error;
    }
  }

  async function readTxn(request: api.TxnRequest, context: CallContext): Promise<api.TxnResponse> {
    if (!isSerializable(request)) {
      const barrier = core.linearizable(context.signal);
      if (barrier !== undefined) await barrier;
    }
    const who = core.access.enabled ? await core.access.identify(context) : undefined;
    requireTxn(core.access.rightsOf(who), request, core.state.lessor);
    const { store } = core.state;
    const response = await store.readOnlyTxn(request, signalOption(context));
    core.access.confirm(who);
    response.header = core.header(response.header?.revision ?? store.revision);
    return response;
  }

  async function compact(request: api.CompactionRequest, context: CallContext): Promise<api.CompactionResponse> {
    core.admit(context);
    await core.access.requireRoot(context);
    const { revision } = await core.propose<Applied<undefined>>(raftRequest("compaction", request), context);
    if (request.physical) await core.compaction.finished(context.signal);
    return api.CompactionResponse.create({ header: core.header(revision) });
  }

  return { range, rangeStream, put, deleteRange, txn, compact };
}

export const QUOTA_DEFAULT_BYTES = 2 * 1024 ** 3;

/** The quota in force: the default for 0, none for negative settings. */
export function quotaBytes(setting: number): number {
  if (setting < 0) return Number.POSITIVE_INFINITY;
  return setting === 0 ? QUOTA_DEFAULT_BYTES : setting;
}

function putCost(request: api.PutRequest): number {
  return PUT_COST_BYTES + request.key.byteLength + request.value.byteLength;
}

/** Puts of the larger branch; 0 for a txn without puts. */
function txnCost(request: api.TxnRequest): number {
  if (!txnHasPut(request)) return 0;
  return Math.max(opsCost(request.success), opsCost(request.failure));
}

function opsCost(ops: readonly api.RequestOp[]): number {
  let cost = 0;
  for (const op of ops) {
    if (op.requestPut !== undefined) cost += putCost(op.requestPut);
    else if (op.requestTxn !== undefined) cost += txnCost(op.requestTxn);
  }
  return cost;
}

function isReadOnly(request: api.TxnRequest): boolean {
  return request.success.every(isRange) && request.failure.every(isRange);
}

function isRange(op: api.RequestOp): boolean {
  return op.requestRange !== undefined;
}

/** True also for a txn without any op: compares alone are answered locally (quirk 3 of api-semantics.md section 18). */
function isSerializable(request: api.TxnRequest): boolean {
  const serializable = (op: api.RequestOp): boolean => op.requestRange?.serializable === true;
  return request.success.every(serializable) && request.failure.every(serializable);
}

function signalOption(context: CallContext): { signal?: AbortSignal } {
  return context.signal === undefined ? {} : { signal: context.signal };
}

/** Chunks at one pinned revision: the key limit follows the encoded size of the chunk before (api-semantics.md section 5). */
async function* streamRange(
  core: ServiceCore,
  request: api.RangeRequest,
  context: CallContext,
  who: Identity | undefined,
): AsyncGenerator<api.RangeStreamResponse> {
  const target = core.config.maxRequestBytes;
  const { store } = core.state;
  if (request.countOnly) {
    const response = store.rangeNow(request) ?? (await store.range(request, signalOption(context)));
    core.access.confirm(who);
    response.header = core.header(response.header?.revision ?? store.revision);
    yield api.RangeStreamResponse.create({ rangeResponse: response });
    return;
  }
  let keysLimit = STREAM_FIRST_KEYS;
  let remaining = request.limit > 0 ? request.limit : Number.POSITIVE_INFINITY;
  let { key } = request;
  let revision = request.revision;
  let headerRevision = 0;
  let count = -1;
  for (;;) {
    const limit = Math.min(keysLimit, remaining);
    const chunk = await store.range({ ...request, key, revision, limit }, signalOption(context));
    core.access.confirm(who);
    const seen = chunk.header?.revision ?? store.revision;
    if (headerRevision === 0) headerRevision = seen;
    if (revision <= 0) revision = seen;
    if (count < 0) count = chunk.count;
    remaining -= chunk.kvs.length;
    const more = chunk.more && chunk.kvs.length > 0;
    if (!more || remaining <= 0) {
      chunk.header = core.header(headerRevision);
      chunk.count = count;
      chunk.more = chunk.more && remaining <= 0;
      yield api.RangeStreamResponse.create({ rangeResponse: chunk });
      return;
    }
    const last = (chunk.kvs[chunk.kvs.length - 1] as api.KeyValue).key;
    const next = new Uint8Array(last.byteLength + 1);
    next.set(last);
    key = next;
    chunk.header = undefined;
    chunk.more = false;
    chunk.count = 0;
    const bytes = api.RangeResponse.byteLength(chunk);
    if (bytes < target / 2) keysLimit *= 2;
    else if (bytes > target * 2) keysLimit = Math.max(1, Math.floor(keysLimit / 2));
    yield api.RangeStreamResponse.create({ rangeResponse: chunk });
  }
}
