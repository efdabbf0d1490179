/**
 * The first byte of every row's key says which part of the state it belongs to. One place, so that no two parts collide and so that a
 * snapshot can be cut out of the store by ranges. Layout of the rest: docs/FORMATS.md.
 */
export const RowSpace = {
  /** MVCC revisions: src/mvcc. */
  revision: 0x6b, // "k"
  /** Leases: src/lease. */
  lease: 0x6c, // "l"
  /** Members, removed members: src/server/membership.ts. */
  member: 0x6d, // "m"
  /** Alarms: src/server/alarms.ts. */
  alarm: 0x61, // "a"
  /** Users, roles and the auth switch: src/auth. */
  auth: 0x75, // "u"
  /** Applied index, term, conf state, compaction marks, versions, sizes. */
  meta: 0x4d, // "M"
  /** Chain links of the batches since the last checkpoint. */
  chain: 0x63, // "c"
} as const;
