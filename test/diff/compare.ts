/** Makes two answers comparable: ids, sizes and times that differ from run to run become marks; everything else stays exact. */
import type { RawAnswer } from "./pair.ts";

type Json = string | number | boolean | null | Json[] | { [key: string]: Json };

/** Path by path: what may differ. */
const MASKED: Readonly<Record<string, readonly string[]>> = {
  "/v3/maintenance/status": ["dbSize", "dbSizeInUse", "leader", "raftIndex", "raftAppliedIndex", "raftTerm", "storageVersion", "version"],
  "/v3/cluster/member/list": ["members"],
};

/** Lists whose order etcd leaves open. */
const UNORDERED = new Set(["leases", "keys", "alarms"]);

export function normalise(path: string, answer: RawAnswer): string {
  let body: Json;
  try {
    body = answer.body.includes("\n{")
      ? answer.body
          .trim()
          .split("\n")
          .map((line) => JSON.parse(line) as Json)
      : (JSON.parse(answer.body) as Json);
  } catch {
    return `${answer.status} ${answer.contentType}\n${answer.body.replaceAll("\u00a0", " ")}`;
  }
  return `${answer.status} ${answer.contentType}\n${JSON.stringify(visit(body, MASKED[path] ?? []))}`;
}

function visit(value: Json, masked: readonly string[], name = ""): Json {
  if (Array.isArray(value)) {
    const items = value.map((item) => visit(item, masked));
    return UNORDERED.has(name) ? items.sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)) : items;
  }
  if (typeof value === "string") return value.replaceAll("\u00a0", " ").replaceAll("  ", " ");
  if (typeof value !== "object" || value === null) return value;
  const result: { [key: string]: Json } = {};
  for (const [key, item] of Object.entries(value)) {
    if (key === "cluster_id" || key === "member_id" || key === "raft_term") result[key] = "*";
    else if (masked.includes(key)) result[key] = "*";
    // Seconds left: the two servers were asked at slightly different moments.
    else if (key === "TTL" && typeof item === "string" && Number(item) > 30) result[key] = `~${Math.round(Number(item) / 30)}`;
    else result[key] = visit(item, masked, key);
  }
  return result;
}

/** Of a watch's lines: the events in order, whatever the responses that carried them, and the notices. */
export function watchFacts(lines: readonly string[]): { events: string[]; notices: string[] } {
  const events: string[] = [];
  const notices: string[] = [];
  for (const line of lines) {
    const parsed = JSON.parse(line) as {
      result?: {
        events?: Json[];
        watch_id?: string;
        created?: boolean;
        canceled?: boolean;
        cancel_reason?: string;
        compact_revision?: string;
      };
      error?: Json;
    };
    if (parsed.result === undefined) {
      notices.push(JSON.stringify(parsed.error));
      continue;
    }
    const { events: list, watch_id: id, created, canceled, cancel_reason: reason, compact_revision: compacted } = parsed.result;
    if (created === true || canceled === true) notices.push(JSON.stringify({ id: id ?? "0", created, canceled, reason, compacted }));
    for (const event of list ?? []) events.push(`${id ?? "0"} ${JSON.stringify(event)}`);
  }
  return { events, notices };
}
