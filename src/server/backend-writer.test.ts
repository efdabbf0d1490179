import { expect, it } from "vitest";
import { MemoryBackend } from "../backend/index.ts";
import { BackendWriter, EMPTY_POSITION } from "./backend-writer.ts";

it("whoever asks it something after its store was replaced is told so, with a reason for clients", async () => {
  const backend = new MemoryBackend();
  const writer = new BackendWriter({
    backend,
    position: EMPTY_POSITION,
    onWritten: () => undefined,
    onFailed: () => undefined,
    pendingBytesMax: 1000,
    nowMs: () => 0,
  });
  await writer.close();
  for (const asked of [writer.snapshot(), writer.checkpoint(), writer.idle(), writer.drained()]) {
    await expect(asked).rejects.toMatchObject({ reason: "backend-closed" });
  }
  await backend.close();
});
