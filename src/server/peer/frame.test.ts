import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { PeerFrameError } from "./errors.ts";
import { FRAME_BYTES_MAX, FrameDecoder, FrameKind, frameHeader, numberContent, numberFrame, smallFrame } from "./frame.ts";

const frames = fc.array(fc.record({ kind: fc.integer({ min: 0, max: 255 }), content: fc.uint8Array({ maxLength: 300 }) }), {
  maxLength: 12,
});

function decodeAll(pieces: Iterable<Uint8Array>, bytesMax = FRAME_BYTES_MAX): { kind: number; content: Buffer }[] {
  const out: { kind: number; content: Buffer }[] = [];
  const decoder = new FrameDecoder(bytesMax, (kind, content) => {
    out.push({ kind, content: Buffer.from(content) });
    return true;
  });
  for (const piece of pieces) decoder.push(piece);
  return out;
}

function* cutInto(bytes: Uint8Array, sizes: readonly number[]): Generator<Uint8Array> {
  let at = 0;
  for (let i = 0; at < bytes.byteLength; i++) {
    const size = Math.max(1, sizes[i % Math.max(sizes.length, 1)] ?? bytes.byteLength);
    // A copy: the decoder must not count on its input staying as it is once a frame is split.
    yield Uint8Array.prototype.slice.call(bytes, at, at + size);
    at += size;
  }
}

describe("frames", () => {
  test("come out as they went in, however the stream is cut", () => {
    fc.assert(
      fc.property(frames, fc.array(fc.integer({ min: 1, max: 50 }), { maxLength: 10 }), (list, sizes) => {
        const stream = Buffer.concat(list.map(({ kind, content }) => smallFrame(kind, content)));
        expect(decodeAll(cutInto(stream, sizes))).toEqual(list.map(({ kind, content }) => ({ kind, content: Buffer.from(content) })));
      }),
      { numRuns: 500 },
    );
  });

  test("a header in front of content that was not copied is the same frame", () => {
    const content = new Uint8Array(1000).fill(7);
    expect(Buffer.concat([frameHeader(FrameKind.snapshotChunk, content), content])).toEqual(
      Buffer.from(smallFrame(FrameKind.snapshotChunk, content)),
    );
  });

  test("contents may be kept: no memory is used twice", () => {
    const kept: Uint8Array[] = [];
    const decoder = new FrameDecoder(1000, (_kind, content) => {
      kept.push(content);
      return true;
    });
    const stream = Buffer.concat([1, 2, 3, 4].map((n) => smallFrame(n, new Uint8Array(100).fill(n))));
    for (const piece of cutInto(stream, [37])) decoder.push(piece);
    expect(kept.map((content) => [...new Set(content)])).toEqual([[1], [2], [3], [4]]);
  });

  test("one altered bit anywhere is found, or leaves an incomplete frame", () => {
    const stream = Buffer.concat([smallFrame(1, Buffer.from("hello")), smallFrame(2, Buffer.from("world"))]);
    for (let bit = 0; bit < stream.byteLength * 8; bit++) {
      const altered = Buffer.from(stream);
      altered[bit >> 3] = (altered[bit >> 3] as number) ^ (1 << (bit & 7));
      let decoded: { kind: number; content: Buffer }[] = [];
      try {
        decoded = decodeAll([altered], 1000);
      } catch (error) {
        expect(error).toBeInstanceOf(PeerFrameError);
        continue;
      }
      // A longer length waits for bytes that never come.
      expect(decoded.length).toBeLessThan(2);
    }
  });

  test("random bytes give a typed error", () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 10 }), (pieces) => {
        try {
          decodeAll(pieces, 64);
        } catch (error) {
          expect(error).toBeInstanceOf(PeerFrameError);
        }
      }),
      { numRuns: 1000 },
    );
  });

  test("a length without a body is refused or costs little", () => {
    expect(() => decodeAll([Buffer.from("ffffffff00000000", "hex")])).toThrow(/the limit is/);
    expect(() => decodeAll([Buffer.from("0000000000000000", "hex")])).toThrow(/empty frame/);
    const before = process.memoryUsage().arrayBuffers;
    const decoders = Array.from({ length: 50 }, () => {
      const decoder = new FrameDecoder(FRAME_BYTES_MAX, () => true);
      decoder.push(Buffer.from("04000000000000000102", "hex"));
      return decoder;
    });
    expect(decoders).toHaveLength(50);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(20 * 1024 * 1024);
  });

  test("a long frame in single bytes is put together", () => {
    const content = new Uint8Array(50_000).map((_, i) => i);
    expect(decodeAll(cutInto(smallFrame(9, content), [1]))).toEqual([{ kind: 9, content: Buffer.from(content) }]);
  });

  test("nothing is handed out after the handler said no", () => {
    const seen: number[] = [];
    const decoder = new FrameDecoder(100, (kind) => {
      seen.push(kind);
      return kind !== 2;
    });
    decoder.push(Buffer.concat([1, 2, 3].map((kind) => smallFrame(kind, new Uint8Array(1)))));
    decoder.push(smallFrame(4, new Uint8Array(1)));
    expect(seen).toEqual([1, 2]);
  });

  test("numbers are exact up to 2^53 - 1", () => {
    for (const value of [0, 1, 2 ** 32, 2 ** 53 - 1]) {
      const [frame] = decodeAll([numberFrame(FrameKind.snapshotFrom, value)]);
      expect(numberContent(frame?.content ?? Buffer.alloc(0), { counter: true })).toBe(value);
    }
    for (const value of [-1, 0.5, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY]) {
      const [frame] = decodeAll([numberFrame(FrameKind.snapshotFrom, value)]);
      expect(() => numberContent(frame?.content ?? Buffer.alloc(0), { counter: true })).toThrow(PeerFrameError);
    }
    expect(() => numberContent(new Uint8Array(7), { counter: false })).toThrow(PeerFrameError);
  });
});
