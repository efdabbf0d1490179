/** What clients must not be able to do: every case of abuse ends with the abuser disconnected or refused, and leaves memory, time and everybody else alone. */
import { describe, expect, it } from "vitest";
import { createHttp2Transport } from "../../src/server/grpc/http2/http2-transport.ts";
import { ManualClock } from "../http/support.ts";
import { Flag, Frame, frameBytes, grpcFrame, H2Client, hpackInteger, plainBlock, requestBlock, requestFields } from "./h2-client.ts";
import { eventually, type RawCall, settle, testTransport } from "./support.ts";

const make = createHttp2Transport;
const ECHO = { onEnded: (call: RawCall): void => call.call.respond(call.bytes, false) };
const Code = { PROTOCOL: 1, FLOW_CONTROL: 3, STREAM_CLOSED: 5, FRAME_SIZE: 6, REFUSED: 7, COMPRESSION: 9, CALM: 11 };

/** Another client must be served as if nothing was. */
async function othersAreServed(port: number): Promise<void> {
  await using other = new H2Client(port);
  expect((await other.unary("/a.B/C", Buffer.from("m"))).status).toBe("0");
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function setting(id: number, value: number): Buffer {
  return Buffer.concat([Buffer.from([0, id]), uint32(value)]);
}

describe("floods", () => {
  it("of calls that are reset at once end the connection (CVE-2023-44487)", async () => {
    await using server = await testTransport(make, ECHO);
    await using client = new H2Client(server.port);
    let opened = 0;
    while (!client.closed && client.goAway === undefined && opened < 100_000) {
      const parts: Buffer[] = [];
      for (let i = 0; i < 100; i++) {
        const id = client.nextId();
        parts.push(frameBytes(Frame.HEADERS, Flag.END_HEADERS, id, requestBlock("/a.B/C")), frameBytes(Frame.RST_STREAM, 0, id, uint32(8)));
        opened++;
      }
      client.socket.write(Buffer.concat(parts));
      await new Promise((resolve) => setImmediate(resolve));
    }
    await client.until(() => client.goAway !== undefined);
    expect(client.goAway).toMatchObject({ code: Code.CALM, debug: "too many resets" });
    expect(server.calls.length).toBeLessThan(2500);
    expect(server.calls.every(({ isGone }) => isGone)).toBe(true);
    await othersAreServed(server.port);
  });

  it("of calls that make the server reset them end the connection too (CVE-2025-8671)", async () => {
    await using server = await testTransport(make, ECHO);
    await using client = new H2Client(server.port);
    for (let i = 0; i < 3000 && client.goAway === undefined; i++) {
      const id = client.nextId();
      client.headers(id, requestBlock("/a.B/C"));
      client.windowUpdate(id, 0);
      if (i % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await client.until(() => client.goAway !== undefined);
    expect(client.goAway).toMatchObject({ code: Code.CALM });
    await othersAreServed(server.port);
  });

  it("of cancelled calls among answered ones are let pass, and so are late cancellations", async () => {
    const clock = new ManualClock();
    await using server = await testTransport(make, { clock, onEnded: ({ call }) => call.respond(grpcFrame(Buffer.alloc(0)), false) });
    await using client = new H2Client(server.port);
    client.keepFrames = false;
    for (let i = 0; i < 2500; i++) {
      client.reset(client.open("/cancelled"));
      client.open("/answered", {}, { endStream: true });
      if (i % 100 === 0) await settle();
    }
    const long = Array.from({ length: 5000 }, () => client.open("/watch"));
    await eventually(() => server.calls.length === 10_000);
    clock.advance(1500);
    for (const id of long) client.reset(id);
    await eventually(() => server.calls.slice(5000).every(({ isGone }) => isGone));
    expect((await client.finished(client.open("/answered", {}, { endStream: true }))).status).toBe("0");
  });

  it("of CONTINUATION end the connection before memory is filled (CVE-2024-27316)", async () => {
    await using server = await testTransport(make, { ...ECHO, limits: { headerListBytesMax: 100_000 } });
    await using client = new H2Client(server.port);
    client.frame(Frame.HEADERS, 0, 1, requestBlock("/a.B/C"));
    const piece = plainBlock([["x", "y".repeat(16_000)]]);
    for (let i = 0; i < 20; i++) client.frame(Frame.CONTINUATION, 0, 1, piece);
    await client.until(() => client.goAway !== undefined);
    expect(client.goAway).toMatchObject({ code: Code.CALM, debug: "header block too large" });
    await client.untilClosed();
    await eventually(() => server.budget.used === 0);
    await othersAreServed(server.port);
  });

  it("of empty CONTINUATION end the connection", async () => {
    await using server = await testTransport(make, ECHO);
    await using client = new H2Client(server.port);
    client.frame(Frame.HEADERS, 0, 1, requestBlock("/a.B/C"));
    client.socket.write(Buffer.concat(Array.from({ length: 12_000 }, () => frameBytes(Frame.CONTINUATION, 0, 1))));
    await client.until(() => client.goAway !== undefined);
    expect(client.goAway).toMatchObject({ code: Code.CALM });
    await othersAreServed(server.port);
  });

  for (const [what, frame, most] of [
    ["SETTINGS", frameBytes(Frame.SETTINGS, 0, 0, setting(4, 65_535)), 200],
    ["PING", frameBytes(Frame.PING, 0, 0, Buffer.alloc(8)), 5],
    ["acknowledged PING", frameBytes(Frame.PING, Flag.ACK, 0, Buffer.alloc(8)), 0],
    ["acknowledged SETTINGS", frameBytes(Frame.SETTINGS, Flag.ACK, 0), 0],
    ["PRIORITY", frameBytes(Frame.PRIORITY, 0, 3, Buffer.from([0, 0, 0, 0, 1])), 0],
    ["WINDOW_UPDATE", frameBytes(Frame.WINDOW_UPDATE, 0, 0, uint32(1)), 0],
    ["GOAWAY", frameBytes(Frame.GOAWAY, 0, 0, Buffer.alloc(8)), 0],
    ["unknown frames", frameBytes(77, 0, 0), 0],
  ] as const) {
    it(`of ${what} end the connection`, async () => {
      await using server = await testTransport(make, ECHO);
      await using client = new H2Client(server.port);
      client.socket.write(Buffer.concat(Array.from({ length: 12_000 }, () => frame)));
      await client.until(() => client.goAway !== undefined);
      expect(client.goAway).toMatchObject({ code: Code.CALM });
      const answers = client.frames.filter(({ flags, type }) => flags === Flag.ACK && (type === Frame.PING || type === Frame.SETTINGS));
      expect(answers.length).toBeLessThanOrEqual(most + 1);
      await othersAreServed(server.port);
    });
  }

  it("of DATA with a byte each end the connection, and the bytes are no burden", async () => {
    await using server = await testTransport(make, ECHO);
    await using client = new H2Client(server.port);
    const id = client.open("/a.B/C");
    for (let i = 0; i < 30 && client.goAway === undefined; i++) {
      client.socket.write(Buffer.concat(Array.from({ length: 500 }, () => frameBytes(Frame.DATA, 0, id, Buffer.from([0])))));
      await settle();
    }
    await client.until(() => client.goAway !== undefined);
    expect(client.goAway).toMatchObject({ code: Code.CALM });
    await othersAreServed(server.port);
  });

  it("of empty DATA end the connection (CVE-2019-9518)", async () => {
    await using server = await testTransport(make, ECHO);
    await using client = new H2Client(server.port);
    const id = client.open("/a.B/C");
    client.socket.write(Buffer.concat(Array.from({ length: 12_000 }, () => frameBytes(Frame.DATA, 0, id))));
    await client.until(() => client.goAway !== undefined);
    expect(client.goAway).toMatchObject({ code: Code.CALM });
  });

  it("of DATA on streams that are over end the connection", async () => {
    await using server = await testTransport(make, { onOpen: ({ call }) => call.finish(12, "no") });
    await using client = new H2Client(server.port);
    const id = client.open("/a.B/C");
    await client.finished(id);
    client.socket.write(Buffer.concat(Array.from({ length: 12_000 }, () => frameBytes(Frame.DATA, 0, id, Buffer.from([0])))));
    await client.until(() => client.goAway !== undefined);
    expect(client.goAway).toMatchObject({ code: Code.CALM });
  });

  it("that are as much work as noise are let pass", async () => {
    await using server = await testTransport(make, ECHO);
    await using client = new H2Client(server.port);
    client.keepFrames = false;
    for (let i = 0; i < 8000; i++) {
      // A message in three frames, a window for each byte that came.
      const id = client.open("/a.B/C");
      const message = grpcFrame(Buffer.from("message"));
      client.data(id, message.subarray(0, 5));
      client.data(id, message.subarray(5));
      client.data(id, Buffer.alloc(0), { endStream: true });
      if (i % 200 === 0) await client.finished(id);
    }
    await settle();
    expect((await client.unary("/a.B/C", Buffer.alloc(0))).status).toBe("0");
  });
});

describe("headers", () => {
  it("that grow when decoded end the connection", async () => {
    await using server = await testTransport(make, { ...ECHO, limits: { headerListBytesMax: 1_000_000 } });
    await using client = new H2Client(server.port);
    // One large entry for the table, then a reference of one byte for each of many copies.
    const large = Buffer.concat([
      Buffer.from([0x40]),
      hpackInteger(1, 7, 0),
      Buffer.from("x"),
      hpackInteger(4000, 7, 0),
      Buffer.alloc(4000, "y"),
    ]);
    await client.finished(client.openBlock(Buffer.concat([requestBlock("/a.B/C"), large]), { endStream: true }));
    const bomb = Buffer.alloc(16_000, 0x80 | 62);
    const id = client.nextId();
    client.frame(Frame.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, id, Buffer.concat([requestBlock("/a.B/C"), bomb]));
    await client.until(() => client.goAway !== undefined);
    expect(client.goAway).toMatchObject({ code: Code.CALM, debug: "header list too large" });
    expect(server.calls.length).toBe(1);
    await othersAreServed(server.port);
  });

  it("that are too large are refused, and the connection goes on", async () => {
    await using server = await testTransport(make, { ...ECHO, limits: { headerListBytesMax: 20_000 } });
    await using client = new H2Client(server.port);
    // Within the block limit by references, beyond the list limit when decoded.
    const large = Buffer.concat([
      Buffer.from([0x40]),
      hpackInteger(1, 7, 0),
      Buffer.from("x"),
      hpackInteger(3000, 7, 0),
      Buffer.alloc(3000, "y"),
    ]);
    expect((await client.finished(client.openBlock(Buffer.concat([requestBlock("/a.B/C"), large]), { endStream: true }))).status).toBe("0");
    const refused = await client.finished(
      client.openBlock(Buffer.concat([requestBlock("/a.B/C"), Buffer.alloc(8, 0x80 | 62)]), { endStream: true }),
    );
    expect(refused.resetCode).toBe(Code.CALM);
    expect((await client.unary("/a.B/C", Buffer.alloc(0))).status).toBe("0");
    expect(server.calls.length).toBe(2);
  });

  it("of a megabyte pass, as with etcd", async () => {
    await using server = await testTransport(make, ECHO);
    await using client = new H2Client(server.port);
    const token = "t".repeat(1_000_000);
    const block = requestBlock("/a.B/C", { token });
    const id = client.nextId();
    client.frame(Frame.HEADERS, Flag.END_STREAM, id, block.subarray(0, 16_384));
    for (let at = 16_384; at < block.byteLength; at += 16_384) {
      client.frame(Frame.CONTINUATION, at + 16_384 >= block.byteLength ? Flag.END_HEADERS : 0, id, block.subarray(at, at + 16_384));
    }
    await eventually(() => server.calls.length === 1);
    expect(server.calls[0]?.head.token).toBe(token);
    expect(server.budget.used).toBe(0);
  });

  const malformed: readonly (readonly [string, readonly (readonly [string, string])[]])[] = [
    ["capital letters", [...requestFields("/a.B/C"), ["X-Foo", "1"]]],
    ["an unknown pseudo field", [[":foo", "1"], ...requestFields("/a.B/C")]],
    ["a pseudo field of answers", [[":status", "200"], ...requestFields("/a.B/C")]],
    ["a pseudo field behind others", [...requestFields("/a.B/C", { ":path": undefined }), [":path", "/a.B/C"]]],
    ["two paths", [[":path", "/x"], ...requestFields("/a.B/C")]],
    ["no path", requestFields("/a.B/C", { ":path": undefined })],
    ["an empty path", requestFields("")],
    ["no method", requestFields("/a.B/C", { ":method": undefined })],
    ["no scheme", requestFields("/a.B/C", { ":scheme": undefined })],
    ["connection", requestFields("/a.B/C", { connection: "close" })],
    ["transfer-encoding", requestFields("/a.B/C", { "transfer-encoding": "chunked" })],
    ["te: gzip", requestFields("/a.B/C", { te: "gzip" })],
    ["a line break", requestFields("/a.B/C", { token: "a\r\nb" })],
    ["a zero", requestFields("/a.B/C", { token: "a\0b" })],
    ["an empty name", [...requestFields("/a.B/C"), ["", "x"]]],
    ["a name with a space", [...requestFields("/a.B/C"), ["a b", "x"]]],
    ["a length that is none", requestFields("/a.B/C", { "content-length": "-1" })],
    ["two lengths", [...requestFields("/a.B/C", { "content-length": "1" }), ["content-length", "2"]]],
    ["a length, and no data", requestFields("/a.B/C", { "content-length": "1" })],
  ];
  for (const [what, fields] of malformed) {
    it(`with ${what} are refused`, async () => {
      await using server = await testTransport(make, ECHO);
      await using client = new H2Client(server.port);
      expect((await client.finished(client.openBlock(plainBlock(fields), { endStream: true }))).resetCode).toBe(Code.PROTOCOL);
      expect(server.calls.length).toBe(0);
      expect((await client.unary("/a.B/C", Buffer.alloc(0))).status).toBe("0");
    });
  }
});

describe("time", () => {
  it("is limited for the preface, the settings and the rest of a header block", async () => {
    const clock = new ManualClock();
    await using server = await testTransport(make, { clock, ...ECHO });
    await using fine = new H2Client(server.port);
    expect((await fine.unary("/a.B/C", Buffer.alloc(0))).status).toBe("0");
    await using inBlock = new H2Client(server.port);
    expect((await inBlock.unary("/a.B/C", Buffer.alloc(0))).status).toBe("0");
    inBlock.frame(Frame.HEADERS, 0, 3, requestBlock("/a.B/C"));
    const { connect } = await import("node:net");
    const silent = connect(server.port, "127.0.0.1");
    let closed = false;
    silent.on("close", () => {
      closed = true;
    });
    silent.resume();
    silent.write("PRI * HT");
    await eventually(() => server.transport.connections === 3);
    await settle();
    clock.advance(9000);
    await settle();
    expect(closed || inBlock.closed).toBe(false);
    clock.advance(2100);
    await eventually(() => closed && inBlock.closed);
    expect(fine.closed).toBe(false);
  });

  it("is limited for requests that do not become complete, and only for those", async () => {
    const clock = new ManualClock();
    await using server = await testTransport(make, {
      clock,
      onOpen: (call) => {
        call.incomplete = call.head.path === "/incomplete";
      },
    });
    await using client = new H2Client(server.port);
    const [slow, stream] = [client.open("/incomplete"), client.open("/stream")];
    await eventually(() => server.calls.length === 2);
    clock.advance(299_000);
    await settle();
    expect(client.answer(slow).over).toBe(false);
    clock.advance(2100);
    await client.until(() => client.answer(slow).resetCode === 8);
    expect(client.answer(stream).over).toBe(false);
    expect(server.calls[0]?.isGone).toBe(true);
  });

  it("without a sign of life leads to a ping, and without an answer to the end", async () => {
    const clock = new ManualClock();
    await using server = await testTransport(make, { clock, limits: { keepaliveIntervalMs: 10_000, keepaliveTimeoutMs: 3000 } });
    await using alive = new H2Client(server.port);
    await using dead = new H2Client(server.port, { autoAck: false });
    await eventually(() => server.transport.connections === 2);
    await alive.until(() => alive.frames.length >= 3);
    await dead.until(() => dead.frames.length >= 3);
    clock.advance(9000);
    await settle();
    expect(dead.count(Frame.PING)).toBe(0);
    clock.advance(2100);
    await dead.until(() => dead.count(Frame.PING) === 1);
    await alive.until(() => alive.count(Frame.PING) === 1);
    await settle();
    clock.advance(4100);
    await dead.untilClosed();
    expect(alive.closed).toBe(false);
  });
});

describe("pings of clients", () => {
  it("too often without calls end the connection at the fourth", async () => {
    await using server = await testTransport(make, ECHO);
    await using client = new H2Client(server.port);
    for (let i = 0; i < 3; i++) {
      client.ping();
      await client.until(() => client.count(Frame.PING) === i + 1);
    }
    expect(client.goAway).toBeUndefined();
    client.ping();
    await client.until(() => client.goAway !== undefined);
    expect(client.goAway).toMatchObject({ code: Code.CALM, debug: "too_many_pings" });
    await client.untilClosed();
  });

  it("with calls open may come every five seconds, and always after something was sent", async () => {
    const clock = new ManualClock();
    await using server = await testTransport(make, { clock });
    await using client = new H2Client(server.port);
    client.open("/watch");
    await eventually(() => server.calls.length === 1);
    for (let i = 0; i < 10; i++) {
      clock.advance(5000);
      client.ping();
      await client.until(() => client.count(Frame.PING) === i + 1);
    }
    for (let i = 0; i < 10; i++) {
      server.calls[0]?.call.send(grpcFrame(Buffer.from("event")), false);
      await client.until(() => (client.answers.get(1)?.messages.length ?? 0) === i + 1);
      client.ping();
      await client.until(() => client.count(Frame.PING) === i + 11);
    }
    clock.advance(1000);
    for (let i = 0; i < 3; i++) client.ping();
    await client.until(() => client.goAway !== undefined);
    expect(client.goAway).toMatchObject({ debug: "too_many_pings" });
  });
});

describe("pings of clients that measure", () => {
  it("after each answer are let pass for ever: gRPC's Go and Java libraries do that", async () => {
    // Its time stands still: nothing is forgiven because time has passed.
    await using server = await testTransport(make, { clock: new ManualClock() });
    await using client = new H2Client(server.port);
    const id = client.open("/watch");
    await eventually(() => server.calls.length === 1);
    const event = grpcFrame(Buffer.from("event"));
    for (let i = 1; i <= 4000 && !client.closed; i++) {
      server.calls[0]?.call.send(event, false);
      await client.until(() => client.closed || client.answer(id).dataFrames === i);
      client.frames.length = 0;
      client.ping();
      client.windowUpdate(id, event.byteLength);
      await client.until(() => client.closed || client.frames.length > 0);
    }
    expect(client.goAway).toBeUndefined();
    expect(client.answer(id).dataFrames).toBe(4000);
  });
});

describe("windows", () => {
  it("that are overrun end the stream, or the connection", async () => {
    await using server = await testTransport(make, { onOpen: ({ call }) => call.pause() });
    await using client = new H2Client(server.port);
    const id = client.open("/a.B/C");
    client.data(id, Buffer.alloc(65_536));
    expect((await client.finished(id)).resetCode).toBe(Code.FLOW_CONTROL);
    await eventually(() => server.calls[0]?.isGone === true && server.budget.used === 0);
    const others = Array.from({ length: 140 }, () => client.open("/a.B/C"));
    await eventually(() => server.calls.length === 141);
    for (const other of others) client.data(other, Buffer.alloc(65_000));
    // The connection's window goes on while the streams' are full: a call that does not read holds up nobody.
    await eventually(() => server.budget.used === 140 * 65_000);
    expect(client.goAway).toBeUndefined();
    client.socket.destroy();
    await eventually(() => server.budget.used === 0);
  });

  it("that are opened too far, or by nothing, are an error", async () => {
    await using server = await testTransport(make);
    await using client = new H2Client(server.port);
    const [one, two] = [client.open("/a.B/C"), client.open("/a.B/C")];
    client.windowUpdate(one, 0x7fffffff);
    expect((await client.finished(one)).resetCode).toBe(Code.FLOW_CONTROL);
    client.windowUpdate(two, 0);
    expect((await client.finished(two)).resetCode).toBe(Code.PROTOCOL);
    client.windowUpdate(0, 0x7fffffff);
    await client.until(() => client.goAway !== undefined);
    expect(client.goAway?.code).toBe(Code.FLOW_CONTROL);
    await using other = new H2Client(server.port);
    other.windowUpdate(0, 0);
    await other.until(() => other.goAway !== undefined);
    expect(other.goAway?.code).toBe(Code.PROTOCOL);
  });

  it("that become negative are waited for", async () => {
    await using server = await testTransport(make);
    await using client = new H2Client(server.port, { autoWindow: false });
    const id = client.open("/a.B/C", {}, { endStream: true });
    await eventually(() => server.calls.length === 1);
    server.calls[0]?.call.send(grpcFrame(Buffer.alloc(10_000)), false);
    await client.until(() => client.answer(id).messages.length === 1);
    client.frame(Frame.SETTINGS, 0, 0, setting(4, 1000));
    await client.until(() => client.count(Frame.SETTINGS) === 3);
    server.calls[0]?.call.send(grpcFrame(Buffer.alloc(100)), false);
    await settle();
    expect(client.answer(id).messages.length).toBe(1);
    // 10005 bytes were sent of 1000: 9005 more than that must be given before anything moves.
    client.windowUpdate(id, 9005);
    await settle();
    expect(client.answer(id).messages.length).toBe(1);
    client.windowUpdate(id, 105);
    await client.until(() => client.answer(id).messages.length === 2);
  });
});

describe("memory", () => {
  it("for answers that are not read is bounded: requests wait", async () => {
    const size = 1_000_000;
    await using server = await testTransport(make, { onEnded: ({ call }) => call.respond(grpcFrame(Buffer.alloc(size)), false) });
    await using client = new H2Client(server.port, { settings: [[4, 0]], autoWindow: false });
    const ids: number[] = [];
    for (let i = 0; i < 100; i++) ids.push(client.call("/a.B/C", Buffer.from("m")));
    await eventually(() => server.calls.length === 100);
    await settle();
    // All were opened, but only so many were handed over.
    expect(server.calls.filter(({ hasEnded }) => hasEnded).length).toBeLessThan(20);
    // When the client reads, all are served.
    client.windowUpdate(0, 1 << 30);
    for (const id of ids) {
      client.windowUpdate(id, size + 5);
      const answer = await client.finished(id);
      expect(answer.status).toBe("0");
      expect(answer.bytes.byteLength).toBe(size + 5);
    }
    expect(server.budget.used).toBe(0);
  });

  it("for requests that wait is bounded over all connections", async () => {
    await using server = await testTransport(make, { budgetBytes: 100_000, onOpen: ({ call }) => call.pause() });
    await using client = new H2Client(server.port);
    const ids = Array.from({ length: 4 }, () => client.open("/a.B/C"));
    for (const id of ids) client.data(id, Buffer.alloc(40_000));
    await client.until(() => ids.filter((id) => client.answer(id).resetCode === Code.CALM).length === 2);
    expect(server.budget.used).toBeLessThanOrEqual(100_000);
    for (const id of ids) client.reset(id);
    await eventually(() => server.budget.used === 0);
  });
});

describe("breaches of the protocol", () => {
  const cases: readonly (readonly [what: string, code: number, send: (client: H2Client) => void])[] = [
    ["DATA on stream 0", Code.PROTOCOL, (client) => client.frame(Frame.DATA, 0, 0, Buffer.from("x"))],
    ["DATA on a stream that was not opened", Code.PROTOCOL, (client) => client.frame(Frame.DATA, 0, 5, Buffer.from("x"))],
    ["HEADERS on an even stream", Code.PROTOCOL, (client) => client.headers(2, requestBlock("/a.B/C"))],
    ["HEADERS on stream 0", Code.PROTOCOL, (client) => client.headers(0, requestBlock("/a.B/C"))],
    ["CONTINUATION for nothing", Code.PROTOCOL, (client) => client.frame(Frame.CONTINUATION, 4, 1, Buffer.alloc(1))],
    [
      "a frame inside a header block",
      Code.PROTOCOL,
      (client) => {
        client.frame(Frame.HEADERS, 0, 1, requestBlock("/a.B/C"));
        client.ping();
      },
    ],
    ["PUSH_PROMISE", Code.PROTOCOL, (client) => client.frame(Frame.PUSH_PROMISE, 4, 1, Buffer.alloc(4))],
    ["SETTINGS on a stream", Code.PROTOCOL, (client) => client.frame(Frame.SETTINGS, 0, 1)],
    ["SETTINGS of an odd length", Code.FRAME_SIZE, (client) => client.frame(Frame.SETTINGS, 0, 0, Buffer.alloc(5))],
    ["SETTINGS acknowledged with content", Code.FRAME_SIZE, (client) => client.frame(Frame.SETTINGS, 1, 0, Buffer.alloc(6))],
    ["a frame size out of range", Code.PROTOCOL, (client) => client.frame(Frame.SETTINGS, 0, 0, setting(5, 100))],
    ["a window out of range", Code.FLOW_CONTROL, (client) => client.frame(Frame.SETTINGS, 0, 0, setting(4, 0x80000000))],
    ["push that is neither on nor off", Code.PROTOCOL, (client) => client.frame(Frame.SETTINGS, 0, 0, setting(2, 2))],
    ["PING on a stream", Code.PROTOCOL, (client) => client.frame(Frame.PING, 0, 1, Buffer.alloc(8))],
    ["a short PING", Code.FRAME_SIZE, (client) => client.frame(Frame.PING, 0, 0, Buffer.alloc(7))],
    ["a short RST_STREAM", Code.FRAME_SIZE, (client) => client.frame(Frame.RST_STREAM, 0, 1, Buffer.alloc(3))],
    ["RST_STREAM on a stream that was not opened", Code.PROTOCOL, (client) => client.reset(7)],
    ["a short WINDOW_UPDATE", Code.FRAME_SIZE, (client) => client.frame(Frame.WINDOW_UPDATE, 0, 0, Buffer.alloc(3))],
    ["WINDOW_UPDATE on a stream that was not opened", Code.PROTOCOL, (client) => client.windowUpdate(9, 1)],
    ["GOAWAY on a stream", Code.PROTOCOL, (client) => client.frame(Frame.GOAWAY, 0, 1, Buffer.alloc(8))],
    ["a frame that is too large", Code.FRAME_SIZE, (client) => client.frame(Frame.DATA, 0, 1, Buffer.alloc(16_385))],
    ["more padding than frame", Code.PROTOCOL, (client) => client.frame(Frame.HEADERS, 12, 1, Buffer.from([200, 0x83]))],
    ["an index beyond the table", Code.COMPRESSION, (client) => client.headers(1, Buffer.from([0xff, 0x10]))],
    ["a header block that is cut off", Code.COMPRESSION, (client) => client.headers(1, Buffer.from([0x00, 0x05, 0x61]))],
  ];
  for (const [what, code, send] of cases) {
    it(`${what} ends the connection`, async () => {
      await using server = await testTransport(make, ECHO);
      await using client = new H2Client(server.port);
      send(client);
      await client.until(() => client.goAway !== undefined);
      expect(client.goAway?.code).toBe(code);
      await client.untilClosed();
      expect(server.bugs).toEqual([]);
      await eventually(() => server.transport.connections === 0);
    });
  }

  it("anything but a preface ends the connection", async () => {
    await using server = await testTransport(make, ECHO);
    const { connect } = await import("node:net");
    for (const text of ["GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n", "\0\0\0\0"]) {
      const socket = connect(server.port, "127.0.0.1");
      socket.on("error", () => undefined);
      socket.resume();
      socket.write(text);
      await new Promise((resolve) => socket.once("close", resolve));
    }
    await using early = new H2Client(server.port);
    await othersAreServed(server.port);
    expect(early.goAway).toBeUndefined();
  });

  it("data behind the end, and headers behind the end, end the stream", async () => {
    await using server = await testTransport(make);
    await using client = new H2Client(server.port);
    const one = client.open("/a.B/C", {}, { endStream: true });
    client.data(one, Buffer.from("more"));
    expect((await client.finished(one)).resetCode).toBe(Code.STREAM_CLOSED);
    const two = client.open("/a.B/C", {}, { endStream: true });
    client.headers(two, plainBlock([["x", "y"]]), { endStream: true });
    expect((await client.finished(two)).resetCode).toBe(Code.STREAM_CLOSED);
    const three = client.open("/a.B/C");
    client.headers(three, plainBlock([["x", "y"]]));
    expect((await client.finished(three)).resetCode).toBe(Code.PROTOCOL);
    await eventually(() => server.calls.every(({ isGone }) => isGone));
  });

  it("more calls than announced are refused one by one", async () => {
    await using server = await testTransport(make, { limits: { maxConcurrentStreams: 3 } });
    await using client = new H2Client(server.port);
    const ids = Array.from({ length: 5 }, () => client.open("/a.B/C"));
    await client.until(() => client.answer(ids[4] as number).over);
    expect(ids.map((id) => client.answer(id).resetCode)).toEqual([undefined, undefined, undefined, Code.REFUSED, Code.REFUSED]);
    client.reset(ids[0] as number);
    const again = client.open("/a.B/C");
    await eventually(() => server.calls.length === 4);
    expect(client.answer(again).over).toBe(false);
  });
});
