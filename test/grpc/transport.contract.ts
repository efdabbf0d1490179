/** What every gRPC transport has to do, seen from both of its sides: the client's frames and the skin's calls. */
import * as http2 from "node:http2";
import { describe, expect, it } from "vitest";
import { Flag, Frame, frameBytes, grpcFrame, H2Client, plainBlock, requestBlock, requestFields } from "./h2-client.ts";
import { eventually, type MakeTransport, type RawCall, settle, testTransport } from "./support.ts";

const ECHO = { onEnded: (call: RawCall): void => call.call.respond(call.bytes, false) };

export function transportContract(name: string, make: MakeTransport): void {
  describe(`${name}: unary calls`, () => {
    it("bring the fields and the bytes of the request, and take the answer", async () => {
      await using server = await testTransport(make, ECHO);
      await using client = new H2Client(server.port);
      const message = Buffer.from("what was sent");
      const answer = await client.unary("/a.B/C", message, {
        "grpc-timeout": "5S",
        "grpc-encoding": "gzip",
        token: "t.1",
        authorization: "Bearer x",
        hasleader: "true",
        "client-api-version": "3.7",
        "x-unknown": "anything",
      });
      expect(answer.headers).toEqual({ ":status": "200", "content-type": "application/grpc" });
      expect(answer.trailers).toEqual({ "grpc-status": "0", "grpc-message": "" });
      expect(answer.messages.map(({ bytes }) => bytes)).toEqual([message]);
      expect(answer.resetCode).toBeUndefined();
      expect(server.calls[0]?.head).toEqual({
        method: "POST",
        path: "/a.B/C",
        contentType: "application/grpc",
        encoding: "gzip",
        timeout: "5S",
        token: "t.1",
        authorization: "Bearer x",
        hasLeader: "true",
        clientApiVersion: "3.7",
        commonName: undefined,
      });
      expect(server.calls[0]?.bytes).toEqual(grpcFrame(message));
    });

    it("leave absent fields undefined, and take the first of several", async () => {
      await using server = await testTransport(make, ECHO);
      await using client = new H2Client(server.port);
      await client.unary("/a.B/C", Buffer.alloc(0), { "content-type": undefined, te: undefined });
      const id = client.nextId();
      client.headers(id, plainBlock([...requestFields("/a.B/C"), ["token", "one"], ["token", "two"]]), { endStream: true });
      await eventually(() => server.calls.length === 2);
      expect(server.calls[0]?.head).toMatchObject({ contentType: undefined, token: undefined, timeout: undefined, hasLeader: undefined });
      expect(server.calls[1]?.head.token).toMatch(/^one/);
    });

    it("carry values byte by byte", async () => {
      await using server = await testTransport(make, ECHO);
      await using client = new H2Client(server.port);
      const wide = "caf\xc3\xa9 \xff~!";
      await client.unary("/a.B/C", Buffer.alloc(0), { token: wide });
      expect(server.calls[0]?.head.token).toBe(wide);
    });

    it("may be answered with a message of any size", async () => {
      const sizes = [0, 1, 16_379, 16_380, 16_384, 65_535, 65_536, 1_000_000];
      await using server = await testTransport(make, {
        onEnded: (call) => call.call.respond(grpcFrame(Buffer.alloc(call.bytes.readUInt32BE(5), "x")), false),
      });
      await using client = new H2Client(server.port);
      for (const size of sizes) {
        const wanted = Buffer.alloc(4);
        wanted.writeUInt32BE(size);
        const answer = await client.unary("/a.B/C", wanted);
        expect(answer.messages.map(({ bytes }) => bytes.byteLength)).toEqual([size]);
        expect(answer.status).toBe("0");
      }
    });

    it("may bring a message of any size, in frames of any size", async () => {
      await using server = await testTransport(make, { onEnded: (call) => call.call.finish(0, "") });
      await using client = new H2Client(server.port);
      for (const size of [0, 1, 16_384, 50_000]) {
        const id = client.open("/a.B/C");
        const message = grpcFrame(Buffer.alloc(size, "y"));
        const piece = Math.max(1, Math.ceil(message.byteLength / 7));
        for (let at = 0; at < message.byteLength; at += piece) client.data(id, message.subarray(at, at + piece));
        client.data(id, Buffer.alloc(0), { endStream: true });
        expect((await client.finished(id)).status).toBe("0");
        expect(server.calls.at(-1)?.bytes.equals(message)).toBe(true);
      }
    });

    it("run beside each other in any number", async () => {
      const waiting: RawCall[] = [];
      await using server = await testTransport(make, { onEnded: (call) => waiting.push(call) });
      await using client = new H2Client(server.port);
      const ids = Array.from({ length: 500 }, (_, i) => client.call("/a.B/C", Buffer.from(`number ${i}`)));
      await eventually(() => waiting.length === 500);
      for (const call of waiting.reverse()) call.call.respond(call.bytes, false);
      for (const [i, id] of ids.entries()) {
        const answer = await client.finished(id);
        expect(answer.messages.map(({ bytes }) => bytes.toString())).toEqual([`number ${i}`]);
        expect(answer.status).toBe("0");
      }
    });

    it("keep their answer when their memory is used again", async () => {
      const scratch = Buffer.alloc(200_000);
      await using server = await testTransport(make, {
        onEnded: (call) => {
          call.bytes.copy(scratch);
          call.call.respond(scratch.subarray(0, call.bytes.byteLength), false);
          scratch.fill(0);
        },
      });
      await using client = new H2Client(server.port, { autoWindow: true });
      for (const size of [100, 100_000]) {
        const message = Buffer.alloc(size, "z");
        const id = client.open("/a.B/C");
        // As much as the window lets through at a time.
        const frame = grpcFrame(message);
        for (let at = 0; at < frame.byteLength; at += 16_384) {
          client.data(id, frame.subarray(at, at + 16_384));
          await eventually(() => (server.calls.at(-1)?.bytes.byteLength ?? 0) >= Math.min(at + 16_384, frame.byteLength));
        }
        client.data(id, Buffer.alloc(0), { endStream: true });
        expect((await client.finished(id)).messages[0]?.bytes.equals(message)).toBe(true);
      }
    });
  });

  describe(`${name}: the end of a call`, () => {
    it("without an answer is a status alone", async () => {
      await using server = await testTransport(make, { onEnded: (call) => call.call.finish(5, "not found: 100 % ü\n") });
      await using client = new H2Client(server.port);
      const answer = await client.unary("/a.B/C", Buffer.alloc(0));
      expect(answer.trailersOnly).toBe(true);
      expect(answer.headers).toEqual({
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-status": "5",
        "grpc-message": "not found: 100 %25 %C3%BC%0A",
      });
      expect(answer.resetCode).toBeUndefined();
    });

    it("may have another HTTP status", async () => {
      await using server = await testTransport(make, { onOpen: (call) => call.call.refuse(415, 3, "no") });
      await using client = new H2Client(server.port);
      const answer = await client.unary("/a.B/C", Buffer.alloc(0));
      expect(answer.headers).toMatchObject({ ":status": "415", "grpc-status": "3", "grpc-message": "no" });
    });

    it("takes the content type and the encoding that were set", async () => {
      await using server = await testTransport(make, {
        onEnded: (call) => {
          call.call.setAnswer("application/grpc+proto", "gzip");
          if (call.bytes.byteLength > 5) call.call.respond(call.bytes, false);
          else call.call.finish(3, "bad");
        },
      });
      await using client = new H2Client(server.port);
      const answer = await client.unary("/a.B/C", Buffer.from("m"));
      expect(answer.headers).toEqual({ ":status": "200", "content-type": "application/grpc+proto", "grpc-encoding": "gzip" });
      expect(answer.trailers).toEqual({ "grpc-status": "0", "grpc-message": "" });
      const failed = await client.unary("/a.B/C", Buffer.alloc(0));
      expect(failed.headers).toMatchObject({ "content-type": "application/grpc+proto", "grpc-status": "3" });
    });

    it("before the client has ended stops the client, with NO_ERROR or, when time is over, CANCEL", async () => {
      await using server = await testTransport(make, {
        onOpen: ({ call, head }) => {
          if (head.path === "/late") call.expire(4, "too late");
          else call.finish(0, "");
        },
      });
      await using client = new H2Client(server.port);
      const plain = client.open("/plain");
      const late = client.open("/late");
      await client.until(() => client.answer(plain).resetCode !== undefined && client.answer(late).resetCode !== undefined);
      expect(client.answer(plain)).toMatchObject({ resetCode: 0, status: "0" });
      expect(client.answer(late)).toMatchObject({ resetCode: 8, status: "4" });
      // What was on its way does no harm.
      client.data(plain, Buffer.alloc(100), { endStream: true });
      expect((await client.finished(client.open("/plain"))).status).toBe("0");
    });

    it("comes once, whatever is said afterwards", async () => {
      await using server = await testTransport(make, {
        onEnded: ({ call }) => {
          call.respond(grpcFrame(Buffer.from("one")), false);
          call.respond(grpcFrame(Buffer.from("two")), false);
          expect(call.send(grpcFrame(Buffer.from("three")), false)).toBe(true);
          call.finish(3, "four");
          call.expire(4, "five");
          call.refuse(415, 6, "six");
          call.pause();
          call.resume();
          call.expect(1_000_000);
        },
      });
      await using client = new H2Client(server.port);
      const answer = await client.unary("/a.B/C", Buffer.alloc(0));
      await settle();
      expect(answer.messages.map(({ bytes }) => bytes.toString())).toEqual(["one"]);
      expect(answer.trailers).toEqual({ "grpc-status": "0", "grpc-message": "" });
      expect(server.calls[0]?.isGone).toBe(false);
    });

    it("by the client, or with its connection, is told to the call", async () => {
      await using server = await testTransport(make);
      await using client = new H2Client(server.port);
      const [one, two] = [client.open("/one"), client.open("/two")];
      await eventually(() => server.calls.length === 2);
      client.reset(one);
      await eventually(() => server.calls[0]?.isGone === true);
      expect(server.calls[1]?.isGone).toBe(false);
      client.socket.destroy();
      await eventually(() => server.calls[1]?.isGone === true);
      expect(two).toBeGreaterThan(one);
      await eventually(() => server.transport.connections === 0);
    });

    it("on the client's side may come with trailers", async () => {
      await using server = await testTransport(make, ECHO);
      await using client = new H2Client(server.port);
      const id = client.open("/a.B/C");
      client.data(id, grpcFrame(Buffer.from("m")));
      client.headers(id, plainBlock([["x-checksum", "1"]]), { endStream: true });
      expect((await client.finished(id)).status).toBe("0");
    });
  });

  describe(`${name}: streams`, () => {
    it("carry messages in both directions, in order, headers first", async () => {
      await using server = await testTransport(make, {
        onOpen: (call) => {
          const original = call.data.bind(call);
          call.data = (bytes, from, to) => {
            original(bytes, from, to);
            call.call.send(bytes.slice(from, to), true);
          };
        },
        onEnded: (call) => call.call.finish(0, ""),
      });
      await using client = new H2Client(server.port);
      const id = client.open("/a.B/C");
      await settle();
      expect(client.answer(id).headers).toBeUndefined();
      for (let i = 0; i < 50; i++) {
        client.data(id, grpcFrame(Buffer.from(`message ${i}`)));
        await client.until(() => client.answer(id).messages.length === i + 1);
        expect(client.answer(id).headers).toEqual({ ":status": "200", "content-type": "application/grpc" });
      }
      client.data(id, Buffer.alloc(0), { endStream: true });
      const answer = await client.finished(id);
      expect(answer.messages.map(({ bytes }) => bytes.toString())).toEqual(Array.from({ length: 50 }, (_, i) => `message ${i}`));
      expect(answer.trailers).toEqual({ "grpc-status": "0", "grpc-message": "" });
    });

    it("hold the call back when the client does not read, and lose nothing", async () => {
      await using server = await testTransport(make);
      await using client = new H2Client(server.port, { autoWindow: false });
      const id = client.open("/a.B/C", {}, { endStream: true });
      await eventually(() => server.calls.length === 1);
      const call = server.calls[0] as RawCall;
      let accepted = 0;
      let held = false;
      const sender = (async () => {
        for (; accepted < 2000; accepted++) {
          const sent = call.send(grpcFrame(Buffer.alloc(1000, accepted % 256)));
          held = true;
          await sent;
          held = false;
        }
        call.call.finish(0, "");
      })();
      await eventually(() => held && client.answer(id).bytes.byteLength >= 65_535);
      await settle();
      expect(held).toBe(true);
      // Its window, what one stream may queue, and what the system buffers.
      expect(accepted).toBeLessThan(400);
      expect(client.answer(id).bytes.byteLength).toBe(65_535);
      client.windowUpdate(0, 10_000_000);
      client.windowUpdate(id, 10_000_000);
      await sender;
      const { messages, status } = await client.finished(id);
      expect(messages.length).toBe(2000);
      expect(messages.every(({ bytes }, i) => bytes[0] === i % 256 && bytes[999] === i % 256)).toBe(true);
      expect(status).toBe("0");
    });

    it("that nobody reads do not hold up others", async () => {
      await using server = await testTransport(make, {
        onOpen: (call) => {
          if (call.head.path === "/slow") void call.send(grpcFrame(Buffer.alloc(30_000)));
        },
        onEnded: (call) => {
          if (call.head.path !== "/slow") call.call.respond(call.bytes, false);
        },
      });
      // Streams get no window at all, except those that the test gives some.
      await using client = new H2Client(server.port, { settings: [[4, 0]], autoWindow: false });
      const slow = Array.from({ length: 20 }, () => client.open("/slow", {}, { endStream: true }));
      const quick = client.call("/quick", Buffer.from("hello"));
      client.windowUpdate(quick, 1000);
      expect((await client.finished(quick)).status).toBe("0");
      for (const id of slow) expect(client.answer(id).bytes.byteLength).toBe(0);
      const [first] = slow as [number];
      client.windowUpdate(first, 40_000);
      await client.until(() => client.answer(first).messages.length === 1);
    });

    it("share the way out", async () => {
      await using server = await testTransport(make, {
        onEnded: (call) => {
          if (call.head.path === "/big") call.call.respond(grpcFrame(Buffer.alloc(4_000_000)), false);
          else call.call.respond(call.bytes, false);
        },
      });
      await using client = new H2Client(server.port, { settings: [[4, 10_000_000]] });
      const big = client.call("/big", Buffer.alloc(0));
      await client.until(() => client.answer(big).bytes.byteLength > 0);
      const small = client.call("/small", Buffer.from("m"));
      await client.finished(small);
      expect(client.answer(big).ended).toBe(false);
      expect((await client.finished(big)).messages[0]?.bytes.byteLength).toBe(4_000_000);
    });

    it("that are paused let the client send no more than a window, and go on where they were", async () => {
      await using server = await testTransport(make, { onOpen: (call) => call.call.pause() });
      await using client = new H2Client(server.port);
      const id = client.open("/a.B/C");
      const bytes = Buffer.from(Array.from({ length: 60_000 }, (_, i) => i % 251));
      client.data(id, bytes, { endStream: true });
      await settle();
      const call = server.calls[0] as RawCall;
      expect(call.bytes.byteLength).toBe(0);
      expect(call.hasEnded).toBe(false);
      const given = client.frames.filter(({ type, streamId }) => type === Frame.WINDOW_UPDATE && streamId === id);
      expect(given).toEqual([]);
      call.call.resume();
      await eventually(() => call.hasEnded);
      expect(call.bytes.equals(bytes)).toBe(true);
    });

    it("that are paused by what they were given hear of the end later", async () => {
      await using server = await testTransport(make, {
        onOpen: (call) => {
          const original = call.data.bind(call);
          call.data = (bytes, from, to) => {
            original(bytes, from, to);
            call.call.pause();
          };
        },
        onEnded: (call) => call.call.finish(0, ""),
      });
      await using client = new H2Client(server.port);
      const id = client.open("/a.B/C");
      client.data(id, Buffer.from("all"), { endStream: true });
      await eventually(() => server.calls[0]?.bytes.toString() === "all");
      await settle();
      expect(server.calls[0]?.hasEnded).toBe(false);
      server.calls[0]?.call.resume();
      expect((await client.finished(id)).status).toBe("0");
    });

    it("open their window for a message that was announced", async () => {
      await using server = await testTransport(make, {
        onOpen: (call) => {
          let announced = false;
          const original = call.data.bind(call);
          call.data = (bytes, from, to) => {
            original(bytes, from, to);
            if (!announced) call.call.expect(1_000_000);
            announced = true;
          };
        },
        onEnded: (call) => call.call.finish(0, ""),
      });
      await using client = new H2Client(server.port);
      const id = client.open("/a.B/C");
      const message = grpcFrame(Buffer.alloc(1_000_000));
      let window = 65_535;
      let counted = 0;
      const account = (): number => {
        for (; counted < client.frames.length; counted++) {
          const frame = client.frames[counted];
          if (frame?.type === Frame.WINDOW_UPDATE && frame.streamId === id) window += frame.payload.readUInt32BE(0);
        }
        return window;
      };
      for (let at = 0; at < message.byteLength; ) {
        await client.until(() => account() > 0);
        const piece = message.subarray(at, at + Math.min(16_384, window));
        client.data(id, piece);
        window -= piece.byteLength;
        at += piece.byteLength;
      }
      client.data(id, Buffer.alloc(0), { endStream: true });
      expect((await client.finished(id)).status).toBe("0");
      expect(server.calls[0]?.bytes.byteLength).toBe(message.byteLength);
    });
  });

  describe(`${name}: frames`, () => {
    it("may arrive byte by byte", async () => {
      await using server = await testTransport(make, ECHO);
      await using client = new H2Client(server.port);
      const id = client.open("/first", {}, { endStream: true });
      await client.finished(id);
      const next = client.nextId();
      const bytes = Buffer.concat([
        frameBytes(Frame.HEADERS, Flag.END_HEADERS, next, requestBlock("/slowly")),
        frameBytes(Frame.DATA, Flag.END_STREAM, next, grpcFrame(Buffer.from("message"))),
      ]);
      for (const byte of bytes) {
        client.socket.write(Buffer.from([byte]));
        await new Promise((resolve) => setImmediate(resolve));
      }
      await eventually(() => server.calls[1]?.hasEnded === true);
      expect(server.calls[1]?.head.path).toBe("/slowly");
      expect(server.calls[1]?.bytes).toEqual(grpcFrame(Buffer.from("message")));
    });

    it("may be padded, prioritised and continued", async () => {
      await using server = await testTransport(make, ECHO);
      await using client = new H2Client(server.port);
      const id = client.open("/first", {}, { endStream: true });
      await client.finished(id);
      const next = client.nextId();
      const block = requestBlock("/padded", { token: "x".repeat(20_000) });
      const priority = Buffer.from([0, 0, 0, 0, 15]);
      client.frame(
        Frame.HEADERS,
        Flag.PADDED | Flag.PRIORITY,
        next,
        Buffer.concat([Buffer.from([3]), priority, block.subarray(0, 10), Buffer.alloc(3)]),
      );
      client.frame(Frame.CONTINUATION, 0, next, block.subarray(10, 10));
      client.frame(Frame.CONTINUATION, 0, next, block.subarray(10, 11));
      client.frame(Frame.CONTINUATION, 0, next, block.subarray(11, 11 + 16_384));
      client.frame(Frame.CONTINUATION, Flag.END_HEADERS, next, block.subarray(11 + 16_384));
      client.frame(Frame.PRIORITY, 0, next, priority);
      client.frame(
        Frame.DATA,
        Flag.PADDED | Flag.END_STREAM,
        next,
        Buffer.concat([Buffer.from([4]), grpcFrame(Buffer.from("m")), Buffer.alloc(4)]),
      );
      await eventually(() => server.calls[1]?.hasEnded === true);
      expect(server.calls[1]?.head).toMatchObject({ path: "/padded", token: "x".repeat(20_000) });
      expect(server.calls[1]?.bytes).toEqual(grpcFrame(Buffer.from("m")));
    });

    it("of unknown types and settings are passed over", async () => {
      await using server = await testTransport(make, ECHO);
      await using client = new H2Client(server.port, {
        settings: [
          [99, 1],
          [3, 100],
        ],
      });
      client.frame(200, 255, 0, Buffer.from("whatever"));
      client.frame(200, 0, 1, Buffer.alloc(0));
      expect((await client.unary("/a.B/C", Buffer.alloc(0))).status).toBe("0");
    });

    it("of a client with tables and Huffman codes of its own are understood, whatever bytes its values have", async () => {
      await using server = await testTransport(make, { onEnded: (call) => call.call.finish(0, call.head.token ?? "") });
      const session = http2.connect(`http://127.0.0.1:${server.port}`);
      const ask = (token: string): Promise<http2.IncomingHttpHeaders> =>
        new Promise((resolve, reject) => {
          const stream = session.request(
            { ":method": "POST", ":path": "/a.B/C", "content-type": "application/grpc", token },
            { endStream: true },
          );
          stream.on("response", resolve);
          stream.on("error", reject);
          stream.resume();
        });
      const printable = Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i)).join("");
      const tokens = [
        "",
        "a",
        `x${printable}x`,
        printable.slice(1).repeat(3),
        ...Array.from({ length: 94 }, (_, i) => String.fromCharCode(33 + i).repeat(5)),
      ];
      for (const token of [...tokens, ...tokens]) {
        await ask(token);
        expect(server.calls.at(-1)?.head.token ?? "").toBe(token);
      }
      session.close();
      await new Promise((resolve) => session.once("close", resolve));
    });

    it("answer pings and settings", async () => {
      await using server = await testTransport(make, ECHO);
      await using client = new H2Client(server.port);
      client.open("/a.B/C");
      client.ping("ABCDEFGH");
      await client.until(() => client.frames.some(({ type, flags }) => type === Frame.PING && flags === Flag.ACK));
      expect(client.frames.find(({ type }) => type === Frame.PING)?.payload.toString()).toBe("ABCDEFGH");
      expect(client.frames[0]).toMatchObject({ type: Frame.SETTINGS, flags: 0 });
      expect(client.frames.filter(({ type, flags }) => type === Frame.SETTINGS && flags === Flag.ACK).length).toBe(1);
    });

    it("follow a table that the client makes smaller, or forbids", async () => {
      await using server = await testTransport(make, ECHO);
      for (const sizes of [[0], [64], [100, 4096], [0, 4096], [8192]]) {
        await using client = new H2Client(server.port);
        for (let i = 0; i < 3; i++) expect((await client.unary("/a.B/C", Buffer.from("m"))).status).toBe("0");
        for (const size of sizes) {
          const setting = Buffer.alloc(6);
          setting.writeUInt16BE(1);
          setting.writeUInt32BE(size, 2);
          client.frame(Frame.SETTINGS, 0, 0, setting);
        }
        for (let i = 0; i < 3; i++) {
          const answer = await client.unary("/a.B/C", Buffer.from("m"));
          expect(answer.headers).toEqual({ ":status": "200", "content-type": "application/grpc" });
          expect(answer.trailers).toEqual({ "grpc-status": "0", "grpc-message": "" });
        }
      }
    });
  });

  describe(`${name}: limits and the end`, () => {
    it("the number of calls per connection is announced and kept", async () => {
      await using server = await testTransport(make, { limits: { maxConcurrentStreams: 3 } });
      await using client = new H2Client(server.port);
      await client.until(() => client.frames.length > 0);
      const settings = client.frames[0]?.payload ?? Buffer.alloc(0);
      const announced = new Map<number, number>();
      for (let at = 0; at < settings.byteLength; at += 6) announced.set(settings.readUInt16BE(at), settings.readUInt32BE(at + 2));
      expect(announced.get(3)).toBe(3);
      const ids = Array.from({ length: 3 }, () => client.open("/a.B/C"));
      await eventually(() => server.calls.length === 3);
      client.open("/too/many");
      await settle();
      expect(server.calls.length).toBe(3);
      client.reset(ids[0] as number);
      await eventually(() => server.calls[0]?.isGone === true);
    });

    it("closing tells clients, lets calls end, and then ends what is left", async () => {
      await using server = await testTransport(make);
      await using client = new H2Client(server.port);
      await using idle = new H2Client(server.port);
      const [one, two] = [client.open("/one", {}, { endStream: true }), client.open("/two", {}, { endStream: true })];
      await eventually(() => server.calls.length === 2 && server.transport.connections === 2);
      const closed = server.transport.close({ graceMs: 1000 });
      await client.until(() => client.goAway !== undefined);
      expect(client.goAway).toMatchObject({ code: 0 });
      await eventually(() => server.calls.every(({ closings }) => closings === 1));
      await idle.untilClosed();
      server.calls[0]?.call.respond(grpcFrame(Buffer.from("still")), false);
      expect((await client.finished(one)).messages.map(({ bytes }) => bytes.toString())).toEqual(["still"]);
      expect(client.answer(two).over).toBe(false);
      await closed;
      await client.untilClosed();
      await eventually(() => server.calls[1]?.isGone === true);
      expect(server.transport.connections).toBe(0);
      // Whoever comes now is turned away, and closing again is no mistake.
      await using late = new H2Client(server.port);
      await late.untilClosed();
      await server.transport.close({ graceMs: 1000 });
    });

    it("a connection whose last call ended while closing ends by itself", async () => {
      await using server = await testTransport(make);
      await using client = new H2Client(server.port);
      const id = client.open("/one", {}, { endStream: true });
      await eventually(() => server.calls.length === 1);
      const closed = server.transport.close({ graceMs: 60_000 });
      await client.until(() => client.goAway !== undefined);
      server.calls[0]?.call.respond(grpcFrame(Buffer.alloc(0)), false);
      expect((await client.finished(id)).status).toBe("0");
      client.socket.end();
      await closed;
    });
  });
}
