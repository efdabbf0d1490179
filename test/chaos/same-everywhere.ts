/** K11 of the failure catalogue: what members say of the same state must be the same. */
import * as api from "../../src/api/index.ts";

export interface MemberHash {
  readonly name: string;
  readonly hash: number;
  readonly compactRevision: number;
}

/** All at the same revision, after the same entries. */
export function checkHashes(revision: number, hashes: readonly MemberHash[]): string[] {
  if (new Set(hashes.map(({ hash, compactRevision }) => `${hash} ${compactRevision}`)).size <= 1) return [];
  return [
    `K11-same-everywhere: at ${revision} ${hashes.map(({ name, hash, compactRevision }) => `${name} ${hash}/${compactRevision}`).join(", ")}`,
  ];
}

export interface MemberEvents {
  readonly member: string;
  readonly events: readonly api.Event[];
}

/** What the members' watches say together, up to `revision`; where two speak of the same revision, they must say the same. */
export function mergeEvents(all: readonly MemberEvents[], revision: number, violations: string[]): api.Event[] {
  const textAt = new Map<number, string>();
  const eventsAt = new Map<number, api.Event[]>();
  for (const { member, events } of all) {
    const own = new Map<number, api.Event[]>();
    for (const event of events) {
      const at = event.kv?.modRevision ?? 0;
      if (at > revision) continue;
      const list = own.get(at);
      if (list === undefined) own.set(at, [event]);
      else list.push(event);
    }
    for (const [at, list] of own) {
      const text = list.map((event) => api.printJson(api.Event, { ...event, prevKv: undefined })).join();
      const known = textAt.get(at);
      if (known === undefined) {
        textAt.set(at, text);
        eventsAt.set(at, list);
      } else if (known !== text) violations.push(`K11-same-everywhere: ${member} says of ${at}: ${text}, others ${known}`);
    }
  }
  return [...eventsAt.keys()].sort((a, b) => a - b).flatMap((at) => eventsAt.get(at) ?? []);
}
