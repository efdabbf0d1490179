/** What callers ask for, as API messages: each way of asking (JSON, gRPC, in process) encodes the same ones. */
import * as api from "../../../src/api/index.ts";

export const OPERATIONS = ["put", "range", "range-serializable", "txn"] as const;
export type OperationName = (typeof OPERATIONS)[number];

export function isOperation(name: string): name is OperationName {
  return (OPERATIONS as readonly string[]).includes(name);
}

/** One request. */
export type Call =
  | { readonly method: "put"; readonly request: api.PutRequest }
  | { readonly method: "range"; readonly request: api.RangeRequest }
  | { readonly method: "txn"; readonly request: api.TxnRequest };

export interface DataShape {
  readonly keys: number;
  readonly valueBytes: number;
}

/** Keys of 16 bytes. */
export function keyOf(index: number): Uint8Array {
  return Buffer.from(`k/${String(index).padStart(14, "0")}`);
}

export function contentOf(index: number, bytes: number): Uint8Array {
  return Buffer.alloc(bytes, `value-${index}-`);
}

/** Different requests of one kind, over keys that exist: enough of them that no cache of one request helps. */
export function makeCalls(name: OperationName, shape: DataShape, count = 2048): Call[] {
  return Array.from({ length: count }, (_, n) => {
    // A stride without a common divisor spreads the keys.
    const index = (n * 7919) % shape.keys;
    const key = keyOf(index);
    switch (name) {
      case "put":
        return { method: "put", request: api.PutRequest.create({ key, value: contentOf(n, shape.valueBytes) }) };
      case "range":
        return { method: "range", request: api.RangeRequest.create({ key }) };
      case "range-serializable":
        return { method: "range", request: api.RangeRequest.create({ key, serializable: true }) };
      case "txn":
        return {
          method: "txn",
          request: api.TxnRequest.create({
            compare: [api.Compare.create({ key, target: api.CompareTarget.VERSION, result: api.CompareResult.GREATER, version: 0 })],
            success: [api.RequestOp.create({ requestPut: api.PutRequest.create({ key, value: contentOf(n, shape.valueBytes) }) })],
            failure: [api.RequestOp.create({ requestRange: api.RangeRequest.create({ key }) })],
          }),
        };
      default:
        return name satisfies never;
    }
  });
}

/** Transactions that write keys `from` to `upTo - 1`, as many per transaction as a server allows by default. */
export function* loadCalls(from: number, upTo: number, valueBytes: number, perTxn = 128): Generator<Call> {
  for (let at = from; at < upTo; at += perTxn) {
    const success: api.RequestOp[] = [];
    for (let index = at; index < Math.min(upTo, at + perTxn); index += 1) {
      const requestPut = api.PutRequest.create({ key: keyOf(index), value: contentOf(index, valueBytes) });
      success.push(api.RequestOp.create({ requestPut }));
    }
    yield { method: "txn", request: api.TxnRequest.create({ success }) };
  }
}
