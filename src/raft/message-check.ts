import { isWellFormedConf } from "./confchange/change.ts";
import type { Entry } from "./entry.ts";
import type { Message } from "./message.ts";

/**
 * A message from the network whose parts do not contradict each other. What passes may still be old, lost its sense or come from
 * nobody we know, but no field of it can send the algorithm out of bounds (failure catalogue BR22, I14).
 */
export function isWellFormed(message: Message): boolean {
  if (!isCounter(message.term) || typeof message.from !== "bigint" || typeof message.to !== "bigint") return false;
  switch (message.type) {
    case "append-request":
      return (
        isCounter(message.prevIndex) &&
        isCounter(message.prevTerm) &&
        isCounter(message.commit) &&
        message.prevTerm <= message.term &&
        (message.prevIndex === 0) === (message.prevTerm === 0) &&
        areWellFormed(message.entries, message.prevIndex, message.prevTerm, message.term)
      );
    case "append-response":
      return isCounter(message.index) && isCounter(message.hintIndex) && isCounter(message.hintTerm);
    case "vote-request":
      return (
        isCounter(message.lastIndex) &&
        isCounter(message.lastTerm) &&
        isCounter(message.commit) &&
        isCounter(message.commitTerm) &&
        message.lastTerm <= message.term &&
        message.term > 0
      );
    case "heartbeat":
      return isCounter(message.commit) && isCounter(message.round);
    case "heartbeat-response":
      return isCounter(message.round);
    case "snapshot": {
      const metadata = message.snapshot?.metadata;
      if (typeof metadata !== "object" || metadata === null) return false;
      if (!isCounter(metadata.index) || !isCounter(metadata.term) || metadata.index === 0 || metadata.term === 0) return false;
      return metadata.term <= message.term && typeof metadata.confState === "object" && isWellFormedConf(metadata.confState, false);
    }
    case "propose":
      return (
        Array.isArray(message.entries) && message.entries.every((entry) => isEntryType(entry?.type) && entry.data instanceof Uint8Array)
      );
    case "read-index-request":
      return typeof message.context === "bigint";
    case "read-index-response":
      return typeof message.context === "bigint" && isCounter(message.index);
    case "transfer-leader":
      return typeof message.transferee === "bigint";
    case "vote-response":
      return isCounter(message.commit) && isCounter(message.commitTerm);
    case "timeout-now":
      return true;
    default:
      message satisfies never;
      return false;
  }
}

function areWellFormed(entries: readonly Entry[], prevIndex: number, prevTerm: number, termMax: number): boolean {
  if (!Array.isArray(entries)) return false;
  let index = prevIndex;
  let term = prevTerm;
  for (const entry of entries as readonly Entry[]) {
    index += 1;
    if (entry?.index !== index || !isCounter(entry.term) || entry.term < term || entry.term === 0) return false;
    if (!isEntryType(entry.type) || !(entry.data instanceof Uint8Array)) return false;
    term = entry.term;
  }
  return term <= termMax;
}

function isEntryType(type: Entry["type"] | undefined): boolean {
  return type === "normal" || type === "conf-change";
}

function isCounter(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}
