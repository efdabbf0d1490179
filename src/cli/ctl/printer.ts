/** The output formats. Each answer comes with its own renderings; a format that it lacks is refused, after the request was carried out. */
import type * as api from "../../api/index.ts";
import { latin1Bytes } from "../../base/bytes.ts";
import { ExitError, type Output } from "../cobra/command.ts";
import { hexEscaped, quoted } from "../cobra/go-format.ts";

const FORMATS = ["fields", "json", "protobuf", "simple", "table"] as const;
export type Format = (typeof FORMATS)[number];

export function isFormat(text: string): text is Format {
  return (FORMATS as readonly string[]).includes(text);
}

const BAD_FEATURE = 4;

type Text = string | Uint8Array;

/** Lines get their ends here. Bytes of keys and values go out as they are. */
export interface Renderings {
  readonly simple: () => readonly Text[];
  readonly json?: () => string;
  readonly fields?: () => readonly string[];
  /** With its line ends. */
  readonly table?: () => string;
  readonly protobuf?: () => Uint8Array;
}

export interface Printer {
  readonly format: Format;
  /** `--hex`. */
  readonly hex: boolean;
  show(renderings: Renderings): void;
  /** A key or a value in the simple format. */
  text(bytes: Uint8Array): Text;
  /** An id in the fields format; unsigned. */
  id(id: bigint): string;
  /** A lease id in the fields format; signed. */
  lease(id: bigint): string;
  /** The header in the fields format. */
  header(header: api.ResponseHeader | undefined): string[];
  /** A pair in the fields format; `prefix` is "Prev" or nothing. */
  pair(kv: api.KeyValue, prefix?: string): string[];
}

const LINE_END = latin1Bytes("\n");

export function printerOf(format: Format, hex: boolean, output: Output): Printer {
  const unsupported = (): ExitError => new ExitError(BAD_FEATURE, `${format} not supported as output format`);
  const printer: Printer = {
    format,
    hex,
    show(renderings) {
      switch (format) {
        case "simple":
          output.stdout(joined(renderings.simple()));
          return;
        case "fields":
          if (renderings.fields === undefined) throw unsupported();
          output.stdout(joined(renderings.fields()));
          return;
        case "json":
          if (renderings.json === undefined) throw unsupported();
          output.stdout(`${renderings.json()}\n`);
          return;
        case "table":
          if (renderings.table === undefined) throw unsupported();
          output.stdout(renderings.table());
          return;
        case "protobuf":
          if (renderings.protobuf === undefined) throw unsupported();
          output.stdout(renderings.protobuf());
          return;
        default:
          format satisfies never;
      }
    },
    text: (bytes) => (hex ? hexEscaped(bytes) : bytes),
    id: (id) => (hex ? BigInt.asUintN(64, id).toString(16) : String(id)),
    lease: (id) => (hex ? hexLease(id) : String(id)),
    header(header) {
      const { clusterId = 0n, memberId = 0n, revision = 0, raftTerm = 0 } = header ?? {};
      return [
        `"ClusterID" : ${printer.id(clusterId)}`,
        `"MemberID" : ${printer.id(memberId)}`,
        ...(revision > 0 ? [`"Revision" : ${revision}`] : []),
        `"RaftTerm" : ${raftTerm}`,
      ];
    },
    pair: (kv, prefix = "") => [
      `"${prefix}Key" : ${quoted(kv.key)}`,
      `"${prefix}CreateRevision" : ${kv.createRevision}`,
      `"${prefix}ModRevision" : ${kv.modRevision}`,
      `"${prefix}Version" : ${kv.version}`,
      `"${prefix}Value" : ${quoted(kv.value)}`,
      `"${prefix}Lease" : ${printer.lease(kv.lease)}`,
    ],
  };
  return printer;
}

/** Sixteen digits, as leases are named everywhere. */
export function hexLease(id: bigint): string {
  return BigInt.asUintN(64, id).toString(16).padStart(16, "0");
}

function joined(lines: readonly Text[]): Text {
  if (lines.every((line) => typeof line === "string")) return lines.map((line) => `${line}\n`).join("");
  return Buffer.concat(lines.flatMap((line) => [typeof line === "string" ? Buffer.from(line, "utf8") : line, LINE_END]));
}
