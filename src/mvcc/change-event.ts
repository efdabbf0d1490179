import type { KeyValue } from "../api/index.ts";
import { bytesOfKey, EMPTY_BYTES, type KeyString } from "../base/bytes.ts";
import { NO_LEASE, type Revision } from "../base/ids.ts";
import type { RevisionPosition } from "./revision.ts";
import type { StoredPair } from "./row.ts";
import type { MvccEvent } from "./types.ts";

/** A change as the store reports it. The message is made when somebody asks for it: without watchers nobody does. */
export class ChangeEvent implements MvccEvent {
  readonly key: KeyString;
  readonly revision: Revision;
  readonly previous: RevisionPosition | undefined;
  /** What was put; undefined for a deletion. */
  readonly pair: StoredPair | undefined;
  #kv: KeyValue | undefined = undefined;

  constructor(key: KeyString, revision: Revision, pair: StoredPair | undefined, previous: RevisionPosition | undefined) {
    this.key = key;
    this.revision = revision;
    this.pair = pair;
    this.previous = previous;
  }

  get type(): "put" | "delete" {
    return this.pair === undefined ? "delete" : "put";
  }

  get lease(): bigint {
    return this.pair === undefined ? NO_LEASE : this.pair.lease;
  }

  get kv(): KeyValue {
    this.#kv ??= this.pair?.toKeyValue() ?? {
      key: bytesOfKey(this.key),
      createRevision: 0,
      modRevision: this.revision,
      version: 0,
      value: EMPTY_BYTES,
      lease: NO_LEASE,
      wire: undefined,
    };
    return this.#kv;
  }
}
