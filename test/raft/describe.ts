/** Readable one-line forms of what raft says, for scenario traces and failure reports. */
import { hexId } from "../../src/base/ids.ts";
import type { AppendWork, ConfState, Message, RaftStatus, TraceEvent } from "../../src/raft/index.ts";
import { textOf } from "./simulated-member.ts";

export function describeMessage(message: Message): string {
  return `${hexId(message.from)}->${hexId(message.to)} ${message.type} t${message.term}${body(message)}`;
}

function body(message: Message): string {
  switch (message.type) {
    case "vote-request":
      return `${message.pre ? " pre" : ""}${message.transfer ? " transfer" : ""} last=${message.lastIndex}/${message.lastTerm}`;
    case "vote-response":
      return `${message.pre ? " pre" : ""} ${message.granted ? "granted" : "rejected"}`;
    case "append-request": {
      const entries = message.entries.length === 0 ? "" : ` [${message.entries.map(textOf).join(", ")}]`;
      return ` prev=${message.prevIndex}/${message.prevTerm} commit=${message.commit}${entries}`;
    }
    case "append-response":
      return message.rejected ? ` rejected ${message.index} hint=${message.hintIndex}/${message.hintTerm}` : ` to ${message.index}`;
    case "heartbeat":
      return ` commit=${message.commit} round=${message.round}`;
    case "heartbeat-response":
      return ` round=${message.round}`;
    case "snapshot": {
      const { index, term, confState } = message.snapshot.metadata;
      return ` ${index}/${term} ${describeConf(confState)}`;
    }
    case "propose":
      return ` [${message.entries.map((entry) => textOf({ ...entry, index: 0, term: 0 }).slice(4)).join(", ")}]`;
    case "read-index-request":
      return ` ${message.context}`;
    case "read-index-response":
      return ` ${message.context} at ${message.index}`;
    case "transfer-leader":
      return ` to ${message.transferee}`;
    case "timeout-now":
      return "";
    default:
      return message satisfies never;
  }
}

export function describeConf({ voters, votersOutgoing, learners, learnersNext, autoLeave }: ConfState): string {
  const parts = [voters.join(" ")];
  if (votersOutgoing.length > 0) parts.push(`outgoing ${votersOutgoing.join(" ")}`);
  if (learners.length > 0) parts.push(`learners ${learners.join(" ")}`);
  if (learnersNext.length > 0) parts.push(`next ${learnersNext.join(" ")}`);
  if (autoLeave) parts.push("auto");
  return `(${parts.join("; ")})`;
}

export function describeAppend(append: AppendWork): string {
  const parts = [`append #${append.ticket.sequence}`];
  if (append.hardState !== undefined) {
    const { term, vote, commit } = append.hardState;
    parts.push(`t${term} vote=${vote} commit=${commit}`);
  }
  if (append.snapshot !== undefined) parts.push(`snapshot ${append.snapshot.metadata.index}/${append.snapshot.metadata.term}`);
  if (append.entries.length > 0) parts.push(`[${append.entries.map(textOf).join(", ")}]`);
  parts.push(append.mustSync ? "sync" : "no sync");
  return parts.join(" ");
}

export function describeStatus(status: RaftStatus, last: string, conf: ConfState): string {
  const transfer = status.transferee === 0n ? "" : ` transferring to ${status.transferee}`;
  return (
    `${status.role} t${status.term} leader=${status.leader} vote=${status.vote} last=${last} commit=${status.commit}` +
    ` applied=${status.applied} ${describeConf(conf)}${transfer}`
  );
}

/** Undefined for events that a trace does not need beside the messages. */
export function describeEvent(event: TraceEvent): string | undefined {
  switch (event.type) {
    case "role":
      return `is ${event.role} t${event.term} leader=${event.leader}`;
    case "vote":
    case "commit":
      return undefined;
    case "ignored":
      return `ignores ${event.message.type} from ${event.message.from} (${event.reason})`;
    case "truncated":
      return `truncates its log from ${event.from}`;
    case "conf-applied":
      return `switches to ${describeConf(event.confState)}`;
    case "conf-refused":
      return `refuses the change: ${event.problem}`;
    case "progress":
      return `sees ${event.peer} in ${event.state} match=${event.match} next=${event.next}`;
    case "snapshot-sent":
      return undefined;
    case "snapshot-accepted":
      return `takes the snapshot ${event.index}/${event.term}`;
    case "snapshot-skipped":
      return `skips the snapshot ${event.index}`;
    case "transfer":
      return `transfer to ${event.to}: ${event.phase}`;
    case "proposals-dropped":
      return `drops ${event.count} proposal(s) (${event.reason})`;
    case "reads-dropped":
      return `drops ${event.count} read(s)`;
    case "read-round":
      return `starts read round ${event.round} at ${event.index} for ${event.requests} request(s)`;
    case "read-confirmed":
      return `confirms read round ${event.round} at ${event.index} for ${event.requests} request(s)`;
    case "stale-append":
      return `counts a late append to ${event.ticketIndex} only to ${event.durable}`;
    case "campaign-held":
      return `does not campaign (${event.reason})`;
    case "fenced":
      return `does not count ${event.peer} before ${event.fence} is committed`;
    case "quarantine":
      return event.phase === "ended" ? "leaves quarantine" : `is admitted by ${event.leader} in t${event.term}, to ${event.fence}`;
    case "quorum-lost":
      return `has lost its quorum in t${event.term}`;
    default:
      return event satisfies never;
  }
}
