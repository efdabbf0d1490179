/**
 * Random requests of the JSON API. Keys, values, revisions and ids come from small pools, so that requests meet each other; every option, odd numbers and
 * forbidden combinations turn up often enough.
 */
import type { Random } from "../../src/base/random.ts";

/** One step of a run. */
export type Step =
  | { readonly kind: "call"; readonly path: string; readonly body: string }
  /** Both servers stop and start again. */
  | { readonly kind: "restart" };

type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };

const b64 = (text: string): string => Buffer.from(text, "latin1").toString("base64");

const KEYS = ["a", "b", "c", "aa", "ab", "abc", "b/1", "b/2", "b/3", "c\xff", "\xff", "\xff\xff", "\x00", "\x00\x00", "d", "e", "zz"];
const ENDS = ["", "", "", "b", "c", "b0", "ac", "\x00", "\x00", "\x00", "\xff", "a", "zz", "b/2", "d"];
const VALUES = ["", "1", "2", "3", "x", "yy", "a longer value", "\x00\x01\x02", "\xff"];

/** What the run knows of the store, roughly: enough to ask about revisions near the edges. */
export interface Knowledge {
  revision: number;
  compacted: number;
  readonly leases: number[];
}

export class Generator {
  readonly #random: Random;
  readonly #known: Knowledge;
  #lift: { steps: number; memberID: number; alarm: string } | undefined;

  constructor(random: Random, known: Knowledge) {
    this.#random = random;
    this.#known = known;
  }

  next(): Step {
    // An alarm stops most requests: it is lifted again soon.
    if (this.#lift !== undefined && this.#lift.steps-- <= 0) {
      const { memberID, alarm } = this.#lift;
      this.#lift = undefined;
      return this.#call("maintenance/alarm", { action: "DEACTIVATE", memberID, alarm });
    }
    const pick = this.#random.below(1000);
    if (pick < 300) return this.#call("kv/put", this.#put());
    if (pick < 520) return this.#call("kv/range", this.#range(true));
    if (pick < 590) return this.#call("kv/deleterange", this.#delete());
    if (pick < 810) return this.#call("kv/txn", this.#txn(0));
    if (pick < 835) return this.#call("kv/compaction", this.#compaction());
    if (pick < 880) return this.#lease();
    if (pick < 900) return this.#call("maintenance/hashkv", this.#maybe(3, { revision: this.#revision() }));
    if (pick < 920) return this.#alarm();
    if (pick < 935) return this.#call("maintenance/status", {});
    if (pick < 945) return this.#call("cluster/member/list", this.#maybe(2, { linearizable: true }));
    if (pick < 955) return this.#cluster();
    if (pick < 965) return this.#lockOrElection();
    if (pick < 990) return this.#odd();
    if (pick < 999) return this.#call("maintenance/downgrade", this.#downgrade());
    return this.#chance(1, 60) ? { kind: "restart" } : this.#call("maintenance/defragment", {});
  }

  #call(path: string, body: Json): Step {
    return { kind: "call", path: `/v3/${path}`, body: this.#disguise(body) };
  }

