/** What the JSON reader must know of a message type, prepared once per type. */
import type { FieldDescriptor, MessageType } from "./wire/message-type.ts";

export interface FieldPlan {
  readonly field: FieldDescriptor;
  /** Bit of this field among those already seen. */
  readonly bit: number;
  /** Which of the words that bit is in. */
  readonly word: number;
  /** Bit of its oneof, 0 if it is in none. */
  readonly oneofBit: number;
  readonly minimum: bigint;
  readonly maximum: bigint;
  /** The same, close enough for numbers that are safe integers. */
  readonly minimumNumber: number;
  readonly maximumNumber: number;
  /** Plan of the sub-message, made when first needed: messages may contain themselves. */
  message: MessagePlan | undefined;
}

export interface MessagePlan {
  readonly type: MessageType<object>;
  readonly fields: ReadonlyMap<string, FieldPlan>;
}

const plans = new Map<MessageType<object>, MessagePlan>();

export function planOf(type: MessageType<object>): MessagePlan {
  let plan = plans.get(type);
  if (plan === undefined) {
    plan = { type, fields: fieldPlans(type.fields) };
    plans.set(type, plan);
  }
  return plan;
}

function fieldPlans(fields: readonly FieldDescriptor[]): Map<string, FieldPlan> {
  const byName = new Map<string, FieldPlan>();
  const oneofs = new Map<string, number>();
  fields.forEach((field, index) => {
    const oneof = field.oneof;
    if (oneof !== undefined && !oneofs.has(oneof)) oneofs.set(oneof, 1 << oneofs.size);
    const [minimum, maximum] = limitsOf(field);
    const plan: FieldPlan = {
      field,
      bit: 1 << (index & 31),
      word: index >> 5,
      oneofBit: oneof === undefined ? 0 : (oneofs.get(oneof) as number),
      minimum,
      maximum,
      minimumNumber: Number(minimum),
      maximumNumber: Number(maximum),
      message: undefined,
    };
    byName.set(field.protoName, plan);
    byName.set(field.jsonName, plan);
  });
  return byName;
}

function limitsOf(field: FieldDescriptor): [bigint, bigint] {
  switch (field.kind) {
    case "uint64":
      return [0n, 0xffff_ffff_ffff_ffffn];
    case "uint32":
      return [0n, 0xffff_ffffn];
    case "int64":
      return [-0x8000_0000_0000_0000n, 0x7fff_ffff_ffff_ffffn];
    default:
      return [-0x8000_0000n, 0x7fff_ffffn];
  }
}

export function subPlan(plan: FieldPlan): MessagePlan {
  if (plan.message === undefined) {
    const type = plan.field.message;
    if (type === undefined) throw new TypeError(`${plan.field.protoName} has no message type`);
    plan.message = planOf(type());
  }
  return plan.message;
}
