/** How answers about keys are shown. */
import * as api from "../../api/index.ts";
import { goJson } from "./go-json.ts";
import type { Printer } from "./printer.ts";

type Text = string | Uint8Array;

function pairLines(printer: Printer, kv: api.KeyValue): Text[] {
  return [printer.text(kv.key), printer.text(kv.value)];
}

function putLines(printer: Printer, response: api.PutResponse): Text[] {
  return ["OK", ...(response.prevKv === undefined ? [] : pairLines(printer, response.prevKv))];
}

function putFields(printer: Printer, response: api.PutResponse): string[] {
  return [...printer.header(response.header), ...(response.prevKv === undefined ? [] : printer.pair(response.prevKv, "Prev"))];
}

function rangeFields(printer: Printer, response: api.RangeResponse): string[] {
  return [
    ...printer.header(response.header),
    ...response.kvs.flatMap((kv) => printer.pair(kv)),
    `"More" : ${response.more}`,
    `"Count" : ${response.count}`,
  ];
}

function deleteLines(printer: Printer, response: api.DeleteRangeResponse): Text[] {
  return [String(response.deleted), ...response.prevKvs.flatMap((kv) => pairLines(printer, kv))];
}

function deleteFields(printer: Printer, response: api.DeleteRangeResponse): string[] {
  return [
    ...printer.header(response.header),
    `"Deleted" : ${response.deleted}`,
    ...response.prevKvs.flatMap((kv) => printer.pair(kv, "Prev")),
  ];
}

export function showPut(printer: Printer, response: api.PutResponse): void {
  printer.show({
    simple: () => putLines(printer, response),
    json: () => goJson(api.PutResponse, response),
    fields: () => putFields(printer, response),
    protobuf: () => api.PutResponse.encode(response),
  });
}

/** `valuesOnly` is of the simple format. */
export function showRange(printer: Printer, response: api.RangeResponse, options: { valuesOnly?: boolean } = {}): void {
  printer.show({
    simple: () => response.kvs.flatMap((kv) => (options.valuesOnly === true ? [printer.text(kv.value)] : pairLines(printer, kv))),
    json: () => goJson(api.RangeResponse, response),
    fields: () => rangeFields(printer, response),
    protobuf: () => api.RangeResponse.encode(response),
  });
}

export function showDelete(printer: Printer, response: api.DeleteRangeResponse): void {
  printer.show({
    simple: () => deleteLines(printer, response),
    json: () => goJson(api.DeleteRangeResponse, response),
    fields: () => deleteFields(printer, response),
    protobuf: () => api.DeleteRangeResponse.encode(response),
  });
}

export function showTxn(printer: Printer, response: api.TxnResponse): void {
  printer.show({
    simple: () => [
      response.succeeded ? "SUCCESS" : "FAILURE",
      ...response.responses.flatMap(({ responsePut, responseRange, responseDeleteRange }): Text[] => {
        if (responsePut !== undefined) return ["", ...putLines(printer, responsePut)];
        if (responseRange !== undefined) return ["", ...responseRange.kvs.flatMap((kv) => pairLines(printer, kv))];
        return responseDeleteRange === undefined ? [] : ["", ...deleteLines(printer, responseDeleteRange)];
      }),
    ],
    json: () => goJson(api.TxnResponse, response),
    fields: () => [
      ...printer.header(response.header),
      `"Succeeded" : ${response.succeeded}`,
      ...response.responses.flatMap(({ responsePut, responseRange, responseDeleteRange }): string[] => {
        if (responsePut !== undefined) return putFields(printer, responsePut);
        if (responseRange !== undefined) return rangeFields(printer, responseRange);
        return responseDeleteRange === undefined ? [] : deleteFields(printer, responseDeleteRange);
      }),
    ],
    protobuf: () => api.TxnResponse.encode(response),
  });
}

function eventName(event: api.Event): string {
  return event.type === api.EventType.DELETE ? "DELETE" : "PUT";
}

export function showWatch(printer: Printer, response: api.WatchResponse): void {
  const { header, events } = response;
  printer.show({
    simple: () =>
      events.flatMap((event) => [
        eventName(event),
        ...(event.prevKv === undefined ? [] : pairLines(printer, event.prevKv)),
        ...(event.kv === undefined ? [] : pairLines(printer, event.kv)),
      ]),
    json: () =>
      `{"Header":${header === undefined ? "{}" : goJson(api.ResponseHeader, header)},"Events":${
        events.length === 0 ? "null" : `[${events.map((event) => goJson(api.Event, event)).join(",")}]`
      },"CompactRevision":${response.compactRevision},"Canceled":${response.canceled},"Created":${response.created},"CancelReason":${JSON.stringify(response.cancelReason)}}`,
    fields: () => [
      ...printer.header(header),
      ...events.flatMap((event) => [
        `"Type" : ${eventName(event)}`,
        ...(event.prevKv === undefined ? [] : printer.pair(event.prevKv, "Prev")),
        ...(event.kv === undefined ? [] : printer.pair(event.kv)),
      ]),
    ],
    protobuf: () => api.WatchResponse.encode({ ...response, watchId: 0n }),
  });
}