  /** The same request in another spelling that means the same. */
  #disguise(body: Json): string {
    const text = JSON.stringify(body);
    switch (this.#random.below(12)) {
      case 0:
        return text.replace(
          /"(range_end|prev_kv|sort_order|count_only|keys_only|ignore_value)":/g,
          (_all, name: string) => `"${camel(name)}":`,
        );
      case 1:
        return text.replace(/:(-?\d+)([,}\]])/g, ':"$1"$2');
      case 2:
        return ` ${text.replaceAll(",", " ,\n ")} `;
      default:
        return text;
    }
  }

  #of<T>(list: readonly T[]): T {
    return list[this.#random.below(list.length)] as T;
  }

  #chance(of: number, outOf: number): boolean {
    return this.#random.chance({ of, outOf });
  }

  #maybe(outOf: number, fields: Record<string, Json>): Record<string, Json> {
    return this.#chance(1, outOf) ? fields : {};
  }

  #key(): string {
    return b64(this.#chance(1, 40) ? "" : this.#of(KEYS));
  }

  #rangeFields(): Record<string, Json> {
    const end = this.#of(ENDS);
    return { key: this.#key(), ...(end === "" ? {} : { range_end: b64(end) }) };
  }

  #revision(): number {
    const { revision, compacted } = this.#known;
    switch (this.#random.below(9)) {
      case 0:
        return 0;
      case 1:
        return revision + this.#random.below(3);
      case 2:
        return Math.max(0, compacted + this.#random.below(3) - 1);
      case 3:
        return -1 - this.#random.below(3);
      default:
        return Math.max(1, revision - this.#random.below(12));
    }
  }

  #leaseId(): number {
    const { leases } = this.#known;
    if (leases.length === 0 || this.#chance(1, 12)) return this.#of([0, 7, -3, 424242]);
    return this.#of(leases);
  }

  #put(): Record<string, Json> {
    return {
      key: this.#key(),
      value: b64(this.#of(VALUES)),
      ...this.#maybe(8, { lease: this.#leaseId() }),
      ...this.#maybe(4, { prev_kv: true }),
      ...(this.#chance(1, 16) ? { ignore_value: true, ...this.#maybe(1, {}), ...(this.#chance(3, 4) ? { value: "" } : {}) } : {}),
      ...this.#maybe(16, { ignore_lease: true }),
    };
  }

  #range(outside: boolean): Record<string, Json> {
    return {
      ...this.#rangeFields(),
      ...this.#maybe(3, { limit: this.#of([1, 1, 2, 3, 5, 100, 0, -1]) }),
      ...this.#maybe(4, { revision: this.#revision() }),
      ...this.#maybe(4, { sort_order: this.#of<Json>(["NONE", "ASCEND", "DESCEND", 2, 7, "DOWN"]) }),
      // Ties have no order in etcd, so only targets without ties are asked for beside others' limits.
      ...this.#maybe(4, { sort_target: this.#of<Json>(["KEY", "MOD", "KEY", "MOD", 9]) }),
      ...this.#maybe(6, { keys_only: true }),
      ...this.#maybe(6, { count_only: true }),
      ...(outside ? this.#maybe(6, { serializable: true }) : {}),
      ...this.#maybe(10, { min_mod_revision: this.#revision() }),
      ...this.#maybe(10, { max_mod_revision: this.#revision() }),
      ...this.#maybe(10, { min_create_revision: this.#revision() }),
      ...this.#maybe(10, { max_create_revision: this.#revision() }),
    };
  }

  #delete(): Record<string, Json> {
    return { ...this.#rangeFields(), ...this.#maybe(3, { prev_kv: true }) };
  }

  #compare(): Record<string, Json> {
    const target = this.#of(["VERSION", "CREATE", "MOD", "VALUE", "LEASE"]);
    const operand: Record<string, Json> =
      target === "VERSION"
        ? { version: this.#random.below(4) }
        : target === "CREATE"
          ? { create_revision: this.#chance(1, 2) ? 0 : this.#revision() }
          : target === "MOD"
            ? { mod_revision: this.#revision() }
            : target === "VALUE"
              ? { value: b64(this.#of(VALUES)) }
              : { lease: this.#leaseId() };
    return {
      ...(this.#chance(1, 5) ? this.#rangeFields() : { key: this.#key() }),
      target,
      ...this.#maybe(1, { result: this.#of<Json>(["EQUAL", "GREATER", "LESS", "NOT_EQUAL"]) }),
      ...(this.#chance(1, 20) ? {} : operand),
    };
  }

  #txn(depth: number): Record<string, Json> {
    const list = (max: number, make: () => Json): Json[] => Array.from({ length: this.#random.below(max + 1) }, make);
    const large = depth === 0 && this.#chance(1, 60);
    return {
      ...(this.#chance(2, 3) ? { compare: list(2, () => this.#compare()) } : {}),
      success: large
        ? Array.from({ length: 127 + this.#random.below(4) }, (_, i) => ({ request_range: { key: b64(`k${i}`) } }))
        : list(4, () => this.#op(depth)),
      ...(this.#chance(1, 2) ? { failure: list(3, () => this.#op(depth)) } : {}),
    };
  }

  #op(depth: number): Json {
    const pick = this.#random.below(100);
    if (pick < 38) return { request_put: this.#put() };
    if (pick < 65) return { request_range: this.#range(this.#chance(1, 4)) };
    if (pick < 82) return { request_delete_range: this.#delete() };
    if (pick < 97 && depth < 3) return { request_txn: this.#txn(depth + 1) };
    return pick < 98 ? {} : { request_range: this.#range(false) };
  }

  #compaction(): Record<string, Json> {
    const back = this.#random.below(60);
    const revision = this.#chance(1, 6) ? this.#revision() : Math.max(0, this.#known.revision - back);
    return { revision, ...this.#maybe(3, { physical: true }) };
  }

  #lease(): Step {
    const { leases } = this.#known;
    switch (this.#random.below(6)) {
      case 0:
      case 1: {
        const id = this.#chance(1, 6) ? this.#leaseId() : 1000 + this.#random.below(40);
        // Never 0: the server would choose, and the two would differ.
        if (id !== 0 && !leases.includes(id)) leases.push(id);
        return this.#call("lease/grant", { ID: id === 0 ? 5 : id, TTL: this.#of([600, 3600, 9_000_000_000, 9_000_000_001, 100_000]) });
      }
      case 2:
        return this.#call(this.#of(["lease/revoke", "kv/lease/revoke"]), { ID: this.#leaseId() });
      case 3:
        return this.#call("lease/keepalive", { ID: this.#leaseId() });
      case 4:
        return this.#call(this.#of(["lease/timetolive", "kv/lease/timetolive"]), {
          ID: this.#leaseId(),
          ...this.#maybe(2, { keys: true }),
        });
      default:
        return this.#call("lease/leases", {});
    }
  }

  #alarm(): Step {
    const memberID = this.#of([7, 8]);
    const alarm = this.#of(["NONE", "NOSPACE", "NOSPACE", "CORRUPT"]);
    if (this.#lift === undefined && this.#chance(1, 8)) {
      this.#lift = { steps: this.#random.below(15), memberID, alarm };
      return this.#call("maintenance/alarm", { action: "ACTIVATE", memberID, alarm });
    }
    return this.#call("maintenance/alarm", {
      action: this.#of(["GET", "DEACTIVATE"]),
      memberID,
      alarm: this.#lift === undefined ? alarm : "NONE",
    });
  }

  #cluster(): Step {
    switch (this.#random.below(4)) {
      case 0:
        return this.#call("cluster/member/add", {
          peerURLs: this.#of<Json>([[], ["nonsense"], ["http://"], ["http://1.2.3.4"], ["ftp://1.2.3.4:1"]]),
        });
      case 1:
        return this.#call("cluster/member/remove", { ID: this.#of([0, 1, 12345]) });
      case 2:
        return this.#call("cluster/member/update", { ID: this.#of([0, 1, 12345]), peerURLs: ["http://127.0.0.1:1"] });
      default:
        return this.#call("cluster/member/promote", { ID: this.#of([0, 1, 12345]) });
    }
  }

  #lockOrElection(): Step {
    const name = b64(this.#of(["l", "m"]));
    const lease = this.#of([5, 1000, 424242]);
    switch (this.#random.below(5)) {
      case 0:
        return this.#call("lock/unlock", { key: this.#key() });
      case 1:
        return this.#call("election/leader", { name });
      case 2:
        return this.#call("election/resign", this.#maybe(2, { leader: { name, key: this.#key(), rev: this.#revision(), lease } }));
      case 3:
        return this.#call(
          "election/proclaim",
          this.#maybe(2, { leader: { name, key: b64("none"), rev: this.#revision(), lease }, value: b64("v") }),
        );
      default:
        return this.#call("lock/lock", { name, lease: 424242 });
    }
  }

  #downgrade(): Record<string, Json> {
    return { action: this.#of<Json>(["VALIDATE", "CANCEL", 9]), version: this.#of(["3.6", "3.5", "3.7", "x", "3.6.0", ""]) };
  }

  /** Requests that are wrong in form. */
  #odd(): Step {
    const path = this.#of([
      "kv/put",
      "kv/range",
      "kv/txn",
      "kv/deleterange",
      "lease/grant",
      "maintenance/alarm",
      "kv/nothing",
      "kv/range/",
    ]);
    const body = this.#of([
      "",
      "{}",
      "null",
      "[]",
      "{",
      '{"key":1}',
      '{"key":"a"}',
      '{"key":"YQ==","limit":"x"}',
      '{"key":"YQ==","limit":1.5}',
      '{"key":"YQ==","key":"YQ=="}',
      '{"key":"YQ==","unknown":{"a":[1,2]}}',
      '{"key":"YQ==","limit":"9223372036854775807"}',
      '{"key":"YQ==","limit":"9223372036854775808"}',
      '{"key":"YQ==","revision":-9223372036854775808}',
      '{"success":[null]}',
      '{"success":{}}',
      '{"success":[{"request_put":{"key":"YQ=="},"request_range":{"key":"YQ=="}}]}',
      '{"compare":[{"key":"YQ==","target":9}]}',
      '{"ID":"x","TTL":5}',
      '{"action":7}',
      '{"key":"YQ==","prev_kv":"true"}',
      '{"key":"YQ==","value":"Y Q"}',
      '{"key":"YQ==","sort_order":true}',
    ]);
    // Without an id the server would choose one; without a good action a real etcd ends.
    if (path === "lease/grant" && !body.includes('"ID":"x"')) return { kind: "call", path: "/v3/kv/range", body };
    if (path === "maintenance/alarm" && body.includes("action")) return { kind: "call", path: "/v3/kv/range", body };
    return { kind: "call", path: `/v3/${path}`, body };
  }
}

function camel(name: string): string {
  return name.replace(/_([a-z])/g, (_all, letter: string) => letter.toUpperCase());
}
