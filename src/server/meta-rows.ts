/** Keys of the server's own rows under RowSpace.meta ("M"), sub-space "s". The store's are in src/mvcc. Layout: docs/FORMATS.md. */
import { RowSpace } from "../backend/row-spaces.ts";
import { concatBytes, utf8Bytes } from "../base/bytes.ts";

function metaKey(name: string): Uint8Array {
  return concatBytes([new Uint8Array([RowSpace.meta]), utf8Bytes(`s/${name}`)]);
}

/** Position reached by the newest batch. */
export const APPLIED_KEY = metaKey("applied");
/** Position up to which the store is known to be on disk. */
export const CHECKPOINT_KEY = metaKey("checkpoint");
export const CONF_STATE_KEY = metaKey("conf-state");
export const CLUSTER_VERSION_KEY = metaKey("cluster-version");
export const DOWNGRADE_KEY = metaKey("downgrade");
/** High-water mark of the store's logical size, lowered by a defragmentation only. */
export const SIZE_KEY = metaKey("size");
