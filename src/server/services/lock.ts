import * as api from "../../api/index.ts";
import { rpcError } from "../../api/rpc-errors.ts";
import { EMPTY_BYTES } from "../../base/bytes.ts";
import {
  type CoordinationPort,
  coordinate,
  createdAt,
  leaseFor,
  opPut,
  opRange,
  ownerRange,
  ownershipKey,
  waitForTurn,
  withdraw,
} from "./coordination-port.ts";
import type { CallContext, LockService } from "./services.contract.ts";

/**
 * The Lock service (v3lock): the owner is whoever created the oldest key under `name/`. Mutual exclusion holds inside the store only:
 * a holder whose lease ended does not know it. Guard what is written elsewhere by the create revision of the returned key.
 */
export function createLockService(port: CoordinationPort): LockService {
  async function acquire(request: api.LockRequest, context: CallContext): Promise<api.LockResponse> {
    const lease = await leaseFor(port, request.lease, context);
    const key = ownershipKey(request.name, lease);
    const owner = opRange(ownerRange(request.name));
    const mine = opRange(api.RangeRequest.create({ key }));
    const entered = await port.kv.txn(
      api.TxnRequest.create({ compare: [createdAt(key, 0)], success: [opPut(key, EMPTY_BYTES, lease), owner], failure: [mine, owner] }),
      context,
    );
    const [first, second] = entered.responses;
    const revision = entered.succeeded ? entered.header?.revision : first?.responseRange?.kvs[0]?.createRevision;
    // Both branches leave the key there.
    if (revision === undefined) throw rpcError("mutex-session-expired");
    const oldest = second?.responseRange?.kvs[0];
    if (oldest === undefined || oldest.createRevision === revision) return api.LockResponse.create({ header: entered.header, key });
    let read: api.RangeResponse;
    try {
      await waitForTurn(port, request.name, revision, context);
      read = await port.kv.range(api.RangeRequest.create({ key }), context);
    } catch (error) {
      await withdraw(port, key, revision, context);
      throw error;
    }
    // The lease may have ended meanwhile, and a key of the same name may be another's: only this very key makes an owner (promise X1).
    if (read.kvs[0]?.createRevision !== revision) throw rpcError("mutex-session-expired");
    return api.LockResponse.create({ header: read.header, key });
  }

  return {
    lock: (request, context) => coordinate(context, () => acquire(request, context)),

    unlock: (request, context) =>
      coordinate(context, async () => {
        const { header } = await port.kv.deleteRange(api.DeleteRangeRequest.create({ key: request.key }), context);
        return api.UnlockResponse.create({ header });
      }),
  };
}
