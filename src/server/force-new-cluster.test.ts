import { describe, expect, test } from "vitest";
import { EMPTY_BYTES } from "../base/bytes.ts";
import type { MemberId } from "../base/ids.ts";
import { seededRandom } from "../base/random.ts";
import { type ConfChange, type ConfState, changeConf, decodeConfChange, type Entry, encodeConfChange, isProblem } from "../raft/index.ts";
import { BootstrapError } from "./bootstrap-error.ts";
import { soleMemberLog } from "./force-new-cluster.ts";
import { decodeMemberChange, encodeMemberChange, type MemberChange, type MemberRecord, Membership } from "./membership.ts";

const NOWHERE = { put: () => undefined, delete: () => undefined, operations: [], bytes: 0 };
const OWN = 1n as MemberId;

function record(id: bigint, isLearner = false): MemberRecord {
  return { id: id as MemberId, name: `n${id}`, peerUrls: [`http://n${id}:2380`], clientUrls: [], isLearner };
}

function change(action: MemberChange["action"], member: MemberRecord, kind: ConfChange["steps"][number]["kind"]): ConfChange {
  return { steps: [{ kind, memberId: member.id }], context: encodeMemberChange({ action, member, requestId: 0n }) };
}

/** Everything that members can be told to do, as entries of a log that begins with three members. */
function randomLog(seed: number): { entries: Entry[]; members: bigint[] } {
  const random = seededRandom(seed);
  const entries: Entry[] = [];
  const add = (type: Entry["type"], data: Uint8Array): void => {
    entries.push({ term: 1 + Math.floor(entries.length / 5), index: entries.length + 1, type, data });
  };
  for (const id of [1n, 2n, 3n]) add("conf-change", encodeConfChange(change("add", record(id), "add-voter")));
  for (let i = 0; i < 12; i++) {
    const id = BigInt(2 + random.below(5));
    switch (random.below(5)) {
      case 0:
        add("conf-change", encodeConfChange(change("add", record(id), "add-voter")));
        break;
      case 1:
        add("conf-change", encodeConfChange(change("add", record(id, true), "add-learner")));
        break;
      case 2:
        add("conf-change", encodeConfChange(change("promote", record(id), "add-voter")));
        break;
      case 3:
        add("conf-change", encodeConfChange(change("remove", record(id), "remove")));
        break;
      default:
        add("normal", EMPTY_BYTES);
    }
  }
  return { entries, members: [1n, 2n, 3n] };
}

/** As the applier does it. */
class Applied {
  confState: ConfState = { voters: [], learners: [], votersOutgoing: [], learnersNext: [], autoLeave: false };
  readonly membership = new Membership({ learnersMax: 1 });

  apply(entry: Entry): void {
    if (entry.type !== "conf-change") return;
    const decoded = decodeConfChange(entry.data) as ConfChange;
    const after = changeConf(this.confState, decoded);
    if (decoded.steps.length > 0) {
      const member = decodeMemberChange(decoded.context) as MemberChange;
      if (isProblem(after) || this.membership.check(member) !== undefined) return;
      this.membership.apply(member, NOWHERE);
    }
    if (!isProblem(after)) this.confState = after;
  }
}

describe("one member instead of many (BM6, BM8)", () => {
  test("from every prefix of a log, applied and committed to any point, only it is left, in both views", () => {
    let removals = 0;
    for (let seed = 1; seed <= 150; seed++) {
      const { entries } = randomLog(seed);
      const random = seededRandom(seed);
      const length = 3 + random.below(entries.length - 2);
      const commit = 3 + random.below(length - 2);
      const applied = random.below(commit + 1);
      const state = new Applied();
      for (const entry of entries.slice(0, applied)) state.apply(entry);
      const log = soleMemberLog({
        memberId: OWN,
        peerUrls: ["http://n1:2380"],
        term: 100,
        applied: { index: applied, confState: state.confState, membership: state.membership },
        entries: entries.slice(applied, length),
        commit,
      });
      if (log === undefined) continue;
      // Nothing committed is dropped, and nothing that was not is taken over.
      expect(log.commit).toBeGreaterThanOrEqual(commit);
      for (const entry of [...entries.slice(applied, log.commit), ...log.entries]) state.apply(entry);
      expect(state.membership.list().map(({ id }) => id)).toEqual([OWN]);
      expect(state.confState).toMatchObject({ voters: [OWN], learners: [], votersOutgoing: [] });
      for (const id of log.removed) expect(state.membership.isRemoved(id)).toBe(true);
      log.entries.forEach((entry, at) => {
        expect(entry).toMatchObject({ term: 100, index: log.commit + 1 + at });
      });
      removals += log.removed.length;
    }
    expect(removals).toBeGreaterThan(200);
  });

  test("out of a joint configuration, and as a learner", () => {
    const joint = new Applied();
    for (const entry of randomLog(1).entries.slice(0, 3)) joint.apply(entry);
    const entered = changeConf(joint.confState, {
      steps: [
        { kind: "remove", memberId: 2n as MemberId },
        { kind: "remove", memberId: 3n as MemberId },
      ],
      context: EMPTY_BYTES,
    });
    if (isProblem(entered)) throw new Error("the change is legal");
    joint.confState = entered;
    expect(joint.confState.votersOutgoing).not.toEqual([]);
    const learner = new Applied();
    learner.apply({ term: 1, index: 1, type: "conf-change", data: encodeConfChange(change("add", record(2n), "add-voter")) });
    learner.apply({ term: 1, index: 2, type: "conf-change", data: encodeConfChange(change("add", record(1n, true), "add-learner")) });
    for (const state of [joint, learner]) {
      const log = soleMemberLog({
        memberId: OWN,
        peerUrls: ["http://n1:2380"],
        term: 9,
        applied: { index: 3, confState: state.confState, membership: state.membership },
        entries: [],
        commit: 3,
      });
      for (const entry of log?.entries ?? []) state.apply(entry);
      expect(state.membership.list()).toEqual([expect.objectContaining({ id: OWN, isLearner: false })]);
      expect(state.confState).toMatchObject({ voters: [OWN], learners: [], votersOutgoing: [] });
    }
  });

  test("one that was removed cannot be the one that is left", () => {
    const state = new Applied();
    for (const entry of randomLog(1).entries.slice(0, 3)) state.apply(entry);
    state.apply({ term: 1, index: 4, type: "conf-change", data: encodeConfChange(change("remove", record(1n), "remove")) });
    const input = {
      memberId: OWN,
      peerUrls: [],
      term: 9,
      applied: { index: 4, confState: state.confState, membership: state.membership },
      entries: [],
      commit: 4,
    };
    expect(() => soleMemberLog(input)).toThrow(BootstrapError);
  });
});
