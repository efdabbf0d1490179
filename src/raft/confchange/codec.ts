import { assert } from "../../base/assert.ts";
import { EtcdError, GrpcCode } from "../../base/errors.ts";
import { type MemberId, NO_MEMBER } from "../../base/ids.ts";
import type { ConfChange, ConfChangeKind, ConfChangeStep } from "../entry.ts";

/**
 * The bytes of a `conf-change` entry. All integers big-endian.
 *
 * ```
 * u8  format, 1
 * u8  flags: bit 0 joint is given, bit 1 its value, bit 2 autoLeave is given, bit 3 its value; a value that is not given is 0
 * u16 number of steps
 *     per step: u8 kind (1 add-voter, 2 add-learner, 3 remove, 4 update), u64 member id
 * u32 length of the context, then the context, then nothing
 * ```
 */
const FORMAT = 1;
const HEADER_BYTES = 4;
const STEP_BYTES = 9;
const JOINT_GIVEN = 1;
const JOINT = 2;
const AUTO_LEAVE_GIVEN = 4;
const AUTO_LEAVE = 8;
const ID_MAX = 0xffff_ffff_ffff_ffffn;
const KINDS: readonly ConfChangeKind[] = ["add-voter", "add-learner", "remove", "update"];
/** Steps of one change. */
const CONF_STEPS_MAX = 0xffff;

/** The bytes are not a configuration change. Returned, not thrown: bad bytes in a log must not unwind the apply loop. */
export class ConfChangeDecodeError extends EtcdError {
  constructor(problem: string) {
    super("conf-change-malformed", GrpcCode.Internal, `malformed configuration change: ${problem}`);
    this.name = "ConfChangeDecodeError";
  }
}

/** The data of a `conf-change` entry. `change.context` is copied. */
export function encodeConfChange(change: ConfChange): Uint8Array {
  const { steps, context } = change;
  assert(steps.length <= CONF_STEPS_MAX, "a configuration change has a bounded number of steps");
  const bytes = new Uint8Array(HEADER_BYTES + steps.length * STEP_BYTES + 4 + context.byteLength);
  const view = new DataView(bytes.buffer);
  bytes[0] = FORMAT;
  bytes[1] = flag(change.joint, JOINT_GIVEN, JOINT) | flag(change.autoLeave, AUTO_LEAVE_GIVEN, AUTO_LEAVE);
  view.setUint16(2, steps.length);
  let at = HEADER_BYTES;
  for (const step of steps) {
    // What decoding would refuse must not get into a log.
    assert(step.memberId > NO_MEMBER && step.memberId <= ID_MAX, "a member id has 64 bits and is not zero");
    bytes[at] = KINDS.indexOf(step.kind) + 1;
    view.setBigUint64(at + 1, step.memberId);
    at += STEP_BYTES;
  }
  view.setUint32(at, context.byteLength);
  bytes.set(context, at + 4);
  return bytes;
}

/** Inverse of {@link encodeConfChange}; the result's `context` is a view of `bytes`. */
export function decodeConfChange(bytes: Uint8Array): ConfChange | ConfChangeDecodeError {
  if (bytes.byteLength < HEADER_BYTES + 4) return new ConfChangeDecodeError("too short");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes[0] !== FORMAT) return new ConfChangeDecodeError("unknown format");
  const flags = bytes[1] as number;
  const unknown = ~(JOINT_GIVEN | AUTO_LEAVE_GIVEN | (flags & JOINT_GIVEN ? JOINT : 0) | (flags & AUTO_LEAVE_GIVEN ? AUTO_LEAVE : 0));
  if ((flags & unknown) !== 0) return new ConfChangeDecodeError("unknown flags");
  const count = view.getUint16(2);
  const contextAt = HEADER_BYTES + count * STEP_BYTES + 4;
  if (bytes.byteLength < contextAt || bytes.byteLength !== contextAt + view.getUint32(contextAt - 4)) {
    return new ConfChangeDecodeError("wrong length");
  }
  const steps: ConfChangeStep[] = [];
  for (let at = HEADER_BYTES; at < contextAt - 4; at += STEP_BYTES) {
    const kind = KINDS[(bytes[at] as number) - 1];
    const memberId = view.getBigUint64(at + 1) as MemberId;
    if (kind === undefined || memberId === NO_MEMBER) return new ConfChangeDecodeError("unknown step");
    steps.push({ kind, memberId });
  }
  const context = bytes.subarray(contextAt);
  return {
    steps,
    ...((flags & JOINT_GIVEN) !== 0 && { joint: (flags & JOINT) !== 0 }),
    ...((flags & AUTO_LEAVE_GIVEN) !== 0 && { autoLeave: (flags & AUTO_LEAVE) !== 0 }),
    context,
  };
}

function flag(value: boolean | undefined, given: number, set: number): number {
  if (value === undefined) return 0;
  return value ? given | set : given;
}
