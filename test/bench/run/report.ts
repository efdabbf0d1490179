/** Tables on the terminal, and all numbers in a file. */
import { writeFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";

export type Cell = string | number | undefined;

export class Report {
  readonly #tables: { title: string; head: readonly string[]; rows: Cell[][] }[] = [];

  /** A new table; its rows are printed as they come. */
  table(title: string, head: readonly string[]): { row(cells: Cell[]): void } {
    const table = { title, head, rows: [] as Cell[][] };
    this.#tables.push(table);
    console.log(`\n${title}\n`);
    const widths = head.map((text) => Math.max(text.length, 9));
    const line = (cells: readonly Cell[]): string =>
      cells.map((cell, at) => (at === 0 ? show(cell).padEnd(34) : show(cell).padStart(widths[at] ?? 9))).join("  ");
    console.log(line(head));
    return {
      row: (cells) => {
        table.rows.push(cells);
        console.log(line(cells));
      },
    };
  }

  write(path: string | undefined): void {
    if (path === undefined) return;
    const machine = { cores: cpus().length, model: cpus()[0]?.model, memoryBytes: totalmem(), node: process.version };
    writeFileSync(path, `${JSON.stringify({ machine, tables: this.#tables }, undefined, 1)}\n`);
  }
}

function show(cell: Cell): string {
  if (cell === undefined) return "";
  if (typeof cell === "string") return cell;
  if (Number.isInteger(cell)) return String(cell);
  return cell.toFixed(cell < 10 ? 2 : 1);
}
