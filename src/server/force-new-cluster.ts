/**
 * What `--force-new-cluster` puts into the log: behind everything committed, the configuration changes after which this member is the only one. As ordinary
 * entries they pass through the applier like any others, so there is no second way in which members leave (failure catalogue BM6, BM8).
 */
import { assert } from "../base/assert.ts";
import { EMPTY_BYTES } from "../base/bytes.ts";
import { compareIds, type LogIndex, type MemberId, type Term } from "../base/ids.ts";
import {
  type ConfChange,
  ConfChangeDecodeError,
  type ConfState,
  changeConf,
  decodeConfChange,
  type Entry,
  encodeConfChange,
  isProblem,
} from "../raft/index.ts";
import { BootstrapError } from "./bootstrap-error.ts";
import { decodeMemberChange, encodeMemberChange, type MemberChange, type MemberRecord, type Membership } from "./membership.ts";

export interface SoleMemberInput {
  readonly memberId: MemberId;
  /** Of this member, in case that it is not among the members. */
  readonly peerUrls: readonly string[];
  /** Of the new entries: higher than any in the log, so that nothing is taken for what it replaces. */
  readonly term: Term;
  readonly applied: { readonly index: LogIndex; readonly confState: ConfState; readonly membership: Membership };
  /** Everything in the log behind what is applied. */
  readonly entries: readonly Entry[];
  /** As far as this member knows. */
  readonly commit: LogIndex;
}

export interface SoleMemberLog {
  /** What is kept: entries up to here. */
  readonly commit: LogIndex;
  /** They follow it, and are committed. */
  readonly entries: readonly Entry[];
  readonly removed: readonly MemberId[];
}

/** Undefined when this member is alone already, and everything in its log is committed. */
export function soleMemberLog(input: SoleMemberInput): SoleMemberLog | undefined {
  const { memberId, term, entries } = input;
  const scratch = new Scratch(input.applied.confState, input.applied.membership);
  let commit = input.applied.index;
  for (const entry of entries) {
    // While it was alone, its own disk was the quorum: what is there is committed, whether it had noted that or not.
    if (entry.index > input.commit && !scratch.isSole(memberId)) break;
    scratch.applyEntry(entry);
    commit = entry.index;
  }
  if (
    scratch.isSole(memberId) &&
    scratch.members.every((member) => member.id === memberId) &&
    commit === (entries.at(-1)?.index ?? commit)
  ) {
    return undefined;
  }
  const made: Entry[] = [];
  const add = (change: ConfChange): void => {
    const entry: Entry = { term, index: commit + made.length + 1, type: "conf-change", data: encodeConfChange(change) };
    scratch.applyEntry(entry);
    made.push(entry);
  };
  if (scratch.confState.votersOutgoing.length > 0) add({ steps: [], context: EMPTY_BYTES });
  const self = scratch.members.find((member) => member.id === memberId);
  if (self === undefined) {
    if (scratch.wasRemoved(memberId))
      throw new BootstrapError("this member was removed from the cluster: --force-new-cluster needs one that was not");
    add(changeOf("add-voter", "add", { id: memberId, name: "", peerUrls: input.peerUrls, clientUrls: [], isLearner: false }));
  } else if (self.isLearner) {
    add(changeOf("add-voter", "promote", self));
  }
  const removed = scratch.members.map((member) => member.id).filter((id) => id !== memberId);
  for (const id of removed.sort(compareIds))
    add(changeOf("remove", "remove", { id, name: "", peerUrls: [], clientUrls: [], isLearner: false }));
  assert(scratch.isSole(memberId) && scratch.members.length === 1, "this member is alone afterwards");
  return { commit, entries: made, removed };
}

function changeOf(kind: ConfChange["steps"][number]["kind"], action: MemberChange["action"], member: MemberRecord): ConfChange {
  return { steps: [{ kind, memberId: member.id }], context: encodeMemberChange({ action, member, requestId: 0n }) };
}

/** Members and configuration as the applier will make them (apply/execute.ts), without the rest of the state. */
class Scratch {
  confState: ConfState;
  readonly #membership: Membership;

  constructor(confState: ConfState, membership: Membership) {
    this.confState = confState;
    this.#membership = membership.copy();
  }

  get members(): MemberRecord[] {
    return this.#membership.list();
  }

  wasRemoved(id: MemberId): boolean {
    return this.#membership.isRemoved(id);
  }

  isSole(id: MemberId): boolean {
    const { voters, votersOutgoing } = this.confState;
    return voters.length === 1 && voters[0] === id && votersOutgoing.length === 0;
  }

  applyEntry(entry: Entry): void {
    if (entry.type !== "conf-change") return;
    const change = decodeConfChange(entry.data);
    assert(!(change instanceof ConfChangeDecodeError), "a configuration change in the log can be read", { index: entry.index });
    const after = changeConf(this.confState, change);
    if (change.steps.length > 0) {
      const memberChange = decodeMemberChange(change.context);
      assert(memberChange !== undefined, "a configuration change carries a member record", { index: entry.index });
      if (isProblem(after) || this.#membership.check(memberChange) !== undefined) return;
      this.#membership.apply(memberChange, NOWHERE);
    }
    if (!isProblem(after)) this.confState = after;
  }
}

/** Where the rows of the scratch go. */
const NOWHERE = { put: () => undefined, delete: () => undefined, operations: [], bytes: 0 };
