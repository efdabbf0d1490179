/** A multi-version history in arrays, as a source for the watch hub, and the model for the checker. */
import { CompactedError, KeyValue } from "../../src/api/index.ts";
import { bytesOfKey, type KeyString, utf8Bytes } from "../../src/base/bytes.ts";
import type { Revision } from "../../src/base/ids.ts";
import type { MvccEvent, RevisionPosition } from "../../src/mvcc/index.ts";
import type { WatchSource } from "../../src/watch/hub.contract.ts";
import { WatchModel } from "./watch-checker.ts";

export type Operation = { readonly put: string; readonly value?: string; readonly lease?: bigint } | { readonly delete: string };

interface Row {
  readonly kv: KeyValue;
  readonly position: RevisionPosition;
  /** Revision that replaced or deleted it. */
  endedAt: Revision | undefined;
}

/** What the cluster agreed on. Members see a prefix of it. */
export class WatchHistory {
  readonly model = new WatchModel();
  readonly #rows = new Map<string, Row>();
  readonly #alive = new Map<KeyString, Row>();
  readonly #events: MvccEvent[][] = [];

  get revision(): Revision {
    return this.#events.length + 1;
  }

  /** Executes one transaction; deletes of absent keys change nothing, and no revision is used if nothing changes. */
  apply(...operations: readonly Operation[]): readonly MvccEvent[] {
    const revision = this.revision + 1;
    const events: MvccEvent[] = [];
    for (const operation of operations) {
      const key = ("put" in operation ? operation.put : operation.delete) as KeyString;
      const before = this.#alive.get(key);
      const previous = before?.position;
      if ("put" in operation) {
        const kv = KeyValue.create({
          key: bytesOfKey(key),
          createRevision: before?.kv.createRevision ?? revision,
          modRevision: revision,
          version: (before?.kv.version ?? 0) + 1,
          value: utf8Bytes(operation.value ?? `${key}@${revision}`),
          lease: operation.lease ?? 0n,
        });
        const row: Row = { kv, position: { main: revision, sub: events.length }, endedAt: undefined };
        this.#rows.set(`${revision}/${events.length}`, row);
        this.#alive.set(key, row);
        events.push({ type: "put", key, kv, previous });
        this.model.append({ revision, key, kv, previous: before?.kv });
      } else {
        if (before === undefined) continue;
        this.#alive.delete(key);
        events.push({ type: "delete", key, kv: KeyValue.create({ key: bytesOfKey(key), modRevision: revision }), previous });
        this.model.append({ revision, key, kv: undefined, previous: before.kv });
      }
      if (before !== undefined) before.endedAt = revision;
    }
    if (events.length > 0) this.#events.push(events);
    return events;
  }

  eventsOf(revision: Revision): readonly MvccEvent[] {
    return this.#events[revision - 2] ?? [];
  }

  /** The row, unless a compaction to `compacted` removed it. */
  row(position: RevisionPosition, compacted: Revision): KeyValue | undefined {
    const row = this.#rows.get(`${position.main}/${position.sub}`);
    if (row === undefined || (row.endedAt !== undefined && row.endedAt <= compacted)) return undefined;
    return row.kv;
  }
}

/** One member's store: it has executed the history up to `revision`. */
export class MemberSource implements WatchSource {
  readonly history_: WatchHistory;
  revision: Revision;
  compactRevision: Revision;
  /** Calls of `history`, and of rows asked for one by one and together. */
  reads = 0;
  rowsNow = 0;
  rowsLater = 0;
  /** Awaited by every read before it answers. */
  gate: () => Promise<void> = () => Promise.resolve();

  constructor(history: WatchHistory, revision: Revision = history.revision, compactRevision: Revision = -1) {
    this.history_ = history;
    this.revision = revision;
    this.compactRevision = compactRevision;
  }

  compact(revision: Revision): void {
    if (revision <= this.compactRevision || revision > this.revision) throw new Error(`cannot compact to ${revision}`);
    this.compactRevision = revision;
    if (!this.history_.model.compactions.includes(revision)) this.history_.model.compactions.push(revision);
  }

  async history(
    from: Revision,
    upTo: Revision,
    limits: { revisionsMax: number; bytesMax: number },
  ): Promise<{ events: readonly MvccEvent[]; next: Revision }> {
    this.reads += 1;
    await this.gate();
    if (from < this.compactRevision) throw new CompactedError({ requested: from, compacted: this.compactRevision });
    const events: MvccEvent[] = [];
    let bytes = 0;
    let next = from;
    while (next <= Math.min(upTo, this.revision) && next - from < limits.revisionsMax && bytes < limits.bytesMax) {
      for (const event of this.history_.eventsOf(next)) {
        events.push(event);
        bytes += event.kv.key.length + event.kv.value.length;
      }
      next += 1;
    }
    return { events, next };
  }

  rowAt(position: RevisionPosition): KeyValue | undefined {
    this.rowsNow += 1;
    return this.history_.row(position, this.compactRevision);
  }

  async rowsAt(positions: readonly RevisionPosition[]): Promise<(KeyValue | undefined)[]> {
    this.rowsLater += positions.length;
    await this.gate();
    return positions.map((position) => this.history_.row(position, this.compactRevision));
  }
}
