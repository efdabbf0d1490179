import { compareIds, type MemberId, NO_MEMBER } from "../../base/ids.ts";
import type { ConfChange, ConfChangeStep, ConfState } from "../entry.ts";

/**
 * Configuration arithmetic, pure: a configuration is a value, a change gives the next value or says in a phrase why there is none.
 *
 * Simple changes move at most one voter, so old and new majorities intersect (Raft thesis, 4.1). Several steps go through a joint
 * configuration, in which both majorities must agree (4.3): `voters` are the incoming half, `votersOutgoing` the old one. A voter
 * that is demoted while the outgoing half still needs it waits in `learnersNext` until the joint configuration is left.
 */
export type ConfResult = ConfState | ConfProblem;
/** Why a change cannot be made. The configuration stays as it was, on every member alike. */
export type ConfProblem =
  | "configuration is already joint"
  | "configuration is joint"
  | "configuration has no voters"
  | "no voters would be left"
  | "member id is zero";

export const EMPTY_CONF: ConfState = Object.freeze({ voters: [], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false });

export function isProblem(result: ConfResult): result is ConfProblem {
  return typeof result === "string";
}

/** What `change` makes of `config`. Leaving when not joint changes nothing (failure catalogue BM2: a leave may be proposed twice). */
export function changeConf(config: ConfState, change: ConfChange): ConfResult {
  const { steps } = change;
  if (steps.some((step) => step.memberId === NO_MEMBER)) return "member id is zero";
  if (steps.length === 0) return leaveJoint(config);
  const first = steps[0];
  if (change.joint === true || steps.length > 1 || first === undefined) return enterJoint(config, steps, change.autoLeave ?? true);
  return simpleChange(config, first);
}

/** Why `change` would not be made in `config`, or undefined. For the state machine, which must not record what raft refuses. */
export function confChangeProblem(config: ConfState, change: ConfChange): ConfProblem | undefined {
  const result = changeConf(config, change);
  return isProblem(result) ? result : undefined;
}

function simpleChange(config: ConfState, step: ConfChangeStep): ConfResult {
  if (config.votersOutgoing.length > 0) return "configuration is joint";
  const draft = new Draft(config);
  draft.apply(step);
  return draft.finish();
}

function enterJoint(config: ConfState, steps: readonly ConfChangeStep[], autoLeave: boolean): ConfResult {
  if (config.votersOutgoing.length > 0) return "configuration is already joint";
  if (config.voters.length === 0) return "configuration has no voters";
  const draft = new Draft({ ...config, votersOutgoing: config.voters, autoLeave });
  for (const step of steps) draft.apply(step);
  return draft.finish();
}

function leaveJoint(config: ConfState): ConfState {
  if (config.votersOutgoing.length === 0) return config;
  const learners = ascending(new Set([...config.learners, ...config.learnersNext]));
  return { voters: config.voters, votersOutgoing: [], learners, learnersNext: [], autoLeave: false };
}

class Draft {
  readonly #voters: Set<MemberId>;
  readonly #outgoing: readonly MemberId[];
  readonly #learners: Set<MemberId>;
  readonly #learnersNext: Set<MemberId>;
  readonly #autoLeave: boolean;

  constructor(config: ConfState) {
    this.#voters = new Set(config.voters);
    this.#outgoing = config.votersOutgoing;
    this.#learners = new Set(config.learners);
    this.#learnersNext = new Set(config.learnersNext);
    this.#autoLeave = config.autoLeave;
  }

  apply({ kind, memberId }: ConfChangeStep): void {
    switch (kind) {
      case "add-voter":
        this.#learners.delete(memberId);
        this.#learnersNext.delete(memberId);
        this.#voters.add(memberId);
        return;
      case "add-learner":
        this.#voters.delete(memberId);
        // The outgoing majority still counts on it as a voter.
        if (this.#outgoing.includes(memberId)) this.#learnersNext.add(memberId);
        else this.#learners.add(memberId);
        return;
      case "remove":
        this.#voters.delete(memberId);
        this.#learners.delete(memberId);
        this.#learnersNext.delete(memberId);
        return;
      case "update":
        return;
      default:
        kind satisfies never;
    }
  }

  finish(): ConfResult {
    if (this.#voters.size === 0) return "no voters would be left";
    return {
      voters: ascending(this.#voters),
      votersOutgoing: this.#outgoing,
      learners: ascending(this.#learners),
      learnersNext: ascending(this.#learnersNext),
      autoLeave: this.#autoLeave,
    };
  }
}

function ascending(ids: ReadonlySet<MemberId>): readonly MemberId[] {
  return [...ids].sort(compareIds);
}

/**
 * Is this a configuration that {@link changeConf} could have produced? For configurations that come from a peer or from disk.
 * `allowEmpty`: a member that has not joined yet has an empty one.
 */
export function isWellFormedConf(config: ConfState, allowEmpty: boolean): boolean {
  const { voters, votersOutgoing, learners, learnersNext } = config;
  for (const list of [voters, votersOutgoing, learners, learnersNext]) if (!isAscending(list)) return false;
  if (voters.length === 0) {
    return allowEmpty && votersOutgoing.length === 0 && learners.length === 0 && learnersNext.length === 0 && !config.autoLeave;
  }
  if (votersOutgoing.length === 0 && (learnersNext.length > 0 || config.autoLeave)) return false;
  if (learners.some((id) => voters.includes(id) || votersOutgoing.includes(id))) return false;
  return learnersNext.every((id) => votersOutgoing.includes(id) && !voters.includes(id));
}

function isAscending(ids: readonly MemberId[]): boolean {
  if (!Array.isArray(ids)) return false;
  let before: MemberId = NO_MEMBER;
  for (const id of ids as readonly MemberId[]) {
    if (typeof id !== "bigint" || id <= before) return false;
    before = id;
  }
  return true;
}
