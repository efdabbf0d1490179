import * as api from "../../api/index.ts";
import { rpcError } from "../../api/rpc-errors.ts";
import { equalBytes } from "../../base/bytes.ts";
import type { Revision } from "../../base/ids.ts";
import {
  type CoordinationPort,
  coordinate,
  coordinationError,
  createdAt,
  deleteCreatedAt,
  leaseFor,
  opPut,
  opRange,
  ownerRange,
  ownershipKey,
  ownershipRange,
  waitForTurn,
  watchResponses,
  withdraw,
} from "./coordination-port.ts";
import type { CallContext, ElectionService } from "./services.contract.ts";

/** The Election service (v3election): the leader is whoever created the oldest key under `name/`; its value is what it proclaims. */
export function createElectionService(port: CoordinationPort): ElectionService {
  /** Puts a leader's value if it still leads. */
  async function proclaimAs(
    key: Uint8Array,
    revision: Revision,
    lease: bigint,
    value: Uint8Array,
    context: CallContext,
  ): Promise<api.TxnResponse> {
    const response = await port.kv.txn(
      api.TxnRequest.create({ compare: [createdAt(key, revision)], success: [opPut(key, value, lease)] }),
      context,
    );
    if (!response.succeeded) throw rpcError("election-not-leader");
    return response;
  }

  async function campaign(request: api.CampaignRequest, context: CallContext): Promise<api.CampaignResponse> {
    const { name, value } = request;
    const lease = await leaseFor(port, request.lease, context);
    const key = ownershipKey(name, lease);
    const entered = await port.kv.txn(
      api.TxnRequest.create({
        compare: [createdAt(key, 0)],
        success: [opPut(key, value, lease)],
        failure: [opRange(api.RangeRequest.create({ key }))],
      }),
      context,
    );
    const present = entered.succeeded ? undefined : entered.responses[0]?.responseRange?.kvs[0];
    const revision = entered.succeeded ? entered.header?.revision : present?.createRevision;
    if (revision === undefined) throw rpcError("election-not-leader");
    if (present !== undefined && !equalBytes(present.value, value)) {
      try {
        await proclaimAs(key, revision, lease, value, context);
      } catch (error) {
        await withdraw(port, key, revision, context);
        throw error;
      }
    }
    try {
      await waitForTurn(port, name, revision, context);
    } catch (error) {
      // Only a caller that is gone gives up the candidacy; after any other error it can campaign again with the same key.
      if (context.signal?.aborted === true) await withdraw(port, key, revision, context);
      throw error;
    }
    return api.CampaignResponse.create({ header: entered.header, leader: api.LeaderKey.create({ name, key, rev: revision, lease }) });
  }

  async function proclaim(request: api.ProclaimRequest, context: CallContext): Promise<api.ProclaimResponse> {
    const { leader } = request;
    if (leader === undefined) throw rpcError("leader-field-required");
    const lease = await leaseFor(port, leader.lease, context);
    const { header } = await proclaimAs(leader.key, leader.rev, lease, request.value, context);
    return api.ProclaimResponse.create({ header });
  }

  async function resign(request: api.ResignRequest, context: CallContext): Promise<api.ResignResponse> {
    const { leader } = request;
    if (leader === undefined) throw rpcError("leader-field-required");
    // As the reference does, although nothing hangs on this lease.
    await leaseFor(port, leader.lease, context);
    const { header } = await deleteCreatedAt(port, leader.key, leader.rev, context);
    return api.ResignResponse.create({ header });
  }

  async function leader(request: api.LeaderRequest, context: CallContext): Promise<api.LeaderResponse> {
    const { header, kvs } = await port.kv.range(ownerRange(request.name), context);
    const [kv] = kvs;
    if (kv === undefined) throw rpcError("election-no-leader");
    return api.LeaderResponse.create({ header, kv });
  }

  async function* observe(request: api.LeaderRequest, context: CallContext): AsyncGenerator<api.LeaderResponse> {
    let told: api.KeyValue | undefined;
    try {
      for (;;) {
        const { header, kvs } = await port.kv.range(ownerRange(request.name), context);
        let current = kvs[0] === undefined ? undefined : api.LeaderResponse.create({ header, kv: kvs[0] });
        current ??= await firstLeader(port, request.name, header?.revision ?? 0, context);
        // Undefined: what happened since the look at the store is compacted. The same as before: it was, while that leader was watched.
        if (current?.kv === undefined) continue;
        if (told === undefined || told.modRevision !== current.kv.modRevision || !equalBytes(told.key, current.kv.key)) yield current;
        told = current.kv;
        for await (const next of proclamations(port, current.kv.key, current.header?.revision ?? 0, context)) {
          told = next.kv;
          yield next;
        }
      }
    } catch (error) {
      throw coordinationError(error, context);
    }
  }

  return {
    campaign: (request, context) => coordinate(context, () => campaign(request, context)),
    proclaim: (request, context) => coordinate(context, () => proclaim(request, context)),
    leader: (request, context) => coordinate(context, () => leader(request, context)),
    resign: (request, context) => coordinate(context, () => resign(request, context)),
    observe,
  };
}

/** The first candidate after `revision`, when there was none. Its header carries the revision of that very change. Undefined when compacted. */
async function firstLeader(
  port: CoordinationPort,
  name: Uint8Array,
  revision: Revision,
  context: CallContext,
): Promise<api.LeaderResponse | undefined> {
  const request = api.WatchCreateRequest.create({
    ...ownershipRange(name),
    startRevision: revision + 1,
    filters: [api.FilterType.NODELETE],
  });
  for await (const response of watchResponses(port, request, context)) {
    if (response === "compacted") break;
    const kv = response.events[0]?.kv;
    if (kv === undefined || response.header === undefined) continue;
    return api.LeaderResponse.create({ header: { ...response.header, revision: kv.modRevision }, kv });
  }
  return undefined;
}

/** Every new value of a leader's key after `revision`, until the key is deleted or that history is compacted. */
async function* proclamations(
  port: CoordinationPort,
  key: Uint8Array,
  revision: Revision,
  context: CallContext,
): AsyncGenerator<api.LeaderResponse> {
  const request = api.WatchCreateRequest.create({ key, startRevision: revision + 1 });
  for await (const response of watchResponses(port, request, context)) {
    if (response === "compacted") return;
    for (const event of response.events) {
      if (event.type === api.EventType.DELETE) return;
      yield api.LeaderResponse.create({ header: response.header, kv: event.kv });
    }
  }
}
