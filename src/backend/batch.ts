import { assert } from "../base/assert.ts";
import type { BackendBatch, BackendOperation } from "./backend.ts";

class RowBatch implements BackendBatch {
  readonly operations: BackendOperation[] = [];
  bytes = 0;

  put(key: Uint8Array, value: Uint8Array): void {
    assert(key.byteLength > 0, "a row needs a key");
    this.operations.push({ type: "put", key, value });
    this.bytes += key.byteLength + value.byteLength;
  }

  delete(key: Uint8Array): void {
    assert(key.byteLength > 0, "a row needs a key");
    this.operations.push({ type: "del", key });
    this.bytes += key.byteLength;
  }
}

/** Keys and values are not copied: leave them unchanged until the write has resolved. */
export function createBatch(): BackendBatch {
  return new RowBatch();
}
