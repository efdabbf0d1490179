/** Active alarms: replicated, one row each, changed by applied entries only. */
import { AlarmType } from "../api/index.ts";
import { type BackendBatch, RowSpace } from "../backend/index.ts";
import { EMPTY_BYTES } from "../base/bytes.ts";
import { openRow, sealRow } from "./checked-row.ts";

export interface ActiveAlarm {
  readonly memberId: bigint;
  /** A number of `AlarmType`, or one that this version does not know. */
  readonly alarm: number;
}

export const ALARM_ROWS = { gte: new Uint8Array([RowSpace.alarm]), lt: new Uint8Array([RowSpace.alarm + 1]) } as const;

function rowKey(alarm: ActiveAlarm): Uint8Array {
  const bytes = new Uint8Array(13);
  const view = new DataView(bytes.buffer);
  bytes[0] = RowSpace.alarm;
  view.setInt32(1, alarm.alarm);
  view.setBigUint64(5, BigInt.asUintN(64, alarm.memberId));
  return bytes;
}

export class Alarms {
  /** By type, then by member. */
  readonly #active = new Map<string, ActiveAlarm>();

  /** @throws BackendBrokenError when a row is not what was written. */
  load(rows: Iterable<readonly [Uint8Array, Uint8Array]>): void {
    for (const [key, value] of rows) {
      openRow(key, value, "the row of an alarm");
      const view = new DataView(key.buffer, key.byteOffset, key.byteLength);
      const alarm = { alarm: view.getInt32(1), memberId: view.getBigUint64(5) };
      this.#active.set(mapKey(alarm), alarm);
    }
  }

  /** All of one type, or all for NONE; by type, then member id. */
  list(alarm: number = AlarmType.NONE): ActiveAlarm[] {
    const found = [...this.#active.values()].filter((one) => alarm === AlarmType.NONE || one.alarm === alarm);
    return found.sort((a, b) => a.alarm - b.alarm || (a.memberId < b.memberId ? -1 : a.memberId > b.memberId ? 1 : 0));
  }

  has(alarm: number): boolean {
    if (this.#active.size === 0) return false;
    for (const one of this.#active.values()) if (one.alarm === alarm) return true;
    return false;
  }

  get any(): boolean {
    return this.#active.size > 0;
  }

  /** Repeating answers the existing one. NONE records nothing. */
  activate(alarm: ActiveAlarm, batch: BackendBatch): ActiveAlarm[] {
    if (alarm.alarm === AlarmType.NONE) return [];
    const key = mapKey(alarm);
    if (!this.#active.has(key)) {
      this.#active.set(key, alarm);
      const row = rowKey(alarm);
      batch.put(row, sealRow(row, EMPTY_BYTES));
    }
    return [alarm];
  }

  /** Exactly (member, alarm): neither member 0 nor NONE is a wildcard. */
  deactivate(alarm: ActiveAlarm, batch: BackendBatch): ActiveAlarm[] {
    if (!this.#active.delete(mapKey(alarm))) return [];
    batch.delete(rowKey(alarm));
    return [alarm];
  }
}

function mapKey(alarm: ActiveAlarm): string {
  return `${alarm.alarm}/${alarm.memberId}`;
}
