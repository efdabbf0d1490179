/** Where ids come from (etcd: server-config section 8). The same URLs and token give the same ids as in etcd, whatever the order of starting. */
import { createHash } from "node:crypto";
import type { ClusterId, MemberId } from "../base/ids.ts";

/**
 * The id of a member. `salt` is the cluster token for members of an initial cluster, and the decimal Unix time in seconds for one that is added later (so the
 * same URL added again gets another id, from the next second on).
 */
export function memberIdOf(peerUrls: readonly string[], salt: string): MemberId {
  const hash = createHash("sha1");
  for (const url of [...peerUrls].sort()) hash.update(url, "utf8");
  return hash.update(salt, "utf8").digest().readBigUInt64BE(0) as MemberId;
}

/** The id of a cluster founded by these members. Computed once, then kept in the log's metadata: membership changes never alter it. */
export function clusterIdOf(memberIds: readonly MemberId[]): ClusterId {
  const bytes = Buffer.alloc(memberIds.length * 8);
  const sorted = [...memberIds].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
  for (const [at, id] of sorted.entries()) bytes.writeBigUInt64BE(id, at * 8);
  return createHash("sha1").update(bytes).digest().readBigUInt64BE(0) as ClusterId;
}
